"""Lines of a terminal: text of others (names, paths, messages) made safe, and counted things."""

from __future__ import annotations

import re
import sys

__all__ = ["LONGEST", "Groups", "escaped", "one_line", "plural", "print_error"]

LONGEST = 1000
"""Most characters of a line. A longer line loses its middle: the fault and the remedy both stay."""


class Groups:
    """Messages of one kind, of which the first ten are shown and the others counted.

    Two messages are of one kind if they differ only in numbers, in what is quoted, and in names of
    files.
    """

    MOST = 10

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def admits(self, message: object) -> bool:
        """Count ``message``; true if it is to be shown."""
        kind = _kind(str(message))
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return self._counts[kind] <= self.MOST

    def left_out(self) -> list[str]:
        """A line for each kind of which messages were not shown.

        >>> groups = Groups()
        >>> sum(groups.admits(f"a.csv line {row}: label {row} is too large") for row in range(5000))
        10
        >>> groups.left_out()
        ['and 4990 more of the kind: … line …: label … is too large']
        """
        return [
            f"and {count - self.MOST} more of the kind: {kind}"
            for kind, count in self._counts.items()
            if count > self.MOST
        ]


def _kind(message: str) -> str:
    quoted = re.sub(r"'[^']*'|\"[^\"]*\"", "…", message)
    return re.sub(r"…(?:[ :]+…)+", "…", re.sub(r"\S*[./\\]\S*[^\s.:;,]|-?\d+", "…", quoted))


def one_line(text: object) -> str:
    r"""``text`` on one line, with an escape for each character that does not print.

    Such characters are, for instance, control characters and marks of text direction.

    >>> one_line("a\n\x1b[31mb")
    'a \\x1b[31mb'
    """
    line = escaped(" ".join(str(text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]} … {line[3 - LONGEST // 3 :]}"


def plural(count: int, noun: str, more: str = "") -> str:
    """``count`` of ``noun``, with the noun in the number that English asks for.

    ``more`` is the plural where an s does not make it.

    >>> plural(1, "image"), plural(5000, "class", "classes")
    ('1 image', '5000 classes')
    """
    return f"{count} {noun if count == 1 else more or noun + 's'}"


def print_error(text: object) -> None:
    """Print ``text`` as one line on standard error. Markup in it is not interpreted."""
    print(f"attnshift: {one_line(text)}", file=sys.stderr)


def escaped(text: str) -> str:
    """``text`` with an escape for each character that does not print."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
