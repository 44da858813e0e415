"""Examples in docstrings: each one gives what it says."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"


def modules_with_examples() -> list[str]:
    """Names of all modules in whose text an example stands that is not skipped. None is imported."""
    return sorted(
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCE.rglob("*.py")
        if any(
            ">>> " in line and "doctest: +SKIP" not in line for line in path.read_text(encoding="utf-8").splitlines()
        )
    )


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(import_module(name))
    assert tried > 0
    assert failed == 0
