"""An inspection from the images to its page, and what is refused before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnshift.errors import RunError, UserError
from attnshift.recipes.reading import load_latent_recipe
from attnshift.report.inspection import summarise_inspection
from attnshift.report.inspection_page import inspection_data, inspection_tables, write_inspection
from attnshift.report.tables import write_tables
from attnshift.results.inspection import INSPECTION_ROWS, AlignmentRow, InspectionStore, MapRow
from attnshift.studies.inspection import InspectionSettings, inspect_attack
from attnshift.studies.inspection.settings import check_inspection, path_points
from small_runs import SHORT_PATH, SURROGATE, contents

TUNING, REFERENCE = "random:test_convnext", "random:test_efficientnet"
GIVEN = ("interference.choose=given", "interference.phrase=tree")
STEP = "diffusion.denoising_steps=1"
SHORT: dict[str, Any] = {"terms": ("l2",), "at": (0.0,)}
Make = Callable[..., InspectionSettings]


@pytest.fixture
def make(photos: Path, pipeline_folder: Path, tmp_path: Path) -> Make:
    def settings(*changes: str, **others: Any) -> InspectionSettings:
        usual: dict[str, Any] = {
            "images": photos / "images",
            "labels": photos / "labels.csv",
            "pipeline": str(pipeline_folder),
            "surrogates": (SURROGATE,),
            "tuning": (TUNING,),
            "reference": REFERENCE,
            "recipe": load_latent_recipe("fast", ["optimiser.iterations=1", SHORT_PATH, *GIVEN, *changes]),
            "terms": ("entropy",),
            "at": (0.0, 1.0),
            "batch": 2,
            "out": tmp_path / "inspection",
        }
        return InspectionSettings(**(usual | others))

    return settings


def silent(done: int, total: int) -> None:
    pass


def test_from_the_images_to_the_page(make: Make) -> None:
    told: list[tuple[int, int]] = []
    store = inspect_attack(make(STEP, limit=1), lambda *each: told.append(each)).store
    assert told == [(1, 1)]
    rows, maps = store.table(AlignmentRow), store.table(MapRow)
    assert len({row.id for row in rows}) == 1
    assert {row.iteration for row in rows} == {0, 1}
    assert {row.name for row in rows if row.kind == "direction"} == set()
    assert all(row.peak_inside is not None and 0 <= row.entropy <= 1 for row in maps)
    summary = summarise_inspection(store)
    page = write_inspection(store.folder, summary)
    assert {path.name for path in page.parent.iterdir()} == {
        "alignment.csv", "alignment.parquet", "alignment.png", "inspect.html", "inspect.json", "inspection.json",
        "maps.csv", "maps.parquet", "maps.png", "measured", "pictures.parquet",
    }  # fmt: skip
    data = json.loads((page.parent / "inspect.json").read_bytes())
    assert data == json.loads(json.dumps(inspection_data(summary)))
    assert [line["kind"] for line in data["alignment"][:3]] == ["surrogate", "classification", "random"]
    table = write_tables(inspection_tables(summary, 5), "markdown")
    assert table.count("entropy") == 5 + 1  # a column of the maps has that name, too
    assert "://" not in page.read_text(encoding="utf-8")


@pytest.mark.heavy
def test_an_interrupted_inspection_goes_on(make: Make, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    options = SHORT | {"limit": 2, "batch": 1}
    whole, settings = (make(STEP, out=tmp_path / each, **options) for each in ("whole", "stopped"))
    inspect_attack(whole, silent)
    with pytest.raises(KeyboardInterrupt):
        inspect_attack(settings, stop)
    assert len(list((settings.out / "measured").iterdir())) == 1
    inspect_attack(settings, silent)
    assert contents(settings.out) == contents(whole.out)


def test_another_inspection_is_refused(make: Make) -> None:
    inspect_attack(make(STEP, limit=1, **SHORT), silent)
    with pytest.raises(RunError, match=r"holds another inspection; this one differs in heads: True, not False"):
        inspect_attack(make(STEP, heads=True, limit=1, **SHORT), silent)


def test_a_folder_with_other_things_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "inspection").mkdir()
    (tmp_path / "inspection" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not an inspection"):
        inspect_attack(make(), silent)


def test_a_folder_without_an_inspection(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no inspection"):
        InspectionStore(tmp_path).spec()


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ({"tuning": ()}, "no unseen classifier"),
        ({"tuning": (SURROGATE,)}, f"{SURROGATE} cannot be a tuning classifier: it is a surrogate"),
        ({"tuning": (TUNING, TUNING)}, "names random:test_convnext twice"),
        ({"tuning": ("lab:coatnet",)}, "it is one of the lab's judges"),
        ({"reference": TUNING}, f"{TUNING} cannot be the reference: it is a surrogate or a tuning classifier"),
        ({"reference": f"jpeg+{SURROGATE}"}, "cannot be the reference"),
        ({"at": (1.5,)}, "`at` is 1.5; it must lie between 0 and 1"),
        ({"at": ()}, "no point of the path"),
        ({"surrogates": ()}, "no classifier to attack"),
        ({"size": 4}, "`size` is 4"),
    ],
)
def test_settings_that_cannot_be_meant(make: Make, others: dict[str, Any], complaint: str) -> None:
    settings = make(**others)
    with pytest.raises(UserError, match=complaint):
        check_inspection(settings)
    assert not settings.out.exists()


def test_the_page_of_the_folder_names_every_column() -> None:
    page = (Path(__file__).parents[3] / "docs" / "inspect.md").read_text(encoding="utf-8")
    assert [name for kind in INSPECTION_ROWS for name in kind.schema().names if f"`{name}`" not in page] == []


def test_points_show_the_surrogates_views_where_the_attack_does(make: Make) -> None:
    views = ("optimiser.iterations=30", "expectation.every=4", "expectation.draws=2")
    settings = make(*views, "expectation.transforms.rotate.degrees=5", at=(1.0, 1 / 3, 0.0, 0.34))
    assert path_points(settings) == (0, 8, 30)
