"""The report: one self-contained HTML page, readable without a network, on paper and on a phone."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from attnshift.evaluation import ARMS, METRICS
from attnshift.report.figures import amplified_difference, data_url, heat_overlay, pixels
from attnshift.report.rendering import render
from attnshift.report.summary import ROLES, summarise
from attnshift.runs.store import Store, atomic_write

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
    page = render(
        "report.html.jinja",
        spec=spec,
        recipe=(store.folder / "recipe.toml").read_text(),
        arms=ARMS,
        metrics=METRICS,
        summary=summarise(results, verdicts, store.table("quality")),
        judged=bool(verdicts),
        bars=_bars,
        amplified=AMPLIFIED,
        shown=min(SHOWN, len(results)),
        images=[_image(store, row, judged[row["id"]], quality.get(row["id"])) for row in results[:SHOWN]],
    )
    path = store.folder / "report.html"
    atomic_write(path, page)
    return path


def _image(
    store: Store, row: dict[str, Any], verdicts: dict[str, dict[str, dict[str, Any]]], quality: dict[str, Any] | None
) -> dict[str, Any]:
    clean, attack = (pixels(store.image_path(row["id"], arm)) for arm in ("clean", "attack"))
    side, peak = row["attention_side"], max(*row["attention_clean"], *row["attention_attack"])
    return {
        "row": row,
        "clean": data_url(clean),
        "attack": data_url(attack),
        "difference": data_url(amplified_difference(clean, attack, AMPLIFIED)),
        "before": data_url(heat_overlay(clean, row["attention_clean"], side, peak)),
        "after": data_url(heat_overlay(attack, row["attention_attack"], side, peak)),
        "verdicts": verdicts,
        "quality": {name: value for name, value in (quality or {}).items() if name in METRICS and math.isfinite(value)},
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
