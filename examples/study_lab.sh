#!/usr/bin/env bash
# Study of docs/results.md: 128 held-out lab images, every preset and every baseline within SSIM 0.95.
#   [count=N] study_lab.sh ATTNSHIFT OUT [PART…]
# N is the number of images. Parts are main (our presets within a budget and the baselines), notes (the notes'
# presets and older ones), and defended (some of these runs behind JPEG and purification, and how
# visible their objects are: pages/judged.py makes a table of them); without PART all are run. The
# same command continues an interrupted study.
source "$(dirname "$0")/lab.sh"
main=(strong latents pixels fast tifgsm difgsm mifgsm alma_budget)
notes=(attention seed nearest diffattack ensemble quick bsr p2p full pgd adaea ssa)
defended=()
for defence in 'jpeg(quality=60)' 'purification(strength=0.15,schedule_steps=20)'; do
    for judge in coatnet nfnet byobnet robust; do defended+=(--judge "$defence+lab:$judge"); done
done

compare() { # RECIPE…
    "$attnshift" compare "$out/images" --labels "$out/images/labels.csv" "${three[@]}" "${judges[@]}" \
        $(printf -- '--recipe %s ' "$@") --budget ssim=0.95 --threads 1 --out "$out/budget" | tee "$out/budget.md"
}

images "${count:-128}"
if asked main; then compare "${main[@]}"; fi
if asked notes; then compare "${main[@]}" "${notes[@]}"; fi
if asked defended; then
    for run in "$out"/budget/runs/{strong,latents,pixels,difgsm}@ssim=0.95; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" --reference lab:rerender \
            --masks "$out/images/masks"
        "$attnshift" report "$run"
    done
fi
