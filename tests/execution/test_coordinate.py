"""A run from the outside: what it writes, that it can be continued, and when it refuses."""

from __future__ import annotations

import csv
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from attnshift import __version__
from attnshift.classifiers import load_classifier
from attnshift.data.images import read_image
from attnshift.errors import LabelError, ModelError, RecipeError, RunError, UserError
from attnshift.execution import checks, prepare
from attnshift.execution.coordinate import attack_folder
from attnshift.execution.settings import AttackSettings, Inputs
from attnshift.recipes.reading import load_recipe
from attnshift.results.arms import ARMS
from attnshift.results.spec import FORMAT
from attnshift.results.store import Store
from attnshift.telemetry import Event, ImageDone
from small_runs import (
    SIDE,
    SURROGATE,
    Told,
    contents,
    lasting,
    pixels,
    pngs,
    run_small,
    small_settings,
    write_labels,
    write_photos,
)
from tables import records, untimed

COLUMNS = {
    "key",
    "batch",
    "id",
    "file",
    "label",
    "class_name",
    "target",
    "target_name",
    "run",
    "surrogates",
    "iteration",
    "evaluated",
    "seconds",
    "cpu_seconds",
    "surrogate_gradients",
    "denoiser_evaluations",
    "spent",
    "pixel_share",
    "losses",
    "measured",
    "gradients",
    "pulls",
    "idle_terms",
    "class_on_path",
    "class_on_file",
    "interference_on_path",
    "interference_on_file",
    "margin_curves",
    "shares",
    "effective_models",
    "attention_clean",
    "attention_attack",
    "attention_side",
    "interference",
    "known",
    *(f"{arm}_margins" for arm in ARMS),
}


