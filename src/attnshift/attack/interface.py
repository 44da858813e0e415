"""The parts that attacks from Python share: surrogates, checked input, and the result."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy
import torch
from torch import Tensor

from attnshift.attack.inputs import check_device, class_numbers, given_images, given_masks
from attnshift.attack.prepare import Task
from attnshift.classifiers.classifier import Classifier, in_one_order
from attnshift.data.datasets import check_class, check_target, identify
from attnshift.data.images import encode_png
from attnshift.defences.names import check_surrogate, load_surrogate
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import LabelError, ModelError, RecipeError
from attnshift.terminal import plural

if TYPE_CHECKING:
    from attnshift.attack.loop import Snapshot

__all__ = ["AttackHistory", "AttackResult", "Follower", "check_batch", "checked_tasks", "in_batches", "load_surrogates"]


@dataclass(frozen=True, repr=False)
class AttackResult:
    """Attacked images with what the surrogates say of them.

    images [batch,3,height,width] in [0,1], multiples of 1/255; margins [models,batch] in logits of
    the surrogates on exactly these images, negative where a surrogate sees another class, in a
    targeted attack the target; known, bool [models,batch], true where a surrogate sees the true
    class in the image before the attack; iterations [batch], the iterate that was kept, or None
    from an attack on pixels, which keeps the last one.

    clean [batch,3,height,width] are the images before the attack, in steps of 1/255 too, and
    surrogates the names of ``margins``' rows. history has one entry for each image, and none from
    an attack on pixels.
    """

    images: Tensor
    margins: Tensor
    known: Tensor
    iterations: Tensor | None = None
    clean: Tensor | None = None
    surrogates: tuple[str, ...] = ()
    history: tuple[AttackHistory, ...] = ()

    @property
    def fooled(self) -> Tensor:
        """Images that fool every surrogate, bool [batch].

        An image that a surrogate got wrong before the attack is none of them.
        """
        return ((self.margins < 0) & self.known).all(0)

    def __repr__(self) -> str:
        rows, columns = self.images.shape[2:]
        images = f"{plural(len(self.images), 'image')} of {rows} x {columns}"
        return f"AttackResult({images}, every surrogate fooled in {int(self.fooled.sum())})"

    def _repr_html_(self) -> str:
        """Table for notebooks: each image before and after, and the surrogates' margins."""
        heads = "".join(f"<th>{escape(name)}</th>" for name in ("before", "after", "fooled", *self.surrogates))
        lines = zip(self.images, self.fooled.tolist(), self.margins.T.tolist(), strict=True)
        rows = []
        for at, (after, fooled, margins) in enumerate(lines):
            before = "" if self.clean is None else _picture(self.clean[at])
            cells = [before, _picture(after), "yes" if fooled else "no", *(f"{margin:+.2f}" for margin in margins)]
            rows.append("".join(f"<td>{cell}</td>" for cell in cells))
        return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


@dataclass(frozen=True)
class AttackHistory:
    """An image's attack by iteration, and its attention before and after.

    losses are the weighted terms of each iteration, by name; margins those of each surrogate in it,
    in logits. attention is the map [rows,columns] of the class's phrase over all cross-attention,
    before and after, read on the saved file. iteration is the iterate that was kept.
    """

    losses: tuple[Mapping[str, float], ...]
    margins: tuple[tuple[float, ...], ...]
    attention: tuple[Tensor, Tensor]
    iteration: int


class Follower(Protocol):
    """Whoever follows an attack; ``attnshift.telemetry.Telemetry`` is one."""

    def watch(self, batch: int, surrogates: Sequence[str]) -> Callable[[Sequence[str], Snapshot], bool | None] | None:
        """Callback for each iteration of micro-batch ``batch``, from 0, with the ids of all its
        images and the loop's state; None for no callback. True ends the attack of these images."""
        ...


def _picture(image: Tensor) -> str:
    """``image`` [3,height,width] as an element of a page that holds it."""
    data = b64encode(encode_png(image, {})).decode()
    return f'<img src="data:image/png;base64,{data}" alt="" style="max-width:14em">'


def check_batch(batch: object) -> None:
    """Raise ``RecipeError`` unless ``batch`` is a number of images
    that can be attacked together."""
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise RecipeError(f"{batch!r} images cannot be attacked together; give a whole number from 1 on")


