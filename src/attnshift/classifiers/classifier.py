"""Classifiers: a network with its own preprocessing, called with images in [0,1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from attnshift.classifiers.names import positions, words
from attnshift.classifiers.probe import probe
from attnshift.errors import ModelError
from attnshift.fingerprint import fingerprint

__all__ = [
    "ClassOrder",
    "Classifier",
    "Interpolation",
    "KnowsFiles",
    "Preprocessing",
    "Source",
    "as_surrogates",
    "common_classes",
    "in_one_order",
    "in_order_of",
    "vocabulary",
]

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """Function from images [batch,3,height,width] in [0,1] to a network's input.

    Images are resized to ``resized`` (rows, columns), cropped to the centre of ``size``, and
    normalised per channel with ``mean`` and ``std``. Without ``resized`` they are resized to
    ``size`` and not cropped. If ``size`` is larger than ``resized``, black surrounds the image.

    An image of another shape, wider say, has its shorter side resized and keeps its shape, as in
    torchvision and in timm; the crop then takes its centre. With ``squash`` the whole image is
    resized to ``resized`` in any case.

    Libraries resize 8-bit images, round them, and clip values that a bicubic kernel puts out of
    range. Here values stay real numbers, so that a gradient passes. The difference is at most 1.6
    levels of 255, and larger at extreme contrast.
    """

    size: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resized: tuple[int, int] | None = None
    squash: bool = field(default=False, repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        resized = self._resized(*images.shape[-2:])
        if images.shape[-2:] != resized:
            smooth = self.interpolation != "nearest"
            images = nn.functional.interpolate(images, resized, mode=self.interpolation, antialias=smooth)
        images = nn.functional.pad(images, self._margins(resized))
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def lay_over(self, maps: Tensor, sides: Sequence[int]) -> Tensor:
        """Maps of the network's input, [batch,1,rows,columns], placed over images of ``sides``.

        The result, [batch,1,*sides], is zero at pixels that the network does not see.
        """
        resized = self._resized(*sides)
        if self.resized is not None or resized != self.size:
            maps = nn.functional.interpolate(maps, self.size, mode="bilinear")
            maps = nn.functional.pad(maps, [-margin for margin in self._margins(resized)])
        return nn.functional.interpolate(maps, tuple(sides), mode="bilinear")

    def _resized(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns to which images of this size are resized."""
        target = self.resized or self.size
        if self.squash or rows == columns or rows * target[1] == columns * target[0]:
            return target
        if target[0] * columns > target[1] * rows:
            return target[0], columns * target[0] // rows
        return rows * target[1] // columns, target[1]

    def _margins(self, resized: tuple[int, int]) -> list[int]:
        """Pixels added to the resized image at left, right, top and bottom; negative if cropped."""
        margins = []
        for side, given in reversed([*zip(self.size, resized, strict=True)]):
            # torchvision rounds half of an odd number of pixels with round().
            first = (side - given) // 2 if side > given else -round((given - side) / 2)
            margins += [first, side - given - first]
        return margins


@dataclass(frozen=True)
class ClassOrder:
    """Order of a classifier's answers that is not the network's own.

    ``positions`` has the network's class for each class of the answer, -1 if it has none.
    ``own_names`` are the names in the network's order.
    """

    positions: tuple[int, ...]
    own_names: tuple[str, ...]

    def __call__(self, logits: Tensor) -> Tensor:
        """``logits`` [batch,own classes] in this order, [batch,classes]; -inf for unknown ones."""
        nothing = logits.new_full((len(logits), 1), -torch.inf)
        return torch.cat([logits, nothing], 1)[:, list(self.positions)]


