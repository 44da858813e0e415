"""Small vocabulary for a ``CLIPTokenizer``.

The vocabulary holds each byte, with and without the end-of-word mark, so any text can be read. It
also holds merges for the words of the lab's captions. Compound class names are two tokens ("snow" +
"man"), so phrases of several tokens are a regular case.
"""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from attnshift.lab.scenes import CLASSES, COLOURS, FLOORS

__all__ = ["MAX_LENGTH", "build_tokenizer"]

MAX_LENGTH = 24
_END = "</w>"
_COMPOUNDS = {"snowman": ("snow", "man"), "mushroom": ("mush", "room"), "dumbbell": ("dumb", "bell")}


def build_tokenizer() -> CLIPTokenizer:
    """Tokenizer of the lab, for prompts of at most ``MAX_LENGTH`` tokens."""
    letters = sorted(ByteLevel.alphabet())
    merges = _merges()
    vocabulary = [*letters, *(letter + _END for letter in letters), *(a + b for a, b in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)}, merges=merges, model_max_length=MAX_LENGTH
    )


def _merges() -> list[tuple[str, str]]:
    """Byte-pair merges, in order, that make each word one token and each compound two."""
    pieces = [piece for word in _words() for piece in _split(word)]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for piece in pieces for pair in pairwise(piece)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(piece, best) for piece in pieces]
    return merges


def _words() -> list[str]:
    captions = ["a photo of an on the", *CLASSES, *COLOURS, *FLOORS.values()]
    return sorted({word for caption in captions for word in caption.split()})


def _split(word: str) -> list[list[str]]:
    pieces = [list(piece) for piece in _COMPOUNDS.get(word, (word,))]
    pieces[-1][-1] += _END
    return pieces


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
