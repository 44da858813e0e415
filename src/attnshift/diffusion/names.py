"""Names of pipelines: a folder or a name of the Hugging Face hub,
and the variant of its weights. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from attnshift.errors import ModelError

__all__ = ["check_pipeline_source", "exists", "is_hub_name", "split_variant"]

_HUB = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_VARIANT = re.compile(r"[\w-]+", re.ASCII)


def split_variant(source: str) -> tuple[str, str | None]:
    """``SOURCE,variant=NAME`` as its source and its variant, or all of it as a source, and None.

    >>> split_variant("models/sd,variant=fp16"), split_variant("models/sd")
    (('models/sd', 'fp16'), ('models/sd', None))
    """
    front, comma, variant = source.rpartition(",variant=")
    if not comma or exists(source):
        return source, None
    if not _VARIANT.fullmatch(variant):
        raise ModelError(f"pipeline '{source}': {variant!r:.80} is no variant of weights; known from files: fp16, bf16")
    return front, variant


def is_hub_name(source: str) -> bool:
    """True for ``NAME`` or ``USER/NAME`` that can be no folder of this machine.

    >>> names = ("user/model", "./nope", "/models/sd", "a/b/c", "~/sd", "sd\\\\v1")
    >>> [is_hub_name(each) for each in names]
    [True, False, False, False, False, False]
    """
    return _HUB.fullmatch(source) is not None and not ("/" in source and exists(source.partition("/")[0]))


def check_pipeline_source(source: str) -> None:
    """Raise ModelError if ``source`` is a folder that does not exist."""
    if not (exists(source) or is_hub_name(source)):
        raise ModelError(
            f"cannot load the pipeline {source}: there is no such folder; give a folder in diffusers' layout, "
            "a name of the Hugging Face hub (USER/NAME), or lab"
        )


def exists(source: str) -> bool:
    """True if a file or folder has this name; False also for names that nothing can have."""
    try:
        return Path(source).exists()
    except (OSError, ValueError):
        # Too long, or with a character that no path has.
        return False
