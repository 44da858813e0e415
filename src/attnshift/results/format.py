"""The page docs/results-format.md, made from the row types:
`python -m attnshift.results.format > FILE` prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from inspect import getdoc

import pyarrow

from attnshift.results.ratings import RATING_QUESTIONS, RATINGS_FORMAT
from attnshift.results.rows import ROW_TYPES, Column, Row, columns_of
from attnshift.results.spec import FORMAT

__all__ = ["format_page"]

_START = """# Format of results

A run folder holds its figures as parquet files, which any reader of parquet opens. This page lists
their columns. It is made from the row types in `src/attnshift/results/rows.py`; after a change of
them, renew it:

```
python -m attnshift.results.format > docs/results-format.md
```

The format of the run folder has the number {format}, which stands in `run.json`. A folder of
another format is refused with one line. Later versions of attnshift may add columns; a column that
an older run lacks has its default.

## From Python

`attnshift.open_run(folder)` reads a run without torch. Every table is a list of typed rows:
`results`, `failed`, `verdicts`, `quality`, `unavailable`, `visibility`, `sets` and `grad_cam`.

```python
import attnshift

run = attnshift.open_run("runs/first")
print(run.recipe.name, len(run.results), "images")
for row in run.verdicts:
    if row.arm == "attack" and row.success:
        print(row.id, row.classifier, row.predicted_name)

id = run.results[0].id
clean, attacked = run.attention(id)  # to the true phrase, [rows,columns]
losses = run.losses(id)              # term -> [iterations]
paths = run.image_paths(id)          # arm -> PNG file
frame = run.to_pandas("quality")           # needs pandas: pip install 'attnshift[pandas]'
```

Columns that exist once for each key of a mapping, such as `attack_margins` or the metrics of
`quality`, are one field of the typed row: `row.margins["attack"]`, `row.values["ssim"]`.

## From the command line

`attnshift report RUN --json` prints every figure of a run, with its interval, and nothing else on
standard output; `--table FORMAT` prints tables as `markdown`, `csv` or `latex` (the LaTeX document
needs `\\usepackage{{booktabs}}`). In CSV a figure with an interval has three columns: `NAME`,
`NAME low` and `NAME high`. `evaluate`, `compare` and `sweep` take the same two options, `validate`
and `tune` take `--json`.

## Images under their own names

`attnshift export RUN FOLDER` copies the attacked images into a new or empty folder, each under its
source's name with the ending `.png`; `--arm clean` and others copy another arm. Where two images
would have one name, both carry their ids.

With `--own-size` each has the size of its source: the change, the attacked image less the clean
one, is resized and added to the source, where it was attacked. Such pixels have not been judged; a
smaller or larger image can fool a classifier that the judged one does not fool, and the other way
round. The sources must be where the run found them, and unchanged.

With `--hub` FOLDER becomes a dataset folder of the Hugging Face Hub, which `hf upload NAME FOLDER
--repo-type dataset` publishes: the images in `test/`, beside them `metadata.csv` with label, class
name, target, how many judges each image fools and its SSIM, and a card (`README.md`) with the
attack, the recipe and what classifiers see. Nothing is sent. State the licence in the card: that of
the source images holds. `attnshift attack FOLDER/test …` reads the folder as a source of images.

## One image

`items/ID.json` holds the row of the table `results` for one finished image, with the same names.
The file exists once the image is finished.

## What people said

`ratings/*.json` holds the answers of one person each, as the page of `attnshift rate` saves them
([docs/rating.md](rating.md)). The name of the file is free.

| key | type | content |
|---|---|---|
| `format` | integer | {ratings_format} |
| `run` | text | digest of the run |
| `seed` | integer | seed of the page |
| `rater` | text | code of the person: 1 to 32 letters, digits, `-` and `_` |
| `order` | integer | number of the order in which the page asked |
| `trials` | integer | questions of the whole session |
| `answers` | list of objects | in the order in which they were given |

| key of an answer | content |
|---|---|
| `id` | id of the image |
| `question` | label (does it show its class?), other (another class of the run?), original (which of two?) |
| `arm` | clean, reconstruction or attack; in a pair the image beside the clean one, also blurred |
| `answer` | {answers} |
| `milliseconds` | time from the image to the answer |
"""


def format_page() -> str:
    """The whole page as Markdown."""
    return "\n".join([_START.format(**_values()), *(line for kind in ROW_TYPES.values() for line in _table(kind))])


def _values() -> dict[str, object]:
    answers = "; ".join(f"{name}: {', '.join(each)}" for name, each in RATING_QUESTIONS.items())
    return {"format": FORMAT, "ratings_format": RATINGS_FORMAT, "answers": answers}


def _table(kind: type[Row]) -> Iterator[str]:
    yield f"## `{kind.TABLE}.parquet`\n"
    yield textwrap.fill(getdoc(kind) or "", 100) + "\n"
    yield f"Written by `attnshift {kind.WRITER}`. Typed row: `{kind.__name__}`.\n"
    yield "| column | type | content |\n|---|---|---|"
    for column in columns_of(kind):
        yield f"| {_name(column)} | {_type(column.kind)} | {column.about} |"
    yield ""


def _name(column: Column) -> str:
    if column.wide is None:
        return f"`{column.name}`"
    shown = column.wide.name("ARM" if column.name == "margins" else "NAME")
    return f"`{shown}`, in Python `{column.name}`"


def _type(kind: pyarrow.DataType) -> str:
    if pyarrow.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pyarrow.types.is_struct(kind):
        return "{name: text, values: list of float}"
    names = {"string": "text", "int64": "integer", "double": "float", "bool": "true or false"}
    return names[str(kind)]


if __name__ == "__main__":
    print(format_page(), end="")
