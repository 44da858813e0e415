#!/usr/bin/env bash
# The ablation of docs/results.md: 48 held-out lab images, three surrogates, four judges; one run for each change.
#   ablation_lab.sh ATTNSHIFT OUT [RUN…]      only these runs; an interrupted ablation continues when called again
# A run called +X adds X to the baseline's terms; one called -X takes X out of the preset full.
set -euo pipefail
attnshift=$1 out=$2
shift 2
wanted=" ${*:-} "
judges=(--judge lab:coatnet --judge lab:nfnet --judge lab:byobnet --judge lab:robust)
three=(--surrogate lab:resnet --surrogate lab:efficientnet --surrogate lab:mobilevit)
terms=(terms.entropy.weight=0.0 terms.contrast.weight=0.0 terms.variance.weight=3.0 terms.self_attention.weight=3.0)

run() { # NAME PRESET KEY=VALUE…
    local name=$1 preset=$2 changes=()
    shift 2
    [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
    for change in "$@"; do changes+=(--set "$change"); done
    "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" --preset "$preset" --threads 1 --out "$out/$name" \
        "${three[@]}" "${changes[@]}"
    "$attnshift" evaluate "$out/$name" "${judges[@]}"
}

[[ -f $out/images/labels.csv ]] || "$attnshift" lab render "$out/images" --count 48 --split test
run baseline attention "${terms[@]}"
run +entropy attention "${terms[@]}" terms.entropy.weight=0.2
run +contrast attention "${terms[@]}" terms.contrast.weight=0.35
run +replace attention "${terms[@]}" terms.replace.weight=0.35
run +self-js attention "${terms[@]}" terms.self_attention.weight=0.5 terms.self_attention.distance=js terms.self_attention.reduction=layered
run +frequency attention "${terms[@]}" terms.frequency.weight=0.5
run +perceptual attention "${terms[@]}" terms.perceptual.weight=2.0
run +l2 attention "${terms[@]}" terms.l2.weight=5.0
run +margin attention "${terms[@]}" classification.loss=margin classification.kappa=10.0
run +distribution attention "${terms[@]}" classification.loss=distribution classification.weight=5.0
run +gradnorm attention "${terms[@]}" optimiser.balance=gradnorm
run full full
run -entropy full terms.entropy.weight=0.0
run -contrast full terms.contrast.weight=0.0
run -replace full terms.replace.weight=0.0
run -self full terms.self_attention.weight=0.0
run -frequency full terms.frequency.weight=0.0
run -mask full mask.source=none
run attention attention
run p2p p2p
run seed seed
