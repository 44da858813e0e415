"""The contract of loss terms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.optimiser import AdamW
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.losses import TERMS
from attnshift.losses.objective import LossTerm, StatefulTerm, evaluate_term, holds
from attnshift.recipes.reading import load_latent_recipe
from attnshift.registry import check
from attnshift.sizes import size_of
from attnshift.testing.models import SIDE, small_backbone, small_classifier
from attnshift.testing.observations import (
    AS_READ,
    Fill,
    nothing,
    observation,
    one_hot,
    only,
    scores,
    softmax,
    uniform,
    with_images,
    with_maps,
)
from attnshift.testing.requirements import in_double, require, require_close, require_finite, require_shape
from attnshift.types import Observation, Site

__all__ = ["TERM_CHECKS", "Reads", "Term", "check_term", "reads"]

Term = LossTerm | StatefulTerm
_FILLS: tuple[Fill, ...] = (uniform, one_hot, nothing)
_CLEAN_FILLS: tuple[Fill, ...] = (softmax, *_FILLS)


def check_term(term: Term) -> None:
    """Hold a loss term to its contract; takes a few seconds.

    It is shown made-up maps and images, and then the attack runs it on a small random diffusion
    model.
    """
    check(TERMS, type(term).__name__, term)
    for each in TERM_CHECKS:
        each(term)


def one_value_per_image(term: Term) -> None:
    """[batch] in fp32, finite, whatever the precision of maps and images."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        values = _values(term, _seen(dtype=dtype))
        require_shape(values, (3,), "the value")
        require(values.dtype == torch.float32, f"the value is {values.dtype} for {dtype}; use .float() first")
        require_finite(values, f"the value for {dtype}")


def finite_on_degenerate_input(term: Term) -> None:
    """Value and gradient, on maps that are uniform, one-hot or zero,
    and on an image that is unchanged or black."""
    for observed in _degenerate(reads(term)):
        leaves = {
            site: [each.clone().requires_grad_() for each in steps]
            for site, steps in observed.adversarial.attention.items()
        }
        for image in (observed.images, observed.clean.images, torch.zeros_like(observed.images)):
            pixels = image.clone().requires_grad_()
            values = _values(term, with_images(with_maps(observed, leaves), pixels))
            require_finite(values, "the value on degenerate input")
            flat = [pixels, *(each for steps in leaves.values() for each in steps)]
            gradients = torch.autograd.grad(values.sum(), flat, allow_unused=True)
            require(any(each is not None for each in gradients), "no gradient reaches what the term reads")
            for each in gradients:
                require(each is None or each.isfinite().all(), "the gradient on degenerate input is not finite")


def batch_mates_change_no_value(term: Term) -> None:
    observed = _seen()
    together = _values(term, observed)
    for image in range(3):
        alone = _values(term, only(observed, image))
        require_close(alone, together[image : image + 1], "an image has another value when it is alone", atol=1e-7)


def only_its_sites_are_read(term: Term) -> None:
    """The value does not depend on a site that ``sites`` does not name:
    the attack does not record it."""
    observed = _seen()
    named = _running_sites(term, observed)
    strangers = set(named) - set(observed.adversarial.attention)
    require(not strangers, f"sites names {strangers}, which the denoiser does not have")
    cut = with_maps(observed, {site: observed.adversarial.attention[site] for site in named})
    require_close(_values(term, cut), _values(term, observed), "the value depends on other sites", rtol=0, atol=0)


def interference_only_where_it_says_so(term: Term) -> None:
    if not term.reads_interference:
        without = _values(term, replace(_seen(), interference=None))
        require_close(without, _values(term, _seen()), "reads_interference is False, and it reads it", rtol=0, atol=0)


def mask_only_where_it_says_so(term: Term) -> None:
    """A term that does not say ``reads_mask = False`` may read ``Observation.weights``."""
    if not getattr(term, "reads_mask", True):
        seen = _seen()
        other = _values(term, replace(seen, weights=seen.weights * torch.linspace(0.1, 1, seen.weights.shape[-1])))
        require_close(other, _values(term, seen), "reads_mask is False, and it reads it", rtol=0, atol=0)


