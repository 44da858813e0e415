"""Progress of an attack on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from attnshift.telemetry.events import Event, ImageDone, ImageFailed, Iteration, RunBegun, RunEnded
from attnshift.terminal import Groups, escaped, one_line

__all__ = ["ProgressBar", "ProgressLines"]


class ProgressLines:
    """One line on ``stream`` for each note about the run
    and for each image that is done or failed."""

    iterations = False

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._count = _Count()

    def __call__(self, event: Event) -> None:
        for line in self._count.lines(event):
            print(_showable(line, self._stream), file=self._stream, flush=True)

    def close(self) -> None:
        pass


class ProgressBar:
    """Progress bar on the terminal ``stream``, with the lines of ``ProgressLines`` above it.

    The bar is shown until ``close``. It also shows the iteration of the micro-batch.
    """

    iterations = True

    def __init__(self, stream: TextIO):
        columns = (
            TextColumn("attack"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._console = Console(file=stream, force_terminal=True)
        self._progress = Progress(*columns, console=self._console)
        self._count = _Count()
        self._task = self._progress.add_task("loading", total=None)
        self._progress.start()

    def __call__(self, event: Event) -> None:
        for line in self._count.lines(event):
            self._console.print(_showable(line, self._console.file), markup=False, highlight=False, soft_wrap=True)
        count = self._count
        if isinstance(event, RunBegun):
            self._progress.reset(self._task, total=count.total, completed=count.seen, description="")
        elif isinstance(event, Iteration):
            self._progress.update(self._task, description=f"iteration {event.iteration}/{count.iterations}")
        elif isinstance(event, ImageDone | ImageFailed):
            self._progress.update(self._task, completed=count.seen, description="")

    def close(self) -> None:
        self._progress.stop()


class _Count:
    """Counts of a run's images, and the lines for each event."""

    def __init__(self) -> None:
        self.name = ""
        self.total = self.seen = self.iterations = 0
        self._failures = Groups()

    def lines(self, event: Event) -> Iterable[str]:
        if isinstance(event, RunBegun):
            self.name, self.total, self.seen, self.iterations = event.name, event.images, event.done, event.iterations
            self._failures = Groups()
            return [self._named(one_line(note)) for note in event.notes]
        if isinstance(event, RunEnded):
            return [f"failed: {line}" for line in self._failures.left_out()]
        if not isinstance(event, ImageDone | ImageFailed):
            return []
        self.seen += 1
        start = self._named(f"{self.seen}/{self.total} {event.file}")
        if isinstance(event, ImageDone):
            return [f"{start} {_outcome(event)}"]
        # The name of the image may be a part of the reason in any form.
        if not self._failures.admits(event.reason.replace(event.file, "…")):
            return []
        times = f" after {event.attempts} attempts" if event.attempts > 1 else ""
        return [f"{start} failed{times}: {' '.join(event.reason.split())}"]

    def _named(self, line: str) -> str:
        return f"{self.name} {line}" if self.name else line


def _outcome(event: ImageDone) -> str:
    classes = event.class_name if event.target_name is None else f"{event.class_name} → {event.target_name}"
    wrong = f" ({len(event.unknown)} wrong before the attack)" if event.unknown else ""
    kept = f", iterate {event.iteration} of {event.evaluated}" if event.evaluated else ""
    return (
        f"({classes}): succeeds on {event.succeeds_on} of {len(event.margins)} surrogates{wrong}{kept}, "
        f"{event.seconds:.2f} s{''.join(f'; {line}' for line in event.idle_terms)}"
    )


def _showable(line: str, stream: IO[str]) -> str:
    """``line`` with escapes for control characters and for those that ``stream`` cannot write."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return escaped(line).encode(encoding, "backslashreplace").decode(encoding)
