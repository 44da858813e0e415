"""The page docs/recipes.md, made from the schema and the options of all parts:
`python -m attnshift.recipes.page > FILE` prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from inspect import getdoc
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from attnshift.attention.selection import Selection
from attnshift.baselines import BASELINES
from attnshift.diffusion import RECONSTRUCTIONS
from attnshift.ensemble import RULES, TRANSFORMS
from attnshift.losses import CLASSIFICATION, TERMS
from attnshift.losses.schedules import Schedule
from attnshift.recipes.keys import REQUIRED, RecipeKey, keys_of, options_of
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.recipes.toml_text import default_text
from attnshift.registry import Table

__all__ = ["recipes_page"]

_START = """# Recipes

A recipe says what an attack is made of. It is a TOML file, or a preset or baseline by its name:
`--preset strong`, `--preset mine.toml`. `attnshift list` shows the names.

This page is made from the schema of recipes and the options of all parts. After a change of them,
renew it:

```
python -m attnshift.recipes.page > docs/recipes.md
```

## A recipe of your own

`attnshift show strong > mine.toml` writes a whole recipe, with a comment on each key. Read again,
the file gives the same recipe; change what you like. Or write what differs alone:

```toml
name = "mine"
extends = "strong"       # a preset, a baseline, or another file: "bases/large.toml"

[optimiser]
iterations = 40

[terms.contrast]
weight = 0.3
```

- **Tables are merged**, key by key, and the file's own keys win. A list counts as a whole.
- **`name` and `summary`** are the file's own. `tuned_on` is added up: judges that chose the numbers
  of either recipe cannot judge this one.
- **A path** starts at the file's own folder, and stays within the folder of the recipe that was
  asked for. The extended file may extend another one.
- **A key cannot be taken back.** Where another loss, rule or method does not know an option that
  comes along, one line says so; write that recipe out.
- **A run holds the whole recipe**, written out, with no trace of what it extended. Its identity
  depends on the values alone.

For one run, `--set optimiser.iterations=40` does the same on the command line; repeat it for
several keys. A value is read as TOML, and as text where it is none.

[objective.md](objective.md) defines the terms, rules and steps that the keys name.

## All keys

A recipe of an attack on latents has the sections below, in any order; `name` alone has no default.
A baseline's recipe has the first table, `[baseline]` and `[budget]`. Unknown keys are refused.
"""

_FAMILIES: tuple[tuple[str, str, Table], ...] = (
    ("Terms", "Options beside `weight` and `schedule` in `[terms.NAME]`.", TERMS),
    ("Classification losses", "Options of `classification.loss`, in `[classification]`.", CLASSIFICATION),
    ("Fusion rules", "Options of `classification.fusion`, in `[classification.fusion_options]`.", RULES),
    ("Transforms", "Options in `[expectation.transforms.NAME]`.", TRANSFORMS),
    ("Reconstructions", "Options of `reconstruction.method`, in `[reconstruction]`.", RECONSTRUCTIONS),
    ("Baselines", "Options of `baseline.attack`, in `[baseline]`.", BASELINES),
)


def recipes_page() -> str:
    """The whole page as Markdown. Parts of installed packages are not on it."""
    return "\n".join([_START, *_sections((), Recipe), *_baseline(), *_records(), *_families()])


def _sections(path: tuple[str, ...], kind: type[BaseModel]) -> Iterator[str]:
    keys = keys_of(kind)
    yield f"### `[{'.'.join(path)}]`\n" if path else "### Of every recipe\n"
    if path and kind.__doc__:
        yield textwrap.fill(" ".join((getdoc(kind) or "").split()).replace("``", "`"), 100) + "\n"
    yield from _plain_table(keys)
    own = {key.name for key in keys}
    for name, field in kind.model_fields.items():
        if name not in own:
            yield from _inner((*path, name), field.annotation)


def _inner(path: tuple[str, ...], kind: Any) -> Iterator[str]:
    if get_origin(kind) is dict:
        path, kind = (*path, "NAME"), get_args(kind)[1]
    # A transform has no keys but its options.
    if keys_of(kind):
        yield from _sections(path, kind)


def _baseline() -> Iterator[str]:
    kind = BaselineRecipe.model_fields["baseline"].annotation
    assert isinstance(kind, type)
    yield from ("### `[baseline]`\n", *_plain_table(keys_of(kind)))


def _records() -> Iterator[str]:
    for title, kind in (("A schedule", Schedule), ("A selection", Selection)):
        where = "`schedule` of a term, of the classification or of the optimiser" if kind is Schedule else "`select`"
        yield f"### {title}\n\nThe keys of {where}.\n"
        yield from _plain_table(keys_of(kind))


def _families() -> Iterator[str]:
    for title, where, table in _FAMILIES:
        own = [name for name, entry in table.items() if not entry.package]
        options = {name: options_of(table, name) for name in own}
        bare = [f"`{name}`" for name, keys in options.items() if not keys]
        none = f" {', '.join(bare)}: none." if bare else ""
        yield f"### {title}\n\n{textwrap.fill(where + none, 100)}\n"
        yield from _table(
            ("part", "option"), [((name, key.name), key) for name, keys in options.items() for key in keys]
        )


def _plain_table(keys: Sequence[RecipeKey]) -> Iterator[str]:
    return _table(("key",), [((key.name,), key) for key in keys])


def _table(names: Sequence[str], rows: Sequence[tuple[tuple[str, ...], RecipeKey]]) -> Iterator[str]:
    yield f"| {' | '.join((*names, 'values', 'default', 'meaning'))} |\n{'|---' * (len(names) + 3)}|"
    for named, key in rows:
        cells = (*(f"`{each}`" for each in named), key.allowed, _default(key), key.meaning)
        yield f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"
    yield ""


def _default(key: RecipeKey) -> str:
    if key.default is REQUIRED:
        return "required"
    if isinstance(key.default, Mapping) and not key.default:
        return "empty"
    text = default_text(key.default)
    return text if key.default is None else f"`{text}`"


if __name__ == "__main__":
    print(recipes_page(), end="")
