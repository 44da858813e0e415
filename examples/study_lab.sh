#!/usr/bin/env bash
# Study of docs/results.md: 128 held-out lab images, every preset and every baseline within SSIM 0.95.
#   [count=N] study_lab.sh ATTNSHIFT PYTHON OUT [PART…]
# N is the number of images. Parts, all of them without PART; the same command continues:
#   main      our presets within a budget, and the baselines
#   notes     strong beside the notes' presets and older ones
#   published further published attacks, on a quarter of the images
#   costly    those that take half a minute an image and more, on a sixteenth
#   generated attacks that start from noise and make images of their own, a quarter as many
#   adaptive  attacks that know the purification, on an eighth, judged behind it
#   flow      the first quarter of the images through both pipelines of the lab
#   advfm     AdvFM beside strong on the lab's flow, on a sixteenth
#   defended  some of these runs behind JPEG and purification, and how visible their objects are
here=$(dirname "$0") python=$2
source "$here/lab.sh" "$1" "${@:3}"
main=(strong latents pixels fast tifgsm difgsm mifgsm alma_budget)
notes=(attention seed nearest diffattack ensemble quick bsr p2p full pgd adaea ssa)
defended=() purified=()
for judge in coatnet nfnet byobnet robust; do
    defended+=("--judge=jpeg(quality=60)+lab:$judge")
    purified+=("--judge=purification($purification)+lab:$judge")
done
defended+=("${purified[@]}")

published=(strong latents pixels alma_budget diffpgd advad advad_x adaea pgd ssa bsr)
costly=(strong latents pixels aca apa advdiff natadiff mef l2t)
count=${count:-128}

compare() { # NAME COUNT [--OPTION=VALUE…] RECIPE…
    local name=$1 limit=$2 each given=()
    shift 2
    for each in "$@"; do
        if [[ $each == --* ]]; then given+=("$each"); else given+=(--recipe "$each"); fi
    done
    "$attnshift" compare "$out/images" --labels "$out/images/labels.csv" --limit "$limit" "${three[@]}" "${judges[@]}" \
        "${given[@]}" --reference lab:rerender --budget ssim=0.95 --threads 1 --out "$out/$name" | tee "$out/$name.md"
}

part() { echo $((count < $1 ? 1 : count / $1)); } # DIVISOR: so many of the images, at least one

images "$count"
if asked main; then compare budget "$count" "${main[@]}"; fi
if asked notes; then compare notes "$count" strong "${notes[@]}"; fi
if asked published; then compare published "$(part 4)" "${published[@]}"; fi
if asked costly; then compare costly "$(part 16)" "${costly[@]}"; fi
if asked adaptive; then
    compare adaptive "$(part 8)" --adaptive="purification($purification,gradient=bpda,draws=2)" "${purified[@]}" \
        strong pixels alma_budget
fi
if asked generated; then
    for each in advdiff_noise natadiff_noise; do
        "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" --limit "$(part 4)" "${three[@]}" \
            --preset "$each" --threads 1 --out "$out/$each"
        "$attnshift" evaluate "$out/$each" "${judges[@]}" --reference lab:mobilenet # they have no scene to render again
    done
    "$python" "$here/pages/generations.py" "$out/images" lab:mobilenet "$out"/{advdiff,natadiff}_noise |
        tee "$out/generated.md"
fi
if asked flow; then
    for pipeline in lab-flow lab; do
        compare "through-$pipeline" "$(part 4)" "--pipeline=$pipeline" strong latents fast
    done
fi
if asked advfm; then compare advfm "$(part 16)" --pipeline=lab-flow strong advfm; fi
if asked defended; then
    for run in "$out"/budget/runs/{strong,latents,pixels,difgsm}@ssim=0.95; do
        "$attnshift" evaluate "$run" "${judges[@]}" "${defended[@]}" --reference lab:rerender \
            --masks "$out/images/masks"
        "$attnshift" report "$run"
    done
fi
