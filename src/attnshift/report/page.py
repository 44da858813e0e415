"""The report: one self-contained HTML page, readable without a network, on paper and on a phone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnshift.files import atomic_write
from attnshift.metrics import METRICS, SETS, VISIBILITY
from attnshift.metrics.statistics import Estimate
from attnshift.report.cropped import cropped_line
from attnshift.report.figures import amplified_difference, data_url, heat_overlay, pixels
from attnshift.report.missing import missing
from attnshift.report.naturalness import sets_of, short, unavailable
from attnshift.report.outdated import outdated
from attnshift.report.people import people_of
from attnshift.report.people_tables import people_lines, people_tables
from attnshift.report.rendering import render_page
from attnshift.report.summary import summarise_run
from attnshift.results.arms import ARMS
from attnshift.results.rows import ROLES, QualityRow, ResultRow, UnavailableRow, VerdictRow
from attnshift.results.store import Store

__all__ = ["write_report"]

SHOWN = 48
"""Most images that the page shows; its tables always cover all of them."""
AMPLIFIED = 8


def write_report(store: Store) -> Path:
    """Write report.html into the run's folder and return its path. The page
    of an unjudged run has images alone."""
    spec, results, verdicts = store.spec(), store.table(ResultRow), store.table(VerdictRow)
    judged: _Judged = defaultdict(lambda: defaultdict(dict))
    for row in sorted(verdicts, key=lambda row: ROLES.index(row.role)):
        judged[row.id][row.classifier][row.arm] = row
    quality = store.table(QualityRow)
    distances = {row.id: row.values for row in quality if row.arm == "attack"}
    people = people_of(store)
    absent, lacking = unavailable(quality, store.table(UnavailableRow)), missing(store)
    page = render_page(
        "report.html.jinja",
        spec=spec,
        recipe=(store.folder / "recipe.toml").read_text(encoding="utf-8"),
        arms=ARMS,
        metrics={name: entry for name, entry in METRICS.items() if name not in absent},
        unavailable=absent,
        sets=sets_of(store),
        outdated=outdated(store),
        set_metrics=SETS,
        short=short,
        summary=summarise_run(store),
        people=people,
        people_lines=people_lines(people) if people else [],
        people_tables=people_tables(people) if people else [],
        visibility=VISIBILITY,
        judged=bool(verdicts),
        bars=_bars,
        amplified=AMPLIFIED,
        shown=min(SHOWN, len(results)),
        missing=lacking,
        cropped=cropped_line(store),
        titles=("image", "reason"),
        failures=[(row.file, row.reason) for row in lacking.failed],
        images=[_image(store, row, judged[row.id], distances.get(row.id, {})) for row in results[:SHOWN]],
    )
    path = store.folder / "report.html"
    atomic_write(path, page)
    return path


_Judged = dict[str, dict[str, dict[str, VerdictRow]]]
"""Identity of an image, classifier, arm -> the verdict."""


def _image(
    store: Store, row: ResultRow, verdicts: Mapping[str, Mapping[str, VerdictRow]], quality: Mapping[str, float]
) -> dict[str, Any]:
    clean, attack = (pixels(store.image_path(row.id, arm)) for arm in ("clean", "attack"))
    side, heat = row.attention_side, {}
    if side:
        peak = max(*row.attention_clean, *row.attention_attack)
        maps = (("before", row.attention_clean, clean), ("after", row.attention_attack, attack))
        heat = {name: data_url(heat_overlay(image, values, side, peak)) for name, values, image in maps}
    return {
        "row": row,
        "clean": data_url(clean),
        "attack": data_url(attack),
        "difference": data_url(amplified_difference(clean, attack, AMPLIFIED)),
        "before": heat.get("before", ""),
        "after": heat.get("after", ""),
        "verdicts": verdicts,
        "quality": {name: quality[name] for name in METRICS if name in quality and math.isfinite(quality[name])},
    }


def _bars(success: Estimate, attributable: Estimate) -> dict[str, float] | None:
    """Positions in percent for the success bar and its interval;
    none where no image was known when clean."""
    if not success.count:
        return None
    return {
        "value": 100 * success.value,
        "low": 100 * success.low,
        "width": 100 * (success.high - success.low),
        "attributable": max(0.0, 100 * attributable.value),
    }
