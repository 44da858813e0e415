"""A run's images as a dataset folder: the list is one that attnshift reads, and the card says what they are."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from attnshift.data.sources import open_source
from attnshift.report.dataset import SPLIT, write_dataset
from report.made_up import HOSTILE_NAME, IDS, SURROGATE, made_up_run

NAMES = {id: PurePosixPath("cat") / f"{id}, 1.png" for id in IDS}


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / SPLIT / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_images_are_listed_with_what_judges_see(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run", hostile=True)
    (tmp_path / "out" / SPLIT).mkdir(parents=True)
    write_dataset(store, tmp_path / "out", NAMES)
    rows = listed(tmp_path / "out")
    assert [(row["file_name"], row["label"]) for row in rows] == [(f"cat/{id}, 1.png", "1") for id in IDS]
    assert [row["class_name"] for row in rows] == [HOSTILE_NAME, "mug", "mug"]
    # Of a both judges are right when clean, of b the first one alone, of c none.
    assert [(row["judges"], row["judges_fooled"]) for row in rows] == [("2", "1"), ("1", "1"), ("", "")]
    assert "target" not in rows[0]
    assert open_source(str(tmp_path / "out" / SPLIT), None, (), None)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = card.split("---\n")[1].splitlines()
    assert {"- adversarial-examples", "- image-classification", "- n<1K"} <= {*head}
    assert "**Licence.** None is stated here." in card
    assert f"| attacked classifiers | {SURROGATE} |" in card
    assert "## What classifiers see in them\n\n| classifier | role |" in card
    assert '````toml\nname = "' in card


def test_pixels_that_were_not_judged_have_no_verdicts(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    (tmp_path / "out" / SPLIT).mkdir(parents=True)
    write_dataset(store, tmp_path / "out", NAMES, own_size=True)
    assert set(listed(tmp_path / "out")[0]) == {"file_name", "label", "class_name"}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "At their own size these images have not been judged." in card
    assert "What classifiers see" not in card
