"""Names of classes as people write them: one class has several spellings."""

from __future__ import annotations

from collections.abc import Sequence

from attnshift.classifiers.names import imagenet_place, plain, synset_words

__all__ = ["ClassNames"]


class ClassNames:
    """Names of classes in label order, searched by any of their spellings.

    A name may list synonyms with commas, as ImageNet's do. A synset of WordNet names its class. A
    class without a name is never found.

    >>> names = ClassNames(["tench, Tinca tinca", "goldfish", "crane", "crane"])
    >>> names.find("Tinca_tinca"), names.find("crane"), names.find("n01440764"), names.find("mug")
    ((0,), (2, 3), (0,), ())
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._whole: dict[str, list[int]] = {}
        self._parts: dict[str, list[int]] = {}
        for label, name in enumerate(self.names):
            if not name.strip():
                continue
            self._whole.setdefault(plain(name), []).append(label)
            for part in _synonyms(name):
                self._parts.setdefault(part, []).append(label)

    def find(self, text: str) -> tuple[int, ...]:
        """Labels of the classes that ``text`` means, in order; of several, those that spell it so.

        More than one label means that the name is ambiguous; none, that no class has it.
        """
        found = self.alike(text)
        return tuple(label for label in found if self.names[label] == text) or found

    def alike(self, text: str) -> tuple[int, ...]:
        """Labels of the classes that ``text`` may name, in order; those of its whole name come
        before those that share a synonym."""
        whole = self._whole.get(plain(text))
        if whole:
            return tuple(whole)
        place = imagenet_place(text, self.names)
        if place is not None:
            return (place,)
        words = _synonyms(synset_words(text) or text)
        return tuple(sorted({label for part in words for label in self._parts.get(part, ())}))

    def contradicts(self, label: int, text: str) -> str:
        """Name of another class that ``text`` is, although ``label`` is not that class; else empty.

        A name that no class has contradicts nothing: it may be a word for the prompt.
        """
        if not 0 <= label < len(self.names) or set(_synonyms(text)) & set(_synonyms(self.names[label])):
            return ""
        found = self.alike(text)
        return "" if not found or label in found else self.names[found[0]]


def _synonyms(name: str) -> list[str]:
    return [part for part in map(plain, name.split(",")) if part]
