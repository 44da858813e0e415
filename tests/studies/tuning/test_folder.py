"""Which study a folder holds: the same one is continued, another one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attnshift.classifiers import load_classifier
from attnshift.errors import RunError
from attnshift.studies.tuning import Range, tune_recipe
from small_runs import contents, write_photos
from small_studies import LOSS, RATE, SEARCH, TUNING, Make, searched, silent, without_seconds

if TYPE_CHECKING:
    from attnshift.recipes.schema import Recipe


@pytest.mark.heavy
def test_a_search_space_in_another_order_is_the_same_one(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    text = ['[""]', f'["{RATE}"]\nlow = 0.001\nhigh = 0.5\n', f'["{LOSS}"]\nchoices = ["margin", "cross_entropy"]\n']
    one, two = (searched(tmp_path, "\n".join(order)) for order in (text[1:], text[:0:-1]))
    first = tune_recipe(make(search=one), silent)
    assert without_seconds(tune_recipe(make(search=two), silent)) == without_seconds(first)


@pytest.mark.heavy
def test_another_study_in_the_same_folder_is_refused(make: Make, instant: list[Recipe]) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"floor": 0.5}, "floor: 0.5, not 0.9"),
        ({"seed": 3}, "seed: 3, not 0"),
        ({"search": {**SEARCH, RATE: Range(low=0.001, high=0.4, log=True)}}, f"search.{RATE}: "),
        ({"search": {RATE: SEARCH[RATE]}}, f"search.{LOSS}: None, not "),
        ({"changes": ("optimiser.iterations=3",)}, "recipe.optimiser.iterations: 3, not 2"),
        ({"surrogates": ("random:test_efficientnet",)}, "surrogates: "),
        ({"batch": 1}, "batch: 1, not 2"),
        ({"target": "1"}, "items: "),
    ]
    tune_recipe(make(trials=1), silent)
    before = contents(make().out)
    for change, named in changes:
        with pytest.raises(RunError, match="holds another study") as caught:
            tune_recipe(make(**change), silent)
        assert named in str(caught.value)
    assert contents(make().out) == before


def test_trials_on_other_images_are_refused(make: Make, instant: list[Recipe]) -> None:
    """A run takes them in; a study would compare scores of different images."""
    tune_recipe(make(trials=1), silent)
    with pytest.raises(RunError, match="holds another study; this one differs in items: "):
        tune_recipe(make(trials=2, limit=2), silent)


def test_another_tuning_classifier_is_refused(
    make: Make, instant: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune_recipe(make(trials=1), silent)
    twin = "random:twin"
    monkeypatch.setattr(
        "attnshift.defences.names.load_classifier", lambda name: load_classifier(TUNING if name == twin else name)
    )
    with pytest.raises(RunError, match="tuning: "):
        tune_recipe(make(tuning=(twin,)), silent)


def test_moved_images_are_the_same_images(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    tune_recipe(make(trials=1), silent)
    write_photos(tmp_path / "moved")
    moved = make(images=tmp_path / "moved" / "images", labels=tmp_path / "moved" / "labels.csv")
    assert len(tune_recipe(moved, silent).trials) == 2


def test_a_folder_that_is_no_study(make: Make, instant: list[Recipe]) -> None:
    settings = make()
    settings.out.mkdir()
    (settings.out / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not a study"):
        tune_recipe(settings, silent)
    assert set(contents(settings.out)) == {"notes.txt"}


def test_a_folder_that_was_only_begun_is_taken(make: Make, instant: list[Recipe]) -> None:
    settings = make()
    settings.out.mkdir()
    (settings.out / ".study.json.partial").write_text("{")
    assert len(tune_recipe(settings, silent).trials) == 2


def test_a_database_that_is_none(make: Make, instant: list[Recipe]) -> None:
    settings = make(trials=1)
    tune_recipe(settings, silent)
    (settings.out / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match=r"study\.db is not a study"):
        tune_recipe(settings, silent)


@pytest.mark.heavy
def test_a_folder_with_a_name_that_urls_read_otherwise(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    settings = make(out=tmp_path / "what?{x}=1 %20#", trials=1)
    tune_recipe(settings, silent)
    assert (settings.out / "study.db").is_file()
    assert len(tune_recipe(replace(settings, trials=2), silent).trials) == 2
