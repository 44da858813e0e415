"""Panels of the page: what they say, and that no text of others becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from attnshift.errors import UserError
from attnshift.studio import panels
from attnshift.studio.readings import Guess, Verdict

EVIL = "<script>alert('x')</script>"


def verdict(role: str = "judge", clean: int = 3, attacked: int | None = 0, rebuilt: int = 3) -> Verdict:
    seen = {label: Guess(f"class {label}", label, 0.5) for label in (0, 3)}
    after = None if attacked is None else seen[attacked]
    return Verdict(f"{role}:one", role, 3, seen[clean], after, seen[rebuilt])


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.opened: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "html",
    [
        panels.wrong(UserError(EVIL)),
        panels.state(EVIL, 0.5),
        panels.notes([EVIL]),
        panels.found([Guess(EVIL, 0, 0.9), Guess(EVIL, 1, 0.1)]),
        panels.verdicts([Verdict(EVIL, "judge", 0, Guess(EVIL, 0, 1.0)), Verdict("a", "judge", 0, unable=EVIL)]),
        panels.curves(EVIL, [panels.Trace(EVIL, (1.0, 0.5))], 2, EVIL),
    ],
)
def test_text_of_others_is_shown_and_never_markup(html: str) -> None:
    page = Tags(html)
    assert "script" not in page.opened
    assert EVIL in page.text


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (verdict(), "fooled"),
        (verdict(attacked=3), "resists"),
        (verdict(clean=0), "wrong when clean"),
        (verdict(rebuilt=0), "fooled by rebuilding"),
    ],
)
def test_a_verdict_says_what_the_attack_did(row: Verdict, word: str) -> None:
    assert f">{word}<" in panels.verdicts([row])
    assert row.attributable == (word == "fooled")


def test_a_summary_counts_those_that_were_right_before() -> None:
    rows = [verdict("surrogate"), verdict("surrogate", attacked=3), verdict(clean=0)]
    text, _, kind = panels.summary(rows, 0)
    assert (text, kind) == ("Done: 1 of 2 surrogates fooled.", "good")
    assert panels.summary(rows, 5)[0].startswith("Stopped after 5 iterations and kept: ")
    assert "check the class" in panels.summary([verdict(clean=0)], 0)[0]


def test_lines_of_a_figure_stay_inside_it() -> None:
    html = panels.curves("Losses", panels.by_name([{"a": 1.0, "b": -2.0}, {"a": 5.0}]), 4)
    points = [pair.split(",") for text in html.split('points="')[1:] for pair in text.split('"')[0].split()]
    assert len(points) == 3
    assert all(0 <= float(x) <= 440 and 0 <= float(y) <= 190 for x, y in points)
    assert panels.curves("Losses", [], 4) == ""
