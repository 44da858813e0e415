#!/usr/bin/env bash
# Study of targeted attacks: three of our presets and three attacks on pixels, towards the nearest wrong
# class and towards a random one, judged plainly, behind JPEG and behind purification. Each attacks twice:
# as it is, and as one that knows the purification, which adaptive=no leaves out. Success is the target alone.
#   [count=N] [attacks="NAME …"] [adaptive=no] [MATERIAL=FOLDER] study_targeted.sh ATTNSHIFT PYTHON OUT [PART…]
# Parts are lab, and photographs, which needs the MATERIAL of study_photographs.sh; without PART both are
# run. N is the number of images, and attacks says which attack, by default all. The same command continues an interrupted study.
here=$(dirname "$0") python=$2
source "$here/lab.sh" "$1" "$3" "${@:4}"
recipes=()
for each in ${attacks:-strong fast pixels alma_budget difgsm mifgsm}; do recipes+=(--recipe "$each"); done
knowing=(--adaptive "purification($purification,gradient=bpda,draws=2)")
if [[ ${adaptive:-} == no ]]; then knowing=(); fi

behind() { # JUDGE…: options that name each judge behind both defences
    for each in "$@"; do
        printf -- '--judge\n%s\n' "jpeg(quality=60)+$each" "purification($purification)+$each"
    done
}

study() { # NAME REFERENCE DEFENDED COMPARE-ARGUMENT…: DEFENDED is the name of a list of options
    local name=$1 reference=$2 target
    local -n defended=$3
    shift 3
    for target in nearest random; do
        "$attnshift" "${weights[@]}" compare "$@" "${recipes[@]}" "${knowing[@]}" --target "$target" \
            --reference "$reference" --threads 1 --out "$out/$name-$target" | tee "$out/$name-$target.md"
        for run in "$out/$name-$target"/runs/*; do
            "$attnshift" "${weights[@]}" evaluate "$run" "${judges[@]}" "${defended[@]}" --reference "$reference"
            "$attnshift" report "$run"
        done
        "$python" "$here/pages/judged.py" "$out/$name-$target"/runs/* | tee "$out/$name-$target-defended.md"
    done
}

weights=()
if asked lab; then
    images "${count:-128}"
    mapfile -t lab < <(behind lab:coatnet lab:nfnet lab:byobnet lab:robust)
    study lab lab:rerender lab "$out/images" --labels "$out/images/labels.csv" "${three[@]}" "${judges[@]}" \
        --budget ssim=0.95
fi
if asked photographs; then
    : "${MATERIAL:?is the folder that docs/results-photographs.md describes}"
    photographs=$out/photographs
    [[ -d $photographs/classifiers ]] || "$python" "$here/photographs/prepare.py" "$MATERIAL" "$photographs"
    source "$here/photographs/common.sh" "$python" "$photographs"
    labels=$(labels_for 128 imagenette-test)
    weights=(--weights "$photographs/lpips")
    mapfile -t seen < <(behind "${unseen[@]}")
    study photographs "smoothing(sigma=0.1)+$(network resnet50_pqf_large)" seen "$photographs/photos/imagenette" \
        --labels "$labels" --limit "${count:-40}" --size 128 --precision bfloat16 \
        --pipeline "$MATERIAL/photo-pipeline" --surrogate "$first" "${judges[@]}" \
        --budget ssim=0.95,lpips-squeeze=0.05
fi
