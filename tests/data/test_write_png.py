"""Saved images hold the computed values and their text, and are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from attnshift.data.images import into_range, quantise, read_image, write_png
from attnshift.errors import RunError


def all_values() -> Tensor:
    """Image of 16 px with all 256 values in each channel, in another order for each."""
    ramp = torch.arange(256).float().view(16, 16) / 255
    return torch.stack([ramp, ramp.flip(0), ramp.T])


def test_round_trip_is_exact(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", all_values(), {})
    assert torch.equal(read_image(tmp_path / "a.png", 16), all_values())


def test_quantised_images_survive_the_file(tmp_path: Path) -> None:
    image = quantise(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)))
    write_png(tmp_path / "a.png", image, {})
    assert torch.equal(read_image(tmp_path / "a.png", 16), image)


def test_quantise_rounds_to_the_nearest_of_256_values() -> None:
    image = torch.linspace(0, 1, 5001)
    rounded = quantise(image)
    assert (rounded - image).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(quantise(rounded), rounded)
    assert len(rounded.unique()) == 256


def test_values_are_rounded_and_not_cut_off(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", torch.full((3, 2, 2), 0.999 / 255), {})
    assert torch.equal(read_image(tmp_path / "a.png", 2), torch.full((3, 2, 2), 1 / 255))


def test_an_image_that_is_not_square_keeps_its_sides(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", torch.rand(3, 5, 9), {})
    with Image.open(tmp_path / "a.png") as written:
        assert written.size == (9, 5)


def test_text_chunks_are_kept_whatever_their_script(tmp_path: Path) -> None:
    text = {"Software": "attnshift 0", "attnshift:source": "тест <b>.png", "attnshift:label": "3 杯子 🫖"}
    write_png(tmp_path / "a.png", all_values(), text)
    with Image.open(tmp_path / "a.png") as written:
        written.load()
        assert {key: written.info[key] for key in text} == text


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, all_values(), {"Software": "x"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, before: bytes | None
) -> None:
    path = tmp_path / "a.png"
    if before:
        path.write_bytes(before)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(RunError, match="disk full"):
        write_png(path, all_values(), {})
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_failure_while_encoding_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Image.Image, file: object, *_: object, **__: object) -> None:
        file.write(b"\x89PNG half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        write_png(tmp_path / "a.png", all_values(), {})
    assert not list(tmp_path.glob("*.png"))


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", torch.zeros(3, 16, 16), {})
    write_png(tmp_path / "a.png", all_values(), {})
    assert torch.equal(read_image(tmp_path / "a.png", 16), all_values())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_black_and_white_keep_their_gradient_and_what_lies_outside_has_none() -> None:
    values = torch.tensor([-0.2, -1e-7, 0.0, 0.3, 1.0, 1 + 1e-7, 1.2], requires_grad=True)
    seen = into_range(values)
    assert torch.equal(seen, values.detach().clamp(0, 1))
    (gradient,) = torch.autograd.grad(seen.sum(), values)
    assert gradient.tolist() == [0, 1, 1, 1, 1, 1, 0]
