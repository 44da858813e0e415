"""What an attack is made of, as data: validated, complete, and nothing that a machine or a run decides."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from attnshift.errors import RecipeError
from attnshift.tables import STRICT, describe, suggest

__all__ = [
    "OpenSection",
    "Recipe",
    "Section",
    "load_recipe",
    "override",
    "preset_names",
    "preset_summary",
    "read_recipe_file",
    "unknown_preset",
    "validate",
]


_OTHER = "{interference}"
_DEEPEST = 12
"""Tables and lists of a recipe that may lie within each other; libraries follow deeper ones until the stack ends."""
_LARGEST = 2**20
"""Bytes of a recipe file."""

Kind = TypeVar("Kind", bound=BaseModel)
Grid = Literal["full", "half", "quarter", "eighth", "all"]


class Section(BaseModel):
    model_config = STRICT


class OpenSection(BaseModel):
    """A section whose remaining keys are the options of what it names, checked by that."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


@dataclass(frozen=True)
class Prompt:
    """A prompt, and at which characters the class name and, if it names both, the interference phrase start."""

    text: str
    start: int
    interference: int | None = None


class PromptSection(Section):
    template: str = "a photo of a {}"
    """Prompt of an image; ``{}`` stands for the class name, once, and ``{interference}`` may stand for the other."""
    interference_template: str | None = None
    """Prompt of the interference phrase; like ``template`` where that does not name both, else "a photo of a {}"."""

    @field_validator("template", "interference_template")
    @classmethod
    def _holds_the_name_once(cls, template: str | None) -> str | None:
        if template is not None and template.count("{}") != 1:
            raise ValueError("must hold {} once, for the class name")
        if template is not None and template.count(_OTHER) > 1:
            raise ValueError("may hold {interference} once")
        return template

    @field_validator("interference_template")
    @classmethod
    def _names_one(cls, template: str | None) -> str | None:
        if template is not None and _OTHER in template:
            raise ValueError("names the interference phrase by {} and cannot hold {interference}")
        return template

    @property
    def names_both(self) -> bool:
        return _OTHER in self.template

    def prompt(self, class_name: str, interference: str = "") -> Prompt:
        """An image's own prompt."""
        before, _, after = self.template.partition("{}")
        before, after = (part.replace(_OTHER, interference) for part in (before, after))
        text, start = before + class_name + after, len(before)
        if not self.names_both:
            return Prompt(text, start)
        first = self.template.index(_OTHER)
        return Prompt(text, start, first if first < self.template.index("{}") else first - len("{}") + len(class_name))

    def interference_prompt(self, phrase: str) -> Prompt:
        own = "a photo of a {}" if self.names_both else self.template
        template = own if self.interference_template is None else self.interference_template
        return Prompt(template.replace("{}", phrase), template.index("{}"))


class InterferenceSection(Section):
    choose: Literal["confusion", "target", "text", "given", "random"] = "confusion"
    """The surrogates' highest wrong class on the clean image; the target of a targeted attack; the class nearest to the
    true one for the text encoder; ``phrase``; or any class, as a control."""
    phrase: str = ""

    @model_validator(mode="after")
    def _has_what_it_names(self) -> InterferenceSection:
        if (self.choose == "given") != bool(self.phrase.strip()):
            raise ValueError("phrase goes with choose = 'given', and only with it")
        return self


class MaskSection(Section):
    source: Literal["none", "attention", "gradcam", "given"] = "none"
    grid: Grid = "all"
    """Grids whose cross-attention makes an attention mask."""
    refine: int = Field(default=0, ge=0, le=10)
    """Rounds in which the self-attention spreads an attention mask over the object."""
    edge: Literal["soft", "hard"] = "soft"
    outside: float = Field(default=0.1, gt=0, le=1)
    """What a pixel outside the mask counts where one inside counts 1."""
    paste_back: bool = False
    """Take pixels outside the mask from the clean image."""


