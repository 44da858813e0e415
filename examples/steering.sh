#!/usr/bin/env bash
# What steering attention does within a budget, of docs/steering.md: preset latents with one change at a time.
#   [count=N] steering.sh ATTNSHIFT PYTHON OUT lab [PART…]
#   [count=N] steering.sh ATTNSHIFT PYTHON OUT photographs STUDY MATERIAL [PART…]
# STUDY and MATERIAL are the folders of study_photographs.sh. N is the number of images. Parts, all of them
# without PART:
#   dose   each attention term at growing shares of the classification's pull; tuning images and classifier
#   bound  attention terms alone, without classification: how far attention can move; tuning images
#   terms  every term of the notes at one share; other images and judges that no attack has seen
#   heads  contrast alone, by one head of one grid in one step at a time, on the lab; tuning images
#   chosen three terms by the heads and the step that $chosen names ("GRID HEADS STEP"), beside all of them;
#          other images and judges that no attack has seen
# examples/pages/steering.py makes tables of the runs of dose, bound and heads. The same command continues.
set -euo pipefail
attnshift=$1 python=$2 out=$3 world=$4
shift 4
here=$(dirname "$0")
shares=(0.1 0.3 0.7 2) budget=ssim=0.95
if [[ $world == lab ]]; then
    source "$here/lab.sh" "$attnshift" "$out" "$@"
    count=${count:-32} setting=() surrogates=("${three[@]}") tuning=lab:mobilenet
    images "$count" tuning tuning-images
    images "$count" test test-images
    tuning_images=$out/tuning-images test_images=$out/test-images
    tuning_labels=$tuning_images/labels.csv test_labels=$test_images/labels.csv
else
    source "$here/photographs/common.sh" "$python" "$1"
    count=${count:-24} setting=(--size 128 --precision bfloat16 --pipeline "$2/photo-pipeline")
    shift 2
    source "$here/parts.sh" "$@"
    surrogates=(--surrogate "$first") tuning=$(network mobilenet_v1_0.75_192)
    tuning_images=$study/photos/imagenette test_images=$study/photos/imagenette
    tuning_labels=$(labels_for 128 imagenette-tuning) test_labels=$(labels_for 128 imagenette-test)
fi
recipe() { # NAME KEY=VALUE…: preset latents, or $preset, with these changes, as a file
    "$python" "$here/variant.py" "${preset:-latents}" "$out/recipes/$1.toml" "${@:2}"
}

tried() { # NAME KEY=VALUE…: attack the tuning images, and ask the tuning classifier
    recipe "$@"
    "$attnshift" attack "$tuning_images" --labels "$tuning_labels" --limit "$count" "${setting[@]}" "${surrogates[@]}" \
        --threads 1 --preset "$out/recipes/$1.toml" --budget "$budget" --out "$out/$1"
    "$attnshift" evaluate "$out/$1" --tuning "$tuning"
}

if asked dose; then
    tried dose-none
    for term in entropy contrast replace variance; do
        for share in "${shares[@]}"; do tried "dose-$term-$share" optimiser.balance=share "terms.$term.weight=$share"; done
    done
fi

alone() { # NAME KEY=VALUE…
    tried "bound-$1" optimiser.balance=share classification.weight=0 finish.keep=last "${@:2}"
}

if asked bound; then
    alone entropy terms.entropy.weight=1
    alone entropy-all terms.entropy.weight=1 terms.entropy.select.grid=all
    alone contrast terms.contrast.weight=1 terms.contrast.delta=1
    alone contrast-all terms.contrast.weight=1 terms.contrast.delta=1 terms.contrast.select.grid=all
    alone contrast-log terms.contrast.weight=1 terms.contrast.form=log terms.contrast.select.grid=all
    alone replace-all terms.replace.weight=1 terms.replace.select.grid=all
    alone variance-all terms.variance.weight=1 terms.variance.select.grid=all
    preset=attention tried preset-attention
fi

if [[ $world == lab ]] && asked heads; then # the lab has one head on its full grid, two on half of it, four on a quarter
    for cell in full:[1] half:[1,0] half:[0,1] quarter:[1,0,0,0] quarter:[0,1,0,0] quarter:[0,0,1,0] quarter:[0,0,0,1]; do
        for step in 0 1; do
            heads=${cell#*:} name=heads-${cell%:*}-$step
            tried "$name-${heads//[^01]/}" optimiser.balance=share classification.weight=0 finish.keep=last \
                terms.contrast.weight=1 terms.contrast.delta=1 "terms.contrast.select.grid=${cell%:*}" \
                "terms.contrast.select.heads=$heads" "terms.contrast.select.steps=[$step,$step]"
        done
    done
fi

term() { # NAME KEY=VALUE…: one more entrant of a comparison
    recipe "$@"
    entrants+=("$out/recipes/$1.toml")
}

judged() { # NAME: compare the entrants on the test images
    "$attnshift" compare "$test_images" --labels "$test_labels" --limit "$count" "${setting[@]}" "${surrogates[@]}" \
        "${judges[@]}" $(printf -- '--recipe %s ' "${entrants[@]}") --budget "$budget" --threads 1 \
        --out "$out/$1" | tee "$out/$1.md"
}

if [[ -n ${chosen:-} ]] && asked chosen; then
    read -r grid heads step <<<"$chosen"
    entrants=(latents)
    for each in contrast replace entropy; do
        term "all-$each" optimiser.balance=share "terms.$each.weight=0.3"
        term "chosen-$each" optimiser.balance=share "terms.$each.weight=0.3" "terms.$each.select.grid=$grid" \
            "terms.$each.select.heads=$heads" "terms.$each.select.steps=[$step,$step]"
    done
    judged chosen
fi

if asked terms; then
    entrants=(latents)
    for each in entropy contrast replace variance; do
        term "plus-$each" optimiser.balance=share "terms.$each.weight=0.3"
    done
    for each in mse kl symmetric js; do
        term "plus-self-$each" optimiser.balance=share terms.self_attention.weight=0.5 \
            terms.self_attention.distance=$each
    done
    for each in frequency perceptual; do term "plus-$each" optimiser.balance=share "terms.$each.weight=0.5"; done
    for each in attention gradcam; do term "only-$each" mask.source=$each mask.paste_back=true; done
    term margin classification.loss=margin classification.kappa=20
    term distribution classification.loss=distribution
    term schedule 'optimiser.schedule={shape="linear",start=1.0,end=0.1}'
    term no-views expectation.draws=1
    judged terms
fi
