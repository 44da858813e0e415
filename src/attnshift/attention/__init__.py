"""Attention: exact figures of its rows without its maps, selection of sites, maps of phrases, and
sampled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnshift.lazy import lazy_names

if TYPE_CHECKING:
    from attnshift.attention.reductions import (
        entropy_rows,
        jensen_shannon_rows,
        kl_rows,
        log_sum_exp_rows,
        phrase_columns,
        squared_difference_rows,
        symmetric_kl_rows,
    )

__all__ = [
    "entropy_rows",
    "jensen_shannon_rows",
    "kl_rows",
    "log_sum_exp_rows",
    "phrase_columns",
    "squared_difference_rows",
    "symmetric_kl_rows",
]

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "attnshift.attention.reductions"))
