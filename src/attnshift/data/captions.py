"""Captions, prompts of an image's own, and where the words of its class stand in them."""

from __future__ import annotations

import re

from attnshift.classifiers.names import plain
from attnshift.data.references import shown
from attnshift.errors import LabelError

__all__ = ["phrases_of"]


def phrases_of(caption: str, class_name: str, where: str) -> tuple[tuple[int, str], ...]:
    """The phrases that name the class in ``caption``: where each starts, and its words, the longest
    first.

    A class name may list synonyms with commas, each of which may stand in the caption, also several
    times. Case does not count, nor do underscores, hyphens and spaces differ. Raises ``LabelError``
    if none stands there; ``where`` is the place of the caption.

    >>> phrases_of("Tree frogs: a tree-frog, one frog", "frog, tree frog", "row 1")
    ((14, 'tree-frog'), (29, 'frog'))
    """
    found: list[tuple[int, str]] = []
    synonyms = [part for part in map(plain, class_name.split(",")) if part]
    for words in sorted(synonyms, key=len, reverse=True):
        pattern = r"[\s_-]+".join(map(re.escape, words.split()))
        for each in re.finditer(rf"(?<!\w){pattern}(?!\w)", caption, re.IGNORECASE):
            if all(each.end() <= start or each.start() >= start + len(held) for start, held in found):
                found.append((each.start(), each.group()))
    if not found:
        raise LabelError(
            f"{where}: the caption {shown(caption)} does not hold {shown(class_name)}; say in the column class_name "
            "what the caption calls the class"
        )
    return tuple(found)
