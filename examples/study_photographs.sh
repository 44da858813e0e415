#!/usr/bin/env bash
# Study of photographs: ImageNet classifiers of five families, a small pipeline trained on photographs,
# and every attack within the same budgets of naturalness.
#   [count=N] study_photographs.sh ATTNSHIFT PYTHON MATERIAL OUT [PART…]
# MATERIAL is the folder that examples/photographs/prepare.py reads, with photo-pipeline in it. Parts:
#   main      our presets within a budget and four attacks on pixels, within SSIM 0.95 and LPIPS 0.05 at once
#   single    the same attacks within one metric at a time
#   core      presets of the notes and DiffAttack, on fewer photographs
#   published further published attacks
#   costly    those that take minutes a photograph, on fewer still
#   strongest MEF and L2T beside ours on more, and pixels with eight times the gradients
#   copies    attacks that take twenty copies of the image in every step
#   large     224 px
#   defended  runs of main behind JPEG and purification, and the reference network's answer
#   fusion    two surrogates with each fusion rule
#   nips      photographs of NIPS-2017
#   seeds     three seeds of strong
# Without PART all are run, in this order. Every part takes photographs that the surrogate gets right;
# N takes the place of their number. The same command continues an interrupted study, and
# pages/comparisons.py makes tables of what there is.
set -euo pipefail
attnshift=$1 python=$2 material=$3 out=$4
shift 4
here=$(dirname "$0")
source "$here/parts.sh" "$@"
[[ -d $out/classifiers ]] || "$python" "$here/photographs/prepare.py" "$material" "$out"
source "$here/photographs/common.sh" "$python" "$out"
defended=()
for each in "${unseen[@]}"; do
    defended+=(--judge "jpeg(quality=60)+$each" --judge "purification+$each")
done
budget=ssim=0.95,lpips-squeeze=0.05
singles=(lpips-squeeze=0.05 ssim=0.95 lpips-squeeze=0.02 lpips-squeeze=0.1)
recipes() { printf -- '--recipe %s ' "$@"; }
ours=($(recipes strong latents pixels fast))
main=("${ours[@]}" $(recipes difgsm tifgsm mifgsm alma_budget))
core=("${main[@]}" $(recipes diffpgd diffattack attention seed p2p full ensemble))
published=($(recipes strong pixels alma_budget difgsm pgd adaea diffpgd ppgd advad advad_x))
costly=($(recipes strong pixels alma_budget aca apa advdiff natadiff mef l2t))

compare() { # NAME SIZE COUNT ARGUMENT…
    local name=$1 size=$2 count=$3 labels photographs=imagenette-test
    shift 3
    [[ $name == nips ]] && photographs=nips2017
    labels=$(labels_for "$size" "$photographs")
    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 "$attnshift" --weights "$out/lpips" \
        compare "$out/photos/${photographs%-*}" --labels "$labels" --limit "$count" --size "$size" --threads 1 \
        --precision bfloat16 --pipeline "$material/photo-pipeline" "$@" --out "$out/$name" | tee "$out/$name.md"
}

if asked main; then
    compare main 128 "${count:-40}" --surrogate "$first" "${judges[@]}" "${main[@]}" --budget "$budget"
fi
if asked single; then
    compare single 128 "${count:-48}" --surrogate "$first" "${judges[@]}" "${main[@]}" \
        $(printf -- '--budget %s ' "${singles[@]}")
fi
if asked core; then
    compare core 128 "${count:-24}" --surrogate "$first" "${judges[@]}" "${core[@]}" --budget "$budget"
fi
if asked published; then
    compare published 128 "${count:-24}" --surrogate "$first" "${judges[@]}" "${published[@]}" --budget "$budget"
fi
if asked costly; then
    compare costly 128 "${count:-8}" --surrogate "$first" "${judges[@]}" "${costly[@]}" --budget "$budget"
fi
if asked strongest; then
    eightfold=$out/recipes/pixels-eightfold.toml
    "$python" "$here/variant.py" pixels "$eightfold" optimiser.iterations=48 expectation.draws=16
    compare strongest 128 "${count:-8}" --surrogate "$first" "${judges[@]}" \
        $(recipes strong pixels "$eightfold" mef l2t) --budget "$budget"
fi
if asked copies; then
    compare copies 128 "${count:-24}" --surrogate "$first" "${judges[@]}" "${ours[@]}" --recipe difgsm --recipe ssa --recipe bsr \
        --budget "$budget"
fi
if asked large; then
    compare large 224 "${count:-40}" --surrogate "$first" "${judges[@]}" "${ours[@]}" --recipe difgsm --recipe alma_budget \
        --recipe diffattack --budget "$budget"
fi
if asked defended; then
    for run in "$out"/main/runs/{strong,pixels,alma_budget,difgsm}@"$budget"; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" \
            --reference "smoothing(sigma=0.1,copies=25)+$(network resnet50_pqf_large)"
        "$attnshift" report "$run"
    done
fi
if asked fusion; then
    for rule in uniform consensus progress laggard worst logits adaea; do
        recipe=$out/recipes/strong-$rule.toml
        "$python" "$here/variant.py" strong "$recipe" "classification.fusion=$rule"
    done
    compare fusion 128 "${count:-32}" --surrogate "$first" --surrogate "$second" "${judges[@]}" \
        $(recipes "$out"/recipes/strong-*.toml) --recipe difgsm --budget "$budget"
fi
if asked nips; then # no class words that the small text encoder saw, and no judge of ten classes
    compare nips 128 "${count:-32}" --surrogate "$first" "${judges[@]:0:4}" "${ours[@]}" \
        --recipe difgsm --budget "$budget"
fi
if asked seeds; then
    compare seeds 128 "${count:-32}" --surrogate "$first" "${judges[@]}" --recipe strong \
        --budget "$budget" --seeds 3
fi
