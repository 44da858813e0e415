"""The renderer: pure to the bit, and the mask is where the object is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attnshift.lab import splits
from attnshift.lab.render import SIZE, Rendering, render_scenes
from attnshift.lab.scenes import SPLITS, scene
from lab_scenes import rendered

COUNT = 32


@pytest.fixture(scope="module")
def rendering() -> Rendering:
    return rendered(range(COUNT))


@pytest.mark.heavy
def test_an_image_is_the_same_to_the_bit_alone_and_in_any_batch(rendering: Rendering) -> None:
    for index in (0, 17, 31):
        shown = scene(0, "test", index)
        alone, mixed = render_scenes([shown]), render_scenes([scene(1, "train", 5), shown, scene(0, "test", 4)])
        for images, place in ((alone.images, 0), (mixed.images, 1), (render_scenes([shown]).images, 0)):
            assert torch.equal(images[place], rendering.images[index])
        assert torch.equal(alone.masks[0], rendering.masks[index])


def test_ranges_and_shapes(rendering: Rendering) -> None:
    assert rendering.images.shape == (COUNT, 3, SIZE, SIZE)
    assert rendering.masks.shape == (COUNT, 1, SIZE, SIZE)
    for values in (rendering.images, rendering.masks):
        assert values.dtype == torch.float32
        assert values.min() >= 0
        assert values.max() <= 1
    assert (rendering.images.flatten(1).std(dim=1) > 0.03).all()


def test_objects_cover_between_8_and_40_percent(rendering: Rendering) -> None:
    coverage = rendering.masks.mean((1, 2, 3))
    assert coverage.min() >= 0.08
    assert coverage.max() <= 0.40
    assert coverage.std() > 0.04


def test_splits_and_seeds_show_different_images() -> None:
    scenes = [scene(0, split, 12) for split in SPLITS] + [scene(1, "test", 12)]
    images = render_scenes(scenes).images
    assert all((images[i] - images[j]).abs().max() > 0.1 for i in range(4) for j in range(i))


@pytest.mark.heavy
def test_colour_of_the_object_shows_inside_the_mask_only() -> None:
    for index in range(10):
        shown = scene(0, "test", index)
        both = render_scenes([replace(shown, colour="red"), replace(shown, colour="blue")])
        assert torch.equal(both.masks[0], both.masks[1])
        changed = (both.images[0] - both.images[1]).abs().amax(0) > 0
        inside = both.masks[0, 0] > 0
        assert not (changed & ~inside).any()
        assert (changed & inside).sum() > 0.15 * inside.sum()


def test_finer_rendering_shows_the_same_picture() -> None:
    shown = [scene(0, "test", index) for index in range(3)]
    coarse, fine = render_scenes(shown), render_scenes(shown, size=2 * SIZE, samples=1)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine.masks, 2), coarse.masks, rtol=0, atol=0)


def test_a_part_of_a_split_holds_the_scenes_of_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "PART", 2)
    path = tmp_path / "000004.safetensors"
    splits._render_part((0, "tuning", 4, path))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    expected = render_scenes([scene(0, "tuning", 4), scene(0, "tuning", 5)])
    saved = load_file(path)
    torch.testing.assert_close(saved["images"], (expected.images * 255).round().to(torch.uint8), rtol=0, atol=0)
    torch.testing.assert_close(saved["masks"], (expected.masks * 255).round().to(torch.uint8), rtol=0, atol=0)


def test_a_split_that_is_on_disk_is_read_and_not_rendered_again(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    folder = tmp_path / "renders-3-test"
    folder.mkdir()
    parts = [torch.randint(256, (splits.PART, 3, 4, 4), generator=draw, dtype=torch.uint8) for _ in range(2)]
    for at, part in enumerate(parts):
        save_file({"images": part, "masks": part[:, :1].clone()}, folder / f"{at * splits.PART:06d}.safetensors")
    split = splits.rendered(3, "test", splits.PART + 20, tmp_path)
    assert torch.equal(split.images, torch.cat(parts)[: splits.PART + 20])
    assert torch.equal(split.masks, split.images[:, :1])
    assert split.scenes[255] == scene(3, "test", 255)
    assert split.labels[:12].tolist() == [*range(10), 0, 1]
