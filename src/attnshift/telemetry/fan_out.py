"""Delivery of events to all consumers. A consumer that fails is removed, and the attack goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from textwrap import shorten
from typing import TYPE_CHECKING, Protocol

from attnshift.telemetry.events import Event, ImageDone, ImageFailed, Iteration, Reason, RunBegun, RunEnded

if TYPE_CHECKING:
    from attnshift.attack.loop import Snapshot

__all__ = ["Consumer", "IterationCallback", "Telemetry"]

IterationCallback = Callable[[Sequence[str], "Snapshot"], bool | None]
"""Function called in each iteration with the ids of all images of the micro-batch, in order.

True asks for the end of the micro-batch's attack after this iteration; telemetry never asks.
"""


class Consumer(Protocol):
    """Receiver of events.

    It gets events of type ``Iteration`` only if ``iterations`` is true. If no consumer wants them,
    none are made.
    """

    iterations: bool

    def __call__(self, event: Event) -> None:
        """Handle ``event``."""
        ...

    def close(self) -> None:
        """Release all resources. It is called once, also if an exception ends the attack."""
        ...


class Telemetry:
    """Delivery of each event to all ``consumers``, in order.

    A consumer that raises is switched off, with a line on standard error.

    >>> with Telemetry() as nobody:
    ...     print(nobody.watch(0, ["lab:resnet"]))
    None
    """

    def __init__(self, consumers: Iterable[Consumer] = ()):
        self._consumers = list(consumers)
        self._done = self._failed = 0

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        self._done += isinstance(event, ImageDone)
        self._failed += isinstance(event, ImageFailed)
        for consumer in tuple(self._consumers):
            if consumer.iterations or not isinstance(event, Iteration):
                self._guarded(consumer, lambda consumer=consumer: consumer(event))

    def watch(self, batch: int, surrogates: Sequence[str]) -> IterationCallback | None:
        """Callback for each iteration of micro-batch ``batch``; None if no consumer wants them."""
        if not any(consumer.iterations for consumer in self._consumers):
            return None
        return lambda ids, snapshot: self._iteration(batch, ids, surrogates, snapshot)

    @contextmanager
    def run(self, begun: RunBegun) -> Iterator[None]:
        """Send ``begun``, and at the end of the block a ``RunEnded``."""
        self._done = self._failed = 0
        since = time.monotonic()
        reason: Reason = "finished"
        self(begun)
        try:
            yield
        except BaseException as error:
            reason = "error" if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            self(RunEnded(self._done, self._failed, time.monotonic() - since, reason))

    def close(self) -> None:
        for consumer in tuple(self._consumers):
            self._guarded(consumer, consumer.close)
        self._consumers.clear()

    def _iteration(self, batch: int, ids: Sequence[str], surrogates: Sequence[str], snapshot: Snapshot) -> None:
        # Consumers of iterations may have been switched off since.
        if any(consumer.iterations for consumer in self._consumers):
            self(Iteration.of(batch, ids, surrogates, snapshot))

    def _guarded(self, consumer: Consumer, call: Callable[[], None]) -> None:
        try:
            call()
        # No failure of a consumer, in our code or in a library, may end a run or an image.
        except Exception as error:  # noqa: BLE001
            self._consumers.remove(consumer)
            with suppress(Exception):
                consumer.close()
            reason = shorten(str(error), 500, placeholder=" …") or type(error).__name__
            # Standard error may be closed too.
            with suppress(OSError, ValueError):
                print(
                    f"attnshift: {type(consumer).__name__} is switched off, the attack goes on: {reason}",
                    file=sys.stderr,
                )
