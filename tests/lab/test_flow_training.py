"""Training of the lab's flow, two steps of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnshift.errors import UserError
from attnshift.lab.scenes import scene
from attnshift.lab.splits import Split
from attnshift.lab.weights import pipeline_folder
from attnshift.sizes import Size
from later import later

attention = later("attnshift.diffusion.attention")
backbone = later("attnshift.diffusion.backbone")
check = later("attnshift.lab.check")
flow = later("attnshift.diffusion.flow")
flow_denoiser = later("attnshift.lab.flow_denoiser")
joint = later("attnshift.diffusion.joint")
sd3 = later("attnshift.diffusion.sd3")
testing_models = later("attnshift.testing.models")
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
    assert isinstance(first.noise_schedule(4, 2).path, flow.Flow)
    assert first.suggested_size == 64
    weights = [each.transformer.state_dict() for each in made]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    image = split.images[:1] / 255
    assert torch.allclose(first.decode(first.encode(image)), again.decode(again.encode(image)))

    lines: list[str] = []
    check.check_lab(2, False, lines.append, str(tmp_path / "first"))
    assert [line[5:].partition(":")[0] for line in lines] == [
        "autoencoder round trip", "offset path against round trip", "class word looks inside the mask"
    ]  # fmt: skip
    assert lines[1].startswith("ok  "), "the path ends at the image, however little is learned"
    with pytest.raises(UserError, match="`write` saves the figures of the shipped networks"):
        check.check_lab(2, True, lines.append, str(tmp_path / "first"))


@pytest.mark.heavy
def test_one_token_stands_for_all_zeros_of_the_missing_t5() -> None:
    transformer = testing_models.small_flow().transformer
    draw = torch.Generator().manual_seed(0)
    latents, text, pooled = (torch.randn(2, *shape, generator=draw) for shape in ((4, 8, 8), (24, 16), (16,)))

    def predicted(zeros: int) -> torch.Tensor:
        states = torch.nn.functional.pad(text, (0, 0, 0, zeros))
        with torch.no_grad():
            return transformer(
                latents, timestep=torch.full((2,), 300.0), encoder_hidden_states=states, pooled_projections=pooled
            ).sample

    sites = flow_denoiser.cross_sites(transformer, Size(8, 8))
    reads = [backbone.Read(site) for site in sites]
    with attention.record_attention(transformer, reads, joint.JointRecorder) as maps:
        whole, read = predicted(sd3.T5_LENGTH), dict(maps)
    with attention.record_attention(transformer, reads, flow_denoiser.OneForAll) as maps:
        assert torch.allclose(predicted(1), whole, atol=1e-5)
    for site in sites:
        assert torch.allclose(maps[site][..., :24], read[site][..., :24], atol=1e-6)
        assert torch.allclose(maps[site][..., 24], read[site][..., 24:].sum(-1), atol=1e-5)
    assert not torch.allclose(predicted(1), whole, atol=1e-3), "one zero is not as many"


@pytest.mark.heavy
def test_it_needs_the_autoencoder_of_the_first_pipeline_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the flow takes the autoencoder of the lab's pipeline"):
        train.train_lab(tmp_path / "out", tmp_path / "work", 0, ["flow"], 1, lambda line: None)
    assert not list((tmp_path / "work").iterdir())
