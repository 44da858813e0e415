"""Files of ratings about the made-up run, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attnshift.results.store import Store

Answer = tuple[str, str, str, str]
"""Image, question, arm and answer."""

FIRST: list[Answer] = [
    ("a", "label", "attack", "yes"),
    ("b", "label", "attack", "no"),
    ("c", "label", "clean", "yes"),
    ("a", "original", "attack", "changed"),
    ("b", "original", "attack", "clean"),
    ("c", "original", "blurred", "clean"),
]
SECOND: list[Answer] = [
    ("a", "label", "attack", "yes"),
    ("b", "label", "attack", "cannot say"),
    ("c", "other", "clean", "yes"),
    ("a", "original", "attack", "changed"),
    ("b", "original", "reconstruction", "changed"),
    ("c", "original", "attack", "clean"),
]


def file_of(run: str, rater: str, answers: list[Answer], **others: Any) -> dict[str, Any]:
    names = ("id", "question", "arm", "answer")
    given = [dict(zip(names, each, strict=True)) | {"milliseconds": 900} for each in answers]
    return {"format": 1, "run": run, "seed": 0, "rater": rater, "order": 3, "trials": 6, "answers": given} | others


def write_ratings(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def rate_by_two(store: Store) -> None:
    """What two people said about all three images of the made-up run."""
    for rater, answers in (("one", FIRST), ("two", SECOND)):
        content = file_of(store.spec().digest, rater, answers)
        write_ratings(store.folder / "ratings" / f"{rater}.json", content)
