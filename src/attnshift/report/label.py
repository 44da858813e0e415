"""Lines on the true class: the reference's answers, and the visibility of the object."""

from __future__ import annotations

from attnshift.report.figures import number, percent
from attnshift.report.summary import Summary

__all__ = ["label_lines"]


def label_lines(summary: Summary) -> list[str]:
    """One line for each figure of visibility and of the label;
    none without a reference and masks."""
    lines = [
        f"object in {arm.replace('_', ' ')}: " + ", ".join(f"{name} {number(each)}" for name, each in values.items())
        for arm, values in summary.visibility.items()
    ]
    if summary.label is None:
        return lines
    kept = ", ".join(f"{arm.replace('_', ' ')} {percent(share)}" for arm, share in summary.label.kept.items())
    lines.append(f"label kept, says {summary.label.reference}: {kept}")
    together = summary.label.together
    if together is not None:
        attack, own = percent(together.success["attack"]), percent(together.attributable)
        lines.append(f"success with the label kept, {together.name}: attack {attack}, attributable {own}")
    return lines
