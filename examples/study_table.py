"""Print one row for each run, by judges without and behind defences, in Markdown.

python examples/study_table.py RUN…
"""

import sys
from pathlib import Path

from attnshift.report.figures import number, percent
from attnshift.report.summary import summarise_run
from attnshift.results.store import Store

for place, run in enumerate(sys.argv[1:]):
    store = Store.open(Path(run))
    summary = summarise_run(store)
    assert summary.judges is not None, f"{run} is not judged"
    if place == 0:
        behind = "".join(f" {row.name.partition(' behind ')[2]} |" for row in summary.defended)
        print(f"| run | attributable | noise alone |{behind} SSIM | PSNR, dB | label kept | contrast kept | seconds |")
        print("|---" * (8 + len(summary.defended)) + "|")
    judges = (
        summary.judges.attributable,
        summary.judges.success["noise"],
        *(row.attributable for row in summary.defended),
    )
    quality, left = summary.quality["attack"], summary.visibility.get("attack", {})
    cells = [*map(percent, judges), number(quality["ssim"]), number(quality["psnr"], 1)]
    cells += [percent(summary.label.kept["attack"]) if summary.label else "–"]
    cells += [number(left["contrast_kept"], 2) if left else "–", f"{summary.seconds.value:.1f}"]
    print(f"| {store.folder.name} | {' | '.join(cells)} |")