def listed(photos: Path) -> list[dict[str, str]]:
    with (photos / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_holds_exactly_these_files(finished: Store) -> None:
    ids = [row["id"] for row in records(finished, "results")]
    expected = {"run.json", "recipe.toml", "plan.parquet", "results.parquet"}
    expected |= {f"items/{id}.json" for id in ids}
    expected |= {f"images/{id}.{arm}.png" for id in ids for arm in ARMS}
    assert lasting(finished.folder) == expected
    assert len(list((finished.folder / "ledger").iterdir())) == 1


def test_one_row_per_image_in_the_order_of_the_plan(finished: Store, photos: Path) -> None:
    rows = records(finished, "results")
    plan = [(each["file"], int(each["label"]), each["class_name"]) for each in listed(photos)]
    assert [(row["file"], row["label"], row["class_name"]) for row in rows] == plan
    for row in rows:
        assert set(row) == COLUMNS
        assert (row["target"], row["target_name"]) == (None, "")
        assert row["run"] == finished.spec().digest
        assert row["surrogates"] == [SURROGATE]
        assert 0 <= row["iteration"] < row["evaluated"] <= 3
        assert row["seconds"] > 0
        assert len(row["attention_clean"]) == len(row["attention_attack"]) == row["attention_side"] ** 2
        assert {each["name"] for each in row["losses"]} == {"classification", "variance", "self_attention"}
        assert [each["name"] for each in row["shares"]] == [SURROGATE]
        assert set(row["shares"][0]["values"]) == {1.0}
        iterations = len(row["losses"][0]["values"])
        assert [len(row[each][0]["values"]) for each in ("shares", "margin_curves")] == [iterations] * 2
        assert row["effective_models"] == 1


def test_the_run_says_what_it_is(finished: Store, photos: Path, pipeline_folder: Path) -> None:
    spec = finished.spec()
    assert (spec.size, spec.batch, spec.threads, spec.device) == (SIDE, 2, torch.get_num_threads(), "cpu")
    assert spec.pipeline == str(pipeline_folder)
    assert spec.recipe.optimiser.iterations == 2
    assert load_recipe(str(finished.folder / "recipe.toml")) == spec.recipe, "the saved recipe is complete"


def test_every_png_says_what_it_is(finished: Store) -> None:
    for row in records(finished, "results"):
        for arm in ARMS:
            with Image.open(finished.image_path(row["id"], arm)) as image:
                image.load()
                text = dict(image.info)
                assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
            assert text["Software"] == f"attnshift {__version__}"
            assert text["attnshift:run"] == finished.spec().digest
            assert text["attnshift:arm"] == arm
            assert text["attnshift:source"] == row["file"]
            assert text["attnshift:label"] == f"{row['label']} {row['class_name']}"
            assert "attnshift:target" not in text
            assert (text.get("attnshift:adversarial") == "true") == (arm == "attack")
            assert ("Adversarial image" in text.get("Description", "")) == (arm == "attack")


@pytest.mark.parametrize("arm", ARMS)
def test_what_was_judged_is_what_was_saved(finished: Store, arm: str) -> None:
    """Margins anew from the 8-bit files."""
    surrogate = load_classifier(SURROGATE)
    for row in records(finished, "results"):
        with torch.no_grad():
            logits = surrogate(read_image(finished.image_path(row["id"], arm), SIDE)[None])[0]
        others = torch.cat([logits[: row["label"]], logits[row["label"] + 1 :]])
        assert row[f"{arm}_margins"] == pytest.approx([float(logits[row["label"]] - others.max())], abs=1e-5)


def test_the_clean_arm_is_the_input_and_the_attack_is_not(finished: Store, photos: Path) -> None:
    for row in records(finished, "results"):
        original = pixels(photos / "images" / row["file"])
        assert pixels(finished.image_path(row["id"], "clean")) == original
        assert pixels(finished.image_path(row["id"], "attack")) != original


def test_a_second_run_changes_no_byte(finished: Store, photos: Path, pipeline_folder: Path) -> None:
    before, told = contents(finished.folder), Told()
    attack_folder(small_settings(photos, pipeline_folder, finished.folder), told.telemetry())
    assert not told.done, "nothing was left to do"
    assert contents(finished.folder) == before


def test_a_fresh_run_elsewhere_is_the_same(
    finished: Store, photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    """Also with the random state of the process somewhere else."""
    torch.manual_seed(12345)
    again = run_small(small_settings(photos, pipeline_folder, tmp_path / "run"))
    assert pngs(again.folder) == pngs(finished.folder)
    assert untimed(again) == untimed(finished)


@pytest.mark.heavy
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_is_continued(
    finished: Store, photos: Path, pipeline_folder: Path, tmp_path: Path, after: int
) -> None:
    """``after=3``: everything is done but the table."""
    settings = small_settings(photos, pipeline_folder, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        attack_folder(settings, Told(stop=after).telemetry())
    assert not records(Store.open(settings.out), "results")
    rest = Told()
    store = attack_folder(settings, rest.telemetry())
    # Of a batch both images are saved before the first is reported.
    assert len(rest.done) == (1 if after == 1 else 0)
    assert pngs(store.folder) == pngs(finished.folder)
    assert untimed(store) == untimed(finished)
    assert lasting(store.folder) == lasting(finished.folder)


def test_another_recipe_is_refused(finished: Store, photos: Path, pipeline_folder: Path) -> None:
    before = contents(finished.folder)
    changed = small_settings(photos, pipeline_folder, finished.folder, "optimiser.learning_rate=0.5")
    with pytest.raises(RunError) as caught:
        run_small(changed)
    assert "recipe.optimiser.learning_rate: 0.5, not 0.05" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert contents(finished.folder) == before


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"batch": 1}, "batch: 1, not 2"),
        ({"surrogates": ("random:test_convnext",)}, "surrogates: "),
        ({"size": 128}, "size: 128, not 64"),
    ],
    ids=["batch", "surrogate", "size"],
)
def test_other_settings_are_refused(
    finished: Store, photos: Path, pipeline_folder: Path, change: dict[str, Any], shown: str
) -> None:
    with pytest.raises(RunError) as caught:
        run_small(small_settings(photos, pipeline_folder, finished.folder, **({"batch": 2} | change)))
    assert shown in str(caught.value)


def test_other_images_are_refused(finished: Store, pipeline_folder: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, seed=1)
    with pytest.raises(RunError, match="none of these images belongs to it"):
        run_small(small_settings(tmp_path, pipeline_folder, finished.folder))


