"""The interference phrase, towards which attention is steered: another class or a free phrase,
never the true class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier, vocabulary
from attnshift.classifiers.names import NAMES_FILE, same_words
from attnshift.diffusion.backbone import Backbone, Probe
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import InterferenceText, read_along
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.errors import ModelError, RecipeError
from attnshift.randomness import generator
from attnshift.recipes.prompts import Caption, Prompt, PromptSection
from attnshift.recipes.schema import InterferenceSection, Recipe
from attnshift.types import AttentionMaps, Interference, Site, TokenSpan

__all__ = [
    "Choice",
    "Subject",
    "align",
    "check_choice",
    "choose",
    "class_of",
    "locate_class",
    "observe_interference",
]


@dataclass(frozen=True)
class Subject:
    """The true class of one image: its label, its name, and the id that names the image's
    random draws.

    ``target`` is the class that it shall be seen as, absent in an untargeted attack.
    """

    id: str
    label: int
    class_name: str
    target: int | None = None
    caption: Caption | None = None
    """The prompt of the image's own; None where the recipe's template makes one."""


@dataclass(frozen=True)
class Choice:
    """An interference phrase and the class that it names, -1 if it names none."""

    phrase: str
    label: int


@torch.no_grad()
def choose(
    recipe: Recipe, backbone: Backbone, classifiers: Sequence[Classifier], images: Tensor, subjects: Sequence[Subject]
) -> tuple[Choice, ...]:
    """One interference phrase for each of ``images`` [batch,3,height,width].

    Of the candidates the first is taken that is neither the true class nor has its name, and that
    the prompt can hold.
    """
    section, names = recipe.interference, vocabulary(classifiers)
    check_choice(recipe, backbone, names, subjects)
    if section.choose in _SETTLED:
        return tuple(_settled(section, subject, names) for subject in subjects)
    ranked = _rank(section, recipe, backbone, classifiers, images, subjects, names)
    return tuple(
        _first_that_fits(recipe, backbone, subject, order, names)
        for subject, order in zip(subjects, ranked, strict=True)
    )


def check_choice(recipe: Recipe, backbone: Backbone, names: tuple[str, ...], subjects: Sequence[Subject]) -> None:
    """Raise ``RecipeError`` or ``ModelError`` if the interference phrase cannot be chosen.

    The recipe's own phrase, or the target, must be there, fit the prompt, and not be an image's
    true class. Any other choice needs ``names``, the classes to choose from.
    """
    section = recipe.interference
    if section.choose != "given" and not names:
        raise RecipeError(
            f"interference.choose is '{section.choose}', which needs class names, and no surrogate has them; "
            f"name them, one a line, in {NAMES_FILE} beside the weights, or give interference.choose=given and "
            "interference.phrase"
        )
    if section.choose not in _SETTLED:
        return
    for subject in subjects:
        phrase = _settled(section, subject, names).phrase
        if any(same_words(phrase, name) for name in _true_names(subject, names)):
            source = "interference.phrase" if section.choose == "given" else "the target"
            raise RecipeError(f"{source} {phrase!r} is the true class of an image; give another")
        _locate_both(recipe, backbone, subject, phrase)


_SETTLED = ("given", "target")
"""Values of interference.choose that name the phrase outright."""


def _settled(section: InterferenceSection, subject: Subject, names: tuple[str, ...]) -> Choice:
    if section.choose == "given":
        return Choice(section.phrase, class_of(section.phrase, names))
    if subject.target is None:
        raise RecipeError(
            "interference.choose is 'target' and the attack has none; make it a targeted one, or choose 'confusion'"
        )
    return Choice(names[subject.target], subject.target)


def _rank(
    section: InterferenceSection,
    recipe: Recipe,
    backbone: Backbone,
    classifiers: Sequence[Classifier],
    images: Tensor,
    subjects: Sequence[Subject],
    names: tuple[str, ...],
) -> Iterator[list[int]]:
    """Classes from the best candidate to the worst, image by image."""
    if section.choose == "random":
        for subject in subjects:
            yield generator(recipe.seed, subject.id, "interference").permutation(len(names)).tolist()
        return
    if section.choose == "confusion":
        scores = torch.stack([classifier(images).softmax(1) for classifier in classifiers]).mean(0)
    else:
        known = backbone.summarise([recipe.prompt.interference_prompt(name).text for name in names])
        own = backbone.summarise([recipe.prompt.interference_prompt(subject.class_name).text for subject in subjects])
        scores = own @ known.T
    yield from scores.argsort(dim=1, descending=True, stable=True).tolist()


def _first_that_fits(
    recipe: Recipe, backbone: Backbone, subject: Subject, order: Sequence[int], names: tuple[str, ...]
) -> Choice:
    for label in order:
        own = label == subject.label or any(same_words(names[label], name) for name in _true_names(subject, names))
        if own or not names[label]:
            continue
        try:
            _locate_both(recipe, backbone, subject, names[label])
        except ModelError:
            continue
        return Choice(names[label], label)
    raise RecipeError(
        f"no class can interfere with {subject.class_name!r}: none has another name that the prompt holds"
    )


def _true_names(subject: Subject, names: tuple[str, ...]) -> set[str]:
    """The names of the image's class, in the label file and in the classifiers."""
    return {subject.class_name, *names[subject.label : subject.label + 1]}


def class_of(phrase: str, names: tuple[str, ...]) -> int:
    """The label of the class called ``phrase``, -1 if there is none."""
    return next((label for label, name in enumerate(names) if same_words(name, phrase)), -1)