def holds_where_it_says_so(term: Term) -> None:
    """A term that is 0 where nothing has changed says ``holds = True``, and no other does."""
    seen = _seen()
    same = {site: maps for site, maps in seen.clean.attention.items() if site in seen.adversarial.attention}
    clean = replace(seen.clean, images=seen.images)
    still = replace(seen, clean=clean, adversarial=replace(seen.adversarial, images=seen.images, attention=same))
    is_restoring = bool((_values(term, still).abs() < 1e-6).all())
    require(
        holds(term) or not is_restoring,
        "the value is 0 where nothing has changed; say holds = True, so that balance keeps its shape",
    )
    require(is_restoring or not holds(term), "holds is True, and the value is not 0 where nothing has changed")


def gradient_is_right(term: Term) -> None:
    """Compared with finite differences in float64."""
    with in_double():
        observed = _seen(dtype=torch.float64)
        named = _running_sites(term, observed)
        drawn = scores(1, AS_READ, torch.float64)
        leaves = [observed.adversarial.images.clone(), *(each for site in named for each in drawn[site])]

        def value(images: Tensor, *each: Tensor) -> Tensor:
            return _values(term, _moved(observed, named, images, each)) + 0 * images.sum()

        leaves = [each.requires_grad_() for each in leaves]
        require(value(*leaves).dtype == torch.float64, "the value loses precision on the way")
        require(_is_gradient(value, leaves), "the gradient is not that of the value")


def gradient_steps_lower_it(term: Term) -> None:
    """Twenty steps of a fixed length along the scores of the maps and along the pixels."""
    observed = _seen()
    named = _running_sites(term, observed)
    drawn = scores(1, AS_READ)
    leaves = [observed.adversarial.images.clone(), *(each.clone() for site in named for each in drawn[site])]
    all_values = []
    for _ in range(20):
        leaves = [each.detach().requires_grad_() for each in leaves]
        values = _values(term, _moved(observed, named, leaves[0], leaves[1:]))
        all_values.append(values.detach())
        gradients = torch.autograd.grad(values.sum(), leaves, allow_unused=True)
        for image in range(3):
            _step([leaf[image] for leaf in leaves], [None if each is None else each[image] for each in gradients])
    require((all_values[-1] < all_values[0]).all(), "twenty steps along its gradient do not lower it")


def gradient_reaches_the_latents(term: Term) -> None:
    """In the attack itself, with nothing else to lower."""
    joint = getattr(term, "tokens", "") == "joint"
    template = ["prompt.template=a photo of a {} and a {interference}"] if joint else []
    short = ["classification.weight=0.0", "diffusion.guidance=2.5", "diffusion.denoising_steps=2"]
    recipe = load_latent_recipe("fast", [*short, *template])
    method = Method.of(recipe.model_copy(update={"terms": {}}), {"term": term})
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    tasks = [Task("first", images[0], 1, "snowman"), Task("second", images[1], 2, "mug")]
    batch = prepare_batch(method, small_backbone(), [small_classifier()], tasks)
    start = batch.render.trajectory.start
    away = start + 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    found = value_and_grad(batch, away, 3, AttackState(AdamW.start(away, 0.1, 0.0)))
    require_shape(found.losses["term"], (2,), "the value in the attack")
    require_finite(found.gradient, "the gradient at the latents")
    require((found.gradient.flatten(1).norm(dim=1) > 0).all(), "no gradient reaches the latents of an image")


def its_state_belongs_to_the_image(term: Term) -> None:
    """One constant tensor for each image, and the value with a state is finite."""
    if not getattr(term, "stateful", False):
        return
    _, state = evaluate_term(term, _seen())
    values, _ = evaluate_term(term, _seen(), state)
    require_finite(values, "the value in the second iteration")
    if state is not None:
        require(len(state) == 3, f"the state has {len(state)} tensors for 3 images")
        require(not any(each.requires_grad for each in state), "the state has a gradient; use .detach()")


TERM_CHECKS: tuple[Callable[[Term], None], ...] = (
    one_value_per_image,
    finite_on_degenerate_input,
    batch_mates_change_no_value,
    only_its_sites_are_read,
    interference_only_where_it_says_so,
    mask_only_where_it_says_so,
    holds_where_it_says_so,
    gradient_is_right,
    gradient_steps_lower_it,
    gradient_reaches_the_latents,
    its_state_belongs_to_the_image,
)
"""All that ``check_term`` tries."""


