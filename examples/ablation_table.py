"""Runs on the same images against the first of them, paired, in Markdown: python examples/ablation_table.py RUN RUN…"""

import sys
from pathlib import Path

from attnshift.report.figures import number, percent
from attnshift.report.paired import compare
from attnshift.runs.store import Store

stores = [Store.open(Path(run)) for run in sys.argv[1:]]
print(
    f"| run | attributable | against {stores[0].folder.name} | SSIM | against {stores[0].folder.name} |\n"
    + "|---" * 5
    + "|"
)
for store in stores:
    seen = compare(stores[0], store)
    cells = [percent(seen.attributable), percent(seen.attributable_gap), number(seen.ssim), number(seen.ssim_gap)]
    print(f"| {store.folder.name} | {' | '.join(cells)} |")
