#!/usr/bin/env bash
# The ensemble study of docs/results.md: 48 held-out lab images, one surrogate or three, four judges; one run for each fusion rule, with and
# without views of the image (expectation over transformation).
#   ensemble_lab.sh ATTNSHIFT OUT [RUN…]      only these runs; an interrupted study continues when called again
set -euo pipefail
attnshift=$1 out=$2
shift 2
wanted=" ${*:-} "
judges=(--judge lab:coatnet --judge lab:nfnet --judge lab:byobnet --judge lab:robust)
three=(--surrogate lab:resnet --surrogate lab:efficientnet --surrogate lab:mobilevit)

run() { # NAME ARGUMENT…
    local name=$1
    shift
    [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
    "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" --preset ensemble --threads 1 --out "$out/$name" "$@"
    "$attnshift" evaluate "$out/$name" "${judges[@]}"
}

[[ -f $out/images/labels.csv ]] || "$attnshift" lab render "$out/images" --count 48 --split test
for one in resnet efficientnet mobilevit; do
    run "$one" --surrogate "lab:$one" --set classification.fusion=uniform --set expectation.draws=1
done
for rule in uniform consensus progress laggard worst logits adaea; do
    run "$rule" "${three[@]}" --set "classification.fusion=$rule" --set expectation.draws=1
    run "$rule+views" "${three[@]}" --set "classification.fusion=$rule"
done
