"""What every entry of every table must have."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from attnshift.catalogue import TABLES

if TYPE_CHECKING:
    from attnshift.registry import Entry

ENTRIES = [
    pytest.param(entry, id=f"{family}-{name}") for family, table in TABLES.items() for name, entry in table.items()
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_target_resolves(entry: Entry) -> None:
    assert callable(entry.load())


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_says_what_it_is_and_where_it_comes_from(entry: Entry) -> None:
    assert entry.summary.strip()
    assert entry.reference.strip()


def test_listing_the_tables_imports_nothing_heavy() -> None:
    program = (
        "import sys, attnshift.catalogue; attnshift.catalogue.catalogue();"
        "print(sorted({'torch', 'diffusers', 'transformers', 'timm', 'torchmetrics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
