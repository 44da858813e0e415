#!/usr/bin/env bash
# What each ingredient adds to preset strong at equal budget, one at a time and all together.
#   [count=N] [budget=METRIC=LIMIT,…] [rows="NAME …"] ingredients.sh ATTNSHIFT PYTHON OUT lab
#   [count=N] [budget=METRIC=LIMIT,…] [rows="NAME …"] ingredients.sh ATTNSHIFT PYTHON OUT photographs STUDY MATERIAL
# STUDY and MATERIAL are the folders of study_photographs.sh; the table is ingredients.md in the folder of OUT
# that is called like the world. N is the number of images, and rows says which rows are made, by default all.
# Images are those for tuning, and the classifier for tuning judges: the table says what to keep, and not how
# strong it is. The same command continues, with more rows too.
set -euo pipefail
attnshift=$1 python=$2 out=$3 world=$4
shift 4
out=$out/$world here=$(dirname "$0")

# The budget on photographs is narrow: within SSIM 0.95 the tuning classifier is fooled nearly always, and shows nothing.

# Each line is a row: NAME KEY=VALUE…, the changes of preset strong; no-… takes out what it has, and `together` has
# those of all that it names. text and context are replace with another interference: the class nearest for the text
# encoder, or something beside the object, in the place of the surrogates' highest wrong class.
ingredients="
look-ahead      path.seen=preview path.look_ahead=0.3
preview         path.seen=preview
tangent         path.tangent=true
boundary        path.boundary=0.2
time-travel     path.passes=2
deep            diffusion.denoising_steps=6
deep-look-ahead diffusion.denoising_steps=6 path.seen=preview path.look_ahead=0.3
deep-boundary   diffusion.denoising_steps=6 path.boundary=0.2
deep-random     diffusion.denoising_steps=6 path.seen=preview path.level=random
no-decay        classification.skip_decay=1
no-leak         classification.relu_leak=0
features        features.share=0.3
blocks          expectation.transforms.block_shuffle.blocks=2
spectrum        expectation.transforms.spectrum.change=0.5
resize-and-pad  expectation.transforms.resize_and_pad.smallest=0.8
no-views        expectation.draws=1
no-momentum     classification.momentum=0
half            optimiser.iterations=12
double          optimiser.iterations=48
no-pixels       pixels.learning_rate=0
contrast        optimiser.balance=share terms.contrast.weight=0.3
entropy         optimiser.balance=share terms.entropy.weight=0.3
replace         optimiser.balance=share terms.replace.weight=0.3
text            optimiser.balance=share terms.replace.weight=0.3 interference.choose=text
context         optimiser.balance=share terms.replace.weight=0.3 interference.choose=given interference.phrase=table
"
together="look-ahead tangent boundary time-travel"

if [[ $world == lab ]]; then
    source "$here/lab.sh" "$attnshift" "$out" "$@"
    count=${count:-400} setting=() surrogates=("${three[@]}") judge=lab:mobilenet budget=${budget:-ssim=0.95}
    images "$count" tuning
    photos=$out/images labels=$out/images/labels.csv weights=()
else
    [[ -d $1/classifiers ]] || "$python" "$here/photographs/prepare.py" "$2" "$1"
    source "$here/photographs/common.sh" "$python" "$1"
    count=${count:-520} setting=(--size 128 --precision bfloat16 --pipeline "$2/photo-pipeline")
    surrogates=(--surrogate "$first") judge=$(network mobilenet_v1_0.75_192) budget=${budget:-ssim=0.98,lpips-squeeze=0.02}
    photos=$study/photos/imagenette labels=$(labels_for 128 imagenette-tuning) weights=(--weights "$study/lpips")
fi

changes_of() { awk -v name="$1" '$1 == name { $1 = ""; print }' <<<"$ingredients"; } # NAME: its KEY=VALUE…

entrants=()
row() { # NAME KEY=VALUE…: a recipe of that name, which the tuning classifier may judge
    [[ " ${rows:-$1} " == *" $1 "* || $1 == plain ]] || return 0
    "$python" "$here/variant.py" strong "$out/recipes/$1.toml" tuned_on=[] "${@:2}"
    entrants+=(--recipe "$out/recipes/$1.toml")
}

row plain
while read -r name changes; do
    # shellcheck disable=SC2086 # changes are words
    [[ -z $name ]] || row "$name" $changes
done <<<"$ingredients"
# shellcheck disable=SC2046
row together $(for name in $together; do changes_of "$name"; done)
"$attnshift" "${weights[@]}" compare "$photos" --labels "$labels" --limit "$count" "${setting[@]}" "${surrogates[@]}" \
    --judge "$judge" "${entrants[@]}" --budget "$budget" --threads 1 --out "$out/compared" | tee "$out/ingredients.md"
