#!/usr/bin/env bash
# Tuned recipes: DiffAttack's terms and the whole objective. Both are searched
# alike on 32 images of the split `tuning`, by the tuning classifier alone, and then judged on 48
# held-out images beside their untuned forms.
#   tune_lab.sh ATTNSHIFT OUT
source "$(dirname "$0")/lab.sh"
searches=$(dirname "$0")/search
judges+=(--tuning lab:mobilenet)

tune() { # NAME ARGUMENT…
    local name=$1
    shift
    "$attnshift" tune "$out/tuning" --labels "$out/tuning/labels.csv" --search "$searches/$name.toml" --out "$out/study-$name" "${three[@]}" \
        --tuning lab:mobilenet --threads 1 --trials 28 "$@"
}

images 32 tuning tuning
images 48
tune baseline --preset quick --set finish.keep=last --set finish.early=false
tune full --preset full
run baseline "${three[@]}" --preset attention --set terms.entropy.weight=0.0 --set terms.contrast.weight=0.0 \
    --set terms.variance.weight=3.0 --set terms.self_attention.weight=3.0
run baseline-tuned "${three[@]}" --preset "$out/study-baseline/best.toml"
run full "${three[@]}" --preset full
run full-ce "${three[@]}" --preset "$(dirname "$0")/recipes/full-ce.toml"
run full-tuned "${three[@]}" --preset "$out/study-full/best.toml"
run seed "${three[@]}" --preset seed
