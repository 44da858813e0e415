"""Label files that people, spreadsheets and enemies write: CSV and JSON lines."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnshift.data import manifests
from attnshift.data.datasets import Item, read_items
from attnshift.data.images import decode_image
from attnshift.data.references import Reference
from attnshift.errors import ImageError, LabelError, UserError
from data.sources import NAMES, complaints_of, items_of, one_line, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        (images / name).write_bytes(picture(seed))
    return images


def lines(folder: Path, *rows: str | dict[str, Any], name: str = "labels.jsonl") -> Path:
    path = folder.parent / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def table(folder: Path, text: str | bytes) -> Path:
    path = folder.parent / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_json_lines_give_the_items_of_the_same_csv(folder: Path) -> None:
    listed = table(folder, "file,label,class_name,target\na.png,0,,mug\nb.png,1,cup,2\n")
    same = lines(
        folder, {"file": "a.png", "label": 0, "target": "mug"}, "",
        {"file_name": "b.png", "label": 1, "class_name": "cup", "target": 2, "other": [1]},
    )  # fmt: skip
    assert items_of(folder, same) == items_of(folder, listed)


def test_the_column_that_hugging_face_writes(folder: Path) -> None:
    assert [item.file for item in items_of(folder, table(folder, "file_name,label\nb.png,1\n"))] == ["b.png"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "b.png", "label": 1', "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ('"b.png"', "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ({"file": "b.png"}, "key label is missing"),
        ({"label": 1}, "key file is missing"),
        ({}, "key file and label is missing"),
        ({"file": "b.png", "label": None}, "key label is missing"),
        ({"file": 7, "label": 1}, "file 7 is not text"),
        ({"file": ["b.png"], "label": 1}, "file ['b.png'] is not text"),
        ('{"file": "b.png", "label": NaN}', "label nan is not a whole number"),
        ('{"file": "b.png", "label": Infinity}', "label inf is not a whole number"),
        ({"file": "b.png", "label": True}, "label True is not a whole number"),
        ({"file": "b.png", "label": 1.0}, "label 1.0 is not a whole number"),
        ({"file": "b.png", "label": [1]}, "label [1] is not a whole number"),
        ({"file": "b.png", "label": "1"}, "write it without quotes"),
        ('{"file": "b.png", "label": ' + "9" * 5000 + "}", "a number has too many digits"),
        ({"file": "b.png", "label": -1}, "label -1 is out of range"),
        ({"file": "b.png", "label": 3}, "label 3 is out of range"),
        ({"file": "b.png", "label": 1, "class_name": 5}, "class_name 5 is not text"),
        ({"file": "b.png", "label": 1, "class_name": "a\nb"}, r"class_name 'a\nb' holds control characters"),
        ({"file": "b.png", "label": 1, "target": 1.5}, "target 1.5 is not text"),
        ({"file": "b.png", "label": 1, "target": False}, "target False is not text"),
        ({"file": "b.png", "label": 1, "target": 1}, "is the image's true class"),
        ({"file": "../b.png", "label": 1}, "does not lie inside"),
        ({"file": "b\u0000.png", "label": 1}, r"'b\x00.png' holds control characters"),
        ({"file": "\ud800.png", "label": 1}, r"'\ud800.png' holds control characters or is not UTF-8"),
    ],
)
def test_a_line_that_cannot_be_used(folder: Path, line: str | dict[str, Any], words: str) -> None:
    path = lines(folder, {"file": "a.png", "label": 0}, line, {"file": "c.png", "label": 2})
    with pytest.raises(LabelError) as caught:
        items_of(folder, path)
    assert words in one_line(caught.value)
    assert f"{path} line 2" in str(caught.value)
    (complaint,) = complaints_of(folder, path)
    assert complaint == str(caught.value)


NO_LABELS = ["-1", "3", "cup", "1.5", "", " ", "0_1", "True", "99999999999999999999", "1" * 5000, "0x1", "\x001"]


@pytest.mark.parametrize("label", NO_LABELS)
def test_no_label_of_a_csv(folder: Path, label: str) -> None:
    text = f"file,label\na.png,0\nb.png,{label}\nc.png,2\n"
    assert [item.file for item in items_of(folder, table(folder, text), limit=1)] == ["a.png"]
    (complaint,) = complaints_of(folder, table(folder, text))
    assert "labels.csv line 3: label " in complaint


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("../secret.png", "does not lie inside"),
        ("/etc/passwd", "does not lie inside"),
        ("link.png", "does not lie inside"),
        ("x" * 500 + ".png", "does not exist"),
        ("bell\x07.png", r"'bell\x07.png' holds control characters"),
        ("\x1b[31mred.png", r"'\x1b[31mred.png' holds control characters"),
        ("nul\0.png", r"'nul\x00.png' holds control characters"),
        ('"two\nlines.png"', r"'two\nlines.png' holds control characters"),
        ("c1\x9b.png", r"'c1\x9b.png' holds control characters"),
        ("separator\u2028.png", r"'separator\u2028.png' holds control characters"),
        ("fifo.png", "fifo.png is not a regular file"),
        ("folder.png", "folder.png is not a regular file"),
        ("file:///etc/passwd", "cannot be fetched; use a file of the folder or one of http://, https://, s3://"),
        ("memory://a.png", "cannot be fetched"),
        ("simplecache::http://a/b.png", "cannot be fetched"),
        ("https://user:secret@example.org/a.png", "holds a user or password"),
        ("pipe:cat b.png|", "does not exist"),
    ],
)
def test_names_that_are_refused(folder: Path, file: str, words: str) -> None:
    (folder.parent / "secret.png").write_bytes(picture(9))
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    os.mkfifo(folder / "fifo.png")
    (folder / "folder.png").mkdir()
    (complaint,) = complaints_of(folder, table(folder, f"file,label\na.png,0\n{file},1\nc.png,2\n"))
    assert words in complaint
    assert "labels.csv line " in complaint
    assert "secret@" not in complaint


@pytest.mark.parametrize(
    "name",
    ["<b>bold&amp;.png", "it's.png", "[bold]red[not bold].png", "\U0001f600\u200d\U0001f600.png", "\u05d0\u05d1.png",
     "\u0627\u200f.png", "a b.png", "100%.png", "#.png", "$(touch x).png", "-rf.png", "\u4e2d\u6587.png"],
)  # fmt: skip
def test_names_that_are_only_unusual(folder: Path, name: str) -> None:
    (folder / name).write_bytes(picture(7))
    (item,) = items_of(folder, table(folder, f"file,label\n{name},1\n"))
    assert (item.file, item.image) == (name, Reference("file", str(folder / name)))
    assert items_of(folder, lines(folder, {"file": name, "label": 1})) == [item]


def test_a_column_that_is_there_twice(folder: Path) -> None:
    with pytest.raises(LabelError, match="column label is there 2 times"):
        items_of(folder, table(folder, "file,label,label\na.png,0,1\n"))


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_a_line_without_an_end(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_LONGEST", 1000)
    path = folder.parent / name
    path.write_text("x" * 2000)
    with pytest.raises(LabelError, match="a line has more than 1000 characters"):
        items_of(folder, path)


def test_label_files_that_are_none(folder: Path) -> None:
    os.mkfifo(folder.parent / "fifo.csv")
    for name in ("fifo.csv", "images", "nowhere.csv", "x" * 500):
        with pytest.raises(LabelError, match="no such label file"):
            items_of(folder, folder.parent / name)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"caf\xe9\n"])
def test_json_lines_that_are_not_utf8(folder: Path, content: bytes) -> None:
    path = folder.parent / "labels.jsonl"
    path.write_bytes(b'{"file": "a.png", "label": 0}\n' + content)
    with pytest.raises(LabelError, match="not UTF-8"):
        items_of(folder, path)


def test_every_problem_is_told_and_the_rest_is_read(folder: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    text = "file,label\na.png,0\nnope.png,1\nb.png,x\na.png,0\nempty.png,1\nc.png,2\n"
    problems: list[UserError] = []
    items = items_of(folder, table(folder, text), problems=problems.append)
    assert [item.file for item in items] == ["a.png", "empty.png", "c.png"]
    assert ["nope.png" in one_line(problems[0]), "'x'" in str(problems[1]), "before" in str(problems[2])] == [True] * 3
    assert len(problems) == 3


def test_what_is_fetched_can_be_examined_without_fetching_it_again(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"<html>")
    seen: list[str] = []

    def examine(reference: Reference, content: bytes) -> None:
        seen.append(reference.location)
        decode_image(content, 8, reference.name)

    path = table(folder, "file,label\na.png,0\nb.png,1\nc.png,2\n")
    problems: list[UserError] = []
    items = items_of(folder, path, problems=problems.append, examine=examine)
    assert [item.file for item in items] == ["a.png", "c.png"]
    assert seen == [str(folder / name) for name in ("a.png", "b.png", "c.png")]
    (problem,) = problems
    assert isinstance(problem, ImageError)
    assert str(problem).startswith(f"{path} line 3: {folder}/b.png: not a readable image")


def test_problems_alone_are_no_empty_list(folder: Path) -> None:
    assert len(complaints_of(folder, table(folder, "file,label\nx.png,1\n"))) == 1
    with pytest.raises(LabelError, match="no images are listed"):
        complaints_of(folder, table(folder, "file,label\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("file\n", "column label is missing"), ("file,label\na.png,0\ncaf\xe9,1\nb.png,1\n", "is not UTF-8 text"),
     ("file,label\na.png,0\n" + "x" * 200_000, "line 3: not valid CSV (field larger than field limit")],
)  # fmt: skip
def test_what_ends_a_file_is_its_last_problem(folder: Path, text: str, words: str) -> None:
    path = table(folder, text.encode("latin-1"))
    assert words in complaints_of(folder, path)[-1]
    with pytest.raises(LabelError):
        items_of(folder, path)


def many(count: int) -> Callable[[Path], Path]:
    """List of ``count`` images, one file under different class names, with a broken last line."""

    def write(folder: Path) -> Path:
        rows = (f"a.png,1,mug {number}" for number in range(count))
        return table(folder, "\n".join(("file,label,class_name", *rows, "nope.png,1,mug")))

    return write


def test_items_are_read_when_they_are_asked_for(folder: Path) -> None:
    path = many(1000)(folder)
    seen: list[str] = []
    items = read_items(folder, path, NAMES, 3, examine=lambda reference, content: seen.append(reference.name))
    assert seen == []
    assert isinstance(next(items), Item)
    assert len(seen) == 1
    with pytest.raises(LabelError, match="line 1002"):
        list(items)


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_number_of_images(folder: Path) -> None:
    """One small number stays for each image, to find duplicates; an item has half a kilobyte."""

    def peak(count: int) -> int:
        path = many(count)(folder)
        tracemalloc.start()
        for item in read_items(folder, path, NAMES, 3, problems=lambda error: None):
            del item
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(5000) - peak(500) < 4500 * 150