@dataclass(frozen=True, eq=False)
class Classifier:
    """Images [batch,3,height,width] in [0,1] -> logits [batch,classes], fp32.

    It is differentiable in the images; its weights are constants. ``class_names`` are in label
    order, or empty if unknown. They are kept as ``names.words`` mends them, so names that are no
    words are unknown. ``order`` is set by ``in_order_of``.

    ``precision`` is what its gradients are to be computed in (``ensemble/surrogates.py``).
    """

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    classes: int
    class_names: tuple[str, ...] = ()
    order: ClassOrder | None = None
    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", words(self.class_names))
        self.network.eval().requires_grad_(False)

    @staticmethod
    def wrap(
        network: nn.Module,
        name: str,
        size: int | tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: Interpolation = "bilinear",
        class_names: Sequence[str] = (),
        resized: int | tuple[int, int] | None = None,
    ) -> Classifier:
        """Classifier from a ``network``: normalised images [batch,3,*size] -> logits
        [batch,classes].

        ``mean`` and ``std`` are per channel, for images in [0,1]; ``resized`` is as in
        ``Preprocessing``. The network is put into evaluation mode, and its weights take no
        gradients from then on.

        Raises ``ModelError`` if one of the numbers is out of range, or if two random images show
        that the network does not return logits.

        >>> Classifier.wrap(network, "mine", 224, (0.5,) * 3, (0.5,) * 3)  # doctest: +SKIP
        """
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ModelError(f"{name}: mean {tuple(mean)} and std {tuple(std)} must be three values, std above 0")
        if interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise ModelError(f"{name}: interpolation '{interpolation}' is not one of {known}")
        sides = tuple((each, each) if isinstance(each, int) else each for each in (size, resized or size))
        if min(min(each) for each in sides) < 1:
            raise ModelError(f"{name}: size {size} and resized {resized} must be at least 1 pixel")
        preprocessing = Preprocessing(
            sides[0], interpolation, _three(mean), _three(std), None if sides[1] == sides[0] else sides[1]
        )
        return probe(Classifier(name, network, preprocessing, len(class_names), tuple(class_names)))

    def __call__(self, images: Tensor) -> Tensor:
        logits = self.network(self.preprocessing(images)).float()
        return logits if self.order is None else self.order(logits)

    def knows(self, label: int) -> bool:
        """True if the network has the class ``label``."""
        return 0 <= label < self.classes and (self.order is None or self.order.positions[label] >= 0)

    def own_labels(self, labels: Tensor) -> Tensor:
        """``labels`` [batch], classes of the answer, as classes of the network."""
        return labels if self.order is None else labels.new_tensor(self.order.positions)[labels]

    def fingerprint(self) -> str:
        """Hash of weights, preprocessing and the network's class names."""
        names = self.class_names if self.order is None else self.order.own_names
        squash = ("squash",) if self.preprocessing.squash else ()
        return fingerprint({"network": self.network}, (self.preprocessing, names, *squash))

    def to(self, device: torch.device | str) -> Classifier:
        """The classifier itself, whose network now stands on ``device``."""
        self.network.to(device)
        return self


@runtime_checkable
class KnowsFiles(Protocol):
    """A classifier whose answer also depends on the names of the images' files."""

    def of_files(self, files: Sequence[str]) -> Classifier:
        """The classifier of the images of ``files``, in their order."""
        ...


class Source(Protocol):
    """Loader of the classifier ``source:name`` by its ``name``.

    It raises ``ModelError`` on failure.
    """

    def __call__(self, name: str) -> Classifier: ...


def vocabulary(classifiers: Sequence[Classifier]) -> tuple[str, ...]:
    """Class names of the first classifier that has them."""
    return next((classifier.class_names for classifier in classifiers if classifier.class_names), ())


def common_classes(classifiers: Sequence[Classifier]) -> int:
    """Number of classes of all ``classifiers``. Raises ``ModelError`` if they differ."""
    if len({each.classes for each in classifiers}) > 1:
        listed = ", ".join(f"{each.name} has {each.classes}" for each in classifiers)
        raise ModelError(f"the surrogates do not have the same classes: {listed}")
    return classifiers[0].classes


def as_surrogates(classifiers: Sequence[Classifier], precision: torch.dtype) -> list[Classifier]:
    """The same ``classifiers`` ``in_one_order``, to be attacked in ``precision``."""
    return [replace(each, precision=precision) for each in in_one_order(classifiers)]


def in_one_order(classifiers: Sequence[Classifier]) -> list[Classifier]:
    """The same ``classifiers``, with logits in the class order of the first that has names.

    Names decide which classes are the same. A classifier without names is taken as it is. Raises
    ``ModelError`` if the numbers of classes differ, or if a class of one is unknown to another.
    """
    common_classes(classifiers)
    names = vocabulary(classifiers)
    ordered = [in_order_of(names, each) for each in classifiers]
    for classifier in ordered:
        unknown = [name or str(label) for label, name in enumerate(names) if not classifier.knows(label)]
        if unknown:
            first = next(each.name for each in classifiers if each.class_names)
            others = f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""
            raise ModelError(
                f"the surrogates do not have the same classes: {first} knows '{unknown[0]}'{others}, and "
                f"{classifier.name} has no class of that name, or several; name the classes alike"
            )
    return ordered


def in_order_of(names: Sequence[str], classifier: Classifier) -> Classifier:
    """``classifier`` with logits in the order of the classes ``names``.

    Its classes that are none of ``names`` follow in their own order. A class that it does not have
    gets the logit -inf, and ``knows`` is false for it. Its name and its fingerprint stay. Names are
    compared by ``names.positions``; without names, on either side, classes go by number.

    Raises ``ModelError`` if no name is common.
    """
    own = classifier.class_names
    if not names or not own or classifier.order is not None:
        return classifier
    found = positions(names, own)
    if max(found) < 0:
        raise ModelError(
            f"{classifier.name} has none of the classes: it knows {_some(own)}, and the classes are {_some(names)}; "
            "give it the same names, or none"
        )
    if found == tuple(range(len(own))):
        return classifier
    extra = tuple(place for place in range(len(own)) if place not in set(found))
    called = (*names, *(own[place] for place in extra))
    return replace(classifier, classes=len(called), class_names=called, order=ClassOrder((*found, *extra), own))


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (", …" if len(names) > 3 else "")


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third
