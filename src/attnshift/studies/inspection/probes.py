"""Probes of an inspection: every term, read at every group of sites, head and denoising step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from attnshift.attention.selection import EVERYWHERE, Selection
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import RecipeError, UserError
from attnshift.losses import TERMS
from attnshift.losses.objective import LossTerm, Objective, StatefulTerm, WeightedTerm
from attnshift.losses.schedules import schedule_of
from attnshift.recipes.reading import override
from attnshift.recipes.schema import Recipe, TermSection
from attnshift.registry import build, check_known, load
from attnshift.results.inspection import EVERY
from attnshift.sizes import Sides, Size
from attnshift.terminal import one_line
from attnshift.types import Kind, Place, Site

__all__ = ["Group", "MapProbe", "Probes", "TermProbe", "find_probes", "term_options"]

_Grid = Literal["full", "half", "quarter", "eighth"]
_GRIDS: tuple[tuple[int, _Grid], ...] = ((8, "eighth"), (4, "quarter"), (2, "half"), (1, "full"))
"""Latent side divided by the side of the grid, and the grid's name in a ``Selection``."""


@dataclass(frozen=True)
class Group:
    """All attention sites of one place and grid; ``heads`` is their number of heads, 0 where they
    differ."""

    kind: Kind
    place: Place
    side: int
    heads: int
    grid: _Grid

    def selection(self, head: int = EVERY, step: int = EVERY) -> Selection:
        """These sites, all of them or one head or one denoising step of them."""
        steps = (0, -1) if step == EVERY else (step, step)
        heads = () if head == EVERY else tuple(float(each == head) for each in range(self.heads))
        return Selection((self.place,), self.grid, steps, heads)

    def parts(self, steps: int, heads: bool) -> Iterator[tuple[int, int]]:
        """Head and step of each part that is read: all, then step by step, then head by head."""
        yield EVERY, EVERY
        if steps > 1:
            yield from ((EVERY, step) for step in range(steps))
        if heads and self.heads > 1:
            yield from ((head, EVERY) for head in range(self.heads))


@dataclass(frozen=True)
class TermProbe:
    """A term that reads one group of sites, or what the recipe selects."""

    name: str
    term: LossTerm | StatefulTerm
    place: str = ""
    side: int = 0
    head: int = EVERY
    step: int = EVERY


@dataclass(frozen=True)
class MapProbe:
    """One map of the class phrase: the sites that it reads, and which part of them."""

    sites: tuple[Site, ...]
    select: Selection
    group: Group
    head: int = EVERY
    step: int = EVERY


@dataclass(frozen=True)
class Probes:
    """All that an inspection reads. ``remarks`` are lines about what it leaves out."""

    terms: tuple[TermProbe, ...]
    maps: tuple[MapProbe, ...]
    names: tuple[str, ...]
    remarks: tuple[str, ...]

    def objective(self) -> Objective:
        """The terms as an objective, so that everything they read is prepared."""
        constant = schedule_of({}, "inspection")
        return Objective({str(at): WeightedTerm(each.term, 1.0, constant) for at, each in enumerate(self.terms)})


