"""Figures of attention rows against whole maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.attention import (
    entropy_rows,
    jensen_shannon_rows,
    kl_rows,
    log_sum_exp_rows,
    phrase_columns,
    squared_difference_rows,
    symmetric_kl_rows,
    tiles,
)

TOKENS = (3, 0, 3)
Figure = Callable[..., Tensor]


def log_map(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5).log_softmax(-1)


def whole_kl(*branches: Tensor) -> Tensor:
    one, other = log_map(*branches[:2]), log_map(*branches[2:])
    return (one.exp() * (one - other)).sum(-1)


def whole_js(*branches: Tensor) -> Tensor:
    one, other = log_map(*branches[:2]), log_map(*branches[2:])
    middle = torch.logaddexp(one, other) - math.log(2)
    return ((one.exp() * (one - middle)).sum(-1) + (other.exp() * (other - middle)).sum(-1)) / 2


PAIRS: dict[Figure, Figure] = {
    kl_rows: whole_kl,
    symmetric_kl_rows: lambda a, b, c, d: whole_kl(a, b, c, d) + whole_kl(c, d, a, b),
    jensen_shannon_rows: whole_js,
    squared_difference_rows: lambda a, b, c, d: (log_map(a, b).exp() - log_map(c, d).exp()).square().sum(-1),
}
"""Figure of two branches -> the same of whole maps."""
MEANS: dict[Figure, Figure] = {
    partial(figure, mean=True): lambda *branches, whole=whole: whole(*branches).mean(2)
    for figure, whole in PAIRS.items()
}
SINGLES: dict[Figure, Figure] = {
    entropy_rows: lambda q, k: -(log_map(q, k).exp() * log_map(q, k)).sum(-1),
    log_sum_exp_rows: lambda q, k: (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).logsumexp(-1),
    partial(phrase_columns, tokens=TOKENS): lambda q, k: log_map(q, k).exp()[..., list(TOKENS)],
}
EVERY = [*PAIRS.items(), *MEANS.items(), *SINGLES.items()]
names = lambda each: getattr(each, "__name__", str(getattr(each, "keywords", "")))  # noqa: E731


def inputs(
    figure: Figure,
    apart: float = 1.0,
    dtype: torch.dtype = torch.float64,
    rows: int = 7,
    keys: int = 9,
    size: float = 1,
) -> list[Tensor]:
    """Queries and keys of two images with three heads; the second branch is ``apart`` from the first."""
    draw = torch.Generator().manual_seed(rows)

    def drawn(count: int) -> Tensor:
        return torch.randn(2, 3, count, 4, generator=draw, dtype=torch.float64)

    first = [size * drawn(rows), drawn(keys)]
    second = [each + apart * drawn(each.shape[2]) for each in first]
    return [each.to(dtype) for each in (first + second if figure in PAIRS or figure in MEANS else first)]


def with_gradient(figure: Figure, given: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    leaves = [each.detach().clone().requires_grad_() for each in given]
    values = figure(*leaves)
    pull = torch.linspace(0.5, 2, values.numel(), dtype=values.dtype).view_as(values)
    return values.detach(), list(torch.autograd.grad(values, leaves, pull))


@pytest.fixture(params=[2**17, 20, 1], ids=["one tile", "tiles of two rows", "tiles of a row"])
def tile_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiles._SCORES, "cpu", request.param)


@pytest.mark.usefixtures("tile_size")
@pytest.mark.parametrize(("figure", "whole"), EVERY, ids=names)
@pytest.mark.parametrize("apart", [1.0, 1e-3])
def test_values_and_gradients_are_those_of_whole_maps(figure: Figure, whole: Figure, apart: float) -> None:
    given = inputs(figure, apart)
    (found, gradients), (expected, slopes) = with_gradient(figure, given), with_gradient(whole, given)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("figure", "whole"), EVERY, ids=names)
@pytest.mark.parametrize(("apart", "size"), [(1.0, 1), (1e-2, 1), (1e-4, 1), (1.0, 8)])
def test_fp32_rounds_no_more_than_whole_maps_do(figure: Figure, whole: Figure, apart: float, size: float) -> None:
    """Also where the branches nearly coincide: within five times what fp32 maps lose."""
    given = inputs(figure, apart, torch.float32, rows=40, keys=64, size=size)
    exact, slopes = with_gradient(whole, [each.double() for each in given])
    (found, gradients), (plain, others) = with_gradient(figure, given), with_gradient(whole, given)
    pairs = zip((found, *gradients), (plain, *others), (exact, *slopes), strict=True)
    for ours, maps, truth in pairs:
        assert ours.dtype == torch.float32
        assert (ours - truth).norm() <= 5 * (maps - truth).norm() + 1e-7 * truth.norm()


@pytest.mark.parametrize("figure", PAIRS, ids=names)
def test_what_has_not_changed_is_0_with_a_gradient_of_0(figure: Figure) -> None:
    for size in (1.0, 1e4):
        queries, keys = inputs(entropy_rows, dtype=torch.float32, size=size)
        values, gradients = with_gradient(figure, [queries, keys, queries, keys])
        assert torch.equal(values, torch.zeros(2, 3, 7))
        assert all(torch.equal(each, torch.zeros_like(each)) for each in gradients)


def test_kl_of_branches_that_hardly_differ_keeps_its_digits() -> None:
    """In fp32 whole maps have none left there."""
    given = inputs(kl_rows, 1e-4, torch.float32, rows=40, keys=64)
    exact = whole_kl(*(each.double() for each in given))
    torch.testing.assert_close(kl_rows(*given).double(), exact, rtol=2e-2, atol=0)
    assert (whole_kl(*given).double() - exact).norm() > 2 * exact.norm()


@pytest.mark.parametrize(("figure", "whole"), EVERY, ids=names)
def test_extreme_scores_stay_finite(figure: Figure, whole: Figure) -> None:
    given = inputs(figure, dtype=torch.float32, size=1e4)
    values, gradients = with_gradient(figure, given)
    assert all(each.isfinite().all() for each in (values, *gradients))
    exact = whole(*(each.double() for each in given))
    torch.testing.assert_close(values.double(), exact, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("figure", [figure for figure, _ in EVERY], ids=names)
def test_gradcheck(figure: Figure) -> None:
    given = [each.requires_grad_() for each in inputs(figure, rows=2, keys=4)]
    assert torch.autograd.gradcheck(figure, given, fast_mode=True)


@pytest.mark.parametrize("figure", [figure for figure, _ in EVERY], ids=names)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_fp32(figure: Figure, dtype: torch.dtype) -> None:
    given = inputs(figure, dtype=dtype)
    (found, gradients), (exact, slopes) = (
        with_gradient(figure, given), with_gradient(figure, [each.double() for each in given])
    )  # fmt: skip
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, slope.to(dtype), rtol=1e-2, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(figure(*given), found)


@pytest.mark.parametrize(("figure", "whole"), EVERY, ids=names)
def test_any_strides_and_any_subset_of_gradients(figure: Figure, whole: Figure) -> None:
    given = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in inputs(figure)]
    for wanted in range(len(given)):
        leaves = [each.clone(memory_format=torch.preserve_format) for each in given]
        leaves[wanted].requires_grad_()
        assert not leaves[wanted].is_contiguous()
        (found,) = torch.autograd.grad(figure(*leaves).sum(), leaves[wanted])
        (expected,) = torch.autograd.grad(whole(*leaves).sum(), leaves[wanted])
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    assert not figure(*given).requires_grad


@pytest.mark.parametrize("figure", [figure for figure, _ in EVERY], ids=names)
def test_nothing_and_next_to_nothing(figure: Figure) -> None:
    for cut in (lambda each: each[:0], lambda each: each[:, :0]):
        values, _ = with_gradient(figure, [cut(each) for each in inputs(figure)])
        assert values.numel() == 0
    given = inputs(figure)
    values, _ = with_gradient(figure, [each if at % 2 else each[:, :, :0] for at, each in enumerate(given)])
    assert values.shape[:3] == ((2, 3) if figure in MEANS else (2, 3, 0))
    assert values.isnan().all()
    if figure in (*PAIRS, *MEANS, entropy_rows):
        values, gradients = with_gradient(figure, [each[:, :, :1] for each in given])
        assert all(torch.equal(each, torch.zeros_like(each)) for each in (values, *gradients))


def test_columns_are_read_image_by_image() -> None:
    queries, keys = inputs(entropy_rows)
    found = phrase_columns(queries, keys, torch.tensor([[3, 1], [8, 8]]))
    maps = log_map(queries, keys).exp()
    torch.testing.assert_close(found[0], maps[0][..., [3, 1]])
    torch.testing.assert_close(found[1], maps[1][..., [8, 8]])


Q, K = torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 9, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl_rows(Q, K, Q, K[:, :, :8]), r"k_a is \[2, 3, 9, 4\] and k_b \[2, 3, 8, 4\]; .* keys must be"),
        (lambda: kl_rows(Q, K, Q[:, :, :6], K), "batch, heads and rows must be the same"),
        (lambda: kl_rows(Q[0], K, Q, K), r"q_a is \[3, 7, 4\]; expected \[batch, heads, rows, width\]"),
        (lambda: entropy_rows(Q, K[:1]), "batch and heads must be the same"),
        (lambda: entropy_rows(Q, K[..., :3]), "the width must be the same, and at least 1"),
        (lambda: entropy_rows(Q[..., :0], K[..., :0]), "the width must be the same, and at least 1"),
        (lambda: entropy_rows(Q, K[:, :, :0]), "there must be a key to attend to"),
        (lambda: entropy_rows(Q.long(), K), r"queries is torch.int64; expected a tensor of real floating-point"),
        (lambda: entropy_rows(Q, [1.0]), "keys is list; expected a tensor"),  # type: ignore[arg-type]
        (lambda: entropy_rows(Q, K.to("meta")), "queries is on cpu and keys on meta"),
        (lambda: phrase_columns(Q, K, [9]), "tokens go from 9 to 9; the keys are 0 to 8"),
        (lambda: phrase_columns(Q, K, [-1]), "tokens go from -1 to -1"),
        (lambda: phrase_columns(Q, K, [0.5]), r"tokens is \[0.5\]; expected whole numbers"),  # type: ignore[list-item]
        (lambda: phrase_columns(Q, K, torch.zeros(3, 1).long()), r"tokens is \[3, 1\]; expected \[tokens\] or"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("figure", [figure for figure, _ in EVERY], ids=names)
def test_scores_exist_a_tile_at_a_time(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, make = [], tiles._Tiles.scores

    def noting(self: Any, maps: slice, rows: slice) -> list[Tensor]:
        scores = make(self, maps, rows)
        sizes.extend(each.numel() for each in scores)
        return scores

    monkeypatch.setitem(tiles._SCORES, "cpu", 2**9)
    monkeypatch.setattr(tiles._Tiles, "scores", noting)
    with_gradient(figure, inputs(figure, rows=64, keys=64))
    assert max(sizes) <= 2**9
    assert sum(sizes) == 2 * (2 if figure in PAIRS else 1) * 6 * 64 * 64
