"""Runs on the same images against the first of them, paired, in Markdown: python examples/ablation_table.py RUN RUN…"""

import sys
from pathlib import Path

from attnshift.evaluation.statistics import bootstrap
from attnshift.report.figures import number, percent
from attnshift.report.paired import compare
from attnshift.runs.store import Store

stores = [Store.open(Path(run)) for run in sys.argv[1:]]
first = f"against {stores[0].folder.name}"
print(f"| run | attributable | {first} | SSIM | {first} | effective models |\n" + "|---" * 6 + "|")
for store in stores:
    seen = compare(stores[0], store)
    models = bootstrap([row["effective_models"] for row in store.table("results")], ("effective models",))
    cells = [percent(seen.attributable), percent(seen.attributable_gap), number(seen.ssim), number(seen.ssim_gap)]
    cells.append(number(models, 2))
    print(f"| {store.folder.name} | {' | '.join(cells)} |")
