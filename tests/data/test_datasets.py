"""The CSV of a run: what spreadsheets write is read, and every mistake is named with its line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from attnshift.data.datasets import Item, read_items
from attnshift.errors import LabelError

NAMES = ("ball", "mug", "donut")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (images / name).write_bytes(name.encode())
    return images


def read(
    folder: Path,
    text: str | bytes,
    names: tuple[str, ...] = NAMES,
    classes: int = 3,
    limit: int = 0,
    target: str | None = None,
) -> list[Item]:
    labels = folder.parent / "labels.csv"
    labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_items(folder, labels, names, classes, limit, target=target))


def complaint(folder: Path, text: str | bytes, names: tuple[str, ...] = NAMES, target: str | None = None) -> str:
    with pytest.raises(LabelError) as caught:
        read(folder, text, names, target=target)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "labels.csv" in message or message.startswith("`target`: ")
    return message


def test_items_come_in_the_order_of_the_file(folder: Path) -> None:
    items = read(folder, "file,label\nc.png,2\na.png,0\nb.png,1\n")
    assert [(item.file, item.label, item.class_name) for item in items] == [
        ("c.png", 2, "donut"),
        ("a.png", 0, "ball"),
        ("b.png", 1, "mug"),
    ]
    assert all(Path(item.image.location).is_file() for item in items)


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,label\na.png,1\n",
        "file,label\r\na.png,1\r\n",
        "\ufefffile,label\r\na.png,1",
        "label,comment,file\n1,x,a.png\n",
        'file,label\n"a.png","1"\n',
        "file,label\n a.png , 1 \n",
        "file,label\n\na.png,1\n\n",
    ],
    ids=["BOM", "CRLF", "BOM and CRLF, no last newline", "other columns", "quotes", "spaces", "empty lines"],
)
def test_dialects_of_spreadsheets(folder: Path, text: str) -> None:
    assert [(item.file, item.label) for item in read(folder, text)] == [("a.png", 1)]


def test_class_names_come_from_the_file_and_then_from_the_classifier(folder: Path) -> None:
    items = read(folder, "file,label,class_name\na.png,1,tea cup\nb.png,1,\nc.png,2, \n")
    assert [item.class_name for item in items] == ["tea cup", "mug", "donut"]


def test_a_label_that_nobody_names(folder: Path) -> None:
    assert "line 2" in complaint(folder, "file,label\na.png,1\n", names=("ball",))
    assert "class_name column" in complaint(folder, "file,label\na.png,1\n", names=())


@pytest.mark.parametrize("label", ["cup", "", "1.0", "1e0", "nan", "0x1", "-"])
def test_labels_that_are_no_whole_number(folder: Path, label: str) -> None:
    message = complaint(folder, f"file,label\na.png,0\nb.png,{label}\n")
    assert "line 3" in message
    assert repr(label) in message
    assert "whole number" in message


@pytest.mark.parametrize("label", ["-1", "3", "1000000000000000000000000"])
def test_labels_out_of_range(folder: Path, label: str) -> None:
    message = complaint(folder, f"file,label\na.png,{label}\n")
    assert f"label {label} is out of range" in message
    assert "0 to 2" in message


def test_a_row_that_is_too_short(folder: Path) -> None:
    assert "line 2" in complaint(folder, "file,label\na.png\n")


@pytest.mark.parametrize(
    ("header", "missing"),
    [("file,class", "column label is"), ("name,label", "column file is"), ("x,y", "columns file and label are")],
)
def test_missing_columns(folder: Path, header: str, missing: str) -> None:
    assert f"{missing} missing; the first line names columns" in complaint(folder, f"{header}\na.png,1\n")


@pytest.mark.parametrize("text", ["", "file,label\n"], ids=["empty", "only a header"])
def test_a_file_that_lists_nothing(folder: Path, text: str) -> None:
    complaint(folder, text)


def test_a_file_that_is_not_utf8(folder: Path) -> None:
    assert "UTF-8" in complaint(folder, "file,label,class_name\na.png,1,café\n".encode("latin-1"))


@pytest.mark.parametrize(
    "file", ["../outside.png", "/etc/passwd", "sub/../../outside.png", "", "..", "link.png", "way/x.png"]
)
def test_files_outside_the_folder(folder: Path, file: str) -> None:
    outside = folder.parent / "outside.png"
    outside.write_bytes(b"secret")
    (folder / "link.png").symlink_to(outside)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(b"secret")
    (folder / "way").symlink_to(elsewhere)
    assert "does not lie inside" in complaint(folder, f"file,label\n{file},1\n")


def test_a_link_that_stays_inside_and_a_folder_that_is_a_link(folder: Path) -> None:
    (folder / "link.png").symlink_to("a.png")
    way = folder.parent / "way"
    way.symlink_to(folder)
    assert [item.file for item in read(way, "file,label\nlink.png,1\n")] == ["link.png"]


def test_subfolders(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.png").write_bytes(b"sub")
    assert [item.file for item in read(folder, "file,label\nsub/a.png,1\n")] == ["sub/a.png"]


def test_a_file_that_does_not_exist(folder: Path) -> None:
    message = complaint(folder, "file,label\na.png,1\nnope.png,1\n")
    assert "line 3" in message
    assert "nope.png does not exist" in message


def test_duplicates(folder: Path) -> None:
    message = complaint(folder, "file,label\na.png,1\nb.png,1\na.png,1\n")
    assert "line 4" in message
    assert "a.png" in message


def test_one_file_with_two_labels_is_two_items(folder: Path) -> None:
    first, second = read(folder, "file,label\na.png,1\na.png,2\n")
    assert first.id != second.id


def test_the_limit_takes_the_first_and_reads_no_further(folder: Path) -> None:
    text = "file,label\na.png,1\nb.png,1\nnope.png,9\n"
    assert [item.file for item in read(folder, text, limit=2)] == ["a.png", "b.png"]
    assert len(read(folder, "file,label\na.png,1\n", limit=5)) == 1


def test_the_id_is_content_label_and_name_and_not_the_place(folder: Path) -> None:
    (original,) = read(folder, "file,label\na.png,1\n")
    (folder / "moved.png").write_bytes(b"a.png")
    (moved,) = read(folder, "file,label\nmoved.png,1\n")
    (renamed,) = read(folder, "file,label,class_name\na.png,1,cup\n")
    (folder / "a.png").write_bytes(b"edited")
    (edited,) = read(folder, "file,label\na.png,1\n")
    assert original.id == moved.id
    assert len({original.id, renamed.id, edited.id}) == 3


def test_missing_folder_and_missing_label_file(folder: Path) -> None:
    with pytest.raises(LabelError, match="no such folder"):
        read_items(folder / "nope", folder / "a.png", NAMES, 3)
    with pytest.raises(LabelError, match="no such label file"):
        read_items(folder, folder / "nope.csv", NAMES, 3)


@pytest.fixture
def masks(folder: Path) -> Path:
    """A mask for the first two images."""
    masks = folder.parent / "masks"
    masks.mkdir()
    for name in ("a.png", "b.png"):
        (masks / name).write_bytes(b"mask of " + name.encode())
    return masks


def masked(folder: Path, text: str, masks: Path | None) -> list[Item]:
    labels = folder.parent / "labels.csv"
    labels.write_text(text)
    return list(read_items(folder, labels, NAMES, 3, 0, masks))


def test_a_mask_has_the_name_of_its_image(folder: Path, masks: Path) -> None:
    for root in (folder, masks):
        (root / "sub").mkdir()
        (root / "sub" / "a.png").write_bytes(b"below")
    items = masked(folder, "file,label\nb.png,1\na.png,0\nsub/a.png,2\n", masks)
    assert [str(item.mask) for item in items] == [f"file:{masks / name}" for name in ("b.png", "a.png", "sub/a.png")]
    assert [Path(item.image.location) for item in items] == [folder / name for name in ("b.png", "a.png", "sub/a.png")]
    assert all(item.mask is None for item in masked(folder, "file,label\nb.png,1\nc.png,0\n", None))


def test_an_image_without_its_mask(folder: Path, masks: Path) -> None:
    with pytest.raises(LabelError, match=r"labels\.csv line 3: .*masks/c\.png does not exist"):
        masked(folder, "file,label\na.png,1\nc.png,1\n", masks)
    with pytest.raises(LabelError, match=r"nowhere: no such folder of masks"):
        masked(folder, "file,label\na.png,1\n", folder.parent / "nowhere")
    with pytest.raises(LabelError, match=r"a\.png: no such folder of masks"):
        masked(folder, "file,label\na.png,1\n", masks / "a.png")


@pytest.mark.parametrize("way", ["file", "folder"])
def test_a_mask_outside_its_folder(folder: Path, masks: Path, way: str) -> None:
    """The image itself lies where it should."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(b"secret")
    (folder / "way").mkdir()
    (folder / "way" / "x.png").write_bytes(b"image")
    if way == "file":
        (masks / "way").mkdir()
        (masks / "way" / "x.png").symlink_to(elsewhere / "x.png")
    else:
        (masks / "way").symlink_to(elsewhere)
    with pytest.raises(LabelError, match=r"labels\.csv line 2: file 'way/x\.png' does not lie inside .*masks"):
        masked(folder, "file,label\nway/x.png,1\n", masks)


