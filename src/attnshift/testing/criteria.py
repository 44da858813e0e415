"""The contract of classification losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attnshift.batching import select_rows
from attnshift.ensemble.surrogates import Criterion
from attnshift.errors import RecipeError
from attnshift.losses import CLASSIFICATION
from attnshift.registry import check
from attnshift.testing.requirements import in_double, require, require_close, require_finite, require_shape
from attnshift.types import Goals

__all__ = ["CRITERION_CHECKS", "check_criterion"]

_LABELS = torch.tensor([0, 3, 9, 4])
_OTHERS = (_LABELS + 1) % 10
_GOALS = (Goals(_LABELS, None, _OTHERS), Goals(_LABELS, _OTHERS, None))
"""An untargeted attack that knows classes of interference, and a targeted one."""


def check_criterion(criterion: Criterion) -> None:
    """Hold a classification loss to its contract, on four images of ten classes.

    A loss may refuse targeted or untargeted attacks by a ``RecipeError``, and not both.
    """
    check(CLASSIFICATION, type(criterion).__name__, criterion)
    for each in CRITERION_CHECKS:
        each(criterion)


def one_loss_per_image(criterion: Criterion) -> None:
    """The value is fp32, whatever the logits are."""
    for goals in _taken(criterion):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            values = criterion(_logits().to(dtype), goals)
            require_shape(values, (4,), "the loss")
            require(values.dtype == torch.float32, f"the loss of {dtype} logits is {values.dtype}, not float32")


def degenerate_logits_have_a_finite_gradient(criterion: Criterion) -> None:
    zeros = torch.zeros(4, 10)
    degenerate = {
        "equal": zeros,
        "sure": zeros.scatter(1, _LABELS[:, None], 1e4),
        "fooled": zeros.scatter(1, _OTHERS[:, None], 1e4),
        "huge": 1e5 * _logits(),
    }
    for goals in _taken(criterion):
        for name, values in degenerate.items():
            for dtype in (torch.float32, torch.bfloat16):
                leaf = values.to(dtype).requires_grad_()
                losses = criterion(leaf, goals)
                require_finite(losses, f"the loss of {name} {dtype} logits")
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
                require_finite(gradient, f"the gradient at {name} {dtype} logits")


def every_image_that_is_not_fooled_is_pushed(criterion: Criterion) -> None:
    for goals in _taken(criterion):
        leaf = _logits().requires_grad_()
        (gradient,) = torch.autograd.grad(criterion(leaf, goals).sum(), leaf)
        require((gradient.norm(dim=1) > 0).all(), "an image that is not fooled has no gradient")


def lower_is_more_adversarial(criterion: Criterion) -> None:
    """Logits that are for another class, surely or slightly,
    have a lower loss than those of a clean image."""
    wrong = [torch.zeros(4, 10).scatter(1, _OTHERS[:, None], by) for by in (5.0, 0.1)]
    for goals in _taken(criterion):
        lower = [bool((criterion(each, goals) < criterion(_logits(), goals)).all()) for each in wrong]
        require(any(lower), "an image that is fooled has no lower loss than one that is not")


def batch_mates_change_no_loss(criterion: Criterion) -> None:
    for goals in _taken(criterion):
        together = criterion(_logits(), goals)
        for image in range(4):
            rows = slice(image, image + 1)
            alone = criterion(_logits()[rows], select_rows(goals, rows))
            require_close(alone, together[rows], "an image has another loss when it is alone", rtol=1e-6, atol=0)


def the_gradient_is_that_of_the_loss(criterion: Criterion) -> None:
    for goals in _taken(criterion):
        with in_double():
            leaf = _logits().double().requires_grad_()
            right = torch.autograd.gradcheck(
                lambda each, goals=goals: criterion(each, goals), (leaf,), raise_exception=False
            )
        require(right, "the gradient is not that of the loss")


CRITERION_CHECKS: tuple[Callable[[Criterion], None], ...] = (
    one_loss_per_image,
    degenerate_logits_have_a_finite_gradient,
    every_image_that_is_not_fooled_is_pushed,
    lower_is_more_adversarial,
    batch_mates_change_no_loss,
    the_gradient_is_that_of_the_loss,
)
"""All that ``check_criterion`` tries."""


def _logits() -> Tensor:
    """Random logits [4,10] that the true class leads, so that no image is fooled."""
    drawn = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return drawn.scatter_add(1, _LABELS[:, None], torch.full((4, 1), 4.0, dtype=torch.float64)).float()


def _taken(criterion: Criterion) -> Iterator[Goals]:
    """The goals that ``criterion`` accepts."""
    refused = []
    for goals in _GOALS:
        try:
            criterion(_logits(), goals)
        except RecipeError as error:
            refused.append(str(error))
        else:
            yield goals
    require(len(refused) < len(_GOALS), f"every attack is refused: {'; '.join(refused)}")
