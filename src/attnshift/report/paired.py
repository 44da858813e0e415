"""Comparison of two runs on the same images, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnshift.errors import RunError
from attnshift.metrics.statistics import Change, Estimate, bootstrap, mcnemar
from attnshift.report.summary import judge_gains
from attnshift.report.verdicts import Verdicts, fools_most, indexed
from attnshift.results.roles import counted_judges, roles_in
from attnshift.results.rows import QualityRow, VerdictRow
from attnshift.results.store import Store

__all__ = ["PairedComparison", "compare_fooled", "compare_runs"]


@dataclass(frozen=True)
class PairedComparison:
    """Attributable success on the judges and SSIM of a run,
    and by how much each exceeds the reference's.

    ``judges`` has McNemar's test for each judge, over the images that it knows when clean;
    ``fooled`` is the one over all of them together, each image once (``compare_fooled``).
    """

    attributable: Estimate
    attributable_gap: Estimate
    ssim: Estimate
    ssim_gap: Estimate
    judges: Mapping[str, Change]
    fooled: Change


def compare_runs(reference: Store, run: Store) -> PairedComparison:
    """Compare ``run`` to ``reference`` over the images and judges that both have.

    A ``RunError`` where they have no image or no judge in common. Judges behind a defence count
    where there are no others (``results.roles.counted_judges``).
    """
    tables = [store.table(VerdictRow) for store in (reference, run)]
    theirs, ours = (roles_in(rows) for rows in tables)
    judges = sorted(counted_judges({name: role for name, role in ours.items() if theirs.get(name) == role}))
    before, after = (
        {row.id: row.values["ssim"] for row in store.table(QualityRow) if row.arm == "attack"}
        for store in (reference, run)
    )
    images = [id for id in after if id in before]
    if not images or not judges:
        missing = "judge" if images else "judged image"
        raise RunError(f"{run.folder} and {reference.folder} have no {missing} in common; evaluate both")
    old, new = (indexed(rows) for rows in tables)
    gains, others = (judge_gains(judges, images, verdicts) for verdicts in (new, old))
    return PairedComparison(
        bootstrap(gains, ("attributable",)),
        bootstrap([own - other for own, other in zip(gains, others, strict=True)], ("attributable gap",)),
        bootstrap([after[each] for each in images], ("ssim",)),
        bootstrap([after[each] - before[each] for each in images], ("ssim gap",)),
        {judge: compare_fooled([judge], (images, images), (old, new)) for judge in judges},
        compare_fooled(judges, (images, images), (old, new)),
    )


def compare_fooled(
    judges: Sequence[str], images: tuple[Sequence[str], Sequence[str]], verdicts: tuple[Verdicts, Verdicts]
) -> Change:
    """McNemar's test of which images two runs fool the ``judges`` on:
    won are those that the second alone does.

    Each image counts once: it is fooled where the attack succeeds on at least half of the judges
    that know it when clean, and the reconstruction alone does not (``verdicts.fools_most``). Judges
    agree about images, so that their verdicts would be no independent pairs. ``images`` are the ids
    of the same images in both runs, in order.
    """
    first, second = (fools_most(judges, ids, seen) for ids, seen in zip(images, verdicts, strict=True))
    pairs = [(first[old], second[new]) for old, new in zip(*images, strict=True) if old in first and new in second]
    return mcnemar([old for old, _ in pairs], [new for _, new in pairs])
