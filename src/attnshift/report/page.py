"""The report: one HTML page in the run's folder, readable without a network, on paper and on a
phone. It shows the images of the folder and reads the parts in its folder `report`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from attnshift.files import atomic_write, writing
from attnshift.metrics import METRICS, SETS, VISIBILITY
from attnshift.metrics.statistics import Estimate
from attnshift.report.classes import attacked_ssim, class_figures, confusion_of, deciding
from attnshift.report.cropped import cropped_line
from attnshift.report.gallery import Gallery, gallery_data, paired_maps, part_files, typical, worst_first
from attnshift.report.layers import layer_figures
from attnshift.report.missing import missing
from attnshift.report.naturalness import sets_of, short, unavailable
from attnshift.report.outdated import outdated
from attnshift.report.people import people_of
from attnshift.report.people_tables import people_lines, people_tables
from attnshift.report.rendering import render_page
from attnshift.report.summary import Summary, summarise_run
from attnshift.report.verdicts import indexed
from attnshift.results.arms import ARMS
from attnshift.results.roles import counted_judges, roles_in
from attnshift.results.rows import GradCamRow, QualityRow, ResultRow, UnavailableRow, VerdictRow
from attnshift.results.store import Store

__all__ = ["PARTS_FOLDER", "write_report"]

PARTS_FOLDER = "report"
"""Folder of a run with what report.html reads beside the images."""

_WORST_CLASSES, _WORST_IMAGES = 5, 6


def write_report(store: Store) -> Path:
    """Write report.html and the folder report into the run's folder; return the path of the page.

    The page of an unjudged run has images alone. A ``RunError`` where a saved image is gone.
    """
    store = store.reading_once()
    spec, results, verdicts = store.spec(), store.table(ResultRow), store.table(VerdictRow)
    quality = store.table(QualityRow)
    roles, seen = roles_in(verdicts), indexed(verdicts)
    asked = deciding(roles)
    metrics = {row.id: row.values for row in quality if row.arm == "attack"}
    gallery = Gallery(store, results, roles, asked, seen, metrics, paired_maps(store.table(GradCamRow)))
    gallery.check_files()
    summary, people = summarise_run(store), people_of(store)
    absent, lacking = unavailable(quality, store.table(UnavailableRow)), missing(store)
    parts = {_address(content): content for content in part_files(gallery)}
    classes, chosen = class_figures(results, asked, seen, attacked_ssim(quality)), typical(gallery)
    shown = chosen if chosen is not None else 0 if results else None
    page = render_page(
        "report.html.jinja",
        ("page.js", "charts.js", "gallery.js"),
        spec=spec,
        recipe=(store.folder / "recipe.toml").read_text(encoding="utf-8"),
        notes=list(_notes(store, lacking.line)),
        arms=ARMS,
        metrics={name: entry for name, entry in METRICS.items() if name not in absent},
        unavailable=absent,
        sets=sets_of(store),
        set_metrics=SETS,
        short=short,
        summary=summary,
        head_judges=len(counted_judges(roles)),
        deciding=asked,
        classes=len(classes),
        class_rows=classes,
        worst_classes=[each for each in classes if each.success.count][:_WORST_CLASSES],
        confusion=confusion_of(results, asked, seen),
        layers=layer_figures(results),
        people=people,
        people_lines=people_lines(people) if people else [],
        people_tables=people_tables(people) if people else [],
        visibility=VISIBILITY,
        judged=bool(verdicts),
        bars=_bars,
        titles=("image", "reason"),
        failures=[(row.file, row.reason) for row in lacking.failed],
        shown=None if shown is None else _picture(gallery, shown),
        worst=[_picture(gallery, place) for place in worst_first(gallery)[:_WORST_IMAGES]],
        data=gallery_data(gallery, list(parts)) | {"curves": list(_curves(results, summary))},
    )
    path = store.folder / "report.html"
    _write_parts(store.folder, parts)
    atomic_write(path, page)
    _remove_others(store.folder, parts)
    return path


def _notes(store: Store, lacking: str) -> Iterator[str]:
    """Sentences, without their full stops, that stand before all figures."""
    yield from (f"Admitted when the run began: {each}" for each in store.spec().admitted)
    yield from filter(None, (cropped_line(store), *outdated(store), lacking.capitalize()))


def _address(content: bytes) -> str:
    """Address of a part as the page names it: another content has another name, so that a page
    never reads a part of another report."""
    return f"{PARTS_FOLDER}/{hashlib.sha256(content).hexdigest()[:16]}.js"


def _write_parts(folder: Path, parts: Mapping[str, bytes]) -> None:
    with writing(folder / PARTS_FOLDER):
        (folder / PARTS_FOLDER).mkdir(exist_ok=True)
    for address, content in parts.items():
        if not (folder / address).exists():
            atomic_write(folder / address, content)


def _remove_others(folder: Path, parts: Mapping[str, bytes]) -> None:
    """Remove the parts of earlier reports."""
    for path in (folder / PARTS_FOLDER).glob("*.js"):
        if f"{PARTS_FOLDER}/{path.name}" not in parts:
            with writing(path):
                path.unlink(missing_ok=True)


def _picture(gallery: Gallery, place: int) -> dict[str, Any]:
    """An image as the page shows it without its script."""
    row = gallery.results[place]
    fooled, known = gallery.fooled(row.id)
    files = {arm: quote(f"images/{row.id}.{arm}.png") for arm in ("clean", "attack")}
    ssim = gallery.quality.get(row.id, {}).get("ssim")
    return files | {
        "place": place,
        "name": row.class_name,
        "seen": gallery.seen(row.id),
        "fooled": fooled,
        "known": known,
        "ssim": ssim,
    }


def _curves(results: Sequence[ResultRow], summary: Summary) -> Iterator[dict[str, Any]]:
    """Means over images of what changes from iteration to iteration, with titles."""
    losses = _means([row.losses for row in results])
    margins = _means([row.margin_curves for row in results])
    series = {
        "weighted losses": losses,
        "margins of the surrogates, in logits": margins,
        "pull of each term": summary.pulls,
        "share of each surrogate": summary.shares if len(summary.shares) > 1 else {},
    }
    measured = sorted({at for row in results for at in row.measured})
    for title, curves in series.items():
        longest = max((len(values) for values in curves.values()), default=0)
        if longest:
            at = measured[:longest] if title == "pull of each term" else list(range(longest))
            yield {
                "title": title,
                "series": {name: _padded(values, longest) for name, values in curves.items()},
                "at": at,
            }


def _means(series: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Name -> means over the images that are still attacked in each iteration."""
    names = dict.fromkeys(name for each in series for name in each)
    rows = {name: [each[name] for each in series if name in each] for name in names}
    return {
        name: [fmean(value for value in values if value is not None) for values in zip_longest(*own)]
        for name, own in rows.items()
    }


def _padded(values: Sequence[float], length: int) -> list[float | None]:
    finite = [float(f"{each:.4g}") if math.isfinite(each) else None for each in values]
    return finite + [None] * (length - len(finite))


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
