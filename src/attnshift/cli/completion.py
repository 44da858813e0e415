"""Completion of values in the shell: presets, classifiers, keys and other names.

Nothing heavy is imported for it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from textwrap import shorten

from attnshift.registry import Entry

__all__ = [
    "budgets",
    "classifiers",
    "complete_in_bash",
    "defences",
    "one_of",
    "pipelines",
    "recipe_keys",
    "recipes",
    "telemetry_names",
    "terms",
]

Candidates = Iterable[tuple[str, str]]
"""Values that may stand there, and what they are."""


def recipes(incomplete: str) -> Candidates:
    """Presets and baselines; files are the shell's own to complete."""
    from attnshift.baselines import BASELINES
    from attnshift.recipes.presets import preset_names, preset_summary

    yield from ((name, _short(preset_summary(name))) for name in preset_names())
    yield from _summaries(BASELINES)


def classifiers(incomplete: str) -> Candidates:
    """Classifiers of the lab, sources of others, and defences before either."""
    from attnshift.classifiers import SOURCES
    from attnshift.defences import DEFENCES
    from attnshift.lab.weights import classifier_names

    behind = incomplete[: incomplete.rfind("+") + 1]
    yield from ((f"{behind}lab:{name}", "classifier of the lab") for name in classifier_names())
    yield from ((f"{behind}{name}:", summary) for name, summary in _summaries(SOURCES) if name != "lab")
    yield from ((f"{behind}{name}+", summary) for name, summary in _summaries(DEFENCES))


def pipelines(incomplete: str) -> Candidates:
    """The lab's pipelines; folders are the shell's own to complete."""
    yield "lab", "pipeline of the lab"
    yield "lab-flow", "flow of the lab, in the layout of Stable Diffusion 3"


def terms(incomplete: str) -> Candidates:
    from attnshift.losses import TERMS

    return _summaries(TERMS)


def defences(incomplete: str) -> Candidates:
    from attnshift.defences import DEFENCES

    return _summaries(DEFENCES)


def budgets(incomplete: str) -> Candidates:
    """Metrics that a budget can limit, also behind others and a comma."""
    from attnshift.metrics import METRICS

    before = incomplete[: incomplete.rfind(",") + 1]
    return ((f"{before}{name}=", summary) for name, summary in _summaries(METRICS))


def telemetry_names(incomplete: str) -> Candidates:
    from attnshift.telemetry import TELEMETRY

    return ((f"{name}=", summary) for name, summary in _summaries(TELEMETRY))


def recipe_keys(incomplete: str) -> Candidates:
    """Keys of a recipe of an attack on latents, but for options of single parts."""
    from pydantic import BaseModel

    from attnshift.losses import TERMS
    from attnshift.recipes.keys import keys_of
    from attnshift.recipes.schema import Recipe, TermSection

    def keys(path: str, kind: type[BaseModel]) -> Iterator[tuple[str, str]]:
        own = keys_of(kind)
        yield from ((f"{path}{key.name}=", _short(key.meaning)) for key in own)
        for name, field in kind.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys(f"{path}{name}.", inner)

    yield from keys("", Recipe)
    for name in TERMS:
        yield from keys(f"terms.{name}.", TermSection)


def one_of(*values: str) -> Callable[[str], Candidates]:
    """Completion of an option that takes one of ``values``."""

    def listed(incomplete: str) -> Candidates:
        return ((value, "") for value in values)

    return listed


def _summaries(table: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    return ((name, _short(entry.summary)) for name, entry in table.items())


def _short(text: str) -> str:
    """``text`` for a menu, where a line that is too long would be broken."""
    return shorten(text, 60, placeholder=" …")


def complete_in_bash(app: Callable[[], None]) -> None:
    """Let ``app`` answer bash, which takes ``lab:resnet`` and ``--preset=fast`` for three words
    each and wants the last of them alone."""
    words, at = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    before = _joined(words[: at + 1])
    os.environ |= {"COMP_WORDS": "\n".join([*before, *words[at + 1 :]]), "COMP_CWORD": str(len(before) - 1)}
    word = before[-1]
    known = word[: max(word.rfind(":"), word.rfind("=")) + 1]
    answer = io.StringIO()
    try:
        with redirect_stdout(answer):
            app()
    finally:
        for line in answer.getvalue().splitlines():
            print(line.removeprefix(known))


def _joined(words: list[str]) -> list[str]:
    """``words`` with those that bash has split at a colon or an equals sign together again.

    >>> _joined(["attnshift", "attack", "--surrogate", "lab", ":", "res"])
    ['attnshift', 'attack', '--surrogate', 'lab:res']
    """
    found: list[str] = []
    for word in words:
        follows = bool(found) and found[-1].endswith((":", "=")) and not word.startswith("-")
        if found and (word in (":", "=") or follows):
            found[-1] += word
        else:
            found.append(word)
    return found
