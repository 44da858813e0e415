#!/usr/bin/env bash
# The tuned recipes of docs/results.md: the baseline's terms and the whole objective, searched alike on 32 images of the split `tuning` by the tuning
# classifier alone, then judged on 48 held-out images beside their untuned forms.
#   tune_lab.sh ATTNSHIFT OUT      an interrupted study continues when called again
set -euo pipefail
attnshift=$1 out=$2
searches=$(dirname "$0")/search
judges=(--judge lab:coatnet --judge lab:nfnet --judge lab:byobnet --judge lab:robust --tuning lab:mobilenet)
three=(--surrogate lab:resnet --surrogate lab:efficientnet --surrogate lab:mobilevit)

tune() { # NAME ARGUMENT…
    local name=$1
    shift
    "$attnshift" tune "$out/tuning" --labels "$out/tuning/labels.csv" --search "$searches/$name.toml" --out "$out/study-$name" "${three[@]}" \
        --tuning lab:mobilenet --threads 1 --trials 28 "$@"
}

run() { # NAME ARGUMENT…
    local name=$1
    shift
    "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" --threads 1 --out "$out/$name" "${three[@]}" "$@"
    "$attnshift" evaluate "$out/$name" "${judges[@]}"
}

[[ -f $out/tuning/labels.csv ]] || "$attnshift" lab render "$out/tuning" --count 32 --split tuning
[[ -f $out/images/labels.csv ]] || "$attnshift" lab render "$out/images" --count 48 --split test
tune baseline --preset fast --set finish.keep=last --set finish.early=false
tune full --preset full
run baseline --preset attention --set terms.entropy.weight=0.0 --set terms.contrast.weight=0.0 \
    --set terms.variance.weight=3.0 --set terms.self_attention.weight=3.0
run baseline-tuned --preset "$out/study-baseline/best.toml"
run full --preset full
run full-ce --preset "$(dirname "$0")/recipes/full-ce.toml"
run full-tuned --preset "$out/study-full/best.toml"
run seed --preset seed
