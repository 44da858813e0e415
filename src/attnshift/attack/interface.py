"""The parts that attacks from Python share: surrogates, checked input, and the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.prepare import Task
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, common_classes
from attnshift.classifiers.probe import check_attackable
from attnshift.data.datasets import check_class, check_target, identify
from attnshift.errors import ImageError, LabelError

__all__ = ["AttackResult", "checked_tasks", "in_batches", "load_surrogates"]


@dataclass(frozen=True)
class AttackResult:
    """Attacked images with what the surrogates say of them.

    images [batch,3,height,width] in [0,1], multiples of 1/255; margins [models,batch] in logits of
    the surrogates on exactly these images, negative where a surrogate is fooled, which in a
    targeted attack means that it sees the target; iterations [batch], the iterate that was kept, or
    None from an attack on pixels, which keeps the last one.
    """

    images: Tensor
    margins: Tensor
    iterations: Tensor | None = None

    @property
    def fooled(self) -> Tensor:
        """Images that fool every surrogate, bool [batch]."""
        return (self.margins < 0).all(0)


def load_surrogates(surrogates: Sequence[str | Classifier], device: str) -> list[Classifier]:
    """The classifiers ``surrogates``, by name or loaded, on ``device``, once they are known to be
    attackable."""
    classifiers = [(load_classifier(each) if isinstance(each, str) else each).to(device) for each in surrogates]
    if classifiers:
        common_classes(classifiers)
    for classifier in classifiers:
        check_attackable(classifier)
    return classifiers


def checked_tasks(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor | Sequence[int],
    class_names: Sequence[str] = (),
    masks: Tensor | None = None,
    targets: Tensor | Sequence[int] | None = None,
    needs_names: bool = True,
) -> list[Task]:
    """One task for each of ``images`` [batch,3,side,side] in [0,1], or an error that says what is
    wrong with them.

    ``classifier`` knows classes and their names; with ``needs_names`` a class without one is an
    error.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ImageError(f"images have shape {tuple(images.shape)}; expected [batch, 3, side, side]")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ImageError("images have values outside [0,1]; divide 8-bit values by 255")
    numbers = [int(label) for label in labels]
    if len(numbers) != len(images) or (class_names and len(class_names) != len(images)):
        raise LabelError(f"{len(images)} images, {len(numbers)} labels and {len(class_names)} class names")
    known = classifier.class_names
    if needs_names and not class_names and any(not 0 <= label < len(known) for label in numbers):
        raise LabelError(f"no class names are known for the labels {sorted(set(numbers))}; pass class_names")
    names = list(class_names) or [known[label] if 0 <= label < len(known) else "" for label in numbers]
    if masks is not None and masks.shape != images[:, :1].shape:
        raise ImageError(f"masks have shape {tuple(masks.shape)}; expected {tuple(images[:, :1].shape)}")
    given = [None] * len(images) if masks is None else list(masks)
    wanted = [None] * len(images) if targets is None else _checked_targets(classifier, targets, numbers)
    return [
        Task(identify(_pixels(image), label, name, target), image, label, name, mask, target)
        for image, label, name, mask, target in zip(images, numbers, names, given, wanted, strict=True)
    ]


def in_batches(tasks: Sequence[Task], size: int, attack: Callable[[Sequence[Task]], AttackResult]) -> AttackResult:
    """The results of ``attack`` on ``size`` tasks at a time, as one."""
    parts = [attack(tasks[at : at + size]) for at in range(0, len(tasks), size)]
    iterations = [part.iterations for part in parts if part.iterations is not None]
    return AttackResult(
        torch.cat([part.images for part in parts]),
        torch.cat([part.margins for part in parts], 1),
        torch.cat(iterations) if iterations else None,
    )


def _checked_targets(classifier: Classifier, targets: Tensor | Sequence[int], labels: Sequence[int]) -> list[int]:
    numbers = [int(target) for target in targets]
    if len(numbers) != len(labels):
        raise LabelError(f"{len(labels)} images and {len(numbers)} targets; give every image one")
    for at, (target, label) in enumerate(zip(numbers, labels, strict=True)):
        check_class("target", target, classifier.classes, f"image {at}")
        check_target(target, label, f"image {at}")
    return numbers


def _pixels(image: Tensor) -> bytes:
    return (image.detach().cpu().float() * 255).round().byte().numpy().tobytes()
