"""The report: one self-contained HTML page, readable without a network, on paper and on a phone."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from attnshift.metrics import METRICS, SETS, VISIBILITY
from attnshift.report.figures import amplified_difference, data_url, heat_overlay, pixels
from attnshift.report.missing import missing
from attnshift.report.naturalness import read_sets, short, unavailable
from attnshift.report.rendering import render
from attnshift.report.summary import summarise
from attnshift.report.verdicts import ROLES
from attnshift.results.arms import ARMS
from attnshift.results.store import Store, atomic_write

__all__ = ["write_report"]

SHOWN = 48
"""Images that the page shows; its tables always cover all of them."""
AMPLIFIED = 8


def write_report(store: Store) -> Path:
    """Write report.html into the run's folder and return its path. An unjudged run shows its images and says so."""
    spec, results, verdicts = store.spec(), store.table("results"), store.table("verdicts")
    judged: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in sorted(verdicts, key=lambda row: ROLES.index(row["role"])):
        judged[row["id"]][row["classifier"]][row["arm"]] = row
    quality = {row["id"]: row for row in store.table("quality") if row["arm"] == "attack"}
    absent, lacking = unavailable(store.table("quality"), store.table("unavailable")), missing(store)
    page = render(
        "report.html.jinja",
        spec=spec,
        recipe=(store.folder / "recipe.toml").read_text(),
        arms=ARMS,
        metrics={name: entry for name, entry in METRICS.items() if name not in absent},
        unavailable=absent,
        sets=read_sets(store.table("sets")),
        set_metrics=SETS,
        short=short,
        summary=summarise(results, verdicts, store.table("quality"), store.table("visibility")),
        visibility=VISIBILITY,
        judged=bool(verdicts),
        bars=_bars,
        amplified=AMPLIFIED,
        shown=min(SHOWN, len(results)),
        missing=lacking,
        titles=("image", "reason"),
        failures=[(row["file"], row["reason"]) for row in lacking.failed],
        images=[_image(store, row, judged[row["id"]], quality.get(row["id"])) for row in results[:SHOWN]],
    )
    path = store.folder / "report.html"
    atomic_write(path, page)
    return path


def _image(
    store: Store, row: dict[str, Any], verdicts: dict[str, dict[str, dict[str, Any]]], quality: dict[str, Any] | None
) -> dict[str, Any]:
    clean, attack = (pixels(store.image_path(row["id"], arm)) for arm in ("clean", "attack"))
    side, looks = row["attention_side"], {}
    if side:
        peak = max(*row["attention_clean"], *row["attention_attack"])
        looks = {
            name: data_url(heat_overlay(image, row[f"attention_{arm}"], side, peak))
            for name, arm, image in (("before", "clean", clean), ("after", "attack", attack))
        }
    return {
        "row": row,
        "clean": data_url(clean),
        "attack": data_url(attack),
        "difference": data_url(amplified_difference(clean, attack, AMPLIFIED)),
        "before": looks.get("before", ""),
        "after": looks.get("after", ""),
        "verdicts": verdicts,
        "quality": {
            name: quality[name]
            for name in METRICS
            if quality and quality.get(name) is not None and math.isfinite(quality[name])
        },
    }


def _bars(success: Any, attributable: Any) -> dict[str, float] | None:
    """Positions in percent for the success bar and its interval; none where no image was known when clean."""
    if not success.count:
        return None
    return {
        "value": 100 * success.value,
        "low": 100 * success.low,
        "width": 100 * (success.high - success.low),
        "attributable": max(0.0, 100 * attributable.value),
    }
