"""Names of classes: which of them are words, and which mean the same class. Needs no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attnshift.errors import ModelError

if TYPE_CHECKING:
    from timm.data import ImageNetInfo

__all__ = [
    "IMAGENET",
    "NAMES_FILE",
    "imagenet_names",
    "imagenet_place",
    "is_word",
    "mended",
    "names_beside",
    "plain",
    "positions",
    "read_lines",
    "same_words",
    "synset_words",
    "words",
]

NAMES_FILE = "class_names.txt"
"""File beside a model's weights that names its classes: UTF-8, one a line, in label order."""

IMAGENET = "imagenet-1k"
"""Only line of a file of names that stands for the 1000 classes of ImageNet."""

_LARGEST = 2**24
"""Largest size of a file of class names, in bytes."""

_SYNSET = re.compile(r"n\d{8}")
_PLACEHOLDER = re.compile(r"(class|label|category|cat|cls|id|idx|index|target)[\W_]*\d+", re.IGNORECASE)
_NUMBER = re.compile(r"[a-z]?[\W_]*\d+", re.IGNORECASE)
_CODE = re.compile(r"/[mgt]/\w+")
_COUNTED = re.compile(r"(n\d{8}|\d{1,4}\.)[\s_-]*(?=\D)")
"""Number in front of a name, as in ``n02085620-Chihuahua`` and ``001.Black_footed_Albatross``."""


def is_word(name: str) -> bool:
    """True unless ``name`` is empty, a number, a code, or made up from a number.

    >>> [is_word(each) for each in ("apple_pie", "class_3", "LABEL_3", "7", "n01440764", "/m/0k4j")]
    [True, False, False, False, False, False]
    """
    made_up = (_PLACEHOLDER, _NUMBER, _SYNSET, _CODE)
    return bool(name.strip()) and not any(each.fullmatch(name.strip()) for each in made_up)


def mended(name: str) -> str:
    r"""``name`` as a prompt says it: spaces for underscores, none around it, no number before it.

    >>> mended("apple_pie"), mended(" ball\n"), mended("n02085620-Chihuahua")
    ('apple pie', 'ball', 'Chihuahua')
    """
    return re.sub(r"[_ \t\r\n]+", " ", _COUNTED.sub("", name.strip(), count=1)).strip()


