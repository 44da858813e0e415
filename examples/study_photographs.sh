#!/usr/bin/env bash
# Study of photographs: ImageNet classifiers of five families, a small pipeline trained on photographs,
# and every attack within the same budgets of naturalness.
#   [count=N] study_photographs.sh ATTNSHIFT PYTHON MATERIAL OUT [PART…]
# MATERIAL is the folder that examples/photographs/prepare.py reads, with photo-pipeline in it. N
# photographs are taken that the surrogate gets right. Parts are main (five attacks), core (all attacks
# on the same photographs), copies, large, defended, fusion, nips and seeds; without PART all are run,
# in this order. The same command continues an interrupted study, and
# pages/comparisons.py makes tables of what there is.
set -euo pipefail
attnshift=$1 python=$2 material=$3 out=$4
shift 4
wanted=" ${*:-main core copies large defended fusion nips seeds} "
here=$(dirname "$0")/photographs
[[ -d $out/classifiers ]] || "$python" "$here/prepare.py" "$material" "$out"
network() { echo "checkpoint:$out/classifiers/$1.safetensors"; }
first=$(network resnet18_pqf) second=$(network tf_efficientnet_lite0)
judges=() defended=()
for each in mobilenetv2_100_tf tf_efficientnet_lite1 vit_small_dinov2_imagenette10; do
    judges+=(--judge "$(network "$each")")
    defended+=(--judge "jpeg(quality=60)+$(network "$each")" --judge "purification+$(network "$each")")
done
budgets=(lpips-squeeze=0.05 ssim=0.95 lpips-squeeze=0.02 lpips-squeeze=0.1)
ours=(--recipe strong --recipe fast --recipe diffattack)
main=(--recipe strong --recipe difgsm --recipe tifgsm --recipe fast --recipe mifgsm)
core=(--recipe diffattack --recipe pgd --recipe adaea --recipe alma_budget --recipe ppgd --recipe attention --recipe seed --recipe p2p
    --recipe full --recipe ensemble)

labels_for() { # SIZE PHOTOGRAPHS: label file of those that the surrogate gets right
    local labels=$out/photos/known-$2-$1.csv
    [[ -f $labels ]] || "$python" "$here/known.py" "$out/photos/${2%-*}" "$out/photos/$2.csv" "$first" "$1" \
        "$labels" >&2
    echo "$labels"
}

compare() { # NAME SIZE COUNT ARGUMENT…
    local name=$1 size=$2 count=$3 labels photographs=imagenette-test
    shift 3
    [[ $name == nips ]] && photographs=nips2017
    labels=$(labels_for "$size" "$photographs")
    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 "$attnshift" --weights "$out/lpips" \
        compare "$out/photos/${photographs%-*}" --labels "$labels" --limit "$count" --size "$size" --threads 1 \
        --precision bfloat16 --pipeline "$material/photo-pipeline" "$@" --out "$out/$name" | tee "$out/$name.md"
}

is() { [[ $wanted == *" $1 "* ]]; }

by_budget() { # ARGUMENT…: one budget after the other, so that there is a table after each
    local budget asked=()
    for budget in "${budgets[@]}"; do
        asked+=(--budget "$budget")
        compare core 128 "${count:-100}" --surrogate "$first" "${judges[@]}" "$@" "${asked[@]}"
    done
}

if is main; then by_budget "${main[@]}"; fi
if is core; then by_budget "${main[@]}" "${core[@]}"; fi
if is copies; then # twenty copies of the image in every step: twenty times the gradients
    compare copies 128 24 --surrogate "$first" "${judges[@]}" "${ours[@]}" --recipe difgsm --recipe ssa \
        --recipe bsr --budget "${budgets[0]}"
fi
if is large; then
    compare large 224 40 --surrogate "$first" "${judges[@]}" "${ours[@]}" --recipe difgsm --recipe tifgsm \
        --budget "${budgets[0]}"
fi
if is defended; then
    for run in "$out"/core/runs/{strong,fast,difgsm,tifgsm}@"${budgets[0]}"; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" \
            --reference "smoothing(sigma=0.1)+$(network resnet50_pqf_large)"
        "$attnshift" report "$run"
    done
fi
if is fusion; then
    for rule in uniform consensus progress laggard worst logits adaea; do
        recipe=$out/recipes/strong-$rule.toml
        "$python" "$here/../variant.py" strong "$recipe" "classification.fusion=$rule"
    done
    compare fusion 128 32 --surrogate "$first" --surrogate "$second" "${judges[@]}" \
        $(printf -- '--recipe %s ' "$out"/recipes/strong-*.toml) --recipe difgsm --budget "${budgets[0]}"
fi
if is nips; then # no class words that the small text encoder saw, and no judge of ten classes
    compare nips 128 32 --surrogate "$first" "${judges[@]:0:4}" "${ours[@]}" --recipe difgsm --recipe tifgsm \
        --budget "${budgets[0]}"
fi
if is seeds; then
    compare seeds 128 32 --surrogate "$first" "${judges[@]}" --recipe strong --budget "${budgets[0]}" --seeds 3
fi
