"""Ledgers as tests write and read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

__all__ = ["at", "event", "events", "write_ledger"]


def at(seconds: float) -> datetime:
    return datetime(2026, 5, 1, 12, tzinfo=UTC) + timedelta(seconds=seconds)


def event(name: str, seconds: float, *items: str, **further: Any) -> dict[str, Any]:
    if name == "ended":
        further = {"failed": {}} | further
    return {"event": name, "at": at(seconds).isoformat(), "items": [*items], **further}


def write_ledger(folder: Path, name: str, lines: Sequence[dict[str, Any] | str]) -> Path:
    path = folder / "ledger" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    return path


def events(folder: Path) -> list[dict[str, Any]]:
    """All that ledgers hold whole, file by file."""
    found = []
    for path in sorted((folder / "ledger").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            if line.endswith("}"):
                found.append(json.loads(line))
    return found
