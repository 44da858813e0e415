"""The package in examples/plugin: built as pip builds it, installed in a folder, and used by name."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import attnshift
from attnshift.cli import main
from attnshift.errors import RecipeError
from attnshift.metrics import budget_metric
from attnshift.plugins import installed_plugins
from attnshift.recipes.reading import load_recipe
from attnshift.results.rows import QualityRow, VerdictRow
from attnshift.results.software import software
from attnshift.results.store import Store
from small_runs import SURROGATE

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
ENTRIES = {"terms": "change_tv", "fusion rules": "median", "defences": "grey", "metrics": "mean_change"}
OPTIONS = {"terms.change_tv.weight": 5, "terms.change_tv.power": 1.5, "classification.fusion": "median"}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the installed package. A wheel is unpacked; no network is needed."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, wheels], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def plugged(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package in this process."""
    monkeypatch.syspath_prepend(installed)
    installed_plugins.cache_clear()
    yield
    installed_plugins.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "attnshift_example"]:
        del sys.modules[name]


def environment(installed: Path) -> dict[str, str]:
    """The package in a process of its own, and in Ray's workers, which inherit this."""
    paths = [str(installed), str(Path(attnshift.__file__).parent.parent)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def command(installed: Path, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "attnshift", *map(str, arguments)],
        env=environment(installed),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def attack_arguments(photos: Path, pipeline_folder: Path, out: Path) -> list[str]:
    options = OPTIONS | {"optimiser.iterations": 2, "finish.keep": "last"}
    settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    images = [str(photos / "images"), "--labels", str(photos / "labels.csv"), "--pipeline", str(pipeline_folder)]
    return ["attack", *images, "--surrogate", SURROGATE, "--threads", "1", "--out", str(out), *settings]


def test_list_shows_it_and_does_not_import_it(installed: Path) -> None:
    families = json.loads(command(installed, "list", "--json"))
    for family, name in ENTRIES.items():
        (entry,) = [entry for entry in families[family] if entry["name"] == name]
        assert entry["summary"] == "an example of a plug-in for attnshift"
        assert entry["reference"] == "attnshift-example 0.1"
    listing = "import sys; from attnshift.catalogue import catalogue; catalogue(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", listing], env=environment(installed), capture_output=True, text=True, check=True
    )
    assert "attnshift_example" not in done.stdout


@pytest.mark.usefixtures("plugged")
def test_the_command_line_uses_it(
    photos: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["attnshift", *attack_arguments(photos, pipeline_folder, run)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    recipe = Store.open(run).spec().recipe
    assert recipe.terms["change_tv"].options == {"power": 1.5}
    assert recipe.classification.fusion == "median"


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize("name", ["test_term", "test_rule", "test_defence", "test_metric"])
def test_its_own_tests_pass(name: str) -> None:
    runpy.run_path(str(EXAMPLE / "tests" / "test_contracts.py"))[name]()


@pytest.mark.heavy
def test_processes_and_ray_workers_use_it(
    elsewhere: Path, pipeline_folder: Path, installed: Path, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    command(installed, *attack_arguments(elsewhere, pipeline_folder, local))
    command(installed, "evaluate", local, "--judge", "grey(amount=0.5)+random:test_convnext", "--min-clean-accuracy", 0)
    store = Store.open(local)
    assert all(row.values["mean_change"] > 0 for row in store.table(QualityRow) if row.arm == "attack")
    assert {"grey(amount=0.5)+random:test_convnext"} < {row.classifier for row in store.table(VerdictRow)}
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with_ray = tmp_path / "ray"
    ray = ("--engine", "ray", "--workers", 1)
    command(installed, *attack_arguments(elsewhere, pipeline_folder, with_ray), *ray)
    images = sorted(path.relative_to(local) for path in (local / "images").rglob("*.png"))
    assert len(images) >= 3
    for image in images:
        assert (with_ray / image).read_bytes() == (local / image).read_bytes()


def test_a_limit_may_be_on_its_metric(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = budget_metric("mean_change")
    assert (entry.higher_is_better, entry.differentiable) == (False, True)
    monkeypatch.delattr("attnshift_example.metrics.MeanChange.differentiable")
    with pytest.raises(
        RecipeError, match=r"^metric 'mean_change' of package attnshift-example 0\.1 cannot be limited: it"
    ):
        budget_metric("mean_change")


def test_a_run_records_the_versions_of_the_plugins_that_it_names(plugged: None) -> None:
    with_term = load_recipe("quick", ["terms.change_tv.weight=5"])
    assert software(with_term, "lab", ("lab:resnet",))["attnshift-example"]
    assert software(load_recipe("quick"), "lab", ("grey+lab:resnet",)).keys() >= {"attnshift-example"}
    assert software(load_recipe("quick"), "lab", ("lab:resnet",)).keys() == {"attnshift", "torch"}
    assert software(load_recipe("quick", ["terms.change_tv.weight=0"]), "lab", ()).keys() == {"attnshift", "torch"}