class DiffusionSection(Section):
    schedule_steps: int = Field(default=20, ge=2, le=1000)
    denoising_steps: int = Field(default=5, ge=1, le=999)
    """How many of the last steps are walked and differentiated (K)."""
    gradient_steps: int = Field(default=0, ge=0)
    """Through how many of the last of them the gradient goes back; 0 is all. The earlier ones count as the identity:
    the gradient passes from their end straight to the start latents, and the attention maps read in them count in the
    losses as values without a gradient."""
    guidance: float = Field(default=2.5, ge=0)
    pairing: Literal["aligned", "compat"] = "aligned"
    inversion_rounds: int = Field(default=0, ge=0, le=20)
    encoding: Literal["mean", "sample"] = "mean"
    residual: bool = True
    """Add to each decoded image what the clean path loses, so that nothing is changed at iteration 0."""
    checkpointing: bool = False

    @model_validator(mode="after")
    def _goes_back_where_it_walks(self) -> DiffusionSection:
        if self.gradient_steps > self.denoising_steps:
            raise ValueError(
                f"gradient_steps is {self.gradient_steps} and cannot exceed denoising_steps, which is "
                f"{self.denoising_steps}; 0 goes back through all of them"
            )
        return self


class ReconstructionSection(OpenSection):
    method: str = "offset"


class ClassificationSection(OpenSection):
    loss: str = "cross_entropy"
    weight: float = Field(default=1.0, ge=0)
    schedule: dict[str, Any] = {}
    fusion: str = "uniform"
    fusion_options: dict[str, Any] = {}
    space: Literal["image", "latent"] = "image"
    """Where the surrogates' gradients are taken and fused: at the image, with one pass back through decoder and
    denoiser, or at the latents, with one for each of them."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last fused direction that is added to the next one; for optimisers without momentum of their own."""
    clip: float = Field(default=0.0, ge=0)
    """Highest norm of the fused direction of an image; 0 sets no limit."""


class TransformSection(OpenSection):
    pass


class ExpectationSection(Section):
    """Expectation over transformations: what the surrogates see of an image beside the image itself."""

    draws: int = Field(default=1, ge=1, le=1000)
    """Views of an image, itself included; 1 switches the transforms off."""
    every: int = Field(default=1, ge=1)
    """Only in every so manieth iteration, from the first on; in the others the image itself."""
    transforms: dict[str, TransformSection] = {}
    """What makes a view, one after the other, with options."""

    @model_validator(mode="after")
    def _has_what_it_draws(self) -> ExpectationSection:
        if self.draws > 1 and not self.transforms:
            raise ValueError("draws above 1 need transforms, such as [expectation.transforms.rotate]")
        return self


class TermSection(OpenSection):
    weight: float = Field(ge=0)
    schedule: dict[str, Any] = {}


class OptimiserSection(Section):
    method: Literal["adamw", "gradient", "sign"] = "adamw"
    balance: Literal["none", "gradnorm"] = "none"
    """``gradnorm`` divides each term by a running norm of its own gradient, at the price of a backward pass a term."""
    learning_rate: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    iterations: int = Field(default=30, ge=1, le=10_000)


class FinishSection(Section):
    keep: Literal["last", "best"] = "best"
    """``best``: the nearest iterate that fools every surrogate by ``confidence``, else the one of lowest margin."""
    confidence: float = Field(default=0.0, ge=0)
    """Logit margin by which a surrogate counts as fooled when iterates are compared."""
    early: bool = False
    """An image leaves the batch at the first iterate that fools every surrogate by ``confidence``."""


class Recipe(Section):
    """Complete description of an attack. Two runs with equal recipes, seeds and inputs give equal results."""

    name: str
    summary: str = ""
    seed: int = Field(default=0, ge=0, lt=2**64)
    tuned_on: tuple[str, ...] = ()
    """Classifiers that chose its numbers; they cannot judge it."""
    prompt: PromptSection = PromptSection()
    interference: InterferenceSection = InterferenceSection()
    mask: MaskSection = MaskSection()
    diffusion: DiffusionSection = DiffusionSection()
    reconstruction: ReconstructionSection = ReconstructionSection()
    classification: ClassificationSection = ClassificationSection()
    expectation: ExpectationSection = ExpectationSection()
    terms: dict[str, TermSection] = {}
    optimiser: OptimiserSection = OptimiserSection()
    finish: FinishSection = FinishSection()


def preset_names() -> list[str]:
    return sorted(each.name.removesuffix(".toml") for each in _presets().iterdir() if each.name.endswith(".toml"))


def preset_summary(name: str) -> str:
    return tomllib.loads((_presets() / f"{name}.toml").read_text())["summary"]


