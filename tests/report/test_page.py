"""The page as text: whole, loading nothing from elsewhere, and without anything that a file name could do."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from attnshift.errors import RunError
from attnshift.report.glossary import GLOSSARY, glossary_page
from attnshift.report.page import write_report
from attnshift.results.rows import GradCamRow
from attnshift.results.store import Store
from report.made_up import (
    DONUT,
    FIRST,
    HELPER,
    HOSTILE_FILE,
    HOSTILE_NAME,
    SHARES,
    SURROGATE,
    TARGETS,
    TREE,
    TUNED,
    fail,
    made_up_run,
)
from report.seen import Seen
from small_runs import planned
from tables import records, write_records

ROOT = Path(__file__).parents[2]


def page(store: Store) -> str:
    return write_report(store).read_text(encoding="utf-8")


def test_the_page_lies_in_the_run(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    assert write_report(store) == store.folder / "report.html"
    assert {path.name for path in store.folder.iterdir()} >= {"report.html", "run.json"}
    assert page(store) == page(store), "twice the same"


def data_of(html: str) -> dict[str, Any]:
    """What the page's script reads of all images."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    return json.loads(found)


def parts_of(store: Store) -> list[dict[str, Any]]:
    """What the page's script reads of each image when it is opened."""
    images = []
    for number, address in enumerate(data_of(page(store))["parts"]):
        content = (store.folder / address).read_text(encoding="ascii")
        assert content.startswith(f"takePart({number}, [")
        images += json.loads(content.removeprefix(f"takePart({number}, ").rstrip()[:-1])
    return images


def test_user_text_stays_text(tmp_path: Path) -> None:
    html = page(made_up_run(tmp_path / "run", hostile=True))
    assert "<script>alert" not in html
    assert "<img src=http" not in html
    seen = Seen(html)
    assert seen.tags.count("script") == 4, "three of ours, and the data"
    assert not [each for each in seen.attributes if each[1].startswith("on")]
    assert seen.text.count(HOSTILE_NAME) >= 2, "as the class and as what it is taken for"
    assert data_of(html)["file"][0] == HOSTILE_FILE


