"""Figures of what people said about a run's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from attnshift.metrics.crossed import Spread, Vote, estimate_share, nominal_alpha, spread_of
from attnshift.metrics.statistics import Estimate, wilson
from attnshift.report.summary import ClassifierSummary, judges_together
from attnshift.report.verdicts import indexed, where_label_is_kept
from attnshift.results.ratings import Rating, RatingFile, ratings_of
from attnshift.results.roles import roles_in
from attnshift.results.rows import ResultRow, VerdictRow
from attnshift.results.store import Store

__all__ = ["CHANCE", "Gap", "KeptByPeople", "People", "PeoplesArm", "people_of", "summarise_people"]

CHANCE = 0.5
"""Share of pairs in which a person who sees no difference takes the changed image for the
original."""

_CAREFUL = 0.75
"""Share of checks that a rater who looks at the images passes at least."""


@dataclass(frozen=True)
class PeoplesArm:
    """Answers about one arm.

    ``taken`` is the share of pairs in which its image was taken for the original; a person who sees
    no difference reaches one half. ``kept`` is the share of answers that the image shows its class,
    or, where the name was another class's, that one. ``pairs`` and ``labels`` are the answers.
    """

    name: str
    taken: Estimate
    pairs: int
    kept: Estimate
    labels: int


@dataclass(frozen=True)
class Gap:
    """A difference of two shares, and how finely these raters and images can tell."""

    name: str
    value: Estimate
    spread: Spread | None


@dataclass(frozen=True)
class KeptByPeople:
    """Success of the attack on all judges, over the images whose attack somebody was asked about.

    ``plain`` counts every success, ``kept`` only those on images that most of their raters still
    see as their class; ``share`` are those images.
    """

    share: Estimate
    plain: ClassifierSummary
    kept: ClassifierSummary


@dataclass(frozen=True)
class People:
    """``agreement`` is Krippendorff's alpha of each question. ``checks`` is the share of each
    rater's checks that were passed: pairs with a blurred image, and names of other classes.
    ``success`` is None without judges. ``stopped`` raters have not answered all questions."""

    raters: int
    images: int
    answers: int
    stopped: int
    arms: tuple[PeoplesArm, ...]
    gaps: tuple[Gap, ...]
    agreement: Mapping[str, float]
    checks: Mapping[str, Estimate]
    success: KeptByPeople | None

    @property
    def careless(self) -> tuple[str, ...]:
        """Raters who failed more than a quarter of their checks."""
        return tuple(name for name, each in self.checks.items() if each.count and each.value < _CAREFUL)


def people_of(store: Store) -> People | None:
    """What the files in the folder ``ratings`` of a run say; None where nobody was asked."""
    files = ratings_of(store)
    return summarise_people(files, store) if files else None


def summarise_people(files: Sequence[RatingFile], store: Store | None = None) -> People:
    """Figures of ``files``, and with the run also success with the label kept. Answers about images
    that have left the run since do not count."""
    held = None if store is None else {row.id for row in store.table(ResultRow)}
    answers = [(file.rater, each) for file in files for each in file.answers if held is None or each.id in held]
    votes = _votes(answers)
    return People(
        len(files),
        len({each.id for _, each in answers}),
        len(answers),
        sum(len(file.answers) < file.trials for file in files),
        tuple(_arms(votes)),
        tuple(_gaps(votes)),
        {question: nominal_alpha(_units(answers, question)) for question in ("label", "original")},
        {file.rater: _checks([each for rater, each in answers if rater == file.rater]) for file in files},
        None if store is None else _success(votes.get(("label", "attack"), []), store),
    )


_Votes = dict[tuple[str, str], list[Vote]]
"""Question and arm -> votes; yes is that the label is kept, or the changed image taken."""


def _votes(answers: Sequence[tuple[str, Rating]]) -> _Votes:
    votes: _Votes = {}
    for rater, each in answers:
        value = float(each.answer in ("yes", "changed"))
        votes.setdefault((each.question, each.arm), []).append(Vote(rater, each.id, value))
    return votes


_ARMS = (
    ("clean", "", "label"),
    ("reconstruction", "original", "label"),
    ("attack", "original", "label"),
    ("blurred", "original", ""),
    ("clean", "", "other"),
)
"""Arm, the question about its pairs, and that about its class."""


def _arms(votes: _Votes) -> list[PeoplesArm]:
    rows = []
    for arm, original, label in _ARMS:
        pairs, labels = votes.get((original, arm), []), votes.get((label, arm), [])
        if pairs or labels:
            name = "clean, another class's name" if label == "other" else arm
            taken, kept = estimate_share(pairs), estimate_share(labels)
            rows.append(PeoplesArm(name, taken, len(pairs), kept, len(labels)))
    return rows


_GAPS = (
    ("attack taken for the original, less chance", ("original", "attack"), None),
    ("the same, less the reconstruction's", ("original", "attack"), ("original", "reconstruction")),
    ("label kept, attack less clean", ("label", "attack"), ("label", "clean")),
    ("label kept, attack less reconstruction", ("label", "attack"), ("label", "reconstruction")),
)


def _gaps(votes: _Votes) -> list[Gap]:
    gaps = []
    for name, own, other in _GAPS:
        against = None if other is None else votes.get(other, [])
        if votes.get(own) and against != []:
            value = estimate_share(votes[own], against)
            if against is None:
                value = replace(value, value=value.value - CHANCE, low=value.low - CHANCE, high=value.high - CHANCE)
            gaps.append(Gap(name, value, spread_of(votes[own], against)))
    return gaps


def _units(answers: Sequence[tuple[str, Rating]], question: str) -> list[list[str]]:
    units: dict[tuple[str, str], list[str]] = {}
    for _, each in answers:
        if each.question == question and each.arm != "blurred":
            units.setdefault((each.id, each.arm), []).append(each.answer)
    return list(units.values())


def _checks(answers: Sequence[Rating]) -> Estimate:
    checks = [each for each in answers if each.question == "other" or each.arm == "blurred"]
    return wilson(sum(each.answer not in ("yes", "changed") for each in checks), len(checks))


def _success(votes: Sequence[Vote], store: Store) -> KeptByPeople | None:
    """Images without a clear majority for their class have lost it."""
    by_image: dict[str, list[float]] = {}
    for vote in votes:
        by_image.setdefault(vote.image, []).append(vote.value)
    kept = {id: 2 * sum(values) > len(values) for id, values in by_image.items()}
    rows = store.table(VerdictRow)
    verdicts, roles, ids = indexed(rows), roles_in(rows), list(kept)
    right = {("clean", id): True for id in ids} | {("attack", id): value for id, value in kept.items()}
    plain = judges_together(roles, ids, verdicts)
    with_label = judges_together(roles, ids, where_label_is_kept(right, verdicts))
    if not ids or plain is None or with_label is None:
        return None
    return KeptByPeople(wilson(sum(kept.values()), len(kept)), plain, with_label)
