"""Lines of a terminal: text of others (names, paths, messages) made safe, and counted things."""

from __future__ import annotations

import sys

__all__ = ["LONGEST", "escaped", "one_line", "plural", "print_error"]

LONGEST = 1000
"""Most characters of a line. A longer line loses its middle: the fault and the remedy both stay."""


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