def load_surrogates(
    surrogates: Sequence[str | Classifier], device: str, pipeline: Callable[[], Backbone] | None = None
) -> list[Classifier]:
    """The classifiers ``surrogates``, by name or loaded, on ``device``, once they are known to be
    attackable; ``pipeline`` as in ``load_surrogate``."""
    if isinstance(surrogates, str) or not surrogates:
        raise ModelError(f"surrogates are {surrogates!r}; give a list with at least one, such as ['timm:resnet50']")
    check_device(device)
    loaded = [load_surrogate(each, pipeline) if isinstance(each, str) else each for each in surrogates]
    classifiers = in_one_order([each.to(device) for each in loaded])
    for given, classifier in zip(surrogates, classifiers, strict=True):
        if any(each.is_inference() for each in classifier.network.parameters()):
            raise ModelError(f"{classifier.name} was loaded under torch.inference_mode; load it outside of that")
        if not isinstance(given, str):
            check_surrogate(classifier)
    return classifiers


def checked_tasks(
    classifier: Classifier,
    images: Tensor | numpy.ndarray,
    labels: Tensor | numpy.ndarray | Sequence[int],
    class_names: Sequence[str] = (),
    masks: Tensor | numpy.ndarray | None = None,
    targets: Tensor | numpy.ndarray | Sequence[int] | None = None,
    needs_names: bool = True,
) -> list[Task]:
    """One task for each of ``images`` [batch,3,height,width] in [0,1], or an error that says what
    is wrong with them.

    ``classifier`` knows classes and their names; with ``needs_names`` a class without one is an
    error.
    """
    images, numbers = given_images(images), class_numbers("labels", labels)
    if isinstance(class_names, str):
        raise LabelError(f"class_names is {class_names!r:.80}; give a list with a name for each image")
    if class_names and len(class_names) != len(images):
        counts = f"{plural(len(class_names), 'name')} for {plural(len(images), 'image')}"
        raise LabelError(f"class_names has {counts}; it names the class of each image, in the order of the images")
    if len(numbers) != len(images):
        raise LabelError(f"{plural(len(images), 'image')} and {plural(len(numbers), 'label')}; give every image one")
    for at, label in enumerate(numbers):
        check_class("label", label, classifier.classes, f"image {at}")
    known = classifier.class_names
    if needs_names and not class_names and any(label >= len(known) for label in numbers):
        raise LabelError(f"no class names are known for the labels {sorted(set(numbers))}; pass class_names")
    names = list(class_names) or [known[label] if label < len(known) else "" for label in numbers]
    given = [None] * len(images) if masks is None else list(given_masks(masks, images))
    wanted = [None] * len(images) if targets is None else _checked_targets(classifier, targets, numbers)
    return [
        Task(identify(_pixels(image), label, name, target), image, label, name, mask, target)
        for image, label, name, mask, target in zip(images, numbers, names, given, wanted, strict=True)
    ]


def in_batches(tasks: Sequence[Task], size: int, attack: Callable[[Sequence[Task]], AttackResult]) -> AttackResult:
    """The results of ``attack`` on ``size`` tasks at a time, as one."""
    parts = [attack(tasks[at : at + size]) for at in range(0, len(tasks), size)]
    iterations = [part.iterations for part in parts if part.iterations is not None]
    clean = [part.clean for part in parts if part.clean is not None]
    return AttackResult(
        torch.cat([part.images for part in parts]),
        torch.cat([part.margins for part in parts], 1),
        torch.cat([part.known for part in parts], 1),
        torch.cat(iterations) if iterations else None,
        torch.cat(clean) if clean else None,
        parts[0].surrogates,
        tuple(chain.from_iterable(part.history for part in parts)),
    )


def _checked_targets(
    classifier: Classifier, targets: Tensor | numpy.ndarray | Sequence[int], labels: Sequence[int]
) -> list[int]:
    numbers = class_numbers("targets", targets)
    if len(numbers) != len(labels):
        raise LabelError(f"{plural(len(labels), 'image')} and {plural(len(numbers), 'target')}; give every image one")
    for at, (target, label) in enumerate(zip(numbers, labels, strict=True)):
        check_class("target", target, classifier.classes, f"image {at}")
        check_target(target, label, f"image {at}")
    return numbers


def _pixels(image: Tensor) -> bytes:
    return (image.detach().cpu().float() * 255).round().byte().numpy().tobytes()
