"""The commands that only look at something answer at once: they never import what takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from report.made_up import made_up_run

HEAVY = ("torch", "torchvision", "torchmetrics", "diffusers", "transformers", "timm", "safetensors", "tokenizers")

PROBE = """
import json, sys
from attnshift.cli import main
sys.argv = ["attnshift", *sys.argv[1:]]
try:
    main()
except SystemExit as exit:
    status = exit.code or 0
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(*arguments: str) -> set[str]:
    """Top-level modules that are loaded when the command is done."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert done.stderr == ""
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("attack", "--help"), ("lab", "--help"), ("list",), ("list", "--json")],
    ids=" ".join,
)
def test_looking_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments).isdisjoint(HEAVY)


def test_help_does_not_even_import_numpy() -> None:
    assert imported("--help").isdisjoint({"numpy", "pyarrow", "PIL", "jinja2"})


def test_a_report_imports_nothing_heavy(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run").folder
    modules = imported("report", str(run))
    assert "jinja2" in modules, "the probe sees what is imported"
    assert modules.isdisjoint(HEAVY)


def test_a_recipe_of_an_attack_on_latents_is_read_without_torch() -> None:
    program = "import attnshift, sys; print(attnshift.load_recipe('fast').name, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["fast", "False"], done.stderr


def test_the_probe_sees_torch() -> None:
    """Proof that the tests above can fail: a source is only found once its library is there."""
    probe = "import torch, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True"