def words(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` of the classes 0, 1, … as words; empty where not one of them is a word.

    Synsets of WordNet get the words that timm knows for them. A class whose name is made up, such
    as ``LABEL_7`` between words, has the name ``""``. Numbers between words are kept.

    >>> words(["apple_pie", "LABEL_1"]), words(["LABEL_0", "LABEL_1"]), words(["n01440764"])
    (('apple pie', ''), (), ('tench',))
    """
    spoken = [_first(synset_words(name)) if _SYNSET.fullmatch(name.strip()) else name for name in names]
    if not any(map(is_word, spoken)):
        return ()
    return tuple("" if _PLACEHOLDER.fullmatch(name.strip()) else mended(name) for name in spoken)


def plain(name: str) -> str:
    """``name`` without the case, underscores, hyphens and spaces in which spellings differ.

    >>> plain(" Red_Ball "), plain("jack-o'-lantern")
    ('red ball', 'jack o lantern')
    """
    return " ".join(re.sub(r"[_\s-]+", " ", re.sub("['’]", "", name)).casefold().split())


def same_words(left: str, right: str) -> bool:
    """Whether two names have the same words, whatever their case.

    >>> same_words("Red  ball", "red ball"), same_words("red-ball", "red ball")
    (True, False)
    """
    return left.casefold().split() == right.casefold().split()


def positions(names: Sequence[str], others: Sequence[str]) -> tuple[int, ...]:
    """For each of ``names``, the position of the same class in ``others``, -1 if there is none.

    Names are compared whole, and then by their first synonym. A name that several classes have, as
    ``crane`` in ImageNet, says nothing by itself. Where all other names stand at the same place in
    both lists, such a name and one that differs by a word mean the class at its place.

    >>> positions(["mug", "house", "Ball"], ["house", "ball, globe", "tree"])
    (-1, 0, 1)
    """
    if [*names] == [*others] or [*map(plain, names)] == [*map(plain, others)]:
        return tuple(range(len(names)))
    found = [-1] * len(names)
    for key in (plain, lambda name: plain(_first(name))):
        _match(found, names, others, key)
    diagonal = all(place in (-1, index) for index, place in enumerate(found))
    if len(names) == len(others) and diagonal and 2 * found.count(-1) < len(found):
        for index, place in enumerate(found):
            if place < 0 and _alike(names[index], others[index]):
                found[index] = index
    return tuple(found)


def synset_words(text: str) -> str:
    """Words of the synset ``text`` with commas between them; empty if it is none that timm lists.

    >>> synset_words("n01440764"), synset_words("tench")
    ('tench, Tinca tinca', '')
    """
    synset = text.strip()
    if not _SYNSET.fullmatch(synset):
        return ""
    try:
        return _imagenet(IMAGENET).label_name_to_description(synset)
    except KeyError:
        return ""


def imagenet_place(text: str, class_names: Sequence[str]) -> int | None:
    """Number of the synset ``text`` in ImageNet, if ``class_names`` are ImageNet's; else None."""
    synset = text.strip()
    if not _SYNSET.fullmatch(synset) or not _are_imagenets(tuple(class_names)):
        return None
    known = _imagenet(IMAGENET).label_names()
    return known.index(synset) if synset in known else None


def imagenet_names(subset: str = IMAGENET) -> tuple[str, ...]:
    """Names of ImageNet's classes in label order, each the first synonym that timm lists."""
    info = _imagenet(subset)
    return tuple(_first(info.index_to_description(index)) for index in range(info.num_classes()))


def names_beside(weights: Path) -> tuple[str, ...]:
    """Names in ``NAMES_FILE`` in the folder ``weights``; empty if there is no such file.

    Raises ``ModelError`` if it cannot be read.
    """
    path = weights / NAMES_FILE
    if not path.exists():
        return ()
    names = read_lines(path)
    return imagenet_names() if names == (IMAGENET,) else names


def read_lines(path: Path) -> tuple[str, ...]:
    """Class names in the file ``path``: UTF-8 text, one name a line, in label order.

    Any line ends are read, and a byte order mark is skipped. Raises ``ModelError`` for a blank
    line.
    """
    try:
        # Reading from a device might never end.
        if not (path.is_file() or path.is_dir()):
            raise FileNotFoundError
        if path.stat().st_size > _LARGEST:
            raise ModelError(f"{path} holds more than {_LARGEST} bytes; it should be a list of class names")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file of class names; it holds one class a line, in label order") from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ModelError(f"{path}: the class names cannot be read: {why}") from None
    names = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    for number, each in enumerate(names, 1):
        if not each:
            raise ModelError(f"{path} line {number}: blank; give one class a line, in label order")
    return names


def _first(name: str) -> str:
    """First of several synonyms; a definition behind a colon is no part of it."""
    return name.partition(":")[0].partition(",")[0].strip()


def _match(found: list[int], names: Sequence[str], others: Sequence[str], key: Callable[[str], str]) -> None:
    """Fill ``found`` where a key is unique in both lists and no class
    of ``others`` is taken twice."""
    mine, theirs = ([key(name) for name in each] for each in (names, others))
    counts, other_counts = Counter(mine), Counter(theirs)
    places = {each: place for place, each in enumerate(theirs) if each and other_counts[each] == 1}
    taken = set(found)
    for index, each in enumerate(mine):
        place = places.get(each, -1)
        if found[index] < 0 and counts[each] == 1 and place not in taken:
            found[index] = place


def _alike(name: str, other: str) -> bool:
    """True if one name's first synonym holds all words of the other's."""
    mine, theirs = (set(re.findall(r"\w+", plain(_first(each)))) for each in (name, other))
    return bool(mine and theirs) and (mine <= theirs or theirs <= mine)


@cache
def _are_imagenets(class_names: tuple[str, ...]) -> bool:
    return positions(imagenet_names(), class_names) == tuple(range(len(class_names)))


@cache
def _imagenet(subset: str) -> ImageNetInfo:
    # This import loads torch. Reading names must not, unless they are synsets.
    from timm.data import ImageNetInfo

    return ImageNetInfo(subset)
