"""Which views an iteration has, and what they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.ensemble.expectation import Expectation
from attnshift.ensemble.transforms import Colour, Jpeg, Noise, ResizeAndPad, Rotate, ScaleAndShift
from attnshift.randomness import generator
from attnshift.types import RandomKey

if TYPE_CHECKING:
    import numpy

KEY = RandomKey(seed=3, ids=("left", "right"), iteration=4)


@dataclass(frozen=True)
class Shift:
    """Adds one random number to each image: shows which generator it was given."""

    def __call__(self, images: Tensor, generators: Sequence[numpy.random.Generator]) -> Tensor:
        return images + torch.tensor([each.random() for each in generators]).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Double:
    def __call__(self, images: Tensor, generators: Sequence[numpy.random.Generator]) -> Tensor:
        return 2 * images


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1)).to(dtype)


def everything(**options: int) -> Expectation:
    chain = {
        "rotate": Rotate(),
        "scale": ScaleAndShift(),
        "pad": ResizeAndPad(),
        "colour": Colour(),
        "noise": Noise(),
        "jpeg": Jpeg(),
    }
    return Expectation(**options, transforms=chain)


def test_the_first_view_is_the_image_itself() -> None:
    shown = images()
    for draws in (1, 3):
        assert everything(draws=draws).views(KEY)[0](shown) is shown


def test_by_default_there_is_one_view() -> None:
    assert len(Expectation().views(KEY)) == 1


def test_as_many_views_as_draws() -> None:
    assert [len(everything(draws=draws).views(KEY)) for draws in (1, 2, 5)] == [1, 2, 5]


@pytest.mark.parametrize(("every", "counts"), [(1, [3, 3, 3, 3, 3]), (2, [3, 1, 3, 1, 3]), (3, [3, 1, 1, 3, 1])])
def test_only_the_image_itself_between(every: int, counts: list[int]) -> None:
    expectation = everything(draws=3, every=every)
    assert [len(expectation.views(replace(KEY, iteration=iteration))) for iteration in range(5)] == counts


def test_each_view_names_its_generators() -> None:
    views = Expectation(draws=3, transforms={"first": Shift(), "second": Shift()}).views(KEY)
    for number in (1, 2):
        sums = [
            generator(3, id, 4, "eot", number, "first").random() + generator(3, id, 4, "eot", number, "second").random()
            for id in KEY.ids
        ]
        expected = images() + torch.tensor(sums).view(2, 1, 1, 1)
        torch.testing.assert_close(views[number](images()), expected.float())


def test_transforms_follow_one_another_in_their_order() -> None:
    shift = generator(3, "left", 4, "eot", 1, "shift").random()
    chains = [{"shift": Shift(), "double": Double()}, {"double": Double(), "shift": Shift()}]
    sums = [Expectation(draws=2, transforms=chain).views(KEY)[1](torch.zeros(2, 3, 1, 1))[0, 0] for chain in chains]
    assert float(sums[0]) == pytest.approx(2 * shift)
    assert float(sums[1]) == pytest.approx(shift)


def test_a_view_gives_the_same_whenever_it_is_called() -> None:
    views = everything(draws=3).views(KEY)
    before = [view(images()) for view in views]
    again = [view(images()) for view in reversed(everything(draws=3).views(KEY))][::-1]
    for view, first, other in zip(views, before, again, strict=True):
        assert torch.equal(view(images()), first)
        assert torch.equal(other, first)


@pytest.mark.parametrize("change", [{"seed": 4}, {"iteration": 5}, {"ids": ("left", "other")}], ids=str)
def test_another_seed_iteration_or_id_is_another_view(change: dict[str, object]) -> None:
    (_, before), (_, after) = (
        everything(draws=2).views(key)
        for key in (KEY, replace(KEY, **change))  # type: ignore[arg-type]
    )
    differs = (before(images()) - after(images())).abs().mean((1, 2, 3)) > 0.01
    assert differs.tolist() == ["ids" not in change, True]


def test_views_differ_and_more_of_them_change_none() -> None:
    few, many = (everything(draws=draws).views(KEY) for draws in (3, 4))
    assert torch.equal(few[1](images()), many[1](images()))
    seen = [view(images()) for view in many]
    for left in range(4):
        for right in range(left):
            assert ((seen[left] - seen[right]).abs().mean((1, 2, 3)) > 0.01).all()


def test_an_image_has_the_same_view_in_any_batch() -> None:
    together = everything(draws=2).views(KEY)[1](images())
    alone = everything(draws=2).views(replace(KEY, ids=("right",)))[1](images()[1:])
    assert (alone[0] - together[1]).norm() < 1e-5 * together[1].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_views_keep_shape_and_type(dtype: torch.dtype) -> None:
    for view in everything(draws=2).views(KEY):
        seen = view(images(dtype))
        assert seen.dtype == dtype
        assert seen.shape == (2, 3, 20, 20)


def test_views_follow_the_device() -> None:
    for view in everything(draws=2).views(KEY):
        assert view(torch.zeros(2, 3, 20, 20, device="meta")).device.type == "meta"


def test_gradient_passes_through_the_whole_chain() -> None:
    for view in everything(draws=3).views(KEY):
        leaf = images().requires_grad_()
        (found,) = torch.autograd.grad(view(leaf).square().sum(), leaf)
        assert found.isfinite().all()
        assert (found.flatten(1).abs().sum(1) > 0).all()
