"""Values as TOML writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import tomli_w

__all__ = ["default_text", "toml_key", "toml_value"]


def toml_value(value: Any) -> str:
    """``value``, as JSON has it, on one line of TOML.

    >>> toml_value({"shape": "linear", "window": [0.0, 0.5]})
    '{ shape = "linear", window = [0.0, 0.5] }'
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(key)} = {toml_value(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()


def toml_key(name: str) -> str:
    """``name`` as a key, in quotes where TOML asks for them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def default_text(value: Any) -> str:
    """A default for people: as TOML, and numbers of grey levels as such.

    >>> default_text(16 / 255), default_text(0.1), default_text(None)
    ('16/255', '0.1', 'left out')
    """
    if value is None:
        return "left out"
    if isinstance(value, float) and len(str(value)) > 8:
        levels = round(value * 255, 6)
        return f"{levels:g}/255" if abs(levels / 255 - value) < 1e-12 else f"{value:g}"
    return toml_value(value)