def term_options(given: Sequence[str], recipe: Recipe) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Name of a row -> term and its options: of every term, or of those ``given``.

    A text is NAME or NAME,key=value,…, whose options replace those of the recipe's section.
    """
    wanted: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for text in given or tuple(TERMS):
        name, *settings = text.split(",")
        check_known(TERMS, name)
        if not all("=" in each for each in settings):
            raise UserError(f"`terms` is {text}; expected NAME or NAME,key=value, such as contrast,form=log")
        options = override(recipe.terms.get(name, TermSection(weight=1.0)).options, settings)
        if options.get("tokens") == "joint" and not recipe.prompt.names_both:
            raise UserError(f"`terms` is {text}, which reads both phrases; give a prompt.template that names both")
        wanted[text] = (name, options)
    return wanted


def find_probes(
    recipe: Recipe, backbone: Backbone, size: Sides, given: Sequence[str] = (), heads: bool = False
) -> Probes:
    """The probes for square images of ``size``.

    A term that cannot be made here is a remark where all terms are measured, and an error where it
    is among the ``given``. With ``heads`` each head is also a probe of its own, at all steps.
    """
    available, latents = backbone.sites(size), backbone.latent_size(size)
    groups, steps = _groups(available, latents), recipe.diffusion.denoising_steps
    found: list[TermProbe] = []
    names, remarks = [], []
    for name, (term, options) in term_options(given, recipe).items():
        try:
            own = build(TERMS, term, options, TermSection.model_fields)
        except UserError as error:
            if given:
                raise
            remarks.append(one_line(f"term '{term}' is left out: {error}"))
            continue
        probes = [*_probes(name, term, options, own, groups, available, latents, steps, heads)]
        names.append(name)
        found += probes
    maps = tuple(_map_probes(groups, available, latents, steps))
    return Probes(tuple(found), maps, tuple(names), tuple(remarks))


def _groups(available: Sequence[Site], latents: Size) -> list[Group]:
    """Groups in the order in which the denoiser meets them, as far as a selection can name them."""
    grids: dict[int, _Grid] = {latents.shrunk(part).rows: name for part, name in _GRIDS}
    order: dict[Place, int] = {"down": 0, "mid": 1, "up": 2}
    heads: dict[tuple[Kind, Place, int], set[int]] = {}
    for site in available:
        if site.view == "prompt" and site.grid.rows in grids:
            heads.setdefault((site.kind, site.place, site.grid.rows), set()).add(site.heads)
    groups = [
        Group(kind, place, side, counts.pop() if len(counts) == 1 else 0, grids[side])
        for (kind, place, side), counts in heads.items()
    ]
    return sorted(groups, key=lambda group: (order[group.place], group.side * (1 if group.place == "up" else -1)))


def _probes(
    name: str,
    term: str,
    options: Mapping[str, Any],
    own: LossTerm | StatefulTerm,
    groups: Sequence[Group],
    available: Sequence[Site],
    latents: Size,
    steps: int,
    heads: bool,
) -> Iterator[TermProbe]:
    """The term as the recipe selects, then at each group that it can read."""
    if not _selects(term):
        # A plug-in may read sites of its own choice.
        yield TermProbe(name, own, "own" if own.sites(available, latents) else "")
        return
    kinds = _kinds(own, available, latents)
    if _own_fits(own, available, latents):
        yield TermProbe(name, own, "own")
    base = {key: value for key, value in options.items() if key != "select"}
    for group in groups:
        if group.kind not in kinds:
            continue
        for head, step in group.parts(steps, heads):
            select = asdict(group.selection(head, step))
            yield TermProbe(name, build(TERMS, term, {**base, "select": select}), group.place, group.side, head, step)


def _selects(term: str) -> bool:
    """Whether the term has a selection among its options."""
    implementation = load(TERMS, term)
    return is_dataclass(implementation) and any(each.name == "select" for each in fields(implementation))


def _own_fits(term: Any, available: Sequence[Site], latents: Size) -> bool:
    """Whether the model has the sites that ``term`` selects."""
    try:
        return bool(term.sites(available, latents))
    except RecipeError:
        return False


def _kinds(term: Any, available: Sequence[Site], latents: Size) -> set[Kind]:
    """Kinds of attention that ``term`` reads; none where the model has not the sites that it
    selects."""
    try:
        return {site.kind for site in replace(term, select=EVERYWHERE).sites(available, latents)}
    except RecipeError:
        return set()


def _map_probes(groups: Sequence[Group], available: Sequence[Site], latents: Size, steps: int) -> Iterator[MapProbe]:
    for group in groups:
        if group.kind == "cross":
            for head, step in group.parts(steps, heads=True):
                select = group.selection(head, step)
                yield MapProbe(select.sites(available, "cross", latents), select, group, head, step)
