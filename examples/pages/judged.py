"""Tables of runs behind defences, and of what a reference says of the label, in Markdown.

    judged.py RUN…

One row for each run: success on the judges, behind each defence, how often the reference still sees the
class, success with changed labels struck out, and how visible objects are where there are masks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attnshift.report.figures import number, percent
from attnshift.report.summary import Summary, summarise_run
from attnshift.results.store import Store


def summaries(folders: Sequence[Path]) -> dict[str, Summary]:
    """The runs that have a reference or a defended judge, by name."""
    found = {each.name: summarise_run(Store.open(each)) for each in folders}
    return {name: summary for name, summary in found.items() if summary.judges and (summary.defended or summary.label)}


def judged(told: Mapping[str, Summary]) -> Iterator[str]:
    """Lines of the table of ``summaries``; none of none."""
    if not told:
        return
    defences = list(dict.fromkeys(_defence(row.name) for summary in told.values() for row in summary.defended))
    head = ["run", "success", *(f"behind {each}" for each in defences), "label kept", "success, label kept"]
    seen = any(summary.visibility.get("attack") for summary in told.values())
    yield f"| {' | '.join([*head, *(['contrast kept'] * seen)])} |"
    yield "|---" * (len(head) + seen) + "|"
    for name, summary in told.items():
        cells = [*_successes(summary, defences), *_labels(summary)]
        if seen:
            left = summary.visibility.get("attack", {})
            cells.append(number(left["contrast_kept"], 2) if left else "–")
        yield f"| {name.partition('@')[0]} | {' | '.join(cells)} |"
    yield ""


def _successes(summary: Summary, defences: Sequence[str]) -> Iterator[str]:
    assert summary.judges is not None
    yield percent(summary.judges.attributable)
    behind = {_defence(row.name): percent(row.attributable) for row in summary.defended}
    yield from (behind.get(each, "–") for each in defences)


def _labels(summary: Summary) -> Iterator[str]:
    label = summary.label
    yield percent(label.kept["attack"]) if label else "–"
    yield percent(label.together.attributable) if label and label.together else "–"


def _defence(name: str) -> str:
    return name.partition(" behind ")[2]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("\n".join(judged(summaries([Path(each) for each in sys.argv[1:]]))))
