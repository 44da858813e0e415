"""The contract of defences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier
from attnshift.defences import DEFENCES
from attnshift.defences.defended import ClassifierDefence, Defence, Defended, NeedsBackbone
from attnshift.registry import check
from attnshift.testing.models import SIDE, pictures, small_backbone, small_classifier
from attnshift.testing.requirements import require, require_close, require_finite, require_shape

__all__ = ["DEFENCE_CHECKS", "answers", "check_defence", "placed"]

AnyDefence = Defence | ClassifierDefence | NeedsBackbone


def check_defence(defence: AnyDefence) -> None:
    """Hold a defence of any of the three shapes to its contract,
    on a small random classifier and diffusion model."""
    check(DEFENCES, type(defence).__name__, defence)
    for each in DEFENCE_CHECKS:
        each(defence)


def placed(defence: AnyDefence) -> Defence | ClassifierDefence:
    """``defence``, on the small diffusion model if it needs one."""
    return defence.on(small_backbone()) if isinstance(defence, NeedsBackbone) else defence


def answers(defence: Defence | ClassifierDefence, shown: Tensor) -> Tensor:
    """Images of a defence that changes images, logits of one that changes the classifier."""
    return defence.poll(small_classifier(), shown) if isinstance(defence, ClassifierDefence) else defence(shown)


def images_stay_images(defence: AnyDefence) -> None:
    """Shape and dtype stay and values stay in [0,1], also of black and white images."""
    stands = placed(defence)
    if isinstance(stands, ClassifierDefence):
        return
    shown = torch.cat([pictures(2), torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)])
    for dtype in (torch.float32, torch.bfloat16):
        seen = stands(shown.to(dtype))
        require_shape(seen, tuple(shown.shape), "what the classifier sees")
        require(seen.dtype == dtype, f"{dtype} images become {seen.dtype}")
        require_finite(seen, "what the classifier sees")
        require(0 <= seen.min() <= seen.max() <= 1, "values lie outside [0,1]")


def logits_are_one_row_per_image(defence: AnyDefence) -> None:
    classifier = small_classifier()
    defended = Defended(classifier, placed(defence))
    logits = defended(pictures())
    require(isinstance(defended, Classifier), "a defended classifier is no classifier")
    require(defended.name.endswith(f"+{classifier.name}"), f"the name {defended.name} hides the classifier's")
    require_shape(logits, (3, classifier.classes), "the logits")
    require(logits.dtype == torch.float32, f"the logits are {logits.dtype}")
    require_finite(logits, "the logits")


def the_same_image_has_the_same_answer(defence: AnyDefence) -> None:
    torch.manual_seed(1)
    first = answers(placed(defence), pictures())
    torch.manual_seed(2)
    again = answers(placed(defence), pictures())
    require(torch.equal(again, first), "the same images have another answer; draw by a seed and the image's content")


def batch_mates_change_no_answer(defence: AnyDefence) -> None:
    stands, shown = placed(defence), pictures()
    together, logits = answers(stands, shown), Defended(small_classifier(), stands)(shown)
    for at in (0, 2):
        alone = shown[at : at + 1]
        sentence = "an image has another answer when it is alone"
        require_close(answers(stands, alone), together[at : at + 1], sentence, rtol=0, atol=1e-5)
        logits_alone = Defended(small_classifier(), stands)(alone)
        require_close(logits_alone, logits[at : at + 1], sentence, atol=1e-5)


def a_gradient_passes_where_it_says_so(defence: AnyDefence) -> None:
    defended = Defended(small_classifier(), placed(defence))
    leaf = pictures().requires_grad_()
    logits = defended(leaf)
    says = defended.differentiable
    require(logits.requires_grad == says, f"differentiable is {says}, and a gradient says otherwise")
    if says:
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
        require_finite(gradient, "the gradient")
        require((gradient.flatten(1).norm(dim=1) > 0).all(), "no gradient reaches an image")
    with torch.no_grad():
        require_close(defended(leaf), logits.detach(), "without a graph the answer is another", atol=1e-5)


DEFENCE_CHECKS: tuple[Callable[[AnyDefence], None], ...] = (
    images_stay_images,
    logits_are_one_row_per_image,
    the_same_image_has_the_same_answer,
    batch_mates_change_no_answer,
    a_gradient_passes_where_it_says_so,
)
"""All that ``check_defence`` tries."""
