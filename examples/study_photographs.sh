#!/usr/bin/env bash
# Study of photographs: ImageNet classifiers of five families, a small pipeline trained on photographs,
# and every attack within the same budgets of naturalness.
#   [count=N] study_photographs.sh ATTNSHIFT PYTHON MATERIAL OUT [PART…]
# MATERIAL is the folder that examples/photographs/prepare.py reads, with photo-pipeline in it. N
# photographs are taken that the surrogate gets right. Parts are core, large and defended; without
# PART all are run. The same command continues an interrupted study.
set -euo pipefail
attnshift=$1 python=$2 material=$3 out=$4
shift 4
wanted=" ${*:-core large defended} "
here=$(dirname "$0")/photographs
[[ -d $out/classifiers ]] || "$python" "$here/prepare.py" "$material" "$out"
photos=$out/photos/imagenette
network() { echo "checkpoint:$out/classifiers/$1.safetensors"; }
judges=() defended=()
for each in mobilenetv2_100_tf tf_efficientnet_lite1 vit_small_dinov2_imagenette10; do
    judges+=(--judge "$(network "$each")")
    defended+=(--judge "jpeg(quality=60)+$(network "$each")")
done
shared=(--pipeline "$material/photo-pipeline" --surrogate "$(network resnet18_pqf)" --threads 1)
ours=(--recipe strong --recipe fast --recipe diffattack --recipe seed --recipe attention --recipe p2p
    --recipe full --recipe ensemble)
theirs=(--recipe mifgsm --recipe pgd --recipe adaea --recipe difgsm --recipe tifgsm --recipe ssa
    --recipe bsr)

known() { # SIZE: label file of the photographs that the surrogate gets right
    local labels=$out/photos/known-$1.csv
    [[ -f $labels ]] || "$python" "$here/known.py" "$photos" "$out/photos/imagenette-test.csv" \
        "$(network resnet18_pqf)" "$1" "$labels" >&2
    echo "$labels"
}

compare() { # NAME SIZE COUNT ARGUMENT…
    local name=$1 size=$2 count=$3 labels
    shift 3
    labels=$(known "$size")
    "$attnshift" --weights "$out/lpips" compare "$photos" --labels "$labels" --limit "$count" --size "$size" \
        "${shared[@]}" "$@" --out "$out/$name" | tee "$out/$name.md"
}

if [[ $wanted == *" core "* ]]; then
    compare core 128 "${count:-100}" "${judges[@]}" "${ours[@]}" "${theirs[@]}" --budget lpips-squeeze=0.02 \
        --budget lpips-squeeze=0.05 --budget lpips-squeeze=0.1 --budget ssim=0.95
fi
if [[ $wanted == *" large "* ]]; then
    compare large 224 "${count:-40}" "${judges[@]}" --recipe strong --recipe fast --recipe diffattack \
        --recipe difgsm --recipe bsr --budget lpips-squeeze=0.05
fi
if [[ $wanted == *" defended "* ]]; then
    for run in "$out"/core/runs/{strong,difgsm}@lpips-squeeze=0.05; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}"
        "$attnshift" report "$run"
    done
fi
