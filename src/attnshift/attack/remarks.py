"""Settings of a recipe that cannot act, each told in one line. None of them is an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import torch
from pydantic import BaseModel

from attnshift.attack.method import Method
from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.layers import lacking
from attnshift.diffusion.backbone import Backbone

__all__ = ["idle_options", "idle_settings", "idle_through", "idle_with"]


def idle_settings(method: Method) -> tuple[str, ...]:
    """One line for each setting of ``method.recipe`` that changes nothing,
    with what would let it act."""
    kinds = (_mask, _interference, _classification, _features, _balance, _views, _choice, _path, _options)
    return tuple(line for kind in kinds for line in kind(method))


def idle_options(room: str, made: object) -> Iterator[str]:
    """One line for each option of ``made`` that its other options leave without effect.

    The class says in ``acts_with`` which option belongs to which values of another one. ``room`` is
    the place of the options in a recipe.
    """
    for name, (chooser, *values) in getattr(made, "acts_with", {}).items():
        usual = next(each.default for each in fields(made) if each.name == name)  # type: ignore[arg-type]
        chosen = getattr(made, chooser)
        if getattr(made, name) == usual or {chosen, *(chosen if isinstance(chosen, tuple) else ())} & {*values}:
            continue
        shown = ", ".join(map(repr, chosen)) if isinstance(chosen, tuple) else repr(chosen)
        belongs = " and ".join(map(repr, values))
        yield f"{room}.{name} cannot act, since {room}.{chooser} is {shown}; it belongs to {belongs}"


def _options(method: Method) -> Iterator[str]:
    terms, views = method.objective.terms, method.expectation.transforms
    yield from idle_options("classification", method.criterion)
    yield from idle_options("classification.fusion_options", method.rule)
    yield from idle_options("classification.schedule", method.classification)
    yield from idle_options("reconstruction", method.reconstruction)
    yield from idle_options("optimiser.schedule", method.pace)
    for name, each in terms.items():
        yield from idle_options(f"terms.{name}", each.term)
        yield from idle_options(f"terms.{name}.schedule", each.schedule)
    for name, view in views.items():
        yield from idle_options(f"expectation.transforms.{name}", view)


def idle_with(method: Method, backbone: Backbone) -> tuple[str, ...]:
    """One line for each setting of ``method.recipe`` that changes nothing with ``backbone``."""
    section = method.recipe.diffusion
    if not getattr(backbone, "has_tiny_autoencoder", False):
        return ()
    lines = []
    if section.decoder == "tiny":
        lines.append(
            f"diffusion.decoder is 'tiny' and cannot act, since {backbone.name}'s own decoder is a tiny one; "
            "leave it and diffusion.decoder_source out"
        )
    if section.encoding == "sample":
        lines.append(
            f"diffusion.encoding is 'sample' and cannot act, since {backbone.name}'s tiny autoencoder gives one latent "
            "for each image; the latent is as with 'mean'"
        )
    return tuple(lines)


def idle_through(method: Method, classifiers: Sequence[Classifier]) -> Iterator[str]:
    """One line for each setting of ``method.recipe`` that changes nothing in one of the surrogates
    ``classifiers``."""
    section = method.recipe.classification
    asked = {"residual branches": "skip_decay", "rectifiers": "relu_leak"}
    asked = {kind: option for kind, option in asked.items() if _changed(section, option)}
    for classifier in classifiers if asked else ():
        grey = torch.full(
            (2, 3, _PROBED, _PROBED), 0.5, device=next((each.device for each in classifier.network.parameters()), None)
        )
        for kind in lacking(classifier.network, classifier.preprocessing(grey)):
            if kind in asked:
                yield f"classification.{asked[kind]} changes nothing in {classifier.name}, which has no {kind}"


_PROBED = 64
"""Side of the image on which surrogates are looked at; they resize it."""


def _mask(method: Method) -> Iterator[str]:
    mask = method.recipe.mask
    if mask.source == "none":
        changed = _changed(mask, "grid", "refine", "edge", "outside", "paste_back")
        if changed:
            yield f"{changed} cannot act, since mask.source is 'none'; set mask.source, or leave it out"
        return
    if not method.objective.reads_mask and not mask.paste_back:
        yield (
            f"mask.source is '{mask.source}', but no term reads a mask and nothing is pasted back; "
            "set mask.paste_back, add the term frequency, contrast or replace, or leave mask.source out"
        )
    changed = _changed(mask, "grid", "refine")
    if changed and mask.source != "attention":
        yield f"{changed} cannot act, since mask.source is '{mask.source}'; it belongs to 'attention'"


def _interference(method: Method) -> Iterator[str]:
    recipe = method.recipe
    if method.reads_interference:
        return
    changed = [_changed(recipe.interference, "choose", "phrase"), _changed(recipe.prompt, "interference_template")]
    if recipe.prompt.names_both:
        changed.append("{interference} in prompt.template")
    for each in filter(None, changed):
        yield (
            f"{each} cannot act, since no term and no classification loss reads an interference phrase; "
            "add the term contrast or replace, or leave it out"
        )


def _classification(method: Method) -> Iterator[str]:
    section = method.recipe.classification
    if not section.weight:
        changed = _changed(section, "schedule", "momentum", "clip", "skip_decay", "relu_leak")
        if changed:
            yield f"{changed} cannot act, since classification.weight is 0; set it, or leave them out"
    elif section.clip and not section.momentum and not method.objective.terms and _signed(method):
        yield (
            "classification.clip cannot act: optimiser.method is 'sign', and without terms or momentum the sign of "
            "the direction does not depend on its length; leave it out"
        )


def _features(method: Method) -> Iterator[str]:
    section = method.recipe.features
    if not section.share:
        changed = _changed(section, "layer", "draws", "dropped")
        if changed:
            yield f"{changed} cannot act, since features.share is 0; set it, or leave it out"
    elif not method.recipe.classification.weight:
        yield (
            "features.share cannot act, since it is a share of the classification's pull and classification.weight is "
            "0; set that, or leave it out"
        )


def _signed(method: Method) -> bool:
    return method.recipe.optimiser.method == "sign"


def _balance(method: Method) -> Iterator[str]:
    if method.edge and not method.objective.terms:
        yield "optimiser.balance cannot act, since the recipe has no terms; leave it out"


def _views(method: Method) -> Iterator[str]:
    section = method.recipe.expectation
    changed = _changed(section, "transforms", "every")
    if section.draws == 1 and changed:
        yield f"{changed} cannot act, since expectation.draws is 1; set draws above 1, or leave it out"


def _choice(method: Method) -> Iterator[str]:
    finish = method.recipe.finish
    if method.budget and finish.confidence:
        yield (
            "finish.confidence cannot act, since the recipe has a budget: the iterate of lowest margin within it is "
            "kept; leave it out"
        )
    elif finish.confidence and finish.keep == "last" and not finish.early:
        yield (
            "finish.confidence cannot act, since finish.keep is 'last' and finish.early is false: no iterates are "
            "compared; set one of them, or leave it out"
        )


def _path(method: Method) -> Iterator[str]:
    path = method.recipe.path
    idle = {
        "path.seen is 'end'; set path.seen, or leave it out": path.seen == "end" and _changed(path, "level"),
        "path.boundary is 0; set it, or leave them out": not path.boundary
        and _changed(path, "boundary_guidance", "boundary_template"),
        "path.passes is 1; set it, or leave it out": path.passes == 1 and _changed(path, "travelled"),
    }
    yield from (f"{changed} cannot act, since {reason}" for reason, changed in idle.items() if changed)


def _changed(section: BaseModel, *names: str) -> str:
    """Those keys of ``section`` among ``names`` that are not as they are by default,
    with its own name in front."""
    room = type(section).__name__.removesuffix("Section").lower()
    return " and ".join(f"{room}.{name}" for name in names if getattr(section, name) != _default(section, name))


def _default(section: BaseModel, name: str) -> Any:
    return type(section).model_fields[name].get_default(call_default_factory=True)
