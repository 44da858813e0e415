#!/usr/bin/env bash
# The study of docs/results.md: 64 held-out lab images, one run per preset and set of surrogates, judged and reported.
#   study_lab.sh ATTNSHIFT OUT [RUN…]      only these runs; an interrupted study continues when called again
set -euo pipefail
attnshift=$1 out=$2
shift 2
wanted=" ${*:-diffattack-1 fast-1 diffattack-3 fast-3 strong-3} "
judges=(--judge lab:coatnet --judge lab:nfnet --judge lab:byobnet --judge lab:robust)
one=(--surrogate lab:resnet)
three=(--surrogate lab:resnet --surrogate lab:efficientnet --surrogate lab:mobilevit)

study() { # NAME PRESET SURROGATES…
    local name=$1 run=$out/$1 preset=$2
    shift 2
    [[ $wanted == *" $name "* ]] || return 0
    "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" --preset "$preset" --threads 1 --out "$run" "$@"
    "$attnshift" evaluate "$run" "${judges[@]}" | tee "$run/summary.txt"
    "$attnshift" report "$run"
}

"$attnshift" lab render "$out/images" --count 64 --split test
study diffattack-1 diffattack "${one[@]}"
study fast-1 fast "${one[@]}"
study diffattack-3 diffattack "${three[@]}"
study fast-3 fast "${three[@]}"
study strong-3 strong "${three[@]}"
