"""A shape other than the annotated one is an error under ``shapes.checked``."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from attnshift.ensemble.transforms import Noise
from attnshift.losses.classification import CrossEntropy
from attnshift.randomness import generator
from attnshift.types import Branch, Goals
from shapes import checked

with_shapes = jaxtyped(typechecker=checked)
"""What the import hook puts around every function and record of the checked rooms."""


def test_a_term_refuses_another_shape() -> None:
    term, goals = with_shapes(CrossEntropy.__call__), Goals(torch.tensor([1, 2]))
    assert term(CrossEntropy(), torch.zeros(2, 5), goals).shape == (2,)
    with pytest.raises(TypeCheckError, match="batch classes"):
        term(CrossEntropy(), torch.zeros(2, 5, 1), goals)


@with_shapes
def summed(values: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    return values.sum()


def test_a_result_of_another_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="return value"):
        summed(torch.zeros(2))


def test_a_transform_refuses_images_without_colours() -> None:
    transform = with_shapes(Noise.__call__)
    with pytest.raises(TypeCheckError, match="batch 3 height width"):
        transform(Noise(), torch.zeros(1, 1, 8, 8), [generator(0, "image")])


def test_classes_are_whole_numbers() -> None:
    with pytest.raises(TypeCheckError, match="labels"):
        with_shapes(Goals.__init__)(object.__new__(Goals), torch.tensor([1.0, 2.0]))


def test_sizes_of_one_name_are_equal_in_a_record() -> None:
    make, latents = with_shapes(Branch.__init__), torch.zeros(2, 4, 8, 8)
    make(object.__new__(Branch), latents, torch.zeros(2, 3, 64, 64), {})
    with pytest.raises(TypeCheckError, match="images"):
        make(object.__new__(Branch), latents, torch.zeros(3, 3, 64, 64), {})
