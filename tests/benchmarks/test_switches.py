"""The switches of ``quick``: what is compared, that a sitting continues, and how it is read and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import table
import torch

from attnshift.recipes.reading import load_recipe
from later import later

if TYPE_CHECKING:
    from models import Model
    from pieces import Prepared

switches = later("switches")
models = later("models")
pieces = later("pieces")

SHORT = ("optimiser.iterations=1", "diffusion.denoising_steps=2")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Model:
    """One image at a time."""
    monkeypatch.setattr(models.Model, "batch", 1)
    return models.build("tiny")


@pytest.fixture(scope="module")
def lab() -> Model:
    torch.set_num_threads(1)
    return models.build("lab")


def test_each_variant_changes_one_thing_of_what_it_is_compared_with() -> None:
    for name, variant in switches.VARIANTS.items():
        recipe, plain = (
            each.recipe().model_dump(mode="json") for each in (variant, switches.VARIANTS[variant.against])
        )
        changed = [key for key in recipe if recipe[key] != plain[key]]
        assert len(changed) == (2 if name == "null-text" else 0 if name in ("quick", "bf16") else 1), name
        assert list(switches.VARIANTS).index(variant.against) <= list(switches.VARIANTS).index(name)
    assert switches.VARIANTS["quick"].recipe() == load_recipe("quick")
    assert switches.VARIANTS["views-2"].recipe().expectation == load_recipe("nearest").expectation


def test_what_is_compared_comes_along() -> None:
    assert switches.with_references(["views-4", "steps-3", "compiled"]) == ["quick", "steps-3", "views-1", "views-4"]
    assert switches.with_references(["compiled"]) == []


@pytest.mark.heavy
def test_finished_batches_are_not_done_again_and_give_the_same_figures(
    lab: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    attacked = switches.attacked

    def counted(*given: Any) -> Any:
        calls.append(given[3].name)
        return attacked(*given)

    monkeypatch.setattr(switches, "attacked", counted)

    def sitting(
        *names: str,
        strengths: tuple[float, ...] = (1.0,),
        settings: tuple[str, ...] = SHORT,
        surrogates: tuple[str, ...] = ("lab:resnet",),
    ) -> Any:
        calls.clear()
        return switches.figures(switches.attack_all(lab, names, strengths, surrogates, 1, tmp_path, settings), [0.99])[
            "variants"
        ]

    first = sitting("quick", "bf16", strengths=(0.5, 1.0))
    # One attack warms everything up.
    assert len(calls) == 1 + 4
    assert sitting("quick", "bf16", strengths=(0.5, 1.0)) == first
    assert not calls
    # A new variant is timed against its reference of the same sitting.
    more = sitting("quick", "bf16", "guided")
    assert len(calls) == 1 + 2
    assert [row["switch"] for row in more] == [switches.VARIANTS[name].title for name in ("quick", "bf16", "guided")]
    stored = json.loads((tmp_path / "guided_1_0.json").read_text())
    assert stored["reference"] != json.loads((tmp_path / "quick_1_0.json").read_text())["seconds"]
    assert [row["times_as_fast"] for row in more[:2]] == [row["times_as_fast"] for row in first]
    # Another recipe is another attack, and so is another surrogate.
    sitting("quick", settings=(*SHORT, "terms.variance.weight=1.0"))
    assert len(calls) == 1 + 1
    sitting("quick", settings=(*SHORT, "terms.variance.weight=1.0"), surrogates=("lab:mobilevit",))
    assert len(calls) == 1 + 1


def test_images_are_held_out_and_in_8_bits() -> None:
    tasks = switches.lab_tasks(0, 3, 64)
    images = torch.stack([task.image for task in tasks])
    assert torch.equal((images * 255).round() / 255, images)
    assert len({task.id for task in tasks} | {task.id for task in switches.lab_tasks(3, 5, 64)}) == 5
    tiny = models.Model("tiny", None, 64, "cpu")
    tuning = torch.stack([task.image for task in tiny.tasks(3, lambda shown: torch.zeros(len(shown), 9))])
    assert (images - tuning).abs().amax((1, 2, 3)).min() > 0.1


SAME = ("all-levels", "projected-once")
"""Switches with the same numbers, but for the one that needs a compiler."""


def test_every_switch_with_the_same_numbers_is_tested() -> None:
    assert list(switches.SAME) == [*SAME, "compiled"]


@pytest.mark.heavy
@pytest.mark.parametrize("name", SAME)
def test_what_has_the_same_numbers_is_checked_and_timed(tiny: Model, name: str) -> None:
    (row,) = switches.same_numbers(tiny, 1, [name])
    assert row["times_as_fast"] > 0
    assert row["difference"] <= 1e-3


@pytest.mark.heavy
def test_keys_and_values_are_projected_once() -> None:
    case = pieces.Prepared.of(models.build("tiny"), "quick")
    work, changed = switches.SAME["projected-once"].work(case)
    projections = [each for each in changed.batch.render.backbone.unet.modules() if isinstance(each, switches.Kept)]  # type: ignore[attr-defined]
    done = []
    for each in projections:
        each.projection.register_forward_hook(lambda *_: done.append(1))
    work()
    work()
    assert len(done) == len(projections) > 0
    # The networks that were there are left as they were.
    assert not any(isinstance(each, switches.Kept) for each in case.model.backbone.unet.modules())


@pytest.mark.heavy
def test_other_numbers_are_not_timed(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(case: Prepared) -> tuple[Any, Prepared]:
        moved = pieces.Prepared(
            case.model,
            case.classifiers,
            case.tasks,
            case.batch,
            case.latents + 0.1,
        )
        return moved.ours, moved

    monkeypatch.setitem(switches.SAME, "channels-last", switches.Same("other", "iteration", other))
    with pytest.raises(AssertionError, match="channels-last: the gradients differ by"):
        switches.same_numbers(tiny, 1, ["channels-last"])


@pytest.mark.heavy
def test_what_cannot_be_done_says_why(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Any:
        def run(*_: object, **__: object) -> Any:
            raise RuntimeError("no compiler\nand more")

        return run

    monkeypatch.setattr(torch, "compile", failing)
    assert switches.same_numbers(tiny, 1, ["compiled"]) == [
        {
            "switch": switches.SAME["compiled"].title,
            "timed": "iteration",
            "times_as_fast": None,
            "reason": "no compiler",
        }
    ]


def test_the_table_holds_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"success": [0.5, 0.25, 0.75], "gap": [-0.125, -0.25, 0.0], "reason": ""}
    unknown = {"success": None, "gap": None, "reason": "stays above"}
    measured = {
        "variants": [
            {"switch": "plain", "against": "plain", "times_as_fast": 1.0, "readings": {"0.9": known, "0.95": unknown}},
            {
                "switch": "2 steps",
                "against": "plain",
                "times_as_fast": 1.625,
                "readings": {"0.9": known, "0.95": unknown},
            },
        ],
        "same": [
            {"switch": "other", "timed": "iteration", "times_as_fast": 1.125},
            {"switch": "compiled", "timed": "iteration", "times_as_fast": None, "reason": "no compiler"},
        ],
        "at": [0.9, 0.95],
    }
    facts = {"processor": "a processor", "device": "cpu", "cores": 2, "torch": "2", "threads": 1, "images": 64}
    lab = {"switches": measured, "measured": {"switches": facts}}
    monkeypatch.setattr(table, "read", lambda device: {"lab": lab} if device == "cpu" else {})
    shown = "\n".join(map(table.markdown, table.PAGES))
    assert "| plain | plain | 1.00 | 50 % [25, 75] |  | stays above |  |" in shown
    assert "| 2 steps | plain | 1.62 | 50 % [25, 75] | -12 % [-25, +0] | stays above |  |" in shown
    assert "| other | `quick` as it is | 1.12 (iteration) | same images |  | same images |  |" in shown
    assert "| compiled | `quick` as it is | unavailable: no compiler | same images |  | same images |  |" in shown
    assert "lab: threads 1, images 64.\n\nMeasured by `python benchmarks/switches.py`." in shown