def test_the_id_changes_with_the_masks_bytes_and_not_with_its_place(folder: Path, masks: Path) -> None:
    text = "file,label\na.png,1\n"
    ((plain,), (original,)) = masked(folder, text, None), masked(folder, text, masks)
    moved = masks.rename(masks.with_name("moved"))
    assert [item.id for item in masked(folder, text, moved)] == [original.id]
    (moved / "a.png").write_bytes(b"edited")
    (edited,) = masked(folder, text, moved)
    assert len({plain.id, original.id, edited.id}) == 3


def test_the_id_without_masks_is_what_it_always_was(folder: Path) -> None:
    """A run from before there were masks can still be continued."""
    (item,) = masked(folder, "file,label\na.png,1\n", None)
    assert item.id == hashlib.sha256(b"a.png" + b"1\0mug").hexdigest()[:16]


def test_one_image_with_two_masks_is_two_items(folder: Path, masks: Path) -> None:
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    first, second = masked(folder, "file,label\na.png,1\nb.png,1\n", masks)
    assert first.id != second.id


COLUMN = "file,label,target\n"


def test_a_target_is_a_number_or_a_name(folder: Path) -> None:
    items = read(folder, COLUMN + "a.png,0,2\nb.png,0, mug \nc.png,1,donut\n")
    assert [(item.target, item.target_name) for item in items] == [(2, "donut"), (1, "mug"), (2, "donut")]
    assert [(item.label, item.class_name) for item in items] == [(0, "ball"), (0, "ball"), (1, "mug")]


