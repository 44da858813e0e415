"""What may be searched: what a search file may say, and values that no recipe takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attnshift.errors import RecipeError
from attnshift.studies.tuning import Choices, Range, Search, read_search, tune_recipe
from small_studies import Make, searched, silent

if TYPE_CHECKING:
    from attnshift.recipes.schema import Recipe


def test_a_search_space_is_read_in_the_order_of_its_keys(tmp_path: Path) -> None:
    search = searched(
        tmp_path,
        """
        ["terms.entropy.weight"]
        low = 0.05
        high = 1.0
        log = true
        [finish]
        choices = [true, false]
        ["optimiser.iterations"]
        low = 10
        high = 40
        step = 10
        ["classification.loss"]
        choices = ["cross_entropy", "margin"]
        ["classification.weight"]
        low = 1
        high = 2.5
        """,
    )
    assert list(search) == sorted(search)
    assert search == {
        "classification.loss": Choices(choices=("cross_entropy", "margin")),
        "classification.weight": Range(low=1, high=2.5),
        "finish": Choices(choices=(True, False)),
        "optimiser.iterations": Range(low=10, high=40, step=10),
        "terms.entropy.weight": Range(low=0.05, high=1.0, log=True),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no key"),
        ("[a", "not valid TOML"),
        ('["terms.x.weight"]\nlow = 1.0\nhigh = 1.0', r"terms\.x\.weight: .*low must lie below high"),
        ('["terms.x.weight"]\nlow = 0.0\nhigh = 1.0\nlog = true', r"terms\.x\.weight: .*above 0"),
        ('["terms.x.weight"]\nlow = 0.5', r"terms\.x\.weight: high: Field required"),
        ('["terms.x.weight"]\nlow = 0.5\nhigh = inf', r"terms\.x\.weight: high.*finite"),
        ('["terms.x.weight"]\nlow = true\nhigh = 2', r"terms\.x\.weight: low: .*finite number \(got True\)"),
        ('["terms.x.weight"]\nlow = "1"\nhigh = 2', r"terms\.x\.weight: low: .*finite number \(got '1'\)"),
        ('["terms.x.weight"]\nlow = nan\nhigh = 2.0', r"terms\.x\.weight: low: .*finite number"),
        ('["terms.x.weight"]\nlow = 1\nhigh = 2\nlogarithmic = true', r"terms\.x\.weight: logarithmic"),
        ('["terms.x.weight"]\nlow = 1.0\nhigh = 2.0\nstep = 1', r"terms\.x\.weight: .*step must divide"),
        ('["terms.x.weight"]\nlow = 1\nhigh = 8\nstep = 2', r"terms\.x\.weight: .*step must divide"),
        ('["terms.x.weight"]\nlow = 1\nhigh = 9\nstep = 2\nlog = true', r"terms\.x\.weight: .*step must divide"),
        ('["terms.x.form"]\nchoices = ["share"]', r"terms\.x\.form: choices.*at least 2"),
        ('["terms.x.form"]\nchoices = [[1], [2]]', r"terms\.x\.form: choices\.0: .*must be a text"),
        ('["terms.x.form"]\nchoices = 3', r"terms\.x\.form: choices: "),
        ('["terms.x.form"]\nchoices = ["share", "share"]', r"terms\.x\.form: .*must differ"),
        ('["terms.x.form"]\nchoices = [1, true]', r"terms\.x\.form: .*must differ"),
        ('["terms.x.form"]\nchoices = ["share", "log"]\nlow = 1', r"terms\.x\.form: low"),
        ('["terms.x.form"]\nchoices = [2020-01-01, 2020-01-02]', r"terms\.x\.form: .*dates"),
        ("[terms.x]\nlow = 1\nhigh = 2", r"terms.*in quotes"),
        ("weight = 2", r"weight is 2; expected a table"),
        ('["terms..weight"]\nlow = 1\nhigh = 2', r"terms\.\.weight.*not a dotted key"),
        ('["a=b"]\nlow = 1\nhigh = 2', "a=b.*not a dotted key"),
        ("[seed]\nlow = 1\nhigh = 2", "seed .*cannot be searched"),
        ("[tuned_on]\nchoices = [1, 2]", "tuned_on .*cannot be searched"),
    ],
)
def test_what_is_no_search_space_is_refused_by_its_key(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint) as caught:
        searched(tmp_path, text)
    assert "search.toml" in str(caught.value)


def test_a_search_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such search space file"):
        read_search(tmp_path / "search.toml")


@pytest.mark.parametrize(
    ("space", "value", "placed"),
    [
        (Range(low=1, high=9), 3.0, 3),
        (Range(low=1, high=9), 3.5, None),
        (Range(low=1, high=9, step=2), 4, None),
        (Range(low=1, high=9, step=2), 5, 5),
        (Range(low=1.0, high=9.0), 3, 3.0),
        (Range(low=1.0, high=9.0), 9.5, None),
        (Range(low=0, high=9), True, None),
        (Range(low=0, high=9), "3", None),
        (Range(low=0, high=9), None, None),
        (Choices(choices=("share", "log")), "log", "log"),
        (Choices(choices=("share", "log")), "raw", None),
        (Choices(choices=(1, 2)), True, None),
        (Choices(choices=(10, 20)), 10.0, 10),
    ],
)
def test_where_a_value_of_the_recipe_lies(space: Range | Choices, value: object, placed: object) -> None:
    found = space.place(value)
    assert found == placed
    assert type(found) is type(placed)


@pytest.mark.parametrize(
    ("key", "space", "named"),
    [
        ("optimiser.learning_rate", Range(low=-0.5, high=0.5), "optimiser.learning_rate = -0.5"),
        ("optimiser.learning_rat", Range(low=0.1, high=0.5), "optimiser.learning_rat = 0.1"),
        ("optimiser.iterations", Range(low=1.5, high=2.5), "optimiser.iterations = 1.5"),
        ("terms.varience.weight", Range(low=0.0, high=1.0), "did you mean 'variance'"),
        ("classification.loss", Choices(choices=("cross_entropy", "hinge")), 'classification.loss = "hinge"'),
        ("diffusion.denoising_steps", Range(low=2, high=21), "diffusion.denoising_steps = 21"),
    ],
)
def test_a_value_that_no_recipe_takes_is_refused_before_anything_is_written(
    make: Make, instant: list[Recipe], key: str, space: Range | Choices, named: str
) -> None:
    settings = make(search={key: space})
    with pytest.raises(RecipeError, match=r"^search space: ") as caught:
        tune_recipe(settings, silent)
    assert named in str(caught.value)
    assert not settings.out.exists()
    assert not instant


def test_the_options_of_a_term_that_the_preset_lacks_are_checked(make: Make, instant: list[Recipe]) -> None:
    space: Search = {
        "terms.contrast.form": Choices(choices=("share", "shares")),
        "terms.contrast.weight": Range(low=0.0, high=1.0),
    }
    with pytest.raises(RecipeError, match=r'terms\.contrast\.form = "shares"'):
        tune_recipe(make(search=space), silent)
