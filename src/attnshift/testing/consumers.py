"""The contract of consumers of telemetry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

from attnshift.registry import check
from attnshift.telemetry import TELEMETRY, Consumer, Event, Iteration
from attnshift.testing.recorded import RECORDED
from attnshift.testing.requirements import require

__all__ = ["check_consumer"]


def check_consumer(make: Callable[[], Consumer]) -> None:
    """Hold consumers to their contract; ``make`` makes a new one whenever it is called.

    They are sent the events of a whole run, with values that are not finite,
    those of a run that is stopped, and none at all.
    """
    for events in (RECORDED, RECORDED[:3], ()):
        consumer = make()
        check(TELEMETRY, type(consumer).__name__, consumer)
        _send(consumer, events)


def _send(consumer: Consumer, events: Sequence[Event]) -> None:
    """Send ``events`` as an attack does, and close ``consumer``."""
    for event in events:
        if consumer.iterations or not isinstance(event, Iteration):
            sent = deepcopy(event)
            consumer(sent)
            require(sent == event, f"it changes the {type(event).__name__} that others are sent too")
    consumer.close()
