"""Denoisers whose linear layers have weights of 8 bits: the attack's gradient is that of these weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.diffusion import check_pipeline_name, load_pipeline
from attnshift.diffusion.backbone import Read
from attnshift.diffusion.int8 import Int8Linear, in_eight_bits
from attnshift.errors import ModelError
from attnshift.fingerprint import fingerprint
from families import FAMILIES, backbone_of
from tiers import fast_where


def rounded(layer: Int8Linear) -> nn.Linear:
    """An ordinary layer with the weights that ``layer`` stands for."""
    made = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    made.load_state_dict(
        {"weight": layer.whole * layer.step[:, None]} | ({} if layer.bias is None else {"bias": layer.bias})
    )
    return made


def test_a_weight_moves_by_half_a_step_at_most() -> None:
    layer = nn.Linear(20, 3)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.weight[2] *= 1e-6
    small = Int8Linear(layer)
    assert small.whole.dtype == torch.int8
    assert int(small.whole[0].abs().max()) == 127
    moved = (rounded(small).weight - layer.weight).abs()
    assert bool((moved <= small.step[:, None] * 0.5001).all())
    assert not moved[1].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradient_are_those_of_the_rounded_weights(dtype: torch.dtype) -> None:
    small = Int8Linear(nn.Linear(20, 30))
    plain = rounded(small).double()
    states = torch.randn(2, 5, 20, dtype=dtype, requires_grad=True)
    small.bias = nn.Parameter(small.bias.to(dtype))
    outputs, exact = small(states), plain(states.double())
    assert outputs.dtype == dtype
    weights = torch.randn_like(outputs)
    (ours,) = torch.autograd.grad(outputs, states, weights)
    (theirs,) = torch.autograd.grad(exact, states, weights.double())
    near: Any = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(outputs.double(), exact, **near)
    torch.testing.assert_close(ours.double(), theirs.double(), **near)


def test_no_copy_of_the_weights_waits_for_backward() -> None:
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))).requires_grad_(False)
    in_eight_bits(layers)
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        layers(torch.ones(2, 64, requires_grad=True))
    assert sum(value.shape == (64, 64) for value in kept) == 3
    assert {value.dtype for value in kept if value.shape == (64, 64)} == {torch.int8}


@pytest.mark.parametrize("family", fast_where(lambda each: each == "flux dev", FAMILIES))
def test_the_gradient_reaches_the_latents_through_every_family(family: str) -> None:
    small = deepcopy(backbone_of(family))
    denoiser: Any = small._denoiser  # type: ignore[attr-defined]
    before = fingerprint({"denoiser": denoiser})
    in_eight_bits(denoiser)
    assert fingerprint({"denoiser": denoiser}) != before
    assert not [each for each in denoiser.modules() if type(each) is nn.Linear]
    text = small.embed(["a mug"])
    latents = torch.randn(1, denoiser.config["in_channels"] // (4 if family.startswith("flux") else 1), 8, 8)
    given, site = latents.requires_grad_(), small.sites(64)[0]
    made = small.denoise(given, 500, text, [Read(site)])
    loss = made.output.square().sum() + made.attention[site].square().sum()
    (ours,) = torch.autograd.grad(loss, given)
    for module in [*denoiser.modules()]:
        for name, layer in [*module.named_children()]:
            if isinstance(layer, Int8Linear):
                setattr(module, name, rounded(layer))
    made = small.denoise(given, 500, text, [Read(site)])
    (theirs,) = torch.autograd.grad(made.output.square().sum() + made.attention[site].square().sum(), given)
    assert bool(ours.any())
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.heavy
def test_it_stands_behind_the_name(pipeline_folder: Path) -> None:
    whole, small = load_pipeline(str(pipeline_folder)), load_pipeline(f"{pipeline_folder},weights=int8")
    assert small.name == f"{pipeline_folder},weights=int8"
    assert small.fingerprint() != whole.fingerprint()
    latents, text = torch.ones(1, 4, 8, 8), whole.embed(["a mug"])
    with torch.no_grad():
        ours, theirs = (each.denoise(latents, 500, text).output for each in (small, whole))
    assert 0 < float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_other_widths_are_refused() -> None:
    with pytest.raises(ModelError, match="weights is 'int4'; known is int8"):
        check_pipeline_name("lab,weights=int4")
