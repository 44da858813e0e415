"""All complaints about an attack's input, found without attacking more than one image."""

from __future__ import annotations

from collections.abc import Callable

from attnshift.errors import UserError
from attnshift.execution.checks import Complaints, Loaded, load_parts, measure_parts
from attnshift.execution.findings import Cost, Findings, estimate_cost, names_of
from attnshift.execution.settings import AttackSettings

__all__ = ["find_problems"]


def find_problems(
    settings: AttackSettings,
    complain: Callable[[UserError], None],
    remark: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Load and check what ``settings`` name as a run does, and decode every image.

    Each complaint goes to ``complain``, and what is no error but may not be expected to ``remark``.
    The cost is estimated on one image, unless something refuses the attack.
    """
    complaints = Complaints(complain)
    parts = load_parts(settings, complaints, decode=True)
    measured = measure_parts(parts, settings, complaints)
    remarks = parts.work.remarks(parts.backbone, parts.classifiers) if parts.work else ()
    for line in (*remarks, *parts.notes, *measured.decoder, *measured.admissions):
        remark(line)
    cost = None if complaints.refuse else complaints.tried(lambda: _cost(settings, parts))
    names = names_of(parts.classifiers)
    usable = len(parts.plan or ())
    return Findings(usable, complaints.refuse, names, measured.agreement, measured.pipeline, cost)


def _cost(settings: AttackSettings, parts: Loaded) -> Cost | None:
    backbone, plan = parts.backbone, parts.plan
    if not (backbone and plan):
        return None
    return estimate_cost(settings.recipe, backbone, parts.classifiers, next(iter(plan)), len(plan), parts.framing.size)
