"""Events of a run: each process appends to a file of its own, and reading folds all files.

A line is a JSON object. A line that a crash or a full disk has cut is ignored. {"event": "begun",
"at": …, "items": [id, …]}                        before the work {"event": "ended", "at": …,
"items": […], "failed": {id: reason}}    after everything is stored {"event": "stopped", "at": …,
"items": […]}                                interrupted on purpose {"event": "died", "at": …,
"items": […]}                                   their worker died, its coordinator did not
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from attnshift.files import writing

__all__ = ["DEATHS", "Failed", "History", "Ledger", "Span", "read_history"]

DEATHS = 3
"""Times that an item may be begun and never ended before it is attacked alone, or is left out."""

_Event = Literal["begun", "ended", "stopped", "died"]


@dataclass(frozen=True)
class Failed:
    """The last failure of an item, and when it was."""

    reason: str
    at: datetime


@dataclass(frozen=True)
class Span:
    """A micro-batch from begin to end, and how many ``items`` were finished in it."""

    begun: datetime
    ended: datetime
    items: int


@dataclass(frozen=True)
class History:
    """All ledgers of a run together.

    ``deaths`` counts for each item how often it was begun and its worker never came back; an item
    that is attacked at this moment counts as well. ``failed`` are the items whose last end was a
    failure.
    """

    deaths: Counter[str] = field(default_factory=Counter)
    failed: dict[str, Failed] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)


class Ledger:
    """The ledger file of this process in a run folder. The first event creates it."""

    def __init__(self, folder: Path):
        started = datetime.now(UTC)
        name = f"{started:%Y%m%dT%H%M%S}-{platform.node() or 'host'}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"
        self._path = folder / "ledger" / name

    def begun(self, items: Sequence[str]) -> None:
        self._append("begun", items)

    def ended(self, items: Sequence[str], failed: Mapping[str, str]) -> None:
        self._append("ended", items, failed=dict(failed))

    def stopped(self, items: Sequence[str]) -> None:
        self._append("stopped", items)

    def died(self, items: Sequence[str]) -> None:
        self._append("died", items)

    def _append(self, event: _Event, items: Sequence[str], **further: Any) -> None:
        line = json.dumps({"event": event, "at": datetime.now(UTC).isoformat(), "items": [*items], **further})
        with writing(self._path):
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("ab") as file:
                # The break comes first, so that a line that was cut does not spoil the next one.
                file.write(b"\n" + line.encode())
                file.flush()
                os.fsync(file.fileno())


def read_history(folder: Path) -> History:
    """Fold all ledgers of the run in ``folder``. Memory holds the items that are not done,
    and a span a micro-batch."""
    history = History()
    for path in sorted((folder / "ledger").glob("*.jsonl")):
        begun: dict[str, datetime] = {}
        for event in _events(path):
            at, items = datetime.fromisoformat(event["at"]), event["items"]
            if event["event"] == "begun":
                begun |= dict.fromkeys(items, at)
                continue
            starts = [start for each in items if (start := begun.pop(each, None))]
            if event["event"] == "died":
                history.deaths.update(items)
            if event["event"] == "ended":
                failed = event["failed"]
                history.spans.append(Span(min(starts, default=at), at, len(items) - len(failed)))
                for each in items:
                    history.deaths.pop(each, None)
                    last = history.failed.get(each)
                    if last is None or last.at <= at:
                        history.failed.pop(each, None)
                        if each in failed:
                            history.failed[each] = Failed(failed[each], at)
        history.deaths.update(begun.keys())
    return history


def _events(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and {"event", "at", "items"} <= event.keys():
                yield event