@pytest.mark.parametrize("target", ["1", "mug"])
def test_one_target_for_all_images(folder: Path, target: str) -> None:
    for text in ("file,label\na.png,0\nb.png,2\n", COLUMN + "a.png,0,\nb.png,2, \n"):
        items = read(folder, text, target=target)
        assert [(item.target, item.target_name) for item in items] == [(1, "mug")] * 2


def test_without_targets_there_is_none(folder: Path) -> None:
    for text in ("file,label\na.png,0\n", COLUMN + "a.png,0,\n", COLUMN + "a.png,0\n"):
        (item,) = read(folder, text)
        assert (item.target, item.target_name) == (None, "")


def test_a_class_without_a_name_is_called_by_its_number(folder: Path) -> None:
    (item,) = read(folder, "file,label,class_name,target\na.png,0,cup,2\n", names=())
    assert (item.target, item.target_name) == (2, "2")


def test_a_whole_number_is_never_a_name(folder: Path) -> None:
    (item,) = read(folder, COLUMN + "a.png,0,2\n", names=("0", "2", "1"))
    assert (item.target, item.target_name) == (2, "1")


@pytest.mark.parametrize("target", ["3", "-1", "1000000000000000000000000"])
def test_targets_out_of_range(folder: Path, target: str) -> None:
    for message in (
        complaint(folder, COLUMN + f"a.png,0,1\nb.png,0,{target}\n"),
        complaint(folder, "file,label\na.png,0\n", target=target),
    ):
        assert f"target {target} is out of range; the surrogates have classes 0 to 2" in message
    assert "line 3" in complaint(folder, COLUMN + f"a.png,0,1\nb.png,0,{target}\n")


