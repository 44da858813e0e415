"""The places of an attack where time is counted while a profile is open.

The records that carry out an attack hold what they call as fields. Here these are replaced by
timed ones, so that nothing that computes knows of a clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from attnshift.profiling import timed

if TYPE_CHECKING:
    from attnshift.attack.method import Method
    from attnshift.attack.prepare import PreparedBatch

__all__ = ["timed_batch", "timed_method"]


def timed_method(method: Method) -> Method:
    """The same method; inversion and reconstruction count as parts of their own."""
    return replace(
        method,
        invert=timed("inversion", method.invert),
        reconstruction=timed("reconstruction", method.reconstruction),
    )


def timed_batch(batch: PreparedBatch) -> PreparedBatch:
    """The same batch; every part of an iteration counts by itself, forward and backward."""
    method, render = batch.method, batch.render
    return replace(
        batch,
        method=replace(method, rule=timed("fusion", method.rule), objective=timed("terms", method.objective)),
        render=replace(
            render,
            walk=timed("denoising", render.walk, until=2),
            decode=timed("decoder", render.decode),
        ),
        observe=replace(batch.observe, draw=timed("terms", batch.observe.draw)),
        surrogates=replace(
            batch.surrogates,
            classifiers=[timed("classifiers", each, until=0) for each in batch.surrogates.classifiers],
        ),
    )
