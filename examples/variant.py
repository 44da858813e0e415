"""A preset with some keys changed, as a recipe file of its own.

variant.py PRESET OUT.toml KEY=VALUE…
"""

from __future__ import annotations

import sys
from pathlib import Path

import tomli_w

from attnshift.files import atomic_write
from attnshift.recipes.reading import load_recipe


def main(preset: str, out: Path, settings: list[str]) -> None:
    recipe = load_recipe(preset, [*settings, f"name={out.stem}"])
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True)).encode())


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
