"""A comparison whose judges stand behind defences, all of them or some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attnshift.recipes.reading import load_recipe
from attnshift.report.curve_page import write_comparison
from attnshift.report.curves import measure_comparison
from attnshift.results.store import Store
from attnshift.studies.comparison import Compared, ComparisonSettings, compare_recipes
from attnshift.studies.entrants import Entrant
from small_runs import SHORT_PATH, SURROGATE, contents
from tables import records

JUDGE, OTHER = "random:test_convnext", "random:test_efficientnet"
DEFENDED = (f"jpeg(quality=20)+{JUDGE}", f"median+{OTHER}")


def quietly(settings: ComparisonSettings) -> Compared:
    return compare_recipes(settings)


@pytest.fixture
def settings(photos: Path, pipeline_folder: Path, tmp_path: Path) -> ComparisonSettings:
    """Two recipes at one strength, two images, and judges that all have a defence."""
    short = ["optimiser.iterations=1", "finish.keep=last", SHORT_PATH]
    recipes = [load_recipe("quick", [*short, f"seed={seed}"]) for seed in (0, 1)]
    return ComparisonSettings(
        images=photos / "images",
        labels=photos / "labels.csv",
        pipeline=str(pipeline_folder),
        surrogates=(SURROGATE,),
        judges=DEFENDED,
        entrants=tuple(Entrant(f"seed-{seed}", recipe, (1.0,)) for seed, recipe in enumerate(recipes)),
        out=tmp_path / "out",
        batch=1,
        limit=2,
        threads=1,
        min_clean_accuracy=0.0,
    )


@pytest.mark.heavy
def test_defended_judges_measure_until_there_is_a_plain_one(settings: ComparisonSettings) -> None:
    compared = quietly(settings)
    comparison = measure_comparison(compared.runs, compared.judges, [0.9])
    assert (comparison.judges, comparison.aside) == (DEFENDED, ())
    runs = Store.open(settings.out / "runs" / "seed-1@1")
    assert {row["role"] for row in records(runs, "verdicts")} == {"surrogate", "defended"}
    write_comparison(settings.out, comparison)
    before = contents(settings.out)
    quietly(settings)
    assert contents(settings.out) == before, "who has judged is not asked again"

    compared = quietly(replace(settings, judges=(DEFENDED[0], JUDGE, DEFENDED[1])))
    comparison = measure_comparison(compared.runs, compared.judges, [0.9])
    assert (comparison.judges, comparison.aside) == ((JUDGE,), DEFENDED)
    # An untrained judge knows no image, and nan is not equal to itself.
    plain = measure_comparison(compared.runs, [JUDGE], [0.9])
    assert repr(comparison.lines) == repr(plain.lines), "defended judges move no figure"
    assert [line.points[0].rival is None for line in comparison.lines] == [True, False]
