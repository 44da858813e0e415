"""What is refused before a study starts: who may not decide, and numbers that cannot be meant."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attnshift.errors import ModelError, UserError
from attnshift.execution.settings import Inputs
from attnshift.studies import tuning
from attnshift.studies.tuning import Choices, TuningSettings, tune_recipe
from small_runs import write_labels
from small_studies import LOSS, RATE, SEARCH, SURROGATE, TUNING, Make, silent

if TYPE_CHECKING:
    from attnshift.recipes.schema import Recipe


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ((), "no classifier decides"),
        ((SURROGATE,), f"{SURROGATE} cannot be a tuning classifier: it is a surrogate"),
        ((f"jpeg+{SURROGATE}",), f"{SURROGATE} cannot be a tuning classifier: it is a surrogate"),
        ((TUNING, TUNING), f"`tuning` names {TUNING} twice"),
        (("lab:coatnet",), "lab:coatnet cannot be a tuning classifier: it is one of the lab's judges"),
        (("jpeg+lab:coatnet",), "lab:coatnet cannot be a tuning classifier: it is one of the lab's judges"),
        ((TUNING, "lab:robust"), "lab:robust cannot be a tuning classifier"),
    ],
)
def test_who_may_not_decide(make: Make, instant: list[Recipe], names: tuple[str, ...], complaint: str) -> None:
    settings = make(tuning=names)
    with pytest.raises(UserError, match=complaint):
        tune_recipe(settings, silent)
    assert not settings.out.exists()


def test_a_classifier_that_knows_no_image_cannot_decide(make: Make, instant: list[Recipe]) -> None:
    settings = make(surrogates=(TUNING,), tuning=(SURROGATE,))
    with pytest.raises(ModelError, match=f"{SURROGATE} sees none of the clean images"):
        tune_recipe(settings, silent)
    assert not settings.out.exists()


def test_a_classifier_with_other_classes_cannot_decide(make: Make, instant: list[Recipe]) -> None:
    said = "lab:mobilenet has 10 classes, the surrogates have 1000, and 8 of its names are not among theirs"
    with pytest.raises(ModelError, match=said):
        tune_recipe(make(tuning=("lab:mobilenet",)), silent)


@pytest.mark.parametrize(
    "change", [{"trials": 0}, {"floor": 1.5}, {"floor": math.nan}, {"seed": -1}, {"size": 3}, {"surrogates": ()}]
)
def test_numbers_that_cannot_be_meant(make: Make, instant: list[Recipe], change: dict[str, Any]) -> None:
    settings = make(**change)
    with pytest.raises(UserError, match=next(iter(change)).removesuffix("s")):
        tune_recipe(settings, silent)
    assert not settings.out.exists()


def test_without_optuna(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'attnshift\[tune\]'"):
        tune_recipe(make(), silent)


def test_a_wrong_label_file_is_named(make: Make, instant: list[Recipe], photos: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path, [("photo-3.png", 1000, "mug")])
    with pytest.raises(UserError, match="label 1000 is out of range"):
        tune_recipe(make(labels=labels), silent)


def test_a_target_that_cannot_be_is_refused_before_anything_is_written(make: Make, instant: list[Recipe]) -> None:
    for settings, complaint in (
        (make(target="goldfihs"), "`target`: target 'goldfihs' is neither .*; did you mean 'goldfish'"),
        (
            make(target="1", changes=("classification.loss=distribution",), search={RATE: SEARCH[RATE]}),
            "aims at no class",
        ),
        (make(target="1", search={LOSS: Choices(choices=("distribution", "margin"))}), 'loss = "distribution" cannot'),
    ):
        with pytest.raises(UserError, match=complaint):
            tune_recipe(settings, silent)
        assert not settings.out.exists()
    assert not instant


def test_settings_are_all_used() -> None:
    """A field that nothing reads would be an option that does nothing; an attack's inputs are handed to the attack."""
    folder = Path(tuning.__path__[0])
    source = "".join(module.read_text(encoding="utf-8") for module in folder.glob("*.py"))
    own = TuningSettings.__dataclass_fields__.keys() - Inputs.__dataclass_fields__.keys()
    assert "settings_with(settings," in source
    assert all(f"settings.{name}" in source for name in own)
