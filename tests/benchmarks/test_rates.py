"""Operations are counted forward and backward, and what takes the time is named."""

from __future__ import annotations

import pytest
import table
import torch
from torch import nn
from torch.nn import functional

from later import later

models = later("models")
rates = later("rates")


def test_a_matrix_product_has_two_operations_for_each_product() -> None:
    left, right = torch.randn(3, 5), torch.randn(5, 7)
    assert rates.counted(lambda: left @ right) == 2 * 3 * 5 * 7
    assert rates.counted(lambda: left + 1) == 0


def test_frozen_weights_cost_one_product_more_in_backward_and_taught_ones_two() -> None:
    image = torch.randn(2, 4, 8, 8, requires_grad=True)
    forward = 2 * 2 * 6 * 8 * 8 * 4 * 9
    for taught, products in ((False, 2), (True, 3)):
        layer = nn.Conv2d(4, 6, 3, padding=1).requires_grad_(taught)
        wanted = [image, *layer.parameters()] if taught else [image]
        assert rates.counted(lambda layer=layer, wanted=wanted: torch.autograd.grad(layer(image).sum(), wanted)) == (
            products * forward
        )


def test_fused_attention_counts_as_its_products() -> None:
    states = torch.randn(1, 2, 64, 16, requires_grad=True)
    product = 2 * 2 * 64 * 64 * 16
    assert rates.counted(lambda: functional.scaled_dot_product_attention(states, states, states)) == 2 * product
    # Backward computes the map anew and has four products of its own.
    both = rates.counted(
        lambda: torch.autograd.grad(functional.scaled_dot_product_attention(states, states, states).sum(), states)
    )
    assert both == (2 + 5) * product


def test_the_kernel_that_takes_most_is_the_first() -> None:
    large, small = torch.randn(700, 700), torch.randn(4, 4)
    kernels = rates.largest_kernels(lambda: (large @ large, small + 1), "cpu")
    assert kernels[0][0] == "aten::mm"
    assert 0.5 < kernels[0][1] <= 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rates.SIDES", {"cpu": (64,)})


@pytest.mark.usefixtures("small")
def test_a_rate_is_that_of_the_product() -> None:
    assert 1e7 < rates.matrix_rate(torch.float32, "cpu") < 1e13


@pytest.mark.heavy
@pytest.mark.usefixtures("small")
def test_the_baseline_needs_more_operations_and_all_variants_have_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = rates.measured(models.build("tiny"), 1, 1)
    variants = figures["rates"]["variants"]
    assert variants["naive"]["operations"] > 1.5 * variants["exact"]["operations"]
    assert variants["bf16"]["operations"] == pytest.approx(variants["exact"]["operations"], rel=0.01)
    assert variants["quick"]["operations"] < variants["exact"]["operations"]
    circumstances = {"device": "cpu", "processor": "x", "cores": 2, "torch": "2", "threads": 1, "rounds": 1, "batch": 1}
    told = {"tiny": figures | {"measured": {"rates": circumstances}}}
    monkeypatch.setattr("table.read", lambda device: told if device == "cpu" else {})
    lines = [line for line in "\n".join(map(table.markdown, table.PAGES)).splitlines() if line.startswith("| tiny")]
    assert [line.split("|")[2].strip() for line in lines] == list(variants)
