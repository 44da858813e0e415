"""What all adapters share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attnshift.adapters.wrapped import Attacker
from attnshift.errors import RecipeError

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion


def test_a_recipe_of_pixels_is_refused_with_the_class_that_takes_it(backbone: StableDiffusion) -> None:
    with pytest.raises(RecipeError, match=r"recipe 'mifgsm' attacks pixels; use attnshift\.PixelAttack"):
        Attacker.of(backbone, "mifgsm", ["mug"], 1)
