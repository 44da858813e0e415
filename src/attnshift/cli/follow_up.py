"""Parts that follow an attack in the same command: judging, and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Self

from attnshift.cli.options import AfterOptions
from attnshift.cli.printing import print_message, print_remark, print_summary
from attnshift.errors import UserError
from attnshift.terminal import plural

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.results.store import Store

__all__ = ["FollowUp", "check_follow_up"]


def check_follow_up(asked: AfterOptions, seen: Sequence[str]) -> None:
    """Raise ``UserError`` for judges and a reference that are among the classifiers ``seen``."""
    from attnshift.judging.roles import check_judges, check_reference

    check_judges(asked.judges, seen, UserError)
    if asked.reference:
        check_reference(asked.reference, seen, UserError)


@dataclass(frozen=True)
class FollowUp:
    """Judging and report, with their classifiers: these are loaded before the attack, so that none
    is found missing after it."""

    asked: AfterOptions
    judges: tuple[Classifier, ...] = ()
    reference: Classifier | None = None

    @classmethod
    def load(cls, asked: AfterOptions, pipeline: str) -> Self:
        """Load what ``asked`` names; a defence may need the ``pipeline``."""
        if not asked.judged:
            return cls(asked)
        from attnshift.defences.names import load_defended
        from attnshift.diffusion import load_pipeline

        backbone = cache(lambda: load_pipeline(pipeline))
        judges = tuple(load_defended(name, backbone) for name in asked.judges)
        return cls(asked, judges, load_defended(asked.reference, backbone) if asked.reference else None)

    def __call__(self, store: Store) -> int:
        """Judge the finished run in ``store`` and write its report, as far as either is asked for.

        Returns the exit status of the worst part. A run that other processes still work on is left
        to the last of them.
        """
        from attnshift.report.missing import missing

        if not (self.asked.judged or self.asked.report):
            return 0
        left = missing(store).left
        if left:
            what = f"{plural(left, 'image')} {'is' if left == 1 else 'are'} left to other processes"
            print_remark(f"{what}; the same command goes on once they are done")
            return 0
        parts = [self._judge] if self.asked.judged else []
        parts += [_report] if self.asked.report else []
        return max(_status(partial(part, store)) for part in parts)

    def _judge(self, store: Store) -> None:
        from attnshift.judging.pending import missing_reference, unjudged
        from attnshift.judging.verdicts import evaluate_run

        names = unjudged(store, [judge.name for judge in self.judges])
        reference = self.reference if missing_reference(store, self.asked.reference) else None
        remarks: tuple[str, ...] = ()
        if names or reference:
            judges = [judge for judge in self.judges if judge.name in names]
            least = self.asked.min_clean_accuracy
            remarks = evaluate_run(store, judges, min_clean_accuracy=least, reference=reference)
        print_summary(store)
        for remark in remarks:
            print_remark(remark)


def _report(store: Store) -> None:
    from attnshift.report.page import write_report

    print(write_report(store))


def _status(part: Callable[[], None]) -> int:
    """Exit status of ``part``; its mistake is told, and the next part goes on."""
    try:
        part()
    except UserError as error:
        print_message(error)
        return 2
    return 0
