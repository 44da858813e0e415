"""Material of the study of photographs, put into the layout that `checkpoint:` and `--weights` read.

    prepare.py MATERIAL OUT

MATERIAL holds `classifiers/NAME.json` beside `NAME.safetensors`, and `photos/imagenette` and
`photos/nips2017` with their labels. OUT gets

    classifiers/NAME.json, NAME.safetensors    as in `--surrogate checkpoint:OUT/classifiers/NAME.safetensors`
    lpips/squeezenet1_1.safetensors            as in `--weights OUT/lpips`
    photos/imagenette, photos/nips2017         the photographs
    photos/imagenette-test.csv, -tuning.csv, nips2017.csv       their labels, for `--labels`

Weights and photographs are links to MATERIAL. The rows of a label file take the classes in turn, so
that `--limit N` takes about as many of each.
"""

from __future__ import annotations

import csv
import json
import sys
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "resnet18_pqf": ("torchvision", "resnet18", {}),
    "resnet50_pqf_large": ("torchvision", "resnet50", {}),
    "squeezenet1_1": ("torchvision", "squeezenet1_1", {}),
    "tf_efficientnet_lite0": ("timm", "tf_efficientnet_lite0", {}),
    "tf_efficientnet_lite1": ("timm", "tf_efficientnet_lite1", {}),
    "mobilenetv2_100_tf": ("timm", "mobilenetv2_100", {"pad_type": "same"}),
    "mobilenet_v1_0.75_192": (
        "transformers",
        "MobileNetV1ForImageClassification",
        {"depth_multiplier": 0.75, "image_size": 192, "layer_norm_eps": 0.001, "tf_padding": True},
    ),
    "vit_small_dinov2_imagenette10": (
        "timm",
        "vit_small_patch14_dinov2",
        {"img_size": 224, "global_pool": "token"},
    ),
}
"""Library, architecture and arguments of each network. All answer in ImageNet's order of 1000."""

LABELS = {
    "imagenette-test": "imagenette/labels_test.csv",
    "imagenette-tuning": "imagenette/labels_tuning.csv",
    "nips2017": "nips2017/labels.csv",
}
"""Label files by the names that they get."""


def main(material: Path, out: Path) -> None:
    for name in NETWORKS:
        describe(material / "classifiers", name, out / "classifiers")
    link(material / "classifiers" / "squeezenet1_1.safetensors", out / "lpips" / "squeezenet1_1.safetensors")
    for photos in ("imagenette", "nips2017"):
        link(material / "photos" / photos, out / "photos" / photos)
    for name, labels in LABELS.items():
        in_turn(material / "photos" / labels, out / "photos" / f"{name}.csv")


def describe(source: Path, name: str, folder: Path) -> None:
    """Write the description of the network ``name`` beside a link to its weights."""
    library, architecture, arguments = NETWORKS[name]
    preprocessing = json.loads((source / f"{name}.json").read_text(encoding="utf-8"))["preprocessing"]
    values = {
        "library": library,
        "architecture": architecture,
        "arguments": arguments,
        "preprocessing": {key: preprocessing[key] for key in ("size", "crop_pct", "interpolation", "mean", "std")},
        "class_names": "imagenet-1k",
    }
    link(source / f"{name}.safetensors", folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def in_turn(source: Path, target: Path) -> None:
    """Write the rows of the label file ``source`` with one of each class after the other."""
    with source.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    classes: dict[str, list[list[str]]] = {}
    for row in rows:
        classes.setdefault(row[header.index("label")], []).append(row)
    ordered = filter(None, chain.from_iterable(zip_longest(*classes.values())))
    with target.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *ordered])


def link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(source.resolve(strict=True))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: prepare.py MATERIAL OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
