"""Captions: where the words of a class stand in them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.data.captions import phrases_of
from attnshift.errors import LabelError
from attnshift.recipes.prompts import Caption, PromptSection
from attnshift.results.plan import Plan, read_plan
from data.sources import items_of, picture


@pytest.mark.parametrize(
    ("caption", "name", "expected"),
    [
        ("a man holds a tench", "tench, Tinca tinca", ((14, "tench"),)),
        ("Tinca-tinca, a Tench", "tench, Tinca tinca", ((0, "Tinca-tinca"), (15, "Tench"))),
        ("a hot dog beside a dog", "dog, hot dog", ((2, "hot dog"), (19, "dog"))),
        ("mugs, a smug man, a mug", "mug", ((20, "mug"),)),
        ("a (red)ball", "ball", ((7, "ball"),)),
        ("c++ {} [x]", "c++", ((0, "c++"),)),
    ],
)
def test_every_synonym_is_found_and_the_longest_comes_first(
    caption: str, name: str, expected: tuple[tuple[int, str], ...]
) -> None:
    assert phrases_of(caption, name, "row 1") == expected


@pytest.mark.parametrize(("caption", "name"), [("mugs on a table", "mug"), ("a dog", "cat, kitten"), ("x", ", ")])
def test_a_caption_without_its_class_is_refused_in_one_line(caption: str, name: str) -> None:
    with pytest.raises(LabelError, match=r"row 1: the caption .* does not hold .*class_name") as caught:
        phrases_of(caption, name, "row 1")
    assert "\n" not in str(caught.value)


def test_a_caption_is_the_prompt_and_the_other_phrase_takes_the_place_of_the_class() -> None:
    text, name = "A tench: my tench, Tinca tinca.", "tench, Tinca tinca"
    caption = Caption(text, phrases_of(text, name, ""))
    section = PromptSection()
    prompt = section.prompt(name, "", caption)
    assert (prompt.text, prompt.start) == (caption.text, 19)
    other = section.interference_prompt("red ball", caption)
    assert (other.text, other.start) == ("A red ball: my red ball, red ball.", 25)
    assert other.text[other.start :].startswith("red ball")
    told = PromptSection(interference_template="see {}").interference_prompt("red ball", caption)
    assert (told.text, told.start) == ("see red ball", 4)


def test_captions_belong_to_the_items_only_where_they_are_asked_for(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(picture(seed))
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label,class_name,caption\na.png,1,mug,my blue mug\nb.png,1,mug,a ball\n")
    plain = items_of(tmp_path, labels)
    assert [item.caption for item in plain] == ["", ""]
    problems: list[str] = []
    (told,) = items_of(tmp_path, labels, captions=True, problems=lambda error: problems.append(str(error)))
    assert (told.file, told.caption) == ("a.png", "my blue mug")
    assert told.id != plain[0].id
    assert problems == [
        f"{labels} line 3: the caption 'a ball' does not hold 'mug'; say in the column class_name what the caption "
        "calls the class"
    ]
    plan = Plan.draw([told])
    assert [*read_plan(plan.path)] == [told]
    labels.write_text("file,label,class_name\na.png,1,mug\n")
    with pytest.raises(LabelError, match=r"a\.png has no caption; add a column caption"):
        items_of(tmp_path, labels, captions=True)
