#!/usr/bin/env bash
# Ablation of docs/results.md: 48 held-out lab images, three surrogates, four judges; one run for
# each change.
#   ablation_lab.sh ATTNSHIFT OUT [RUN…]
# The run baseline has DiffAttack's terms. A run +X adds X to them; a run -X takes X out of the
# preset full.
source "$(dirname "$0")/lab.sh"
terms=(terms.entropy.weight=0.0 terms.contrast.weight=0.0 terms.variance.weight=3.0 terms.self_attention.weight=3.0)

change() { # NAME PRESET KEY=VALUE…
    local name=$1 preset=$2 changes=()
    shift 2
    for each in "$@"; do changes+=(--set "$each"); done
    run "$name" --preset "$preset" "${three[@]}" "${changes[@]}"
}

images 48
change baseline attention "${terms[@]}"
change +entropy attention "${terms[@]}" terms.entropy.weight=0.2
change +contrast attention "${terms[@]}" terms.contrast.weight=0.35
change +replace attention "${terms[@]}" terms.replace.weight=0.35
change +self-js attention "${terms[@]}" terms.self_attention.weight=0.5 terms.self_attention.distance=js terms.self_attention.reduction=layered
change +frequency attention "${terms[@]}" terms.frequency.weight=0.5
change +perceptual attention "${terms[@]}" terms.perceptual.weight=2.0
change +l2 attention "${terms[@]}" terms.l2.weight=5.0
change +margin attention "${terms[@]}" classification.loss=margin classification.kappa=10.0
change +distribution attention "${terms[@]}" classification.loss=distribution classification.weight=5.0
change +balance attention terms.entropy.weight=0.2 terms.contrast.weight=0.35 optimiser.balance=share
change full full
change -entropy full terms.entropy.weight=0.0
change -contrast full terms.contrast.weight=0.0
change -replace full terms.replace.weight=0.0
change -self full terms.self_attention.weight=0.0
change -frequency full terms.frequency.weight=0.0
change -mask full mask.source=none
change attention attention
change p2p p2p
change seed seed
