"""What every term of ``losses.TERMS`` must do, whatever it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attnshift.losses import TERMS
from attnshift.losses.objective import evaluate_term
from attnshift.registry import build
from attnshift.testing.observations import SAMPLED_ROWS, observation
from attnshift.testing.terms import TERM_CHECKS, Reads, Term, gradient_reaches_the_latents, reads

EVERYWHERE = {"select": {"places": ["down", "mid", "up"], "grid": "all"}}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "variance": [{}, EVERYWHERE, {"select": {"steps": [1, 1]}}, {"select": {"heads": [1.0, 3.0]}}],
    "entropy": [
        {}, EVERYWHERE, {"order": "per_head"}, {"dropout": 0.5}, {"dropout": 0.9, "order": "per_head"},
        {"smoothing": "ema"}, {"smoothing": "tv"}, {"smoothing": "ema", "order": "per_head", "dropout": 0.5},
        {"temperature": 8.0}, {"select": {"heads": [0.0, 1.0]}},
    ],
    "contrast": [
        {"form": form, "tokens": tokens, "delta": 3.0}
        for form in ("share", "raw", "log") for tokens in ("probe", "joint", "separate")
    ] + [EVERYWHERE | {"delta": 3.0}],
    "replace": [{"form": form, "p": p} for form in ("shape", "mass", "aligned") for p in (1, 2)] + [EVERYWHERE],
    "self_attention": [
        *({"distance": distance, "reduction": reduction}
          for distance in ("js", "kl", "symmetric", "mse") for reduction in ("layered", "mean", "sum")),
        {"rows": SAMPLED_ROWS}, {"select": {"grid": "quarter", "steps": [0, 0]}}, {"gamma": 0.0},
    ],
    "frequency": [
        {"kind": kind, "against": against}
        for kind in ("laplacian", "wavelet") for against in ("image", "reconstruction")
    ] + [{"kind": "wavelet", "wavelet": "db2", "levels": 2}],
}  # fmt: skip
"""Options beyond the defaults to hold a term to; a term that is not named here is held to its defaults."""

NEEDS_DOWNLOAD = {"lpips"}
CASES = [
    pytest.param(name, options, id=f"{name}{options}", marks=[pytest.mark.heavy] if at else [])
    for name in TERMS
    if name not in NEEDS_DOWNLOAD
    for at, options in enumerate(OPTIONS.get(name, [{}]))
]
"""The first options of each term belong to the fast tier."""
IN_AN_ATTACK = {"entropy", "contrast", "self_attention", "l2"}
"""Terms whose gradient the fast tier follows through an attack: one for each kind of thing that a term reads."""
with_every_term = pytest.mark.parametrize(("name", "options"), CASES)


AT_MAPS = [each for each in TERM_CHECKS if each is not gradient_reaches_the_latents]


@with_every_term
@pytest.mark.parametrize("check", AT_MAPS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Term], None], name: str, options: dict[str, Any]) -> None:
    check(build(TERMS, name, options))


@pytest.mark.parametrize(
    ("name", "options"),
    [each if each.values[0] in IN_AN_ATTACK else pytest.param(*each.values, marks=pytest.mark.heavy) for each in CASES],
)
def test_gradient_reaches_the_latents(name: str, options: dict[str, Any]) -> None:
    gradient_reaches_the_latents(build(TERMS, name, options))


@pytest.mark.parametrize("name", [name for name in TERMS if name not in NEEDS_DOWNLOAD])
def test_a_term_that_says_that_it_reads_the_mask_does(name: str) -> None:
    term, seen = build(TERMS, name, OPTIONS.get(name, [{}])[0]), observation()
    turned = replace(seen, weights=seen.weights * torch.linspace(0.1, 1, seen.weights.shape[-1]))
    equal = torch.equal(evaluate_term(term, seen)[0], evaluate_term(term, turned)[0])
    assert equal != getattr(term, "reads_mask", True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l2", Reads(attacked=False, clean=False)),
        ("entropy", Reads(attacked=True, clean=False)),
        ("self_attention", Reads(attacked=True, clean=True)),
        ("replace", Reads(attacked=True, clean=True)),
    ],
)
def test_what_a_term_reads_is_seen(name: str, expected: Reads) -> None:
    assert reads(build(TERMS, name, {})) == expected


def test_a_smoothed_term_has_a_state() -> None:
    _, state = evaluate_term(build(TERMS, "entropy", {"smoothing": "ema"}), observation())
    assert state is not None
    assert len(state) == 3
