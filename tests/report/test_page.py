"""The page as text: whole, self-contained, and without anything that a file name could do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnshift.report import page as page_module
from attnshift.report.page import write_report
from attnshift.results.store import Store
from report.made_up import (
    DONUT,
    FIRST,
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


def page(store: Store) -> str:
    return write_report(store).read_text(encoding="utf-8")


def test_the_page_lies_in_the_run(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    assert write_report(store) == store.folder / "report.html"
    assert {path.name for path in store.folder.iterdir()} >= {"report.html", "run.json"}
    assert page(store) == page(store), "twice the same"


def test_user_text_stays_text(tmp_path: Path) -> None:
    html = page(made_up_run(tmp_path / "run", hostile=True))
    assert "<script" not in html
    assert "<img src=http" not in html
    seen = Seen(html)
    assert "script" not in seen.tags
    assert not [each for each in seen.attributes if each[1].startswith("on")]
    assert HOSTILE_FILE in seen.text
    assert seen.text.count(HOSTILE_NAME) >= 2, "as the class and as what it is taken for"


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    seen = Seen(page(made_up_run(tmp_path / "run")))
    sources = [value for _, name, value in seen.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert len(sources) == 5 * 3, "five pictures of each image"
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert {"link", "iframe", "object", "form"}.isdisjoint(seen.tags)


def test_every_picture_has_words(tmp_path: Path) -> None:
    seen = Seen(page(made_up_run(tmp_path / "run")))
    assert len([value for tag, name, value in seen.attributes if (tag, name) == ("img", "alt") and value]) == 5 * 3


def test_the_summary_is_on_the_page(tmp_path: Path) -> None:
    text = Seen(page(made_up_run(tmp_path / "run"))).text
    for words in (
        "Preset fast on 3 images",
        "2.00 s per image",
        f"{SURROGATE} surrogate 100 % [44, 100]",
        f"{TUNED} tuning 0 % [0, 56] – – – –",
        f"{FIRST} judge 67 % [21, 94]",
        "mean of 2 judges",
        "round trip 1.000 [1.000, 1.000] equal",
        "recipe, complete",
        "denoising_steps = 2",
    ):
        assert words in text


def test_verdicts_are_told_apart(tmp_path: Path) -> None:
    text = Seen(page(made_up_run(tmp_path / "run"))).text
    assert f"{SURROGATE}: donut 75 %" in text
    assert f"{SURROGATE}: still right" in text
    assert f"{FIRST} (judge): wrong when clean (donut)" in text
    assert f"{TUNED}: wrong when clean (donut)" in text


def test_a_targeted_run_says_so(tmp_path: Path) -> None:
    same = Seen(page(made_up_run(tmp_path / "same", targets=dict.fromkeys("abc", TREE)))).text
    assert "Preset fast on 3 images, targeted at tree" in same
    assert same.count("mug → tree") == 3
    own = Seen(page(made_up_run(tmp_path / "own", targets=TARGETS))).text
    assert "Preset fast on 3 images, targeted per image" in own
    assert (own.count("mug → donut"), own.count("mug → tree")) == (2, 1)
    for text in (same, own):
        assert "How often it reaches its target on each classifier" in text
        assert "the share that it takes for their target afterwards" in text
        assert "fools" not in text
        assert "gets wrong" not in text
    untargeted = Seen(page(made_up_run(tmp_path / "any"))).text
    assert "How often it fools each classifier" in untargeted
    assert "the share that it gets wrong afterwards" in untargeted
    assert "target" not in untargeted


def marks(store: Store, classifier: str) -> list[tuple[str, str]]:
    """Class and words of a classifier's verdict on each image."""
    found = re.findall(r'<li class="(\w+)">([^<]*):\n(.*?)</li>', page(store), re.DOTALL)
    return [(kind, Seen(words).text) for kind, name, words in found if name.startswith(classifier)]


def test_a_verdict_tells_the_target_from_a_third_class(tmp_path: Path) -> None:
    """The surrogate sees a donut in a and b, and c as the mug that it is."""
    right, success = ("kept", "still right"), ("fooled", "donut 75 %")
    assert marks(made_up_run(tmp_path / "any"), SURROGATE) == [success, success, right]
    targeted = made_up_run(tmp_path / "own", targets=TARGETS)
    assert marks(targeted, SURROGATE) == [success, ("missed", "donut 75 %, not the target"), right]
    assert marks(targeted, TUNED) == [("wrong", "wrong when clean (donut)")] * 3
    aimed = made_up_run(tmp_path / "same", targets=dict.fromkeys("abc", DONUT))
    assert marks(aimed, SURROGATE) == [success, success, right]


def test_interference_beside_a_target(tmp_path: Path) -> None:
    """The arrow points at the target; where attention is steered stands below, unless it is the same."""
    for target, phrase in (("tree", "ball"), ("tree", "tree"), ("", "ball"), ("", "")):
        store = made_up_run(tmp_path / f"{target} {phrase}")
        change = {"target": TREE if target else None, "target_name": target, "interference": phrase}
        write_records(store, "results", [row | change for row in records(store, "results")])
        text = Seen(page(store)).text
        assert text.count(f"mug → {target or phrase}") == (3 if target or phrase else 0)
        assert text.count(f"attention towards {phrase}") == (3 if target and phrase != target else 0)


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
    assert seen.tags.count("img") == 5 * 3, "its images are shown all the same"


def test_a_judged_run_does_not_say_so(tmp_path: Path) -> None:
    assert "Not judged yet" not in Seen(page(made_up_run(tmp_path / "run"))).text


def test_a_run_that_has_finished_nothing(tmp_path: Path) -> None:
    made = made_up_run(tmp_path / "made")
    seen = Seen(page(Store.start(tmp_path / "run", made.spec(), planned("a"))))
    assert "on 0 images" in seen.text
    assert "nan" not in seen.text.split()


def test_more_images_than_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "SHOWN", 2)
    seen = Seen(page(made_up_run(tmp_path / "run")))
    assert "The first 2 of 3." in seen.text
    assert seen.tags.count("section") == 2
    assert "Preset fast on 3 images" in seen.text, "the tables cover all of them"


def test_a_failed_report_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made_up_run(tmp_path / "run")
    before = page(store)
    store.image_path("c", "attack").unlink()
    with pytest.raises(OSError, match="attack"):
        write_report(store)
    assert (store.folder / "report.html").read_text(encoding="utf-8") == before


def test_an_ensemble_shows_its_shares_and_a_single_surrogate_has_none(tmp_path: Path) -> None:
    alone, together = page(made_up_run(tmp_path / "one")), page(made_up_run(tmp_path / "two", shares=SHARES))
    assert "effective models" not in alone
    seen = Seen(together)
    assert "1.25 [1.00, 1.50] effective models of 2" in seen.text
    assert "<b>helper</b> 48 %" in seen.text, "0.47 and 0.5 on average"
    assert "b" not in seen.tags[seen.tags.index("svg") - 5 : seen.tags.index("svg")]
    lines = [value for tag, name, value in seen.attributes if (tag, name) == ("polyline", "points")]
    assert lines == ["0.0,28.20 240.0,18.00", "0.0,19.13 240.0,18.00"]
    assert "1.00 effective models" in seen.text


def test_what_failed_is_said_and_is_in_no_figure(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run", hostile=True)
    assert "failed" not in Seen(page(store)).text
    fail(store, "a")
    html = page(store)
    assert "<script" not in html
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