def test_nothing_is_loaded_from_anywhere_else(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    seen = Seen(page(store))
    sources = {value for _, name, value in seen.attributes if name in ("src", "srcset", "action", "data")}
    assert sources == {f"images/{id}.{arm}.png" for id in "ab" for arm in ("clean", "attack")}, "no judge knows c"
    assert all((store.folder / each).is_file() for each in sources)
    assert all(value.startswith("#") for _, name, value in seen.attributes if name == "href")
    assert {"link", "iframe", "object"}.isdisjoint(seen.tags)
    (policy,) = [value for _, _, value in seen.attributes if value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; img-src data: 'self' file:; ")
    assert policy.count("'sha256-") == 3
    assert "script-src 'unsafe" not in policy


def test_every_picture_has_words(tmp_path: Path) -> None:
    seen = Seen(page(made_up_run(tmp_path / "run")))
    words = [value for tag, name, value in seen.attributes if (tag, name) == ("img", "alt") and value]
    assert len(words) == seen.tags.count("img") == 2 + 2 * 2, "a typical case, and the worst ones"


def test_the_glossary_of_the_documents_is_that_of_the_pages(tmp_path: Path) -> None:
    renew = "renew it: python -m attnshift.report.glossary > docs/glossary.md"
    assert (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8") == glossary_page(), renew
    seen = Seen(page(made_up_run(tmp_path / "run")))
    places = {value for _, name, value in seen.attributes if name == "id"}
    assert {f"word-{each.replace(' ', '-')}" for each in GLOSSARY} <= places
    assert {value[1:] for _, name, value in seen.attributes if name == "href"} <= places, "each link leads to a place"


def test_parts_of_another_report_go(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    first = data_of(page(store))["parts"]
    write_records(store, "results", records(store, "results")[:2])
    second = data_of(page(store))["parts"]
    assert first != second
    assert [f"report/{each.name}" for each in (store.folder / "report").iterdir()] == second


def test_the_summary_is_on_the_page(tmp_path: Path) -> None:
    text = Seen(page(made_up_run(tmp_path / "run"))).text
    for words in (
        "Preset fast on 3 images",
        "2.00 s per image",
        "25 % of the images that an unseen classifier gets right",
        "3 images of 1 class. The attack saw 1 classifier",
        "Nobody has said whether the changes are seen",
        f"{SURROGATE} surrogate 67 % [21, 94]",
        f"{TUNED} tuning – – – – – 0 % [0, 56]",
        f"{FIRST} judge 100 % [34, 100]",
        "mean of 2 judges",
        "round trip 1.000 [1.000, 1.000] equal",
        "recipe, complete",
        "denoising_steps = 2",
    ):
        assert words in text


def outcomes(store: Store, classifier: str) -> str:
    """A letter for the answer of ``classifier`` to each attacked image."""
    data = data_of(page(store))
    place = [name for name, _ in data["classifiers"]].index(classifier)
    return "".join(each[place] for each in data["outcomes"])


def test_verdicts_are_told_apart(tmp_path: Path) -> None:
    """The surrogate sees a donut in a and b, and c as the mug that it is."""
    plain = made_up_run(tmp_path / "any")
    assert [outcomes(plain, name) for name in (SURROGATE, TUNED, FIRST)] == ["ffk", "www", "ffw"]
    assert outcomes(made_up_run(tmp_path / "own", targets=TARGETS), SURROGATE) == "fmk"
    assert outcomes(made_up_run(tmp_path / "same", targets=dict.fromkeys("abc", DONUT)), SURROGATE) == "ffk"


def test_an_opened_image_shows_what_was_recorded(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    store.write_table(GradCamRow, [GradCamRow("a", arm, FIRST, 2, (0.0, 1.0, 0.5, 0.0)) for arm in ("clean", "attack")])
    first, *_, last = parts_of(store)
    classifiers = [name for name, _ in data_of(page(store))["classifiers"]]
    assert first["verdicts"][classifiers.index(SURROGATE)] == ["mug", 0.75, "donut", 0.75]
    assert first["losses"] == {"classification": [1.0, 0.5]}
    assert first["iterate"] == [3, 5]
    assert len(last["maps"]) == 1, "no Grad-CAM of c"
    (title, maps), (other, grad_cam) = first["maps"]
    assert (title, maps["rows"], maps["columns"]) == ("attention to the class, both on one scale", 4, 4)
    assert (f"to {FIRST}" in other, list(base64.b64decode(grad_cam["maps"][1]))) == (True, [0, 255, 128, 0])
    before, after = (list(base64.b64decode(each)) for each in maps["maps"])
    assert before == [0] * 5 + [255] + [0] * 10
    assert after == [64] * 16, "a quarter of the highest value before"


def test_classes_and_what_they_are_taken_for(tmp_path: Path) -> None:
    """The judges know a twice, which one still gets right, b once, which it does not, and c never."""
    text = Seen(page(made_up_run(tmp_path / "run"))).text
    assert "mug 75 % [20, 97] 25 % donut 2 3 0.920" in text
    assert "mug donut 2 67 %" in text, "verdicts, and their share"


def test_a_targeted_run_says_so(tmp_path: Path) -> None:
    same = Seen(page(made_up_run(tmp_path / "same", targets=dict.fromkeys("abc", TREE)))).text
    assert "Preset fast on 3 images, targeted at tree" in same
    own = Seen(page(made_up_run(tmp_path / "own", targets=TARGETS))).text
    assert "Preset fast on 3 images, targeted per image" in own
    for text in (same, own):
        assert "How often it reaches its target on each classifier" in text
        assert "the share that it takes for their target afterwards" in text
        assert "fools" not in text
        assert "gets wrong" not in text
    untargeted = Seen(page(made_up_run(tmp_path / "any"))).text
    assert "How often it fools each classifier" in untargeted
    assert "the share that it gets wrong afterwards" in untargeted
    assert "target" not in untargeted


def test_no_figure_is_not_a_number(tmp_path: Path) -> None:
    """A classifier that knows no image has no success: a dash, and no bar of width nan."""
    html = page(made_up_run(tmp_path / "run"))
    assert "nan" not in Seen(html).text.split()
    assert "nan%" not in html


def test_an_unjudged_run_says_so(tmp_path: Path) -> None:
    seen = Seen(page(made_up_run(tmp_path / "run", judged=False)))
    assert "Not judged yet" in seen.text
    assert "attnshift evaluate" in seen.text
    assert "How often it fools" not in seen.text
    assert seen.tags.count("img") == 2, "the first image is shown all the same"


def test_a_judged_run_does_not_say_so(tmp_path: Path) -> None:
    assert "Not judged yet" not in Seen(page(made_up_run(tmp_path / "run"))).text


def test_a_run_that_has_finished_nothing(tmp_path: Path) -> None:
    made = made_up_run(tmp_path / "made")
    seen = Seen(page(Store.start(tmp_path / "run", made.spec(), planned("a"))))
    assert "on 0 images" in seen.text
    assert "nan" not in seen.text.split()


def test_a_failed_report_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made_up_run(tmp_path / "run")
    before = page(store)
    store.image_path("c", "attack").unlink()
    with pytest.raises(RunError, match="attack"):
        write_report(store)
    assert (store.folder / "report.html").read_text(encoding="utf-8") == before


def test_an_ensemble_shows_its_shares_and_a_single_surrogate_has_none(tmp_path: Path) -> None:
    alone, together = page(made_up_run(tmp_path / "one")), page(made_up_run(tmp_path / "two", shares=SHARES))
    assert "effective models" not in Seen(alone).text
    assert "1.25 [1.00, 1.50] effective models of 2" in Seen(together).text
    (shares,) = [each for each in data_of(together)["curves"] if each["title"] == "share of each surrogate"]
    assert shares["series"] == {SURROGATE: [0.2, 0.5], HELPER: [0.4667, 0.5]}
    assert "share of each surrogate" not in {each["title"] for each in data_of(alone)["curves"]}


def test_what_failed_is_said_and_is_in_no_figure(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run", hostile=True)
    assert "failed" not in Seen(page(store)).text
    fail(store, "a")
    html = page(store)
    assert "<script>alert" not in html
    text = Seen(html).text
    assert "Of 3 images 1 failed; no figure counts them." in text
    assert f"Images that failed image reason {HOSTILE_FILE} its gradient is NaN" in text
    assert "Preset fast on 2 images" in text


def test_what_is_left_is_said(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    write_records(store, "results", records(store, "results")[:1])
    text = Seen(page(store)).text
    assert "Of 3 images 2 are not attacked yet; no figure counts them." in text
    assert "Images that failed" not in text
