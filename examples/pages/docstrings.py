"""An extension of griffe for the API reference (mkdocs.yml): docstrings as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?m)(?:^>>> .*\n?)(?:^(?!\s*$).*\n?)*")
"""An example with its output, up to the next blank line."""
DIRECTIVE = re.compile(r" *# doctest: .*")


class Docstrings(griffe.Extension):
    """Fences examples, which Markdown would take for quotations, and leaves out what only doctest reads."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
            obj.docstring.value = DIRECTIVE.sub("", text)
