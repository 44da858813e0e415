"""What an attack is made of, as data: validated, complete, and nothing that a machine or a run decides."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from attnshift.errors import RecipeError
from attnshift.tables import STRICT, describe, suggest

__all__ = ["Recipe", "load_recipe", "override", "preset_names", "preset_summary"]


class _Section(BaseModel):
    model_config = STRICT


class _OpenSection(BaseModel):
    """A section whose remaining keys are the options of what it names, checked by that."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class PromptSection(_Section):
    template: str = "a photo of a {}"
    """Prompt of an image; ``{}`` stands for the class name, once."""

    @field_validator("template")
    @classmethod
    def _holds_the_name_once(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("must hold {} once, for the class name")
        return template

    def prompt(self, class_name: str) -> str:
        return self.template.replace("{}", class_name)


class DiffusionSection(_Section):
    schedule_steps: int = Field(default=20, ge=2, le=1000)
    denoising_steps: int = Field(default=5, ge=1, le=999)
    """How many of the last steps are walked and differentiated (K)."""
    guidance: float = Field(default=2.5, ge=0)
    pairing: Literal["aligned", "compat"] = "aligned"
    inversion_rounds: int = Field(default=0, ge=0, le=20)
    encoding: Literal["mean", "sample"] = "mean"
    residual: bool = True
    """Add to each decoded image what the clean path loses, so that nothing is changed at iteration 0."""
    checkpointing: bool = False


class ReconstructionSection(_OpenSection):
    method: str = "offset"


class ClassificationSection(_OpenSection):
    loss: str = "cross_entropy"
    weight: float = Field(default=1.0, ge=0)
    schedule: dict[str, Any] = {}
    fusion: str = "uniform"
    fusion_options: dict[str, Any] = {}


class TermSection(_OpenSection):
    weight: float = Field(ge=0)
    schedule: dict[str, Any] = {}


class OptimiserSection(_Section):
    learning_rate: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    iterations: int = Field(default=30, ge=1, le=10_000)


class FinishSection(_Section):
    keep: Literal["last", "best"] = "best"
    """``best``: the nearest iterate that fools every surrogate by ``confidence``, else the one of lowest margin."""
    confidence: float = Field(default=0.0, ge=0)
    """Logit margin by which a surrogate counts as fooled when iterates are compared."""
    early: bool = False
    """An image leaves the batch at the first iterate that fools every surrogate by ``confidence``."""


class Recipe(_Section):
    """Complete description of an attack. Two runs with equal recipes, seeds and inputs give equal results."""

    name: str
    summary: str = ""
    seed: int = Field(default=0, ge=0)
    prompt: PromptSection = PromptSection()
    diffusion: DiffusionSection = DiffusionSection()
    reconstruction: ReconstructionSection = ReconstructionSection()
    classification: ClassificationSection = ClassificationSection()
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
        path = Path(source)
        if not path.is_file():
            raise RecipeError(f"{source}: no such recipe file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RecipeError(f"{source} is not UTF-8 text; save it as UTF-8") from None
    elif source in preset_names():
        text = (_presets() / f"{source}.toml").read_text()
    else:
        known = preset_names()
        raise RecipeError(
            f"unknown preset '{source}'{suggest(source, known)}; known: {', '.join(known)}, or a .toml file"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}") from None
    return validate(override(values, settings), source)


def validate(values: Mapping[str, Any], source: str) -> Recipe:
    try:
        # JSON mode: arrays may become tuples, everything else stays strict.
        return Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {describe(error)}") from None
    except TypeError:
        # TOML knows one kind of value that JSON does not.
        raise RecipeError(f"recipe {source}: {_date(values)}: a recipe cannot hold dates or times") from None


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
        if not separator or not key.strip():
            raise RecipeError(f"--set {setting}: expected key=value, as in --set optimiser.iterations=10")
        *parents, last = key.strip().split(".")
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
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _presets() -> Any:
    return files("attnshift.attack") / "presets"
