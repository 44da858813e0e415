#!/usr/bin/env bash
# Real photographs through a pipeline and classifiers with random weights. This shows that the whole
# path runs, and nothing about strength.
#   real_photos.sh ATTNSHIFT IMAGES OUT      IMAGES: photographs, and labels.csv with ImageNet labels
set -euo pipefail
attnshift=$1 images=$2 out=$3
[[ -d $out/pipeline ]] || "$attnshift" lab random-pipeline "$out/pipeline" --size 224
for preset in fast diffattack; do
    "$attnshift" attack "$images" --labels "$images/labels.csv" --pipeline "$out/pipeline" --size 224 --threads 1 \
        --surrogate random:resnet50 --preset "$preset" --set optimiser.iterations=3 --out "$out/$preset"
    "$attnshift" evaluate "$out/$preset" --judge random:resnet18 --judge random:vit_tiny_patch16_224
    "$attnshift" report "$out/$preset"
done