def _locate_both(recipe: Recipe, backbone: Backbone, subject: Subject, phrase: str) -> None:
    stream, other = recipe.prompt.stream, recipe.prompt.interference_prompt(phrase, subject.caption)
    backbone.locate(other.text, phrase, other.start, stream)
    joint = [recipe.path.joint_prompt(subject.class_name, phrase)] if recipe.path.boundary else []
    for own in (recipe.prompt.prompt(subject.class_name, phrase, subject.caption), *joint):
        locate_class(backbone, own, stream)
        if own.interference is not None:
            backbone.locate(own.text, phrase, own.interference, stream)


@torch.no_grad()
def observe_interference(
    recipe: Recipe,
    backbone: Backbone,
    noise_schedule: NoiseSchedule,
    stored: Sequence[Tensor],
    subjects: Sequence[Subject],
    choices: Sequence[Choice],
    sites: Sequence[Site],
) -> tuple[Interference, InterferenceText]:
    """Record each phrase's attention on the clean path, at ``sites`` in the view "reference", and
    locate the phrase.

    ``stored`` as ``invert`` returns it. Hertz et al., Prompt-to-Prompt (ICLR 2023), section 3.2.
    """
    prompts = [
        recipe.prompt.interference_prompt(choice.phrase, subject.caption)
        for subject, choice in zip(subjects, choices, strict=True)
    ]
    text = backbone.embed([prompt.text for prompt in prompts])
    stream = recipe.prompt.stream
    spans = tuple(
        backbone.locate(prompt.text, choice.phrase, prompt.start, stream)
        for prompt, choice in zip(prompts, choices, strict=True)
    )
    own = [
        recipe.prompt.prompt(subject.class_name, choice.phrase, subject.caption)
        for subject, choice in zip(subjects, choices, strict=True)
    ]
    joint = tuple(
        backbone.locate(prompt.text, choice.phrase, prompt.interference, stream)
        for prompt, choice in zip(own, choices, strict=True)
        if prompt.interference is not None
    )
    alignment = tuple(_aligned(recipe.prompt, backbone, mine, other) for mine, other in zip(own, prompts, strict=True))
    columns = text.states.shape[1]
    probed = tuple(tuple(range(columns, columns + len(span))) for span in spans)
    maps = _reference_maps(backbone, noise_schedule, stored, text, [site for site in sites if site.view == "reference"])
    phrases = tuple(choice.phrase for choice in choices)
    return (
        Interference(phrases, spans, probed, joint or None, alignment, maps),
        InterferenceText(text, _phrase_alone(text.states, spans)),
    )


def _reference_maps(
    backbone: Backbone,
    noise_schedule: NoiseSchedule,
    stored: Sequence[Tensor],
    text: Conditioning,
    sites: Sequence[Site],
) -> AttentionMaps:
    if not sites:
        return {}
    seen = read_along(backbone, stored, noise_schedule, text, [site.seen("prompt") for site in sites])
    return {site: seen[site.seen("prompt")] for site in sites}


def _phrase_alone(text: Tensor, spans: Sequence[TokenSpan]) -> Probe:
    """The states of each phrase's own tokens among ``text`` [batch,tokens,width], filled up to the
    longest one with states that nobody reads."""
    longest = max(map(len, spans))
    states = text.new_zeros(len(spans), longest, text.shape[2])
    tokens = torch.zeros(len(spans), longest, dtype=torch.long, device=text.device)
    for image, span in enumerate(spans):
        states[image, : len(span)] = text[image, list(span)]
        tokens[image, : len(span)] = torch.tensor(span)
    return Probe(states, tokens)


def locate_class(backbone: Backbone, prompt: Prompt, stream: str) -> TokenSpan:
    """Token positions of all phrases that name the class in ``prompt``, in each text stream that is
    read, one after the other."""
    if len(prompt.phrases) == 1:
        ((start, words),) = prompt.phrases
        return backbone.locate(prompt.text, words, start, stream)
    streams = backbone.streams if stream == "all" else (stream,)
    return tuple(
        at
        for each in streams
        for start, words in prompt.phrases
        for at in backbone.locate(prompt.text, words, start, each)
    )


def _aligned(section: PromptSection, backbone: Backbone, mine: Prompt, other: Prompt) -> Tensor:
    """Alignment of the phrases in each text stream that is read, one after the other; each phrase
    of the class meets the whole other one."""
    streams = backbone.streams if section.stream == "all" else (section.stream,)
    blocks = []
    for stream in streams:
        (theirs,) = _word_lengths(backbone, other, stream)
        blocks.append(torch.cat([align(ours, theirs) for ours in _word_lengths(backbone, mine, stream)]))
    return torch.block_diag(*blocks)


def _word_lengths(backbone: Backbone, prompt: Prompt, stream: str) -> list[list[int]]:
    """The number of tokens in ``stream`` of each word of each of the phrases of ``prompt``."""
    return [
        [
            len(backbone.locate(prompt.text, word.group(), start + word.start(), stream))
            for word in re.finditer(r"\S+", words)
        ]
        for start, words in prompt.phrases
    ]


def align(true: Sequence[int], other: Sequence[int]) -> Tensor:
    """Row-stochastic matrix [tokens, other tokens] between phrases
    whose words have so many tokens each.

    Prompt-to-Prompt's word swap: words meet in their order, tokens of equally long words one to
    one, and otherwise each token meets all of the other word's evenly. Phrases of unequally many
    words meet as if each were one word.

    >>> align([1, 2], [2, 2])
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 1.0000, 0.0000],
            [0.0000, 0.0000, 0.0000, 1.0000]])
    """
    if len(true) != len(other):
        true, other = [sum(true)], [sum(other)]
    blocks = [
        torch.eye(rows) if rows == columns else torch.full((rows, columns), 1 / columns)
        for rows, columns in zip(true, other, strict=True)
    ]
    return torch.block_diag(*blocks)
