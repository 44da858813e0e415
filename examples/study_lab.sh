#!/usr/bin/env bash
# Study of docs/results.md: 128 held-out lab images, every preset and every baseline.
#   [count=N] study_lab.sh ATTNSHIFT OUT [PART…]
# N is the number of images. Parts are budget (all within SSIM 0.95), curves (some at several
# strengths, compared where SSIM is equal) and defended (the runs of curves at strength 1 behind JPEG
# and purification, and how visible their objects are); without PART all are run. The same command
# continues an interrupted study.
source "$(dirname "$0")/lab.sh"
labels=$out/images/labels.csv
budgeted=(strong fast nearest quick diffattack attention ensemble p2p full seed mifgsm pgd adaea difgsm tifgsm ssa bsr
    alma_budget)
recipes=(diffattack@1 nearest@0.25,1 quick@0.25,0.5,1 attention@0.3,1,1.5 ensemble@0.3,1 p2p@0.3,1 full@0.3,1 seed@1)
baselines=(mifgsm@0.125,0.25,0.5,1 pgd@0.25,0.5,1,2 adaea@0.125,0.25,0.5,1 difgsm@0.125,0.25,0.5,1 tifgsm@0.25,0.5,1 ssa@0.25,1
    bsr@0.25,0.5,1 autoattack@0.5)
defended=()
for defence in 'jpeg(quality=60)' 'purification(strength=0.15,schedule_steps=20)'; do
    for judge in coatnet nfnet byobnet robust; do defended+=(--judge "$defence+lab:$judge"); done
done

compare() { # NAME "RECIPE…" ARGUMENT…
    local name=$1 each entrants=()
    for each in $2; do entrants+=(--recipe "$each"); done
    shift 2
    "$attnshift" compare "$out/images" --labels "$labels" "${three[@]}" "${judges[@]}" "${entrants[@]}" "$@" --threads 1 \
        --out "$out/$name" | tee "$out/$name.md"
}

images "${count:-128}"
if asked budget; then compare budget "${budgeted[*]}" --budget ssim=0.95; fi
if asked curves; then compare compared "${recipes[*]} ${baselines[*]}" --at 0.85 --at 0.9 --at 0.95; fi
if asked defended; then
    for run in "$out"/compared/runs/*@1 "$out"/compared/runs/autoattack@0.5; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" --masks "$out/images/masks"
        "$attnshift" report "$run"
    done
fi
