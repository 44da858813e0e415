"""Tables and a picture of steering.sh.

    steering.py RUN…                 one row for each run, in Markdown
    steering.py --figure FILE RUN…   runs dose-none and dose-TERM-SHARE as curves

Mass is the attention to the class's phrase on the saved file, as a share of that on the clean image; moved is the
total variation distance of its map.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from attnshift.metrics.statistics import Estimate, bootstrap, wilson
from attnshift.report.figures import number, percent
from attnshift.results.rows import QualityRow, ResultRow, VerdictRow
from attnshift.results.store import Store


@dataclass(frozen=True)
class Steered:
    """Figures of one run: means over its images, and the share that the tuning classifier gets wrong."""

    name: str
    fooled: Estimate
    mass: Estimate
    moved: Estimate
    ssim: Estimate

    @classmethod
    def of(cls, run: str) -> Steered:
        store = Store.open(Path(run))
        told = [row.success for row in store.table(VerdictRow) if row.role == "tuning" and row.arm == "attack"]
        fooled = [each for each in told if each is not None]
        moved = [row.class_on_file["all"] for row in store.table(ResultRow)]
        ssim = [row.values["ssim"] for row in store.table(QualityRow) if row.arm == "attack"]
        return cls(
            store.folder.name,
            wilson(sum(fooled), len(fooled)),
            bootstrap([[after / before for before, after, _ in moved]], ("mass", run)),
            bootstrap([[each for *_, each in moved]], ("moved", run)),
            bootstrap([ssim], ("ssim", run)),
        )


def draw(runs: list[Steered], target: Path) -> None:
    """Each figure against the share of the term, with intervals; a share of 0 is the run without a term."""
    from matplotlib import pyplot

    none = next(run for run in runs if run.name == "dose-none")
    terms: dict[str, dict[float, Steered]] = defaultdict(lambda: {0.0: none})
    for run in runs:
        if run is not none:
            _, term, share = run.name.split("-")
            terms[term][float(share)] = run
    shares = sorted({share for doses in terms.values() for share in doses})
    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.6), dpi=110)
    titles = {
        "fooled": "fools the tuning classifier",
        "mass": "mass after / before",
        "moved": "moved (total variation)",
    }
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for place, (term, doses) in enumerate(terms.items()):
            # Beside each other, so that no interval hides another.
            at = [shares.index(share) + 0.06 * (place - 1.5) for share in sorted(doses)]
            found = [getattr(doses[share], key) for share in sorted(doses)]
            lengths = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
            values = [each.value for each in found]
            axes.errorbar(at, values, lengths, label=term, marker="o", markersize=3, linewidth=1)
        axes.set_xticks(range(len(shares)), [f"{share:g}" for share in shares])
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("share of the classification's pull", fontsize=8)
        axes.set_ylim(bottom=0)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--figure"]:
        draw([Steered.of(run) for run in arguments[2:]], Path(arguments[1]))
    else:
        print("| run | fools the tuning classifier | mass after / before | moved | SSIM |\n|---|---|---|---|---|")
        for run in map(Steered.of, arguments):
            cells = percent(run.fooled), number(run.mass, 2), number(run.moved, 3), number(run.ssim)
            print(f"| {run.name} | {' | '.join(cells)} |")
