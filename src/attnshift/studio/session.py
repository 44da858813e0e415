"""State of one visitor: the image, what is known of it, and the attack on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from attnshift.data.images import as_pixels, read_image
from attnshift.recipes.schema import Recipe
from attnshift.studio.networks import Networks
from attnshift.studio.readings import Attention, Guess, Verdict, find_class, judge, read_attention
from attnshift.studio.running import Finished, Order

__all__ = ["UPLOADED", "Session"]

UPLOADED = "image.png"
"""Name that an uploaded image gets; its own may say who its owner is."""


@dataclass(frozen=True)
class Session:
    """The clean ``pixels`` [side,side,3] of the file ``name``, its class ``label``, and what was
    read of it: under ``prompt``, with the denoising steps of a recipe.

    ``finished`` is the last attack on it.
    """

    pixels: numpy.ndarray
    name: str
    guesses: tuple[Guess, ...]
    label: int
    prompt: str
    verdicts: tuple[Verdict, ...]
    attention: Attention
    finished: Finished | None = None

    @classmethod
    def begin(cls, networks: Networks, path: Path, recipe: Recipe, name: str = UPLOADED) -> Session:
        """Read the image at ``path``, with the class that the surrogates find and the recipe's
        prompt; an ``ImageError`` where it cannot be read."""
        pixels = as_pixels(read_image(path, networks.size))
        guesses = find_class(networks, pixels)
        label = guesses[0].label
        prompt = recipe.prompt.prompt(networks.classes[label]).text
        verdicts = judge(networks, name, label, pixels)
        return cls(pixels, name, guesses, label, prompt, verdicts, read_attention(networks, recipe, prompt, pixels))

    def of_class(self, networks: Networks, label: int, recipe: Recipe) -> Session:
        """The same image called class ``label``, under the recipe's prompt."""
        verdicts = judge(networks, self.name, label, self.pixels)
        named = replace(self, label=label, verdicts=verdicts, finished=None)
        return named.under(networks, recipe.prompt.prompt(networks.classes[label]).text, recipe)

    def under(self, networks: Networks, prompt: str, recipe: Recipe) -> Session:
        """The same image under another ``prompt``."""
        attention = read_attention(networks, recipe, prompt, self.pixels)
        return replace(self, prompt=prompt, attention=attention, finished=None)

    def order(self, networks: Networks, recipe: Recipe, mask: numpy.ndarray | None) -> Order:
        """The attack on this image by ``recipe``."""
        name = networks.classes[self.label]
        return Order(self.pixels, self.name, self.label, name, self.prompt, recipe, mask)

    def after(self, finished: Finished) -> Session:
        """The same with the attack that has ``finished``."""
        return replace(self, finished=finished)
