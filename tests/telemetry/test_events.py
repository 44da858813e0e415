"""Events are plain values, made from what the attack and its rows hold."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import torch

from attnshift.attack.loop import Snapshot
from attnshift.results.rows import ResultRow
from attnshift.telemetry import ImageDone, Iteration
from attnshift.testing.recorded import RECORDED


def snapshot(losses: bool) -> Snapshot:
    """Images 0 and 2 of three; values say which image and which model they belong to."""
    state: Any = None
    return Snapshot(
        iteration=4,
        rows=torch.tensor([0, 2]),
        latents=torch.zeros(2, 1, 1, 1),
        images=torch.zeros(2, 3, 1, 1),
        losses={"classification": torch.tensor([0.5, 2.5]), "structure": torch.tensor([0.25, 2.25])} if losses else {},
        margins=torch.tensor([[10.0, 12.0], [20.0, 22.0]]),
        weights=torch.tensor([[0.5, 0.25], [0.5, 0.75]]),
        state=state,
    )


def test_iteration_names_the_images_that_are_left_and_keeps_models_and_images_apart() -> None:
    event = Iteration.of(7, ["a", "b", "c"], ["one", "two"], snapshot(losses=True))
    assert event == Iteration(
        batch=7,
        ids=("a", "c"),
        iteration=4,
        losses={"classification": (0.5, 2.5), "structure": (0.25, 2.25)},
        margins={"one": (10.0, 12.0), "two": (20.0, 22.0)},
        shares={"one": (0.5, 0.25), "two": (0.5, 0.75)},
    )


def test_after_the_last_update_there_are_margins_alone() -> None:
    event = Iteration.of(0, ["a", "b", "c"], ["one", "two"], snapshot(losses=False))
    assert event.losses == event.shares == {}
    assert event.margins["two"] == (20.0, 22.0)


def test_image_is_fooled_where_every_surrogate_is() -> None:
    margins = {"attack": (-1.0, -0.5)}
    row = ResultRow(
        "a", "a.png", 1, "mug", surrogates=("one", "two"), seconds=2.0, iteration=3, evaluated=5, margins=margins
    )
    event = ImageDone.of(row)
    assert event == ImageDone("a", "a.png", "mug", None, 2.0, 3, 5, {"one": -1.0, "two": -0.5}, True)
    assert not ImageDone.of(replace(row, margins={"attack": (-1.0, 0.0)})).fooled
    wrong = ImageDone.of(replace(row, known=(True, False)))
    assert (wrong.fooled, wrong.unknown, wrong.succeeds_on) == (False, ("two",), 1)
    earlier = replace(row, margins=margins | {"clean": (2.0, -0.1)})
    assert ImageDone.of(earlier).unknown == ("two",)
    assert ImageDone.of(replace(earlier, target=0)).unknown == ()
    assert ImageDone.of(replace(row, target=0, target_name="ball")).target_name == "ball"


def test_events_cross_processes() -> None:
    # As text, since NaN equals nothing.
    assert repr(pickle.loads(pickle.dumps(RECORDED))) == repr(RECORDED)
