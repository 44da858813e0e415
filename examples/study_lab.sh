#!/usr/bin/env bash
# Study of docs/results.md: 128 held-out lab images, every preset and every baseline at several
# strengths, compared where naturalness is equal. Then each at strength 1 is judged behind JPEG and
# behind purification, and the visibility of its objects is measured.
#   [count=N] study_lab.sh ATTNSHIFT OUT
# N is the number of images. The same command continues an interrupted study.
source "$(dirname "$0")/lab.sh"
labels=$out/images/labels.csv
recipes=(diffattack@1 nearest@0.25,1 quick@0.25,0.5,1 attention@0.3,1,1.5 ensemble@0.3,1 p2p@0.3,1 full@0.3,1 seed@1)
baselines=(mifgsm@0.125,0.25,0.5,1 pgd@0.25,0.5,1,2 adaea@0.125,0.25,0.5,1 difgsm@0.125,0.25,0.5,1 tifgsm@0.25,0.5,1 ssa@0.25,1
    bsr@0.25,0.5,1 autoattack@0.5)
defended=() entrants=()
for each in "${recipes[@]}" "${baselines[@]}"; do entrants+=(--recipe "$each"); done
for defence in 'jpeg(quality=60)' 'purification(strength=0.15,schedule_steps=20)'; do
    for judge in coatnet nfnet byobnet robust; do defended+=(--judge "$defence+lab:$judge"); done
done

images "${count:-128}"
"$attnshift" compare "$out/images" --labels "$labels" "${three[@]}" "${judges[@]}" "${entrants[@]}" --at 0.85 --at 0.9 --at 0.95 --threads 1 \
    --out "$out/compared" | tee "$out/compared.md"
for run in "$out"/compared/runs/*@1 "$out"/compared/runs/autoattack@0.5; do
    "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" --masks "$out/images/masks"
    "$attnshift" report "$run"
done
