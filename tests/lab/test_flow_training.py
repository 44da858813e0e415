"""Training of the lab's flow, two steps of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnshift.diffusion.flow import Flow
from attnshift.errors import UserError
from attnshift.lab.scenes import scene
from attnshift.lab.splits import Split
from attnshift.lab.weights import pipeline_folder
from later import later

flow_denoiser = later("attnshift.lab.flow_denoiser")
sd3 = later("attnshift.diffusion.sd3")
train = later("attnshift.lab.train")


@pytest.fixture
def split() -> Split:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, 64, 64), dtype=torch.uint8, generator=draw)
    return Split(images, images[:, :1], tuple(scene(0, "train", at) for at in range(6)))


@pytest.mark.heavy
def test_what_is_trained_loads_as_a_flow_and_depends_on_the_seed_alone(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_denoiser, "FLOW", replace(flow_denoiser.FLOW, steps=2, batch=4))
    made: list[Any] = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        work = tmp_path / f"work-{name}"
        work.mkdir()
        flow_denoiser.train_flow(split, seed, work, pipeline_folder() / "vae", tmp_path / name, lambda line: None)
        made.append(sd3.load_sd3(str(tmp_path / name)))
    first, again, other = made
    assert isinstance(first.noise_schedule(4, 2).path, Flow)
    assert first.suggested_size == 64
    weights = [each.transformer.state_dict() for each in made]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    image = split.images[:1] / 255
    assert torch.allclose(first.decode(first.encode(image)), again.decode(again.encode(image)))


@pytest.mark.heavy
def test_it_needs_the_autoencoder_of_the_first_pipeline_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the flow takes the autoencoder of the lab's pipeline"):
        train.train_lab(tmp_path / "out", tmp_path / "work", 0, ["flow"], 1, lambda line: None)
    assert not list((tmp_path / "work").iterdir())
