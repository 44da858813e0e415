"""The page on which people rate: whole, self-contained, the same for a seed, another order for each rater."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnshift.cli import app
from attnshift.errors import RunError, UserError
from attnshift.report.rating_page import write_rating_page
from attnshift.report.rating_plan import ORDERS, chosen_images, draw_order
from attnshift.results.store import Store
from report.made_up import HOSTILE_NAME, MUG, TREE, made_up_run
from report.seen import Seen
from tables import records, write_records

IDS = [f"image {number}" for number in range(20)]


def test_orders_are_a_function_of_the_seed_and_differ_by_number() -> None:
    drawn = [draw_order(number, IDS, 0, True, True) for number in range(3)]
    assert drawn[0] == draw_order(0, IDS, 0, True, True)
    assert drawn[0] != draw_order(0, IDS, 1, True, True)
    shown = {tuple(trial.place for trial in order.labels) for order in drawn}
    assert len(shown) == 3


def test_a_rater_sees_each_image_once_a_round() -> None:
    order = draw_order(7, IDS, 0, True, True)
    for trials in (order.labels, order.pairs):
        assert sorted(trial.place for trial in trials) == list(range(len(IDS)))


@pytest.mark.parametrize(
    ("reconstructed", "others", "labels", "pairs"),
    [
        (
            True,
            True,
            {"attack": 30, "clean": 10, "reconstruction": 10, "other": 10},
            {"attack": 36, "reconstruction": 18},
        ),
        (False, True, {"attack": 30, "clean": 15, "other": 15}, {"attack": 54}),
        (True, False, {"attack": 30, "clean": 15, "reconstruction": 15}, {"attack": 36, "reconstruction": 18}),
        (False, False, {"attack": 30, "clean": 30}, {"attack": 54}),
    ],
)
def test_over_all_orders_each_image_is_shown_in_each_arm_as_often(
    reconstructed: bool, others: bool, labels: dict[str, int], pairs: dict[str, int]
) -> None:
    orders = [draw_order(number, IDS[:4], 0, reconstructed, others) for number in range(ORDERS)]
    for place in range(4):
        asked = Counter("other" if t.other else t.arm for order in orders for t in order.labels if t.place == place)
        shown = Counter(trial.arm for order in orders for trial in order.pairs if trial.place == place)
        assert asked == labels
        assert shown == pairs | {"blurred": 6}
    sides = [trial.clean_first for order in orders for trial in order.pairs]
    assert 0.35 < sum(sides) / len(sides) < 0.65


def test_images_are_chosen_by_the_seed() -> None:
    assert set(chosen_images(IDS, 0, 0)) == set(IDS)
    assert chosen_images(IDS, 5, 0) == chosen_images(IDS, 5, 0)
    assert set(chosen_images(IDS, 5, 0)) != set(chosen_images(IDS, 5, 1))


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """The made-up run, of which image b has another class."""
    store = made_up_run(tmp_path / "run", hostile=True)
    rows = [
        row | {"label": TREE, "class_name": "tree"} if row["id"] == "b" else row for row in records(store, "results")
    ]
    write_records(store, "results", rows)
    return store


def data_of(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_holds_everything_and_runs_its_own_script_alone(run: Store) -> None:
    html = write_rating_page(run).path.read_text(encoding="utf-8")
    seen = Seen(html)
    assert seen.tags.count("script") == 2
    assert {"link", "iframe", "object"}.isdisjoint(seen.tags)
    assert not [each for each in seen.attributes if each[1].startswith("on") or each[1] in ("src", "href", "action")]
    (policy,) = [value for tag, name, value in seen.attributes if tag == "meta" and "default-src" in value]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "script-src 'sha256-" in policy
    pairs = data_of(html)["pairs"]
    assert isinstance(pairs, list)
    assert {arm for pair in pairs for arm in pair["images"]} == {"clean", "reconstruction", "attack"}
    assert all(image.startswith("data:image/png;base64,") for pair in pairs for image in pair["images"].values())


def test_names_stay_text(run: Store) -> None:
    html = write_rating_page(run).path.read_text(encoding="utf-8")
    assert "<img src=http" not in html
    pairs = data_of(html)["pairs"]
    assert isinstance(pairs, list)
    names = {pair["id"]: (pair["name"], pair["other"]) for pair in pairs}
    assert names["a"] == (HOSTILE_NAME, "tree")
    assert names["b"][1] in ("mug", HOSTILE_NAME)


def test_a_run_of_one_class_has_no_other_names(tmp_path: Path) -> None:
    data = data_of(write_rating_page(made_up_run(tmp_path / "run")).path.read_text(encoding="utf-8"))
    orders = data["orders"]
    assert isinstance(orders, list)
    assert not any(other for order in orders for _, _, other in order["labels"])


def test_twice_the_same_page(run: Store, tmp_path: Path) -> None:
    first = write_rating_page(run, count=2, seed=5)
    again = write_rating_page(run, tmp_path / "again.html", count=2, seed=5)
    assert (first.path, first.pairs) == (run.folder / "rate.html", 2)
    assert first.path.read_bytes() == again.path.read_bytes()


def test_the_command(run: Store) -> None:
    done = CliRunner().invoke(app, ["rate", str(run.folder)])
    assert done.stdout == f"{run.folder / 'rate.html'}\n"
    assert "asks about 3 pairs" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--count", "-1", "`count` is -1; give 0 or more"),
        ("--seed", "-1", "`seed` is -1; give 0 or more"),
        ("--out", "run.json", "`out` is run.json; give a file that ends in .html"),
        ("--out", "gone/rate.html", "cannot write to gone/rate.html: No such file or directory"),
    ],
)
def test_options_that_do_not_fit(run: Store, option: str, value: str, message: str) -> None:
    refused = CliRunner().invoke(app, ["rate", str(run.folder), option, value])
    assert isinstance(refused.exception, UserError)
    assert str(refused.exception).startswith(message)


def test_runs_that_cannot_be_rated(run: Store) -> None:
    run.image_path("c", "attack").unlink()
    with pytest.raises(RunError, match=r"there is no file .*c\.attack\.png"):
        write_rating_page(run)
    write_records(run, "failed", [{"id": "a", "file": "a.png", "label": MUG, "reason": "NaN"}])
    (run.folder / "results.parquet").unlink()
    with pytest.raises(RunError, match=r"all images of .* failed"):
        write_rating_page(run)
