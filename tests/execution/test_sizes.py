"""Runs on images that are not square: cropped to one size, or each whole near its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from attnshift.data.images import read_image, size_in, write_png
from attnshift.errors import UserError
from attnshift.execution.early import check_numbers
from attnshift.judging.verdicts import evaluate_run
from attnshift.report.page import write_report
from attnshift.results.generations import take_in
from attnshift.results.plan import Generation, Plan, in_batches_by_size, read_sizes
from attnshift.results.run import open_run
from attnshift.sizes import Size
from small_runs import planned, run_small, small_settings, write_labels
from tables import records

if TYPE_CHECKING:
    from attnshift.results.store import Store

MASKED = ("mask.source=given", "mask.edge=hard", "mask.paste_back=true", "optimiser.learning_rate=0.1")
SIZES = {"wide.png": Size(64, 100), "square.png": Size(64, 64), "tall.png": Size(97, 62), "wider.png": Size(62, 96)}
"""Sizes of the files, in the order of the list."""
ATTACKED = {"wide.png": Size(64, 104), "square.png": Size(64, 64), "tall.png": Size(96, 64), "wider.png": Size(64, 96)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes, and masks that cover their upper left part."""
    folder, draw = tmp_path_factory.mktemp("sizes"), torch.Generator().manual_seed(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for file, size in SIZES.items():
        coarse = torch.rand(1, 3, 5, 5, generator=draw)
        image = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
        mask = torch.zeros(3, *size)
        mask[:, : size.rows // 2, : size.columns // 4] = 1
        write_png(folder / "images" / file, image, {})
        write_png(folder / "masks" / file, mask, {})
    write_labels(folder, [(file, at, "mug") for at, file in enumerate(SIZES)])
    return folder


@pytest.fixture(scope="module")
def whole(pictures: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run on whole images; not to be written to but for tables."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return run_small(small_settings(pictures, pipeline_folder, out, *MASKED, masks=pictures / "masks", size="keep"))


@pytest.mark.heavy
def test_whole_images_keep_their_size_and_change_only_under_their_masks(whole: Store) -> None:
    rows = records(whole, "results")
    assert {row["file"]: row["batch"] for row in rows} == dict.fromkeys(SIZES, 1), "no two have one size"
    for row in rows:
        clean, attack = (read_image(whole.image_path(row["id"], arm), None) for arm in ("clean", "attack"))
        size = ATTACKED[row["file"]]
        assert clean.shape[1:] == attack.shape[1:] == size
        changed = (clean != attack).any(0)
        # A mask's edge may lie between two pixels of the size that is attacked.
        inside = changed[: size.rows // 2 + 1, : size.columns // 4 + 1]
        assert inside.sum() == changed.sum() > 0.1 * inside.numel()
        maps = open_run(whole.folder).attention(row["id"])
        assert [each.shape for each in maps] == [(size.rows // 8, size.columns // 8)] * 2


@pytest.mark.heavy
def test_whole_images_are_judged_and_reported(whole: Store) -> None:
    evaluate_run(whole, [], batch=3, min_clean_accuracy=0)
    assert len(records(whole, "quality")) == len(SIZES) * (len(whole.spec().arms) - 1)
    assert "each image near its own size" in write_report(whole).read_text()


@pytest.mark.heavy
def test_one_image_is_attacked_alike_among_other_sizes_and_alone(
    whole: Store, pictures: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    """Cropped to the size that it has, and whole: the same bytes of pixels."""
    write_labels(tmp_path, [("square.png", 1, "mug")])
    settings = small_settings(
        pictures, pipeline_folder, tmp_path / "run", *MASKED, masks=pictures / "masks", size="64x64"
    )
    alone = run_small(replace(settings, labels=tmp_path / "labels.csv"))
    assert alone.spec().size == 64
    (id,) = (row["id"] for row in records(alone, "results"))
    for arm in alone.spec().arms:
        found, expected = (Image.open(store.image_path(id, arm)).tobytes() for store in (alone, whole))
        assert found == expected, arm


def test_a_wide_size_crops_to_its_own_shape(pictures: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    settings = small_settings(pictures, pipeline_folder, tmp_path / "run", size="96x64", limit=2)
    store = run_small(settings)
    assert store.spec().size == "96x64"
    for row in records(store, "results"):
        assert size_in(store.image_path(row["id"], "attack").read_bytes()) == Size(64, 96)
        assert row["batch"] == 2


def sized(*sizes: Size) -> Plan:
    items = [*planned(*map(str, range(len(sizes))))]
    return Plan.draw(replace(item, size=size) for item, size in zip(items, sizes, strict=True))


def test_micro_batches_have_images_of_one_size_in_every_generation(tmp_path: Path) -> None:
    square, wide = Size(64, 64), Size(64, 96)
    plan = sized(square, wide, square, square, wide).in_equal_sizes(2)
    assert [[item.id for item in batch.items] for batch in plan.batches(2)] == [["0", "2"], ["1", "4"], ["3"]]
    assert plan.sizes == (square, wide)
    (tmp_path / "plan.parquet").write_bytes(plan.path.read_bytes())
    later = take_in(tmp_path, sized(square, wide, square, square, wide, square, wide), 2, 0, lambda: False)
    assert [[item.id for item in batch.items] for batch in later.batches(2)][3:] == [["5"], ["6"]]
    assert later.generation == Generation(1, 7, 2, 0)
    assert dict(read_sizes(later.path))["6"] == "96x64"
    assert in_batches_by_size([(str(at), None) for at in range(5)], 2, 4) == {str(at): 4 + at for at in range(5)}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("96x4", "`size` is 96x4; it must lie between 8 and 4096"),
        ("wide", "`size` is 'wide'; give a side in pixels such as 512"),
        ("96x64x3", "`size` is '96x64x3'"),
        (5000, "`size` is 5000; it must lie between"),
    ],
)
def test_a_size_that_is_none_is_refused(given: str | int, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        check_numbers({"size": given})
    assert str(caught.value).startswith(complaint)
