#!/usr/bin/env bash
# Everything that is measured on a GPU, in eight minutes: bytes that repeat, seconds and memory for an image, and
# the largest kernels. The figures go to benchmarks/results/gpu.json.
#   gpu.sh [PYTHON] [DEVICE] [--quick]
# DEVICE is cuda. With cpu and --quick the script tries itself out on the smallest shape, and writes nothing.
set -euo pipefail
python=${1:-.venv/bin/python} device=${2:-cuda} quick=${3:-}
cd "$(dirname "$0")/.."
models=(sd2 sd15)
[[ -z $quick ]] || models=(tiny)

within() { # SECONDS SCRIPT ARGUMENT…: a part that takes longer leaves the others their time
    timeout "$1" "$python" "benchmarks/$2" --device "$device" ${quick:+"$quick"} "${@:3}" ||
        echo "$2: failed, or not finished in $1 s" >&2
}

within 250 gpu.py --minutes 3.7 --models "${models[@]}"
within 80 rates.py --models "${models[0]}" --batch 4
within 150 memory.py --models "${models[0]}"
