"""From names to objects, and the words in which a wrong name is refused."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from attnshift.errors import RecipeError
from attnshift.registry import STRICT, Entry, Table, build, look_up, suggest


@dataclass(frozen=True)
class Brush:
    __pydantic_config__ = STRICT
    width: float = 1.0
    strokes: int = 3
    wet: bool = False
    span: tuple[int, int] = (0, -1)


TABLE = Table(
    "tool",
    {
        "brush": Entry("a brush", "nowhere", f"{__name__}:Brush"),
        "absent": Entry("not there", "nowhere", "attnshift.no_such_module:Thing"),
    },
)


def test_entry_is_imported_when_it_is_used() -> None:
    assert look_up(TABLE, "brush") is Brush
    assert "attnshift.no_such_module" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        look_up(TABLE, "absent")


def test_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"^unknown tool 'brsh'; did you mean 'brush'\?; known: brush, absent$"):
        look_up(TABLE, "brsh")
    with pytest.raises(RecipeError, match=r"^unknown tool 'xyz'; known: brush, absent$"):
        look_up(TABLE, "xyz")


def test_suggestion_only_where_something_is_near() -> None:
    assert suggest("varience", ["variance", "entropy"]) == "; did you mean 'variance'?"
    assert suggest("varience", ["entropy"]) == ""


def test_options_are_set_and_the_others_keep_their_defaults() -> None:
    assert build(TABLE, "brush", {"width": 2.5, "span": [1, 2]}) == Brush(2.5, 3, False, (1, 2))
    assert build(TABLE, "brush", {"width": 2}) == Brush(2.0)
    assert build(TABLE, "brush", {}) == Brush()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 1.0}, "widht: Unexpected keyword argument"),
        ({"strokes": True}, r"strokes: .*integer \(got True\)"),
        ({"strokes": 2.0}, r"strokes: .*integer \(got 2\.0\)"),
        ({"strokes": "2"}, r"strokes: .*integer \(got '2'\)"),
        ({"width": True}, r"width: .*number \(got True\)"),
        ({"width": float("inf")}, "width: .*finite"),
        ({"width": float("nan")}, "width: .*finite"),
        ({"wet": 1}, r"wet: .*boolean \(got 1\)"),
        ({"wet": "False"}, r"wet: .*boolean \(got 'False'\)"),
        ({"span": [1, 2, 3]}, "span"),
        ({"strokes": "a", "wet": "b"}, r"strokes: .*, and 1 more$"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^tool 'brush': {message}") as refused:
        build(TABLE, "brush", options)
    assert "\n" not in str(refused.value)