@pytest.mark.parametrize(("target", "near"), [("mgu", "mug"), ("donuts", "donut"), ("1.0", ""), ("pot", ""), ("", "")])
def test_targets_that_nobody_knows(folder: Path, target: str, near: str) -> None:
    messages = [complaint(folder, "file,label\na.png,0\n", target=target)]
    if target:
        messages.append(complaint(folder, COLUMN + f"a.png,0,{target}\n"))
        assert "line 2" in messages[1]
    for message in messages:
        assert f"target {target!r} is neither a number nor a class that the surrogates know" in message
        assert message.endswith(f"; did you mean '{near}'?" if near else "know")


def test_a_name_that_two_classes_have(folder: Path) -> None:
    text = COLUMN + "a.png,0,crane\n"
    message = complaint(folder, text, names=("mug", "crane", "crane"))
    assert "target 'crane' is the name of classes [1, 2]; give the number of one" in message


def test_a_target_that_is_the_true_class(folder: Path) -> None:
    for message in (
        complaint(folder, COLUMN + "a.png,0,mug\nb.png,1,1\n"),
        complaint(folder, "file,label\na.png,0\nb.png,1\n", target="mug"),
    ):
        assert "line 3, b.png: target 1 is the image's true class; choose another, or leave the image out" in message


def test_a_column_and_one_target_for_all_contradict_each_other(folder: Path) -> None:
    message = complaint(folder, COLUMN + "a.png,0,\nb.png,0,2\n", target="1")
    assert "line 3: target '2' contradicts `target`" in message


@pytest.mark.parametrize(("first", "second", "found"), [("1", "", "no target"), ("", "1", "a target")])
def test_a_column_that_is_partly_empty(folder: Path, first: str, second: str, found: str) -> None:
    text = COLUMN + f"a.png,0,{first}\nb.png,0,{first}\nc.png,0,{second}\n"
    assert f"line 4: {found}, unlike the images before" in complaint(folder, text)
    assert len(read(folder, text, limit=2)) == 2, "nothing is said of images that are left out"


def test_the_id_changes_with_the_target_and_not_with_how_it_is_given(folder: Path, masks: Path) -> None:
    text = "file,label\na.png,0\n"
    (plain,), (mug,), (donut,) = (read(folder, text, target=target) for target in (None, "mug", "donut"))
    assert len({plain.id, mug.id, donut.id}) == 3
    assert read(folder, text, target="1") == read(folder, COLUMN + "a.png,0,mug\n") == [mug]
    (with_mask,) = masked(folder, COLUMN + "a.png,0,mug\n", masks)
    assert len({with_mask.id, mug.id, masked(folder, text, masks)[0].id}) == 3


def test_one_image_with_two_targets_is_two_items(folder: Path) -> None:
    first, second = read(folder, COLUMN + "a.png,0,mug\na.png,0,donut\n")
    assert first.id != second.id
    assert "listed before" in complaint(folder, COLUMN + "a.png,0,mug\na.png,0,1\n")