@dataclass(frozen=True)
class Reads:
    """What a term reads beside the image: a term that reads no maps sees no difference between
    degenerate ones."""

    attacked: bool
    clean: bool


class _Watched(Mapping[Site, tuple[Tensor, ...]]):
    """Attention maps that note whether one of them was read."""

    def __init__(self, maps: Mapping[Site, tuple[Tensor, ...]]):
        self.maps, self.read = maps, False

    def __getitem__(self, site: Site) -> tuple[Tensor, ...]:
        self.read = True
        return self.maps[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)


def reads(term: Term) -> Reads:
    """What ``term`` reads, seen from outside."""
    observed = _seen()
    assert observed.interference is not None
    attacked, clean, phrases = (
        _Watched(each.attention) for each in (observed.adversarial, observed.clean, observed.interference)
    )
    evaluate_term(
        term,
        replace(
            observed,
            adversarial=replace(observed.adversarial, attention=attacked),
            clean=replace(observed.clean, attention=clean),
            interference=replace(observed.interference, attention=phrases),
        ),
    )
    return Reads(attacked.read, clean.read or phrases.read)


def _degenerate(read: Reads) -> Iterator[Observation]:
    """Observations with degenerate maps, each kind that a term
    which reads ``read`` can tell apart."""
    fills = _FILLS if read.attacked else _FILLS[:1]
    clean_fills = _CLEAN_FILLS if read.clean else _CLEAN_FILLS[:1]
    for dtype, fill, clean in itertools.product((torch.float32, torch.bfloat16), fills, clean_fills):
        yield _seen(fill, clean, dtype)


@cache
def _seen(fill: Fill = softmax, clean: Fill = softmax, dtype: torch.dtype = torch.float32) -> Observation:
    """``observation``, made once: terms change nothing that they are shown."""
    return observation(fill, clean, dtype, sites=AS_READ)


def _values(term: Term, observed: Observation) -> Tensor:
    """One value per image in the first iteration, [batch]."""
    return evaluate_term(term, observed)[0]


def _running_sites(term: Term, observed: Observation) -> list[Site]:
    """What the term reads of the attacked pass."""
    named = term.sites(tuple(observed.adversarial.attention), size_of(observed.adversarial.latents))
    return [site for site in named if site.view != "reference"]


def _moved(observed: Observation, named: list[Site], images: Tensor, drawn: Iterable[Tensor]) -> Observation:
    """``observed`` with other images, and at the sites ``named`` with maps of the scores ``drawn``,
    or with projections, site by site."""
    scores = iter(drawn)
    steps = {site: [softmax(site, next(scores)) for _ in observed.adversarial.attention[site]] for site in named}
    return with_maps(with_images(observed, images), steps)


def _step(points: list[Tensor], gradients: list[Tensor | None]) -> None:
    """Move ``points`` together by 0.5 against their ``gradients``."""
    there = [each.norm() for each in gradients if each is not None]
    norm = torch.stack(there).norm().clamp(min=1e-12)
    for point, gradient in zip(points, gradients, strict=True):
        if gradient is not None:
            point.data -= 0.5 * gradient / norm


def _is_gradient(value: Callable[..., Tensor], leaves: list[Tensor]) -> bool:
    """Compare slopes along one random direction of each leaf with central differences of ``value``.

    ``gradcheck`` does the same, and after a difference it takes half a minute to word its message.
    """
    draw = torch.Generator().manual_seed(0)
    values = value(*leaves)
    weights = torch.randn(values.shape, generator=draw, dtype=torch.float64)
    gradients = torch.autograd.grad(values, leaves, weights, materialize_grads=True)
    for place, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        drawn = torch.randn(leaf.shape, generator=draw, dtype=torch.float64)
        step = 1e-6 * drawn / drawn.norm()
        with torch.no_grad():
            up, down = (value(*leaves[:place], leaf + each, *leaves[place + 1 :]) @ weights for each in (step, -step))
        rounding = 2e-14 * max(1.0, float(up.abs()))
        if not torch.isclose((gradient * step).sum() * 2, up - down, rtol=1e-3, atol=rounding):
            return False
    return True
