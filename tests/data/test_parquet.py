"""Parquet files with images in them, as Hugging Face writes them and as others do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from attnshift.data import parquet
from attnshift.data.references import Reference, fetch
from attnshift.errors import ImageError, LabelError
from data.sources import complaints_of, items_of, one_line, picture, write_parquet

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def images(count: int, first: int = 0) -> pyarrow.Array:
    return pyarrow.array([{"bytes": picture(first + number), "path": "x.png"} for number in range(count)], STRUCT)


def test_rows_of_hugging_face(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", {"image": images(3), "label": [2, 0, 1], "text": ["a", "b", "c"]})
    items = items_of(path)
    assert [(item.file, item.label, item.class_name) for item in items] == [
        ("train.parquet row 0", 2, "donut"), ("train.parquet row 1", 0, "ball"), ("train.parquet row 2", 1, "mug"),
    ]  # fmt: skip
    assert [item.image for item in items] == [Reference("row", str(path), number) for number in range(3)]
    assert [fetch(item.image) for item in items] == [picture(number) for number in range(3)]


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary(), STRUCT])
@pytest.mark.parametrize("number", [pyarrow.int64(), pyarrow.uint8(), pyarrow.int32()])
def test_the_same_items_from_every_type(tmp_path: Path, kind: pyarrow.DataType, number: pyarrow.DataType) -> None:
    column = images(2) if kind == STRUCT else pyarrow.array([picture(0), picture(1)], kind)
    path = write_parquet(tmp_path / "a.parquet", {"image": column, "label": pyarrow.array([1, 2], number)})
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "1.png").write_bytes(picture(1))
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n1.png,2\n")
    expected = items_of(tmp_path, tmp_path / "labels.csv")
    assert [item.id for item in items_of(path)] == [item.id for item in expected]


def test_names_and_targets(tmp_path: Path) -> None:
    columns = {"image": images(2), "label": [0, 0], "class_name": ["cup", None]}
    for target in (["donut", "mug"], [2, 1], pyarrow.array(["donut", "mug"]).dictionary_encode()):
        path = write_parquet(tmp_path / "a.parquet", {**columns, "target": target})
        assert [(item.class_name, item.target) for item in items_of(path)] == [("cup", 2), ("ball", 1)]


def test_a_folder_of_files_is_read_by_name(tmp_path: Path) -> None:
    for number in (1, 0):
        columns = {"image": images(1, number), "label": [number]}
        write_parquet(tmp_path / f"train-{number:05d}-of-00002.parquet", columns)
    assert [item.label for item in items_of(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [1]}, "column image is missing; it has label"),
        ({"image": [b"x"]}, "column label is missing; it has image"),
        ({"picture": [b"x"], "coarse_label": [1]}, "column image and label is missing"),
        ({"image": ["a.png"], "label": [1]}, "column image is string, not bytes"),
        ({"image": [[1, 2]], "label": [1]}, "column image is list"),
        ({"image": [{"path": "a.png"}], "label": [1]}, "column image is struct<path: string>, not bytes"),
        ({"image": [{"bytes": "x"}], "label": [1]}, "column image is string, not bytes"),
        ({"image": [b"x"], "label": [1.0]}, "column label is double, not whole numbers"),
        ({"image": [b"x"], "label": [True]}, "column label is bool, not whole numbers"),
        ({"image": [b"x"], "label": [[1]]}, "column label is list"),
        ({"image": [b"x"], "label": [1], "class_name": [1]}, "column class_name is int64, which is no name"),
        ({"image": [b"x"], "label": [1], "target": [1.5]}, "column target is double, which is no name or number"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)
    (complaint,) = complaints_of(path)
    assert complaint.startswith(f"{path}: {words}")
    with pytest.raises(LabelError, match=r"a\.parquet: column"):
        items_of(path)


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    two = pyarrow.Table.from_arrays([images(1), pyarrow.array([1]), pyarrow.array([2])], ["image", "label", "label"])
    pyarrow.parquet.write_table(two, tmp_path / "a.parquet")
    assert "column label is there 2 times" in complaints_of(tmp_path / "a.parquet")[0]


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    column = pyarrow.array([{"bytes": picture(0)}, None, {"bytes": None, "path": "/etc/passwd"}, {"bytes": picture(1)},
                            {"bytes": picture(2)}, {"bytes": picture(0)}, {"bytes": picture(3)}], STRUCT)  # fmt: skip
    path = write_parquet(tmp_path / "a.parquet", {"image": column, "label": [1, 1, 1, None, -1, 1, 2]})
    complaints = complaints_of(path)
    for number, words in (
        (1, "no image bytes; a path alone is not followed"),
        (2, "no image bytes"),
        (3, "label None is not a whole number"),
        (4, "label -1 is out of range"),
        (5, "was listed before"),
    ):
        assert f"{path} row {number}: " in complaints[number - 1]
        assert words in complaints[number - 1]
    assert len(complaints) == 5
    assert [item.image.start for item in items_of(path, problems=lambda error: None)] == [0, 6]


@pytest.mark.parametrize("keep", [0, 3, 400, -1, -9])
def test_files_that_were_cut(tmp_path: Path, keep: int) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": images(4), "label": [0, 1, 2, 0]})
    write_parquet(tmp_path / "b.parquet", {"image": images(1, 9), "label": [1]})
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:keep])
    (complaint,) = complaints_of(tmp_path)
    assert f"{tmp_path}/a.parquet: not a readable parquet file" in complaint
    assert [item.file for item in items_of(tmp_path, problems=lambda error: None)] == ["b.parquet row 0"]


def test_pages_that_are_damaged(tmp_path: Path) -> None:
    options = {"compression": "zstd", "row_group_size": 8}
    path = write_parquet(tmp_path / "a.parquet", {"image": images(24), "label": [1] * 24}, **options)
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(content)
    (complaint,) = complaints_of(path)
    assert "not a readable parquet file" in complaint
    assert fetch(Reference("row", str(path), 0)) == picture(0)
    with pytest.raises(ImageError, match=r"a\.parquet row 12: cannot be read"):
        fetch(Reference("row", str(path), 12))


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    for source in (tmp_path, tmp_path / "a.parquet"):
        with pytest.raises(LabelError, match="no such"):
            items_of(source)


def test_rows_in_any_order(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(50), "label": [1] * 50}, row_group_size=20)
    for number in (0, 1, 2, 49, 48, 7, 30, 31, 31, 19, 20, 39, 40, 0):
        assert fetch(Reference("row", str(path), number)) == picture(number)
    with pytest.raises(ImageError) as caught:
        fetch(Reference("row", str(path), 50))
    assert "row 50: cannot be read (it has 50 rows)" in one_line(caught.value)


def test_rows_in_their_order_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(60), "label": [1] * 60}, row_group_size=20)
    began: list[int] = []
    original = parquet._Reader._from
    monkeypatch.setattr(parquet._Reader, "_from", lambda self, group: began.append(group) or original(self, group))
    for step, groups in ((1, [0]), (2, [0, 1, 2])):
        began.clear()
        for number in range(0, 60, step):
            fetch(Reference("row", str(path), number))
        assert began == groups


def test_a_file_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(2), "label": [1, 1]})
    assert fetch(Reference("row", str(path), 0)) == picture(0)
    write_parquet(path, {"image": images(3, 10), "label": [1, 1, 1]})
    assert fetch(Reference("row", str(path), 0)) == picture(10)
    path.unlink()
    with pytest.raises(ImageError, match="no such parquet file"):
        fetch(Reference("row", str(path), 0))


def test_images_and_labels_are_all_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time, however large a row group is."""
    path = write_parquet(tmp_path / "a.parquet", {"image": images(40), "label": [1] * 40, "other": ["x"] * 40})
    asked: list[tuple[int, list[str]]] = []
    original = pyarrow.parquet.ParquetFile.iter_batches

    def iter_batches(self: Any, size: int, columns: list[str]) -> Any:
        asked.append((size, columns))
        return original(self, size, columns=columns)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", iter_batches)
    assert len(items_of(path)) == 40
    assert asked == [(8, ["image.bytes", "label"])]
