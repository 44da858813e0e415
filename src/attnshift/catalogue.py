"""Everything that the tables hold, as plain data. Imports nothing heavy."""

from __future__ import annotations

from attnshift.baselines import BASELINES
from attnshift.classifiers import SOURCES
from attnshift.defences import DEFENCES
from attnshift.diffusion import BACKBONES, RECONSTRUCTIONS
from attnshift.ensemble import RULES, TRANSFORMS
from attnshift.lab.weights import classifier_names
from attnshift.losses import CLASSIFICATION, TERMS
from attnshift.metrics import FEATURES, METRICS, SETS, VISIBILITY
from attnshift.recipes.presets import preset_names, preset_summary
from attnshift.registry import Table
from attnshift.telemetry import TELEMETRY

__all__ = ["TABLES", "catalogue", "clashes"]

TABLES: dict[str, Table] = {
    "terms": TERMS,
    "classification losses": CLASSIFICATION,
    "fusion rules": RULES,
    "transforms": TRANSFORMS,
    "reconstructions": RECONSTRUCTIONS,
    "backbones": BACKBONES,
    "classifier sources": SOURCES,
    "metrics": METRICS,
    "set metrics": SETS,
    "features of sets": FEATURES,
    "visibility of the object": VISIBILITY,
    "baselines": BASELINES,
    "defences": DEFENCES,
    "telemetry": TELEMETRY,
}


def catalogue() -> dict[str, list[dict[str, str]]]:
    """Family -> entries with name, summary and reference."""
    presets = [{"name": name, "summary": preset_summary(name), "reference": ""} for name in preset_names()]
    families = {"presets": presets}
    for family, table in TABLES.items():
        families[family] = [
            {"name": name, "summary": entry.summary, "reference": entry.reference} for name, entry in table.items()
        ]
    families["lab classifiers"] = [
        {"name": f"lab:{name}", "summary": "see docs/lab.md", "reference": ""} for name in classifier_names()
    ]
    return families


def clashes() -> list[str]:
    """One line for each plug-in whose name is taken."""
    return [line for table in TABLES.values() for line in table.clashes()]
