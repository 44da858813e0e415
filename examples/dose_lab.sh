#!/usr/bin/env bash
# Dose and response of docs/inspect.md: 32 tuning images of the lab, preset strong within SSIM 0.95, with
# one attention term at a share of the classification's pull. The tuning classifier alone judges.
#   [count=N] dose_lab.sh ATTNSHIFT OUT [TERM…]
# TERM is entropy, contrast, replace or variance; without it all are run, and the run without any.
# The same command continues. examples/dose_table.py makes the table.
source "$(dirname "$0")/lab.sh"
images "${count:-32}" tuning

dose() { # NAME ARGUMENT…
    local name=$1
    shift
    "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" "${three[@]}" --threads 1 --preset strong \
        --out "$out/$name" "$@"
    "$attnshift" evaluate "$out/$name" --tuning lab:mobilenet
}

dose none
for term in entropy contrast replace variance; do
    asked "$term" || continue
    for share in 0.1 0.3 0.7 2; do
        dose "$term-$share" --set optimiser.balance=share --set "terms.$term.weight=$share"
    done
done
