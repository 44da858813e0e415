"""Table of attacks that generate images, in Markdown: they start from noise and edit nothing.

    generations.py IMAGES FEATURES RUN...

Each RUN is an evaluated run folder, such as one of advdiff_noise, with --reference. IMAGES is a
folder of real photographs, or of renders. FEATURES is a classifier (source:name): the images of a
run and the real ones are compared as sets, by what its last layer reads.

A twin has the noise and the prompt of an attacked image, and no attack. What a judge gets wrong in
it is the generator's own error, and does not count as success.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnshift.data.images import read_image
from attnshift.judging.saved import read_arm
from attnshift.judging.sets import features_of
from attnshift.metrics import SETS
from attnshift.metrics.features import Features
from attnshift.metrics.statistics import wilson
from attnshift.report.figures import percent
from attnshift.results.rows import ResultRow, VerdictRow
from attnshift.results.store import Store

FORMATS = {".png", ".jpg", ".jpeg", ".webp"}
BATCH = 32


def main(images: Path, features: str, runs: Sequence[Path]) -> None:
    stores, extractor = [Store.open(run) for run in runs], features_of(features)
    real = [path for path in sorted(images.rglob("*")) if path.suffix.lower() in FORMATS]
    rights = ["twins right", "attacked right", "success", "label kept"]
    head = ["attack", "images", *rights, *(f"{name} of {arm}" for name in SETS for arm in ("twins", "attacked"))]
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    for store in stores:
        recipe = store.spec().recipe
        if not recipe.generates:
            sys.exit(f"{store.folder} holds edits ({recipe.name}); compare them with attnshift compare")
        ids = [row.id for row in store.table(ResultRow)]
        cells = [recipe.name, str(len(ids)), *answers(store.table(VerdictRow)), *distances(store, ids, real, extractor)]
        print(f"| {' | '.join(cells)} |")


def answers(verdicts: Sequence[VerdictRow]) -> Iterator[str]:
    """Shares of the judges' answers, and of the reference's among the twins that it gets right."""
    judged = {arm: [row for row in verdicts if row.role == "judge" and row.arm == arm] for arm in ("clean", "attack")}
    for rows in judged.values():
        yield share([row.correct for row in rows])
    yield share([row.success for row in judged["attack"] if row.success is not None])
    referred = [row for row in verdicts if row.role == "reference"]
    known = {row.id for row in referred if row.arm == "clean" and row.correct}
    yield share([row.correct for row in referred if row.arm == "attack" and row.id in known])


def share(answers: Sequence[bool]) -> str:
    return percent(wilson(sum(answers), len(answers))) if answers else "–"


@torch.no_grad()
def distances(store: Store, ids: Sequence[str], real: Sequence[Path], features: Features) -> Iterator[str]:
    """Each set metric, from the real images to the twins and to the attacked ones, as many of each;
    there is none of fewer images than it needs."""
    size, count = store.spec().size, min(len(real), len(ids))
    real, ids = real[:count], ids[:count]
    wanted = vectors(features, [torch.stack([read_image(path, size) for path in part]) for part in parts(real)])
    made = {arm: vectors(features, [read_arm(store, part, arm) for part in parts(ids)]) for arm in ("clean", "attack")}
    for entry in SETS.values():
        metric = entry.load()()
        for found in made.values():
            yield f"{metric(wanted, found).value:.4g}" if count >= metric.least(features.width) else "–"


def vectors(features: Features, batches: Sequence[Tensor]) -> Tensor:
    return torch.cat([features.extract(each) for each in batches])


def parts(given: Sequence[Any]) -> Iterator[Sequence[Any]]:
    yield from (given[at : at + BATCH] for at in range(0, len(given), BATCH))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], [Path(each) for each in sys.argv[3:]])
