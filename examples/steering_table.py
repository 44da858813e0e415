"""Print one row for each run of steering.sh, in Markdown: python examples/steering_table.py RUN…

Mass is the attention to the class's phrase on the saved file, as a share of that on the clean image; moved is the
total variation distance of its map.
"""

import sys
from pathlib import Path

from attnshift.metrics.statistics import bootstrap, wilson
from attnshift.report.figures import number, percent
from attnshift.results.rows import QualityRow, ResultRow, VerdictRow
from attnshift.results.store import Store

print("| run | fools the tuning classifier | mass after / before | moved | SSIM |\n|---|---|---|---|---|")
for run in sys.argv[1:]:
    store = Store.open(Path(run))
    rows = store.table(ResultRow)
    told = [row.success for row in store.table(VerdictRow) if row.role == "tuning" and row.arm == "attack"]
    fooled = [each for each in told if each is not None]
    moved = [row.class_on_file["all"] for row in rows]
    mass = bootstrap([[after / before for before, after, _ in moved]], ("mass", run))
    distance = bootstrap([[each for *_, each in moved]], ("moved", run))
    ssim = bootstrap([[row.values["ssim"] for row in store.table(QualityRow) if row.arm == "attack"]], ("ssim", run))
    success = percent(wilson(sum(fooled), len(fooled)))
    print(f"| {store.folder.name} | {success} | {number(mass, 2)} | {number(distance, 3)} | {number(ssim)} |")
