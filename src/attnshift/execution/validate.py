"""All complaints about an attack's input, found without attacking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attnshift.data.images import decode_image
from attnshift.data.references import Reference
from attnshift.defences.names import load_surrogate
from attnshift.diffusion import as_precision, load_pipeline
from attnshift.diffusion.measures import PipelineMeasures
from attnshift.errors import UserError
from attnshift.execution.pipeline_check import check_pipeline, measure_on
from attnshift.execution.prepare import AttackSettings, Shapes, check_settings, items_of
from attnshift.execution.work import work_of
from attnshift.results.plan import Plan

__all__ = ["find_problems"]

Found = TypeVar("Found")


def find_problems(
    settings: AttackSettings,
    complain: Callable[[UserError], None],
    remark: Callable[[str], None] = lambda line: None,
    measured: Callable[[PipelineMeasures], None] = lambda measures: None,
) -> int:
    """Load and check what ``settings`` name, and decode every image; return how many images can be attacked.

    Each complaint goes to ``complain``, what is no error but may not be expected to ``remark``, and what is measured of
    the pipeline to ``measured``. What can only be checked with something that is missing is not checked.
    """

    def tried(check: Callable[[], Found]) -> Found | None:
        try:
            return check()
        except UserError as error:
            complain(error)
            return None

    tried(lambda: check_settings(settings, settings.device))
    work = tried(lambda: work_of(settings.recipe))
    loaded = [tried(lambda name=name: load_surrogate(name)) for name in settings.surrogates]
    classifiers = [each for each in loaded if each is not None]
    pipeline = tried(lambda: load_pipeline(settings.pipeline, as_precision(settings.precision)))
    size = settings.size or (64 if pipeline is None else pipeline.suggested_size)

    shapes = Shapes()

    def decoded(reference: Reference, content: bytes) -> None:
        shapes.examine(reference, content)
        decode_image(content, size, reference.name)

    def drawn() -> Plan:
        return Plan.draw(shapes.counted(items_of(settings, classifiers, complain, decoded)))

    plan = tried(drawn) if classifiers else None
    if work is not None and pipeline is not None and plan and len(classifiers) == len(settings.surrogates):
        tried(lambda: work.check(pipeline, classifiers, plan.examples, size))
        measures = tried(lambda: measure_on(pipeline, plan, size, settings.recipe))
        if measures is not None:
            measured(measures)
            tried(lambda: check_pipeline(measures))
    for line in filter(None, (*(work.remarks if work else ()), shapes.line)):
        remark(line)
    return len(plan or ())
