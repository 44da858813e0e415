"""Gradients with a fixed order of sums: equal to torch's own, and taken instead of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, interpolate, pad
from torch.utils._python_dispatch import TorchDispatchMode

from attnshift import LatentAttack
from attnshift.deterministic import KERNELS, only_deterministic, settle_device
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import scene
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import Recipe
from forked import fork

UNORDERED = {
    "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward",
    "_upsample_bilinear2d_aa_backward",
    "_upsample_bicubic2d_aa_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "nll_loss2d_forward",
    "_ctc_loss_backward",
    "_embedding_bag",
    "put_",
    "histc",
    "median",
    "kthvalue",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "max_unpool2d",
}
"""Operations that torch refuses on a GPU where only deterministic ones may run
(documentation of ``torch.use_deterministic_algorithms``)."""

GRID = torch.rand(2, 6, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 - 1.5

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear, larger": lambda image: interpolate(image, (17, 11), mode="bilinear"),
    "bilinear, corners aligned": lambda image: interpolate(image, (4, 11), mode="bilinear", align_corners=True),
    "bilinear, by a factor": lambda image: interpolate(image, scale_factor=1.7, mode="bilinear"),
    "bicubic": lambda image: interpolate(image, (5, 13), mode="bicubic"),
    "bilinear, antialiased": lambda image: interpolate(image, (5, 13), mode="bilinear", antialias=True),
    "bicubic, antialiased": lambda image: interpolate(image, (5, 4), mode="bicubic", antialias=True),
    "reflection": lambda image: pad(image, (2, 0, 1, 3), mode="reflect"),
    "adaptive means": lambda image: adaptive_avg_pool2d(image, (4, 3)),
} | {
    f"sampled, {padding}, corners aligned: {aligned}": lambda image, padding=padding, aligned=aligned: grid_sample(
        image, GRID.to(image), padding_mode=padding, align_corners=aligned
    )
    for padding in ("zeros", "border", "reflection")
    for aligned in (False, True)
}


def gradients() -> dict[str, Tensor]:
    image = torch.rand(2, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradient(operation: Callable[[Tensor], Tensor]) -> Tensor:
        seen = image.clone().requires_grad_()
        found = operation(seen)
        push = torch.rand(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        return torch.autograd.grad(found, seen, push)[0]

    return {name: gradient(operation) for name, operation in OPERATIONS.items()}


def test_gradients_are_torchs_own_by_other_kernels() -> None:
    expected = gradients()

    def child() -> None:
        called = set()
        for name, kernel in KERNELS.items():
            KERNELS[name] = lambda *given, name=name, kernel=kernel: (called.add(name), kernel(*given))[1]
        only_deterministic("CPU")
        assert torch.are_deterministic_algorithms_enabled()
        for name, found in gradients().items():
            torch.testing.assert_close(found, expected[name], rtol=1e-12, atol=1e-12, msg=name)
        assert called == set(KERNELS)

    assert fork(child).wait() == 0


def test_half_precision_is_summed_in_fp32() -> None:
    grad = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    back = KERNELS["_upsample_bilinear2d_aa_backward"]
    exact = back(grad, [64, 64], [1, 1, 32, 32], False)
    coarse = back(grad.bfloat16(), [64, 64], [1, 1, 32, 32], False)
    assert isinstance(exact, Tensor)
    assert isinstance(coarse, Tensor)
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), exact, rtol=2e-2, atol=0)


def test_positions_of_samples_have_no_gradient_there() -> None:
    image, grid = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 2, 2)
    with pytest.raises(RuntimeError, match="fixed positions"):
        KERNELS["grid_sampler_2d_backward"](torch.ones(1, 1, 2, 2), image, grid, 0, 0, False, [True, True])


def test_a_cpu_is_left_as_it_is() -> None:
    settle_device("cpu")
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


class _Seen(TorchDispatchMode):
    """The names of torch's operations in a block, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.heavy
@pytest.mark.parametrize("preset", ["strong", "nearest", "full", "diffattack"])
def test_no_attack_needs_an_operation_without_order(preset: str) -> None:
    recipe = load_recipe(preset, ["optimiser.iterations=2"])
    assert isinstance(recipe, Recipe)
    attack = LatentAttack("lab", ["lab:resnet"], recipe)
    with _Seen() as seen:
        attack(render_scenes([scene(0, "test", 3)]).images, torch.tensor([3]))
    assert seen.names & UNORDERED <= set(KERNELS)
    assert "convolution_backward" in seen.names, "backward passes were not seen"
