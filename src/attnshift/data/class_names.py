"""Names of classes as people write them: one class has several spellings."""

from __future__ import annotations

from collections.abc import Sequence

from attnshift.classifiers.names import labels_of_synset, plain

__all__ = ["ClassNames"]


class ClassNames:
    """Names of classes in label order, searched by any of their spellings.

    A name may list synonyms with commas, as ImageNet's do. A synset of WordNet names its class.

    >>> names = ClassNames(["tench, Tinca tinca", "goldfish", "crane", "crane"])
    >>> names.find("Tinca_tinca"), names.find("crane"), names.find("mug")
    ((0,), (2, 3), ())
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._whole: dict[str, list[int]] = {}
        self._parts: dict[str, list[int]] = {}
        for label, name in enumerate(self.names):
            self._whole.setdefault(plain(name), []).append(label)
            for part in _synonyms(name):
                self._parts.setdefault(part, []).append(label)

    def find(self, text: str) -> tuple[int, ...]:
        """Labels of the classes that ``text`` may name, in order; those of its whole name come
        before those that share a synonym."""
        whole = self._whole.get(plain(text))
        if whole:
            return tuple(whole)
        shared = sorted({label for part in _synonyms(text) for label in self._parts.get(part, ())})
        return tuple(shared or labels_of_synset(text, self.names))

    def contradicts(self, label: int, text: str) -> str:
        """Name of another class that ``text`` is, although ``label`` is not that class; else empty.

        A name that no class has contradicts nothing: it may be a word for the prompt.
        """
        if not 0 <= label < len(self.names) or set(_synonyms(text)) & set(_synonyms(self.names[label])):
            return ""
        found = self.find(text)
        return "" if not found or label in found else self.names[found[0]]


def _synonyms(name: str) -> list[str]:
    return [part for part in map(plain, name.split(",")) if part]
