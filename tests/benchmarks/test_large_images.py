"""What large images take is counted without having the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from later import later

if TYPE_CHECKING:
    from large_images import Unreal

large_images = later("large_images")
fake_tensor = later("torch._subclasses.fake_tensor")


def test_what_is_alive_counts_once_and_what_was_there_does_not() -> None:
    with fake_tensor.FakeTensorMode():
        weights = torch.zeros(100)
        with large_images.Alive([weights]) as alive:
            made = weights * 2
            also = made.view(10, 10).t()
            halves = weights[:50]
            assert alive.now == made.nbytes == 400
            larger = torch.cat([made, halves])
            assert alive.now == alive.peak == 1000
            del made, larger
            assert alive.now == 400, "a view keeps what it looks at"
            del also
            assert (alive.now, alive.peak) == (0, 1000)


def test_what_backward_needs_stays_until_it_has_gone_back() -> None:
    with fake_tensor.FakeTensorMode():
        leaf = torch.zeros(100, requires_grad=True)
        with large_images.Alive([leaf]) as alive:
            value = leaf.exp().exp().sum()
            assert alive.now == 2 * 400 + 4
            (gradient,) = torch.autograd.grad(value, leaf)
            del value
            assert alive.now == gradient.nbytes


@pytest.fixture(scope="module")
def tiny() -> Unreal:
    return large_images.Unreal("tiny")


@pytest.mark.heavy
@pytest.mark.parametrize("variant", ["exact", "checkpointed"])
def test_attention_terms_take_little_memory_beside_what_the_iteration_takes(
    tiny: Unreal, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 256 px maps of the finest grid have 4 MB, on both branches of five sites: 40 MB a step. Tiles are a run's."""
    monkeypatch.setattr(large_images, "SCORES", 2**17)
    few = ["diffusion.denoising_steps=1", *large_images.VARIANTS[variant]]
    exact, without = (large_images.computed(tiny, 256, few, terms) for terms in (True, False))
    assert exact < 1.15 * without
    assert exact - without < 4e6
