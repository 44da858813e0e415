"""Exported images of a run as a dataset folder for the Hugging Face Hub: a list and a card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from attnshift._version import __version__
from attnshift.files import atomic_write
from attnshift.report.run_tables import run_tables
from attnshift.report.tables import write_tables
from attnshift.results.roles import counted_judges, roles_in
from attnshift.results.rows import QualityRow, ResultRow, VerdictRow
from attnshift.results.store import Store
from attnshift.terminal import one_line, plural

__all__ = ["SPLIT", "write_dataset"]

SPLIT = "test"
"""Folder of the images, whose name is that of their split: nobody should train on them unaware."""

_CARD = """---
task_categories:
- image-classification
tags:
- adversarial-examples
- robustness
- attnshift
size_categories:
- {magnitude}
---

# {title}

{count}: the arm `{arm}` of an attack by attnshift {version}. Attacked images show where image
classifiers are weak, and are meant for measuring and mending that. Labels are those of the clean
images.

**Licence.** None is stated here. That of the source images holds for what is made of them: write it
into the head of this file before you publish.

## Files

`{split}/metadata.csv` names each image of `{split}/`. `datasets.load_dataset("imagefolder",
data_dir=…)` reads the folder, and `attnshift attack` takes `{split}` as a source of images.

| column | content |
|---|---|
| `file_name`, `label`, `class_name` | image, number of its true class from 0, name of that |
{columns}

## How they were made

| | |
|---|---|
{facts}

{judged}

## The recipe

````toml
{recipe}
````
"""

_OPTIONAL = {
    "target": "class that the attack aimed at",
    "judges": "classifiers without a part in the attack that know the clean image",
    "judges_fooled": "how many of them no longer see the true class, or see the target",
    "ssim": "structural similarity to the clean image at the size of the attack, 1 is equal",
}


def write_dataset(
    store: Store, folder: Path, names: Mapping[str, PurePosixPath], arm: str = "attack", own_size: bool = False
) -> None:
    """Write ``SPLIT``/metadata.csv and README.md for the images of ``arm`` that ``folder`` holds
    under their ``names``, by id.

    With ``own_size`` verdicts and metrics are left out: they are of other pixels.
    """
    rows = _rows(store, names, arm, own_size)
    kept = [name for name in _OPTIONAL if any(row.get(name) is not None for row in rows)]
    text = io.StringIO()
    table = csv.DictWriter(text, ["file_name", "label", "class_name", *kept], extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    atomic_write(folder / SPLIT / "metadata.csv", text.getvalue().encode())
    atomic_write(folder / "README.md", _card(store, len(rows), kept, arm, own_size).encode())


def _rows(store: Store, names: Mapping[str, PurePosixPath], arm: str, own_size: bool) -> list[dict[str, Any]]:
    verdicts = [] if own_size else store.table(VerdictRow)
    counted = counted_judges(roles_in(verdicts))
    known = {(row.classifier, row.id) for row in verdicts if row.arm == "clean" and row.correct}
    fooled: dict[str, list[bool]] = {}
    for row in verdicts:
        if row.classifier in counted and row.arm == arm and (row.classifier, row.id) in known:
            fooled.setdefault(row.id, []).append(bool(row.success))
    quality = [] if own_size else store.table(QualityRow)
    ssim = {row.id: row.values["ssim"] for row in quality if row.arm == arm and "ssim" in row.values}
    return [
        {
            "file_name": str(names[row.id]),
            "label": row.label,
            "class_name": row.class_name,
            "target": row.target,
            "judges": len(fooled[row.id]) if row.id in fooled else None,
            "judges_fooled": sum(fooled[row.id]) if row.id in fooled else None,
            "ssim": round(ssim[row.id], 4) if row.id in ssim else None,
        }
        for row in store.table(ResultRow)
        if row.id in names
    ]


def _card(store: Store, count: int, kept: list[str], arm: str, own_size: bool) -> str:
    spec = store.spec()
    facts = {
        "recipe": f"{spec.recipe.name}: {spec.recipe.summary}",
        "attacked classifiers": ", ".join(spec.surrogates),
        "pipeline": spec.pipeline if spec.recipe.uses_pipeline else "none",
        "size of the attack": spec.size,
        "budget of naturalness": spec.recipe.budget if spec.recipe.budget.given else "none",
        "images": f"arm {arm}{', at the size of their sources' if own_size else ''}",
        "run": spec.digest,
    }
    if own_size:
        judged = "At their own size these images have not been judged."
    elif store.table(VerdictRow):
        judged = f"## What classifiers see in them\n\n{write_tables(run_tables(store), 'markdown')}"
    else:
        judged = "These images have not been judged."
    return _CARD.format(
        magnitude=_magnitude(count),
        title=f"Adversarial images, {one_line(spec.recipe.name)}",
        count=plural(count, "image"),
        version=__version__,
        arm=arm,
        split=SPLIT,
        columns="\n".join(f"| `{name}` | {_OPTIONAL[name]} |" for name in kept),
        facts="\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items()),
        judged=judged,
        recipe=(store.folder / "recipe.toml").read_text(encoding="utf-8").strip(),
    )


def _cell(value: object) -> str:
    return one_line(value).replace("|", "\\|").replace("<", "&lt;")


def _magnitude(count: int) -> str:
    """The Hub's name for the size of a dataset of ``count`` images.

    >>> _magnitude(12), _magnitude(1000), _magnitude(50_000)
    ('n<1K', '1K<n<10K', '10K<n<100K')
    """
    for below, name in ((1000, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if count < below:
            return name
    return "n>1M"
