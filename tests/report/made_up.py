"""A finished and judged run of three images, written by hand: its figures can be counted on fingers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from attnshift.data.datasets import Item
from attnshift.data.references import Reference
from attnshift.recipes.reading import load_recipe
from attnshift.results.arms import ARMS
from attnshift.results.plan import Plan
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store
from tables import records, write_records

SURROGATE, HELPER, TUNED, FIRST, SECOND = "lab:surrogate", "<b>helper</b>", "lab:tuned", "lab:first", "lab:second"
ROLES = {SECOND: "judge", SURROGATE: "surrogate", FIRST: "judge", TUNED: "tuning"}
IDS = ("a", "b", "c")

CORRECT = {
    # Per classifier and arm: is it right about a, b and c?
    SURROGATE: {"clean": "yyy", "round_trip": "yyy", "reconstruction": "yyy", "noise": "yyy", "attack": "nny"},
    TUNED: {"clean": "nnn", "round_trip": "nnn", "reconstruction": "nnn", "noise": "nnn", "attack": "ynn"},
    FIRST: {"clean": "yyn", "round_trip": "yyn", "reconstruction": "ynn", "noise": "yyn", "attack": "nnn"},
    SECOND: {"clean": "ynn", "round_trip": "yyy", "reconstruction": "yyy", "noise": "yyy", "attack": "ynn"},
}

MUG, DONUT, TREE = 1, 2, 6
NAMES = {DONUT: "donut", TREE: "tree"}
SHARES = {
    "a": [{"name": SURROGATE, "values": [0.5, 0.75]}, {"name": HELPER, "values": [0.5, 0.25]}],
    "b": [{"name": SURROGATE, "values": [0.1]}, {"name": HELPER, "values": [0.9]}],
    "c": [{"name": SURROGATE, "values": [0.0, 0.25]}, {"name": HELPER, "values": [0.0, 0.75]}],
}
"""What two surrogates had to say in the two iterations; b was done after the first."""
TARGETS = {"a": DONUT, "b": TREE, "c": DONUT}
"""Targets of the three images: who is not right sees a donut, which is what a and c are after, and not b."""

HOSTILE_FILE = "<script>alert('x')</script> & \"photo\".png"
HOSTILE_NAME = "<img src=http://example.invalid/x onerror=alert(1)> 🫖 杯子"


def results(
    names: Mapping[str, tuple[str, str]] | None = None,
    targets: Mapping[str, int] | None = None,
    shares: Mapping[str, list[dict[str, Any]]] | None = None,
) -> list[dict[str, Any]]:
    names, targets = names or {}, targets or {}
    shares = shares or {id: [{"name": SURROGATE, "values": [1.0, 1.0]}] for id in IDS}
    return [
        {
            "id": id,
            "file": names.get(id, (f"{id}.png", ""))[0],
            "label": MUG,
            "class_name": names.get(id, ("", "mug"))[1],
            "target": targets.get(id),
            "target_name": NAMES.get(targets.get(id, MUG), ""),
            "run": "0" * 16,
            "surrogates": [SURROGATE],
            "iteration": 3,
            "evaluated": 5,
            "seconds": 1.0 + place,
            "losses": [{"name": "classification", "values": [1.0, 0.5]}],
            "shares": shares[id],
            "effective_models": 1.0 + 0.25 * place,
            "attention_clean": [0.0] * 5 + [1.0] + [0.0] * 10,
            "attention_attack": [0.25] * 16,
            "attention_side": 4,
            "measured": [0, 1],
            "pulls": [{"name": "classification", "values": [2.0, 0.0]}, {"name": "entropy", "values": [0.5, 0.1]}],
            "idle_terms": ["contrast never acted: already satisfied"] if id == "a" else [],
            "class_on_file": [{"name": "all", "values": [0.2, 0.1 + 0.05 * place, 0.3]}],
            "interference": "",
            **{f"{arm}_margins": [0.5] for arm in ARMS},
        }
        for place, id in enumerate(IDS)
    ]


def verdicts(predicted_name: str = "donut", targets: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "arm": arm,
            "classifier": name,
            "role": role,
            "predicted": MUG if right == "y" else DONUT,
            "predicted_name": "mug" if right == "y" else predicted_name,
            "correct": right == "y",
            "success": right == "n" and (targets is None or targets[id] == DONUT),
            "true_probability": 0.75 if right == "y" else 0.1,
            "predicted_probability": 0.75,
        }
        for name, role in ROLES.items()
        for arm in ARMS
        for id, right in zip(IDS, CORRECT[name][arm], strict=True)
    ]


def quality() -> list[dict[str, Any]]:
    """The reconstruction of b is equal to the clean image, every round trip is."""
    rows = []
    for place, id in enumerate(IDS):
        equal = {"ssim": 1.0, "psnr": float("inf"), "l2": 0.0, "linf": 0.0}
        near = {"ssim": 0.9 + 0.02 * place, "psnr": 30.0 + place, "l2": 2.0, "linf": 0.25}
        rows.append({"id": id, "arm": "round_trip"} | equal)
        rows.append({"id": id, "arm": "reconstruction"} | (equal if id == "b" else near))
        rows.append({"id": id, "arm": "noise"} | near)
        rows.append({"id": id, "arm": "attack"} | near)
    return rows


def made_up_run(
    folder: Path,
    judged: bool = True,
    hostile: bool = False,
    targets: Mapping[str, int] | None = None,
    shares: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Store:
    """``hostile``: the first image has a file name and a class name that try to be HTML."""
    recipe = load_recipe("fast")
    spec = RunSpec(
        images="images",
        labels="labels.csv",
        items="0" * 16,
        pipeline="lab",
        surrogates=(SURROGATE,),
        size=64,
        batch=8,
        device="cpu",
        threads=1,
        recipe=recipe,
    )
    items = (Item(id, f"{id}.png", Reference("file", f"/{id}.png"), 0, "mug") for id in IDS)
    store = Store.start(folder, spec, Plan.draw(items))
    height, width = numpy.mgrid[0:64, 0:64]
    for place, id in enumerate(IDS):
        for number, arm in enumerate(ARMS):
            pixels = numpy.stack([4 * height % 256, 4 * width % 256, (64 * place + 3 * number) + 0 * width], 2)
            Image.fromarray(pixels.astype(numpy.uint8)).save(store.image_path(id, arm))
    write_records(store, "results", results({"a": (HOSTILE_FILE, HOSTILE_NAME)} if hostile else None, targets, shares))
    if judged:
        write_records(store, "verdicts", verdicts(HOSTILE_NAME if hostile else "donut", targets))
        write_records(store, "quality", quality())
    return store


def fail(store: Store, *ids: str) -> None:
    """As if the images ``ids`` had failed and been judged by nobody."""
    gone = [row for row in records(store, "results") if row["id"] in ids]
    reasons = [{"id": row["id"], "file": row["file"], "label": MUG, "reason": "its gradient is NaN"} for row in gone]
    write_records(store, "failed", reasons)
    for name in ("results", "verdicts", "quality"):
        write_records(store, name, [row for row in records(store, name) if row["id"] not in ids])
