"""All complaints about an attack's input, found without attacking more than one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from attnshift.classifiers.classifier import in_one_order
from attnshift.data.images import decode_image
from attnshift.data.references import Reference
from attnshift.defences.names import load_surrogate
from attnshift.diffusion import as_precision, load_pipeline
from attnshift.errors import UserError
from attnshift.execution.agreement import measure_agreement, sampled
from attnshift.execution.findings import Findings, estimate_cost, names_of
from attnshift.execution.pipeline_check import check_pipeline, measure_on
from attnshift.execution.prepare import AttackSettings, Shapes, check_settings, items_of, labels_of, usual_threads
from attnshift.execution.work import work_of
from attnshift.results.plan import Plan

__all__ = ["find_problems"]

Found = TypeVar("Found")


class _Complaints:
    """Complaints on their way to ``tell``, with a count of those about images that would fail alone."""

    def __init__(self, tell: Callable[[UserError], None]):
        self._tell = tell
        self.count = self.alone = 0

    def __call__(self, error: UserError) -> None:
        self.count += 1
        self._tell(error)

    def tried(self, check: Callable[[], Found]) -> Found | None:
        try:
            return check()
        except UserError as error:
            self(error)
            return None


def find_problems(
    settings: AttackSettings,
    complain: Callable[[UserError], None],
    remark: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Load and check what ``settings`` name, decode every image, and measure what the attack depends on.

    Each complaint goes to ``complain``, and what is no error but may not be expected to ``remark``. What can only be
    checked with something that is missing is not checked. The cost is estimated on one image, unless something refuses
    the attack.
    """
    complaints = _Complaints(complain)
    tried = complaints.tried
    tried(lambda: check_settings(settings, settings.device))
    work = tried(lambda: work_of(settings.recipe))
    loaded = [tried(lambda name=name: load_surrogate(name)) for name in settings.surrogates]
    known = [each for each in loaded if each is not None]
    classifiers = tried(lambda: in_one_order(known)) if known else None
    pipeline = tried(lambda: load_pipeline(settings.pipeline, as_precision(settings.precision)))
    size = settings.size or (64 if pipeline is None else pipeline.suggested_size)
    torch.set_num_threads(settings.threads or usual_threads(settings.device, size))

    shapes = Shapes()

    def decoded(reference: Reference, content: bytes) -> None:
        shapes.examine(reference, content)
        try:
            decode_image(content, size, reference.name)
        except UserError:
            complaints.alone += 1
            raise

    def drawn() -> Plan:
        return Plan.draw(shapes.counted(items_of(settings, classifiers or (), complaints, decoded)))

    plan = tried(drawn) if classifiers else None
    whole = len(known) == len(settings.surrogates)
    if work is not None and pipeline is not None and classifiers and plan and whole:
        tried(lambda: work.check(pipeline, classifiers, plan.examples, size))
    agreement = None
    if plan and classifiers:
        agreement = tried(lambda: measure_agreement(classifiers, sampled(plan, len(plan)), size, "cpu"))
    if agreement is not None and not settings.accept_labels:
        tried(lambda: _raise(agreement.complaint(labels_of(settings))))
    measures = None
    if pipeline is not None and plan and complaints.count == complaints.alone:
        measures = tried(lambda: measure_on(pipeline, plan, size, settings.recipe))
        tried(lambda: check_pipeline(measures))
    for line in filter(None, (*(work.remarks if work else ()), shapes.line)):
        remark(line)
    refused = complaints.count > complaints.alone
    cost = None
    if pipeline is not None and classifiers and plan and not refused:
        networks = pipeline.to(settings.device), [each.to(settings.device) for each in classifiers]
        cost = tried(lambda: estimate_cost(settings.recipe, *networks, next(iter(plan)), len(plan), size))
    return Findings(
        len(plan or ()), complaints.count > complaints.alone, names_of(classifiers or ()), agreement, measures, cost
    )


def _raise(complaint: UserError | None) -> None:
    if complaint:
        raise complaint
