"""What others wrote (names, paths, messages of libraries), on one line of a terminal that it cannot steer."""

from __future__ import annotations

import sys

__all__ = ["LONGEST", "escaped", "one_line", "print_error"]

LONGEST = 1000
"""Characters of a line; of a longer one the middle is left out, so that what is wrong and what to do both stay."""


def one_line(text: object) -> str:
    r"""``text`` without line breaks, with an escape for whatever does not print: control characters, text direction.

    >>> one_line("a\n\x1b[31mb")
    'a \\x1b[31mb'
    """
    line = escaped(" ".join(str(text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]} … {line[3 - LONGEST // 3 :]}"


def print_error(text: object) -> None:
    """``text`` as a line on standard error. Nothing in it is read as markup."""
    print(f"attnshift: {one_line(text)}", file=sys.stderr)


def escaped(text: str) -> str:
    """``text`` with an escape for each character that does not print."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
