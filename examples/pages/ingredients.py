"""Table of ingredients.sh, in Markdown: what each ingredient adds on the lab and on photographs.

    ingredients.py LAB PHOTOGRAPHS

LAB and PHOTOGRAPHS are comparisons (folders with a compare.json) of `plain` and of ingredients. A row of one of
them alone has dashes in the other's columns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from comparisons import Facts, against, estimate, rows

from attnshift.report.figures import percent


def main(*comparisons: Path) -> None:
    worlds = [lines(each) for each in comparisons]
    names = dict.fromkeys(name for world in worlds for name in world)
    head = ["ingredient"]
    for world in ("lab", "photographs"):
        head += [world, "difference", "won / lost", "CPU s"]
    print("\n".join(rows(head, ([name, *(cell for world in worlds for cell in cells(world, name))] for name in names))))


def lines(comparison: Path) -> dict[str, Facts]:
    (table,) = json.loads((comparison / "compare.json").read_text())["budgets"]
    return {line["name"]: line for line in table["recipes"]}


def cells(world: Mapping[str, Facts], name: str) -> Iterator[str]:
    line = world.get(name)
    if line is None:
        yield from ("–",) * 4
        return
    yield percent(estimate(line["success"]))
    gap, change, _ = against(line)
    clear = line["gap"] and (line["gap"]["low"] > 0 or line["gap"]["high"] < 0)
    yield f"**{gap}**" if clear else gap
    yield change
    yield f"{line['costs']['cpu_seconds']['value']:.1f}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
