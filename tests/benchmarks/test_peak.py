"""The measure of memory against blocks of known size, in a process of its own as the benchmark has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from peak import ENVIRONMENT

PROGRAM = """
import json, sys
sys.path.append(sys.argv[1])
import torch
from peak import above, held

def touched(megabytes):
    return torch.ones(megabytes, 1024, 256)

def work():
    first = touched(100)
    second = touched(50)
    del first
    touched(20)

touched(400)
pieces = [torch.ones(1024) for _ in range(25600)]
del pieces
before = held("cpu")
kept = touched(30)
print(json.dumps([above(before, work, "cpu"), above(before, lambda: None, "cpu"), held("cpu") - before]))
"""


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts it")
def test_highest_point_is_told_to_a_hundredth() -> None:
    folder = str(Path(sys.modules["peak"].__file__ or "").parent)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    highest, idle, left = (value / 2**20 for value in json.loads(ended.stdout))
    # What was freed before does not count, what was prepared does.
    assert highest == pytest.approx(180, abs=2)
    assert idle == pytest.approx(30, abs=2)
    assert left == pytest.approx(30, abs=2)
