"""Records of a batch: every field says what it holds, and images that leave take all of it along."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

from attnshift.attack.balance import Balance
from attnshift.attack.loop import AttackState
from attnshift.attack.optimiser import AdamW, Descent
from attnshift.attack.prepare import Observer, PreparedBatch
from attnshift.attack.rendering import Background, Renderer
from attnshift.batching import batch_record, constant, per_image, select_rows
from attnshift.diffusion.backbone import Probe
from attnshift.diffusion.denoising import Boundary, InterferenceText, Trajectory
from attnshift.ensemble.momentum import Momentum
from attnshift.ensemble.surrogates import Surrogates
from attnshift.types import Branch, Goals, Interference, Observation, RandomKey

RECORDS = (
    AdamW, AttackState, Background, Boundary, Branch, Descent, Goals, Balance, Interference, InterferenceText, Momentum,
    Observation, Observer, PreparedBatch, Probe, RandomKey, Renderer, Surrogates, Trajectory,
)  # fmt: skip


@batch_record
class Inner:
    labels: Tensor = per_image()
    name: str = constant(default="inner")


@batch_record
class Outer:
    """One field of every kind."""

    images: Tensor = per_image()
    margins: Tensor = per_image(axis=1)
    phrases: tuple[str, ...] = per_image()
    steps: tuple[Tensor, ...] = per_image(depth=1)
    maps: dict[str, tuple[Tensor, ...]] = per_image(depth=2)
    states: dict[str, tuple[Tensor, ...]] = per_image(depth=1)
    inner: Inner = per_image()
    absent: Tensor | None = per_image(default=None)
    seed: int = constant(default=7)


def outer() -> Outer:
    numbers = torch.arange(3)
    return Outer(
        images=numbers.float(),
        margins=torch.stack([numbers, 10 + numbers]),
        phrases=("a", "b", "c"),
        steps=(numbers, 10 + numbers),
        maps={"site": (numbers, 10 + numbers)},
        states={"term": (torch.zeros(1), torch.ones(2), torch.full((3,), 2.0))},
        inner=Inner(numbers),
    )


@pytest.mark.parametrize(("keep", "expected"), [(torch.tensor([2, 0]), [2, 0]), (slice(1, 3), [1, 2])])
def test_every_kind_of_field_is_cut(keep: Tensor | slice, expected: list[int]) -> None:
    part = select_rows(outer(), keep)
    assert part.images.tolist() == expected
    assert part.margins.tolist() == [expected, [10 + each for each in expected]]
    assert part.phrases == tuple("abc"[each] for each in expected)
    assert [each.tolist() for each in part.steps] == [expected, [10 + each for each in expected]]
    assert [each.tolist() for each in part.maps["site"]] == [expected, [10 + each for each in expected]]
    assert [len(each) for each in part.states["term"]] == [each + 1 for each in expected]
    assert part.inner.labels.tolist() == expected
    assert part.inner.name == "inner"
    assert part.absent is None
    assert part.seed == 7


def test_the_whole_record_stays_as_it_is() -> None:
    whole = outer()
    select_rows(whole, torch.tensor([1]))
    assert whole.images.tolist() == [0, 1, 2]


def test_a_field_that_does_not_say_what_it_holds_is_refused_with_the_class() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.labels is declared neither per_image\(\) nor constant\(\)"):

        @batch_record
        class Forgetful:
            images: Tensor = per_image()
            labels: Tensor


def test_a_record_that_is_no_batch_record_is_refused() -> None:
    @dataclass(frozen=True)
    class Plain:
        labels: Tensor

    with pytest.raises(TypeError, match=r"Plain\.labels is declared neither"):
        select_rows(Plain(torch.arange(3)), torch.tensor([0]))

    @batch_record
    class Around:
        plain: Plain = per_image()

    with pytest.raises(TypeError, match=r"Plain\.labels is declared neither"):
        select_rows(Around(Plain(torch.arange(3))), torch.tensor([0]))


@pytest.mark.parametrize("record", RECORDS)
def test_tensors_of_our_records_belong_to_images(record: type) -> None:
    """A constant tensor would be the only one that is allowed to have no entry for each image, and there is none."""
    constants = [each for each in fields(record) if each.metadata["attnshift.batching"] is None]
    assert not [each.name for each in constants if str(each.type).startswith(("Tensor", "tuple[Tensor"))]
