"""Panels of the page as HTML. Every text of a person, a file or a library is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from attnshift.errors import UserError
from attnshift.report.glossary import GLOSSARY
from attnshift.studio.readings import Guess, Verdict
from attnshift.terminal import one_line, plural

__all__ = [
    "Trace",
    "by_name",
    "curves",
    "found",
    "glossary",
    "notes",
    "scale",
    "state",
    "summary",
    "term",
    "verdicts",
    "wrong",
]

_WIDTH, _HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 430, 12, 162
"""Size of a figure, and the edges of the area with its lines."""
_COLOURS = 6
"""Colours of lines; the style sheet names them."""


@dataclass(frozen=True)
class Trace:
    """A line of a figure: one value for each iteration, from 0 on."""

    name: str
    values: tuple[float, ...]


def term(word: str, shown: str = "") -> str:
    """``shown``, or ``word`` itself, with the meaning of ``word`` for who points at it."""
    return f'<span class="term" tabindex="0" data-tip="{escape(GLOSSARY[word])}">{escape(shown or word)}</span>'


def glossary() -> str:
    """All words of the pages with their meanings."""
    rows = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in GLOSSARY.items())
    return f'<dl class="glossary">{rows}</dl>'


def found(guesses: Sequence[Guess]) -> str:
    """What the surrogates see in the image."""
    if not guesses:
        return ""
    first, *others = (f"{escape(each.name)} {each.probability:.0%}" for each in guesses)
    beside = f", then {' and '.join(others)}" if others else ""
    return f'<p class="found">The {term("surrogate", "surrogates")} see <b>{first}</b>{beside}.</p>'


def wrong(error: UserError) -> str:
    """A mistake of a person, in the words of the library."""
    return f'<div class="status bad" role="alert">{escape(one_line(error))}</div>'


def notes(lines: Sequence[str]) -> str:
    """Lines about what is unusual; nothing where there are none."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(one_line(each))}</li>" for each in lines)
    return f'<details class="notes"><summary>{plural(len(lines), "remark")}</summary><ul>{items}</ul></details>'


def state(text: str, share: float | None = None, kind: str = "") -> str:
    """A line on the state of the attack, with a bar that is filled by ``share`` in [0,1].

    ``kind`` is "good", "bad" or nothing.
    """
    filled = "" if share is None else f'<i style="width:{100 * share:.1f}%"></i>'
    bar = "" if share is None else f'<div class="bar" role="progressbar" aria-valuenow="{round(100 * share)}">'
    return f'<div class="status {kind}" role="status">{escape(text)}{bar}{filled}{"</div>" if bar else ""}</div>'


def summary(rows: Sequence[Verdict], stopped_after: int) -> tuple[str, float | None, str]:
    """Arguments of ``state`` for a finished attack: its success in a sentence."""
    counts = []
    for role in ("surrogate", "judge"):
        own = [each for each in rows if each.role == role and each.knows]
        if own:
            counts.append(f"{sum(each.attributable for each in own)} of {plural(len(own), role)} fooled")
    if not counts:
        return "Done, but no classifier saw the true class in the clean image; check the class.", None, "bad"
    end = f"Stopped after {plural(stopped_after, 'iteration')} and kept" if stopped_after else "Done"
    return f"{end}: {', '.join(counts)}.", None, "good" if any(each.attributable for each in rows) else ""


def scale(largest: int, factor: float) -> str:
    """How a picture of a difference is scaled."""
    if not largest:
        return '<p class="found">Nothing has changed.</p>'
    return f'<p class="found">Largest change {largest} of 255; shown {factor:.3g} times as strong, grey is none.</p>'


def verdicts(rows: Sequence[Verdict]) -> str:
    """What every classifier sees, before and after."""
    if not rows:
        return ""
    parts = []
    for role, heading, about in (
        ("surrogate", term("surrogate", "Surrogates"), "seen by the attack"),
        ("judge", term("judge", "Judges"), "never seen by it"),
    ):
        own = [each for each in rows if each.role == role]
        if own:
            parts.append(
                f'<tr class="group"><th colspan="4" scope="rowgroup">{heading} <small>{about}</small></th></tr>'
            )
            parts += map(_verdict, own)
    head = "<tr><th scope='col'>classifier</th><th scope='col'>clean</th><th scope='col'>attacked</th><th></th></tr>"
    about = f'<p class="found">Fooled counts only where it is {term("attributable")} to the attack.</p>'
    return f'<table class="verdicts"><thead>{head}</thead><tbody>{"".join(parts)}</tbody></table>{about}'


def curves(title: str, lines: Sequence[Trace], iterations: int, zero: str = "") -> str:
    """A figure of ``lines`` over the iterations; ``zero`` is said at the line of 0."""
    values = [value for line in lines for value in line.values]
    if not values:
        return ""
    low, high = min(0.0, *values), max(0.0, *values)
    high = high if high > low else low + 1

    def across(iteration: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * iteration / max(iterations, 1)

    def up(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)

    drawn, named = [], []
    for place, line in enumerate(lines):
        colour = f"c{place % _COLOURS}"
        points = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in enumerate(line.values))
        if line.values:
            last = f'cx="{across(len(line.values) - 1):.1f}" cy="{up(line.values[-1]):.1f}"'
            drawn.append(f'<polyline class="{colour}" points="{points}"/><circle class="{colour}" r="3" {last}/>')
            named.append(f'<li><i class="{colour}"></i>{escape(line.name)} <b>{line.values[-1]:.3g}</b></li>')
    axis = "".join(
        f'<text x="{_LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>' for value in {low, high}
    )
    middle = f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{up(0):.1f}" y2="{up(0):.1f}"/>'
    said = f'<text x="{_RIGHT}" y="{up(0) - 5:.1f}" text-anchor="end">{escape(zero)}</text>'
    below = "".join(
        f'<text x="{across(at):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{at}</text>' for at in (0, iterations)
    )
    picture = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} by iteration">'
        f"{middle}{axis}{below}{said}{''.join(drawn)}</svg>"
    )
    return f'<figure class="curves"><figcaption>{escape(title)}</figcaption>{picture}<ul>{"".join(named)}</ul></figure>'


def by_name(series: Sequence[Mapping[str, float]]) -> list[Trace]:
    """Lines of records that hold one value a name."""
    names = dict.fromkeys(name for each in series for name in each)
    return [Trace(name, tuple(each[name] for each in series if name in each)) for name in names]


def _verdict(row: Verdict) -> str:
    name = f'<th scope="row">{escape(row.classifier)}</th>'
    if row.clean is None:
        return f'<tr>{name}<td colspan="3" class="unable">{escape(one_line(row.unable))}</td></tr>'
    if not row.knows:
        mark = '<span class="chip dull">wrong when clean</span>'
    elif row.attacked is None:
        mark = ""
    elif row.attributable:
        mark = '<span class="chip good">fooled</span>'
    else:
        mark = f'<span class="chip dull">{"fooled by rebuilding" if row.fooled else "resists"}</span>'
    return f"<tr>{name}{_guess(row.clean)}{_guess(row.attacked)}<td>{mark}</td></tr>"


def _guess(guess: Guess | None) -> str:
    if guess is None:
        return "<td>–</td>"
    width = f'style="width:{100 * guess.probability:.0f}%"'
    return f"<td>{escape(guess.name)} <small>{guess.probability:.0%}</small><u><i {width}></i></u></td>"
