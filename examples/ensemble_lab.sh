#!/usr/bin/env bash
# Ensemble study of docs/results.md: 48 held-out lab images, one surrogate or three, four judges.
# There is one run for each fusion rule, with and without views of the image (expectation over
# transformation).
#   ensemble_lab.sh ATTNSHIFT OUT [RUN…]
source "$(dirname "$0")/lab.sh"

images 48
for one in resnet efficientnet mobilevit; do
    run "$one" --preset ensemble --surrogate "lab:$one" --set classification.fusion=uniform --set expectation.draws=1
done
for rule in uniform consensus progress laggard worst logits adaea; do
    run "$rule" --preset ensemble "${three[@]}" --set "classification.fusion=$rule" --set expectation.draws=1
    run "$rule+views" --preset ensemble "${three[@]}" --set "classification.fusion=$rule"
done
