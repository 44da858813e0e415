"""What the networks say of an image: its class, every classifier's verdict, and where each word of
the prompt has the denoiser look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from attnshift.attention.maps import site_maps
from attnshift.attention.selection import EVERYWHERE
from attnshift.classifiers.classifier import Classifier, KnowsFiles
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import read_along
from attnshift.diffusion.inversion import invert
from attnshift.errors import ModelError, UserError
from attnshift.judging.verdicts import in_run_order
from attnshift.recipes.schema import Recipe
from attnshift.sizes import size_of
from attnshift.studio.networks import Networks
from attnshift.studio.pictures import resized_map
from attnshift.types import Site

__all__ = ["Attention", "Guess", "Verdict", "as_image", "find_class", "judge", "read_attention"]

_WORD = re.compile(r"[^\W_](?:[\w'’-]*\w)?")


@dataclass(frozen=True)
class Guess:
    """A class by name and number, and its probability."""

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class Verdict:
    """What a classifier sees in the clean image, in the attacked one, and in the one that the
    diffusion model has merely rebuilt; None before the attack.

    ``role`` is surrogate or judge. ``unable`` says why it cannot judge; then there is no answer.
    """

    classifier: str
    role: str
    label: int
    clean: Guess | None = None
    attacked: Guess | None = None
    rebuilt: Guess | None = None
    unable: str = ""

    @property
    def knows(self) -> bool:
        """Whether it is right about the clean image; only then can an attack succeed on it."""
        return self.clean is not None and self.clean.label == self.label

    @property
    def fooled(self) -> bool:
        return self.knows and self.attacked is not None and self.attacked.label != self.label

    @property
    def attributable(self) -> bool:
        """Whether the attack has fooled it, and not the rebuilding alone."""
        return self.fooled and self.rebuilt is not None and self.rebuilt.label == self.label


@dataclass(frozen=True)
class Attention:
    """Attention of an image's positions to the words of a prompt.

    ``layers`` name the cross-attention layers from the first to the last; ``maps`` hold for each of
    them [steps,heads,words,side,side].
    """

    words: tuple[str, ...]
    layers: tuple[str, ...]
    maps: tuple[numpy.ndarray, ...]

    @property
    def steps(self) -> int:
        return self.maps[0].shape[0]

    def heads(self, layer: int | None) -> int:
        """Heads of ``layer``; 0 where all layers are meant, since their heads have nothing in
        common."""
        return 0 if layer is None else self.maps[layer].shape[1]

    def map(
        self, word: int, layer: int | None = None, head: int | None = None, step: int | None = None
    ) -> numpy.ndarray:
        """The map [side,side] of a word; None stands for the mean over all layers, heads or
        steps."""
        chosen = self.maps if layer is None else self.maps[layer : layer + 1]
        means = []
        for maps in chosen:
            steps = maps if step is None else maps[step : step + 1]
            heads = steps if head is None or layer is None else steps[:, head : head + 1]
            means.append(heads[:, :, word].mean((0, 1), dtype=numpy.float32))
        side = max(each.shape[-1] for each in means)
        return numpy.mean([resized_map(each, side) for each in means], 0)


def as_image(pixels: numpy.ndarray) -> Tensor:
    """8-bit pixels [height,width,3] as an image [3,height,width] in [0,1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


@torch.no_grad()
def find_class(networks: Networks, pixels: numpy.ndarray, most: int = 3) -> tuple[Guess, ...]:
    """The classes that the surrogates find likeliest on average, the first one first."""
    image = as_image(pixels)[None].to(networks.backbone.device)
    shares = torch.stack([classifier(image).softmax(1)[0] for classifier in networks.surrogates]).mean(0)
    values, labels = shares.topk(min(most, len(shares)))
    return tuple(
        Guess(networks.classes[label], label, value)
        for value, label in zip(values.tolist(), labels.tolist(), strict=True)
    )


@torch.no_grad()
def judge(
    networks: Networks, file: str, label: int, clean: numpy.ndarray, edits: Mapping[str, numpy.ndarray] = {}
) -> tuple[Verdict, ...]:
    """Verdicts of every surrogate and judge on the image of class ``label`` in ``file``, and on its
    ``edits`` "attacked" and "rebuilt"."""
    device = networks.backbone.device
    shown = {name: as_image(each)[None].to(device) for name, each in {"clean": clean, **edits}.items()}
    roles = [*((each, "surrogate") for each in networks.surrogates), *((each, "judge") for each in networks.judges)]
    verdicts = []
    for classifier, role in roles:
        try:
            own = in_run_order(classifier, networks.surrogates, [(label, None)], ModelError)
            asked = own.of_files([file]) if isinstance(own, KnowsFiles) else own
            guesses = {name: _guess(asked, image) for name, image in shown.items()}
        except UserError as error:
            verdicts.append(Verdict(classifier.name, role, label, unable=str(error)))
        else:
            verdicts.append(
                Verdict(classifier.name, role, label, guesses["clean"], guesses.get("attacked"), guesses.get("rebuilt"))
            )
    return tuple(verdicts)


@torch.no_grad()
def read_attention(networks: Networks, recipe: Recipe, prompt: str, pixels: numpy.ndarray) -> Attention:
    """Attention to each word of ``prompt`` on the image's own inversion latents, as results measure
    it on a saved file: at each denoising step of ``recipe``, without guidance.

    Words that the text encoder has cut off are left out. A ``ModelError`` where none is left.
    """
    backbone, diffusion = networks.backbone, recipe.diffusion
    image = as_image(pixels)[None].to(backbone.device)
    side = image.shape[-1]
    schedule = backbone.noise_schedule(diffusion.schedule_steps, diffusion.denoising_steps, side)
    text, empty = backbone.embed([prompt]), backbone.embed([""])
    latents = backbone.encode(image)
    stored = invert(backbone, schedule, latents, empty, diffusion.pairing, diffusion.inversion_rounds)
    sites = EVERYWHERE.sites(backbone.sites(side), "cross", size_of(latents))
    words = _words(backbone, prompt, recipe.prompt.stream)
    if not words:
        raise ModelError("the prompt has no word that the text encoder reads; write one")
    recorded = read_along(backbone, stored, schedule, text, sites)
    maps = []
    for site in sites:
        own = [site_maps(recorded, site, EVERYWHERE, span, 0).sum(2) for _, span in words]
        maps.append(torch.stack(own, 2).cpu().numpy().astype(numpy.float16))
    return Attention(tuple(word for word, _ in words), _named(sites), tuple(maps))


def _guess(classifier: Classifier, image: Tensor) -> Guess:
    shares = classifier(image).softmax(1)[0]
    label = int(shares.argmax())
    name = classifier.class_names[label] if classifier.class_names else ""
    return Guess(name or str(label), label, float(shares[label]))


def _words(backbone: Backbone, prompt: str, stream: str) -> list[tuple[str, tuple[int, ...]]]:
    """Each word of ``prompt`` with the positions of its tokens."""
    found = []
    for match in _WORD.finditer(prompt):
        try:
            found.append((match[0], backbone.locate(prompt, match[0], match.start(), stream)))
        except ModelError:
            # The text encoder has cut it off.
            continue
    return found


def _named(sites: Sequence[Site]) -> tuple[str, ...]:
    """A name for each layer: its place, its grid, and a number where others are like it."""
    plain = [f"{site.place} {site.grid.rows} × {site.grid.columns}" for site in sites]
    counts, seen, names = Counter(plain), Counter[str](), []
    for name in plain:
        seen[name] += 1
        names.append(f"{name}, {seen[name]} of {counts[name]}" if counts[name] > 1 else name)
    return tuple(names)
