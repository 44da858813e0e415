"""A robust judge of photographs: a network of the study, fine-tuned on adversarial photographs.

    robust.py MATERIAL STUDY SIZE STEPS

MATERIAL is the folder of prepare.py, with `photo-latents.safetensors` and `autoencoders/taesd`, and
STUDY the folder that prepare.py made. The classifier tf_efficientnet_lite0 learns on for STEPS
batches of 32 photographs of SIZE pixels: every third of the latents, decoded, and the photographs of
the split `tuning`. Every batch is moved against the classifier by two signed steps from a random
start, within 4/255 (Madry et al., ICLR 2018, eq. 2.1).

STUDY/classifiers gets `tf_efficientnet_lite0_robust.safetensors` and its JSON. The last line says
how many photographs of the split `test` it gets right, and how many after 20 steps of PGD against
it within 4/255, beside the network that it was. The same command continues an interrupted training.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import read_image
from attnshift.lab.training import Stage, TrainingBatch, optimise

BASE, ROBUST = "tf_efficientnet_lite0", "tf_efficientnet_lite0_robust"
RADIUS, BATCH, EVERY = 4 / 255, 32, 3


def main(material: Path, study: Path, size: int, steps: int) -> None:
    folder = study / "classifiers"
    base, robust = (at_size(load(folder, BASE), size) for _ in range(2))
    images, labels = examples(material, study, size)

    def loss(_: nn.Module, batch: TrainingBatch) -> Tensor:
        clean, targets = images[batch.indices] / 255, labels[batch.indices]
        mirrored = batch.uniform(len(clean)) < 0.5
        clean[mirrored] = clean[mirrored].flip(-1)
        shift = RADIUS * (2 * batch.uniform(*clean.shape) - 1)
        for _ in range(2):
            shift = ascended(robust, clean, targets, shift, 0.75 * RADIUS) - clean
        return cross_entropy(logits(robust, clean + shift), targets)

    stage = Stage(ROBUST, steps, BATCH, 3e-4)
    checkpoint = study / f"{ROBUST}.pt"
    optimise(stage, robust.network.requires_grad_(True), loss, len(labels), 0, checkpoint, print)
    robust.network.requires_grad_(False)
    calibrate(robust, images)
    save(folder, robust, size)
    images, labels = photographs(study, "imagenette-test", size)
    for name, network in ((BASE, base), (ROBUST, robust)):
        right = [answered(network, images, labels, steps) for steps in (0, 20)]
        print(f"{name} at {size} px: {right[0]} of {len(images)} right, {right[1]} after PGD within 4/255")


def examples(material: Path, study: Path, size: int) -> tuple[Tensor, Tensor]:
    """Images [n,3,size,size] uint8 and labels [n]: decoded latents of photographs, then photographs."""
    latents = load_file(material / "photo-latents.safetensors")
    decoder = AutoencoderTiny.from_pretrained(material / "autoencoders" / "taesd").eval()
    images, labels = photographs(study, "imagenette-tuning", size)
    parts = []
    for part in latents["z"][::EVERY].float().split(BATCH):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            shown = decoder.decode(part).sample.float() / 2 + 0.5
        shown = interpolate(shown, (size, size), mode="bicubic", antialias=True)
        parts.append((255 * shown.clamp(0, 1)).round().byte())
    return torch.cat([*parts, (255 * images).round().byte()]), torch.cat([latents["label"][::EVERY].long(), labels])


def photographs(study: Path, name: str, size: int) -> tuple[Tensor, Tensor]:
    """Images [n,3,size,size] and labels [n] of the label file ``name``."""
    folder = study / "photos"
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    images = [read_image(folder / name.partition("-")[0] / row["file"], size) for row in rows]
    return torch.stack(images), torch.tensor([int(row["label"]) for row in rows])


def load(folder: Path, name: str) -> Classifier:
    return load_classifier(f"checkpoint:{folder / name}.safetensors")


def at_size(network: Classifier, size: int) -> Classifier:
    """The classifier, which from now on sees a whole image of ``size`` pixels as it is."""
    return replace(network, preprocessing=replace(network.preprocessing, size=(size, size), resized=None))


def logits(network: Classifier, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(images)


def ascended(network: Classifier, clean: Tensor, labels: Tensor, shift: Tensor, step: float) -> Tensor:
    """Images one signed step further from their labels than ``clean`` + ``shift``, within RADIUS."""
    attacked = (clean + shift).clamp(0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(logits(network, attacked), labels), attacked)
    shift = (attacked.detach() + step * slope.sign() - clean).clamp(-RADIUS, RADIUS)
    return (clean + shift).clamp(0, 1)


def calibrate(network: Classifier, images: Tensor) -> None:
    """Measure batch statistics for the averaged weights: those of training belong to the last ones."""
    norms = [each for each in network.network.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.network.train()
    with torch.no_grad():
        for part in images[:: len(images) // 960 or 1].split(BATCH):
            logits(network, part / 255)
    network.network.eval()


def answered(network: Classifier, images: Tensor, labels: Tensor, steps: int) -> int:
    """How many images it gets right after ``steps`` steps of PGD against it."""
    right = 0
    for clean, true in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        attacked = clean
        for _ in range(steps):
            attacked = ascended(network, clean, true, attacked - clean, RADIUS / 4)
        with torch.no_grad():
            right += int((logits(network, attacked).argmax(1) == true).sum())
    return right


def save(folder: Path, network: Classifier, size: int) -> None:
    """Write the weights and their description, as prepare.py writes those of the others."""
    weights = {
        key: value.detach().half().contiguous() if value.is_floating_point() else value
        for key, value in network.network.state_dict().items()
    }
    save_file(weights, folder / f"{ROBUST}.safetensors")
    description = json.loads((folder / f"{BASE}.json").read_text(encoding="utf-8"))
    description["preprocessing"] |= {"size": size, "crop_pct": 1.0}
    (folder / f"{ROBUST}.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 5 or not (sys.argv[3].isdecimal() and sys.argv[4].isdecimal()):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
