"""Two runs on the same images, compared image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnshift.errors import RunError
from attnshift.evaluation.statistics import Estimate, bootstrap
from attnshift.report.summary import indexed, judge_gains
from attnshift.runs.store import Store

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Attributable success on the judges and SSIM of a run, and by how much each exceeds the reference's."""

    attributable: Estimate
    attributable_gap: Estimate
    ssim: Estimate
    ssim_gap: Estimate


def compare(reference: Store, run: Store) -> Comparison:
    """Paired bootstrap over the images that both runs have; a ``RunError`` where there is none or no judge."""
    theirs, ours = (_per_image(store) for store in (reference, run))
    images = [identity for identity in ours if identity in theirs]
    if not images:
        raise RunError(f"{run.folder} and {reference.folder} have no judged image in common; evaluate both")
    gains, similarities = ([[side[each][at] for each in images] for side in (ours, theirs)] for at in (0, 1))
    return Comparison(
        bootstrap(gains[0], ("attributable",)),
        bootstrap([own - other for own, other in zip(*gains, strict=True)], ("attributable gap",)),
        bootstrap(similarities[0], ("ssim",)),
        bootstrap([own - other for own, other in zip(*similarities, strict=True)], ("ssim gap",)),
    )


def _per_image(store: Store) -> Mapping[str, tuple[float, float]]:
    """Identity -> what the attack gains on the judges (``judge_gains``), and its SSIM."""
    verdicts = [row for row in store.table("verdicts") if row["role"] == "judge"]
    judges = sorted({row["classifier"] for row in verdicts})
    similarities = {row["id"]: row["ssim"] for row in store.table("quality") if row["arm"] == "attack" and judges}
    gains = judge_gains(judges, list(similarities), indexed(verdicts))
    return {identity: (gain, similarities[identity]) for identity, gain in zip(similarities, gains, strict=True)}
