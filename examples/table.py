"""Print the tables of docs/results.md in Markdown: python examples/table.py RUN…"""

import sys
from pathlib import Path

from attnshift.report.figures import number, percent
from attnshift.report.summary import summarise_run
from attnshift.results.store import Store

for run in sys.argv[1:]:
    store = Store.open(Path(run))
    summary = summarise_run(store)
    spec = store.spec()
    print(f"\n### {spec.recipe.name}, attacking {', '.join(spec.surrogates)}; {summary.images} images{summary.aim}\n")
    arms = list(summary.quality)
    print(f"| classifier | role | clean accuracy | {' | '.join(arms).replace('_', ' ')} | attributable |")
    print("|---" * (len(arms) + 4) + "|")
    for row in (*summary.classifiers, *summary.defended, *([summary.judges] if summary.judges else [])):
        cells = map(percent, (row.accuracy, *(row.success[arm] for arm in arms), row.attributable))
        print(f"| {row.name} | {row.role} | {' | '.join(cells)} |")
    print("\n| arm | SSIM | PSNR, dB | L2 |\n|---|---|---|---|")
    for arm, metrics in summary.quality.items():
        values = [number(metrics[name], digits) for name, digits in (("ssim", 3), ("psnr", 1), ("l2", 2))]
        print(f"| {arm.replace('_', ' ')} | {' | '.join(values)} |")