def test_the_same_images_from_another_folder_continue(
    finished: Store, photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path)
    before = contents(finished.folder)
    run_small(small_settings(tmp_path, pipeline_folder, finished.folder))
    assert contents(finished.folder) == before


@pytest.mark.parametrize(
    ("damage", "error"),
    [("image", LabelError), ("size", ModelError), ("name", ModelError), ("label", UserError)],
)
def test_nothing_is_written_where_an_input_is_bad(
    pipeline_folder: Path, tmp_path: Path, damage: str, error: type[UserError]
) -> None:
    """The last image is the bad one: the first two would have been attacked."""
    write_photos(tmp_path)
    rows: list[tuple[str, int | str, str]] = [
        (each["file"], each["label"], each["class_name"]) for each in listed(tmp_path)
    ]
    file, label, name = rows[-1]
    if damage == "image":
        path = tmp_path / "images" / file
        path.unlink()
    if damage == "name":
        name = "an exceedingly long and winding name of a class that no tokenizer of this size can hold"
    write_labels(tmp_path, [*rows[:-1], (file, 1000 if damage == "label" else label, name)])
    settings = small_settings(tmp_path, pipeline_folder, tmp_path / "run", size=60 if damage == "size" else 0)
    with pytest.raises(error) as caught:
        run_small(settings)
    assert len(str(caught.value).splitlines()) == 1
    assert not settings.out.exists()


def test_a_weight_for_a_stranger_is_refused_before_anything_is_written(
    photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    changes = ["classification.fusion=weighted", "classification.fusion_options.weights.resnet=2.0"]
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", *changes)
    with pytest.raises(RecipeError, match=f"weight to resnet, which is no surrogate; the surrogates are {SURROGATE}"):
        run_small(settings)
    assert not settings.out.exists()


def test_surrogates_that_disagree_about_the_classes(
    photos: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def loaded(name: str) -> Any:
        classifier = load_classifier(name)
        return replace(classifier, classes=10) if "convnext" in name else classifier

    monkeypatch.setattr("attnshift.defences.names.load_classifier", loaded)
    surrogates = (SURROGATE, "random:test_convnext")
    with pytest.raises(ModelError, match="random:test_convnext has 10"):
        run_small(small_settings(photos, pipeline_folder, tmp_path / "run", surrogates=surrogates))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused(photos: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="is not a run"):
        run_small(small_settings(photos, pipeline_folder, tmp_path))
    assert contents(tmp_path).keys() == {"thesis.tex"}


@pytest.mark.heavy
def test_an_empty_folder_is_used(finished: Store, photos: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    assert pngs(run_small(small_settings(photos, pipeline_folder, tmp_path)).folder) == pngs(finished.folder)


@pytest.mark.heavy
def test_progress_counts_every_image_once(photos: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", limit=2)
    safe: list[bool] = []

    class Watching(Told):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, ImageDone):
                safe.append(Store(settings.out).is_finished(event.id))

    told = Watching()
    attack_folder(settings, told.telemetry())
    assert [each.file for each in told.done] == ["photo-3.png", "photo-2.png"]
    assert safe == [True, True], "reported when it is safe"


def test_the_digest_names_the_attack_and_not_the_place(finished: Store) -> None:
    spec = finished.spec()
    assert spec.model_copy(update={"images": "elsewhere", "labels": "elsewhere"}).digest == spec.digest
    for change in ({"batch": 7}, {"threads": 9}, {"items": "x"}, {"device": "cuda"}, {"format": FORMAT + 1}):
        assert spec.model_copy(update=change).digest != spec.digest


def test_settings_are_all_used() -> None:
    """A field that nothing reads would be an option that does nothing."""
    source = "".join(map(inspect.getsource, (attack_folder, checks, prepare, Inputs)))
    used = {name for name in AttackSettings.__dataclass_fields__ if re.search(rf"\b(settings|self)\.{name}\b", source)}
    assert used == set(AttackSettings.__dataclass_fields__)
