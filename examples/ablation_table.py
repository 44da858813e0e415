"""Print runs on the same images against the first of them, paired, in Markdown.

    python examples/ablation_table.py RUN RUN…

Won and lost count images on which at least half of the judges are fooled in one run and not in the
other. p is that of McNemar's exact test, corrected for all rows (Holm).
"""

import sys
from pathlib import Path

from attnshift.metrics.statistics import bootstrap, holm
from attnshift.report.figures import chance, number, percent
from attnshift.report.paired import compare_runs
from attnshift.results.rows import ResultRow
from attnshift.results.store import Store

stores = [Store.open(Path(run)) for run in sys.argv[1:]]
first = f"against {stores[0].folder.name}"
print(f"| run | attributable | {first} | won, lost | p | SSIM | {first} | effective models |\n" + "|---" * 8 + "|")
compared = [compare_runs(stores[0], store) for store in stores]
corrected = [1.0, *holm([seen.fooled.p for seen in compared[1:]])]
for store, seen, p in zip(stores, compared, corrected, strict=True):
    models = bootstrap([row.effective_models for row in store.table(ResultRow)], ("effective models",))
    paired = [f"{seen.fooled.won}, {seen.fooled.lost}", chance(p)]
    cells = [percent(seen.attributable), percent(seen.attributable_gap), *paired]
    cells += [number(seen.ssim), number(seen.ssim_gap), number(models, 2)]
    print(f"| {store.folder.name} | {' | '.join(cells)} |")
