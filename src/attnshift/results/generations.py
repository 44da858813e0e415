"""Generations of a run: the lists of images that it was given, one after the other.

plan.parquet    generation 0: its images in the order of the list
plan.N.parquet  generation N, from 1: its images in the order of their places

An image keeps its place in all generations, and with it its micro-batch. Images that no earlier
generation has come last and begin a micro-batch of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attnshift.errors import RunError
from attnshift.files import atomic_write
from attnshift.results.plan import Generation, Plan, in_batches_by_size, read_generation, read_places, read_sizes

__all__ = ["FIRST_PLAN", "generations_of", "has_newer", "newest_plan", "take_in"]

FIRST_PLAN = "plan.parquet"


def newest_plan(folder: Path) -> Path:
    """The plan of the newest generation of the run in ``folder``."""
    return _paths(folder)[-1]


def has_newer(folder: Path, plan: Plan) -> bool:
    """Whether the run in ``folder`` has a newer generation than that of ``plan``."""
    return _path(folder, plan.generation.number + 1).exists()


def generations_of(folder: Path) -> tuple[Generation, ...]:
    """The generations of the run in ``folder``, from the first to the newest."""
    return tuple(map(read_generation, _paths(folder)))


def take_in(folder: Path, plan: Plan, size: int, finished: int, busy: Callable[[], bool]) -> Plan:
    """Make the list of ``plan`` that of the run in ``folder``,
    and return it with the places of its images there.

    Nobody else may write the tables of the run meanwhile. A list of the same images as the newest
    generation, in any order, is that generation; another one is a new generation. ``size`` is that
    of a micro-batch, ``finished`` the number of images that are done, and ``busy`` says if somebody
    works on the run.

    A ``RunError`` where none of the images belongs to a run that has finished some: it is another
    run. So is it where the list is that of an earlier generation while somebody works on a newer
    one, which must not be undone.
    """
    paths = _paths(folder)
    wanted = [id for id, _ in read_places(plan.path)]
    mine, places, same = set(wanted), {}, []
    newest: set[str] = set()
    for path in paths:
        held = dict(read_places(path))
        places |= held
        newest = set(held)
        same.append(newest == mine)
    if same[-1]:
        return plan.arranged(places, read_generation(paths[-1]))
    if finished and not mine & places.keys():
        raise RunError(f"{folder} holds another run: none of these images belongs to it; use another `out`")
    if any(same) and busy():
        shown = f"generation {len(paths) - 1}, and this is the list of generation {same.index(True)}"
        raise RunError(f"a command works on a newer list of images in {folder} ({shown}); give the newer list")
    begin = -(-(max(places.values()) + 1) // size) * size
    fresh = [(id, own) for id, own in read_sizes(plan.path) if id not in places]
    places |= in_batches_by_size(fresh, size, begin)
    generation = Generation(len(paths), len(mine), len(mine - newest), len(newest - mine))
    arranged = plan.arranged(places, generation)
    atomic_write(_path(folder, generation.number), arranged.path.read_bytes())
    return arranged


def _paths(folder: Path) -> list[Path]:
    """Plans of all generations."""
    return [_path(folder, 0), *_later(folder)]


def _later(folder: Path) -> Iterator[Path]:
    number = 1
    while (path := _path(folder, number)).exists():
        yield path
        number += 1


def _path(folder: Path, number: int) -> Path:
    return folder / (f"plan.{number}.parquet" if number else FIRST_PLAN)
