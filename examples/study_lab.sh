#!/usr/bin/env bash
# Study of docs/results.md: 128 held-out lab images, every preset and every baseline within SSIM 0.95.
#   [count=N] study_lab.sh ATTNSHIFT OUT [PART…]
# N is the number of images. Parts, all of them without PART; the same command continues:
#   main      our presets within a budget, and the baselines
#   notes     the notes' presets and older ones
#   flow      the first quarter of the images through both pipelines of the lab, and AdvFM
#   defended  some of these runs behind JPEG and purification, and how visible their objects are
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
if asked flow; then
    for pipeline in lab-flow lab; do
        "$attnshift" compare "$out/images" --labels "$out/images/labels.csv" --limit $((${count:-128} / 4)) "${three[@]}" \
            "${judges[@]}" --recipe strong --recipe latents --recipe fast --pipeline "$pipeline" --budget ssim=0.95 \
            --threads 1 --out "$out/through-$pipeline"
    done
    "$attnshift" compare "$out/images" --labels "$out/images/labels.csv" --limit $((${count:-128} / 8)) "${three[@]}" \
        "${judges[@]}" --recipe strong --recipe advfm --pipeline lab-flow --budget ssim=0.95 --threads 1 --out "$out/advfm"
fi
if asked defended; then
    for run in "$out"/budget/runs/{strong,latents,pixels,difgsm}@ssim=0.95; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" --reference lab:rerender \
            --masks "$out/images/masks"
        "$attnshift" report "$run"
    done
fi