def load_recipe(source: str, settings: Iterable[str] = ()) -> Recipe:
    """The preset called ``source``, or the TOML file at that path, with ``key.path=value`` settings applied."""
    if source.endswith(".toml"):
        values = read_recipe_file(source)
    elif source in preset_names():
        values = _parsed((_presets() / f"{source}.toml").read_text(), source)
    else:
        raise unknown_preset(source, preset_names())
    return validate(override(values, settings), source)


def read_recipe_file(source: str) -> dict[str, Any]:
    """What the TOML file at the path ``source`` holds, not checked yet."""
    path = Path(source)
    try:
        if not path.is_file():
            found = " is a folder" if path.is_dir() else ": no such recipe file"
            raise RecipeError(f"{source}{found}; give a preset's name or the path of a TOML file")
        if path.stat().st_size > _LARGEST:
            raise RecipeError(f"{source} holds more than {_LARGEST} bytes; a recipe is a small TOML file")
        return _parsed(path.read_text(encoding="utf-8-sig"), source)
    except UnicodeDecodeError:
        raise RecipeError(f"{source} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{source:.200} cannot be read: {error.strerror}; give the path of a TOML file") from None


def unknown_preset(name: str, known: list[str]) -> RecipeError:
    return RecipeError(f"unknown preset '{name}'{suggest(name, known)}; known: {', '.join(known)}, or a .toml file")


def validate(values: Mapping[str, Any], source: str, kind: type[Kind] = Recipe) -> Kind:
    """``values`` as a recipe of that ``kind``, or a ``RecipeError`` that says where they are none."""
    _check_depth(values, f"recipe {source}")
    try:
        # JSON mode: arrays may become tuples, everything else stays strict.
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {describe(error, kind)}") from None
    except TypeError:
        # TOML knows one kind of value that JSON does not.
        raise RecipeError(f"recipe {source}: {_date(values)}: a recipe cannot hold dates or times") from None


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        # Among them a number of more digits than Python reads.
        raise RecipeError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise _too_deep(source) from None
    _check_depth(values, source)
    return values


def _check_depth(values: Mapping[str, Any], where: str) -> None:
    """Level by level, since a function that calls itself would end where the check is needed."""
    level: list[Any] = [values]
    for _ in range(_DEEPEST):
        inside = (each.values() if isinstance(each, Mapping) else each for each in level)
        level = [inner for each in inside for inner in each if isinstance(inner, Mapping | list)]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> RecipeError:
    return RecipeError(f"{where}: more than {_DEEPEST} tables or lists lie within each other; no recipe needs that")


def _date(values: Mapping[str, Any]) -> str:
    """Dotted key of the first date or time in ``values``, or nothing."""
    for key, value in values.items():
        if isinstance(value, date | time):
            return key
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inner, Mapping) and (below := _date({str(part): each for part, each in inner.items()})):
            return f"{key}.{below}"
    return ""


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``optimiser.iterations=10``-like settings; a value is read as TOML, and as text where it is none.

    >>> override({"optimiser": {"iterations": 30}}, ["optimiser.iterations=10"])
    {'optimiser': {'iterations': 10}}
    """
    changed = _copied(values)
    for setting in settings:
        key, separator, value = setting.partition("=")
        *parents, last = (part.strip() for part in key.split("."))
        if not separator or not all((*parents, last)):
            raise RecipeError(f"--set {setting}: expected key=value, as in --set optimiser.iterations=10")
        if len(parents) >= _DEEPEST:
            raise _too_deep(f"--set {setting:.80}")
        if not _is_unicode(setting):
            raise RecipeError(f"--set {setting}: this is not UTF-8 text")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise RecipeError(f"--set {setting}: {parent} is a value, not a section")
        place[last] = _read(value.strip())
    return changed


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _read(value: str) -> Any:
    if value == "{}":
        # A prompt that is nothing but the class name; an empty table would say nothing.
        return value
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value
    # A line break could start another key.
    return read["value"] if len(read) == 1 else value


def _is_unicode(text: str) -> bool:
    """Whether ``text`` can be written: bytes of a command line that are not UTF-8 come as halves of a surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _presets() -> Any:
    return files("attnshift.attack") / "presets"
