"""The public names of the package. A change of this list is a change of the interface: CHANGELOG.md names it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import pytest

import attnshift
from attnshift import AttackSettings, UserError, adapters, attack_folder, load_recipe

EXPORTED = [
    "AttackResult",
    "AttackSettings",
    "AttnshiftError",
    "Backbone",
    "Baseline",
    "BaselineRecipe",
    "Classifier",
    "Defence",
    "Defended",
    "Fused",
    "FusionRule",
    "LatentAttack",
    "LossTerm",
    "Observation",
    "PixelAttack",
    "Recipe",
    "RunOptions",
    "STRICT",
    "Site",
    "Surrogates",
    "Transform",
    "UnavailableError",
    "UserError",
    "__version__",
    "attack_folder",
    "evaluate_run",
    "load_classifier",
    "load_defended",
    "load_pipeline",
    "load_recipe",
    "open_run",
    "show",
    "write_report",
]


def test_exported_names() -> None:
    assert sorted(attnshift.__all__) == sorted(EXPORTED)


@pytest.mark.parametrize("package", [attnshift, adapters], ids=lambda package: package.__name__)
def test_every_name_is_imported_for_checkers_and_at_run_time(package: object) -> None:
    """Three lists in one file say the same: what checkers see, ``__all__`` and the modules that names come from."""
    source = Path(str(getattr(package, "__file__", ""))).read_text(encoding="utf-8")
    seen = {
        name.name
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }
    assert seen == set(package.__all__) == set(dir(package))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXPORTED)
def test_name_is_what_it_says(name: str) -> None:
    found = getattr(attnshift, name)
    assert getattr(found, "__name__", name) == name


def test_settings_take_strings_for_paths_and_a_list_of_surrogates() -> None:
    recipe = load_recipe("quick")
    given = AttackSettings(images="a", labels="b", masks="c", surrogates=["d"], recipe=recipe, out="e", cache="f")  # type: ignore[arg-type]
    paths = {"labels": Path("b"), "masks": Path("c"), "out": Path("e"), "cache": Path("f")}
    assert given == AttackSettings(images="a", surrogates=("d",), recipe=recipe, **paths)


def test_settings_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`surrogates` is the text 'lab:resnet'; give a list"):
        AttackSettings(images="a", surrogates="lab:resnet", recipe=load_recipe("quick"), out=tmp_path)  # type: ignore[arg-type]
    settings = AttackSettings(images="a", surrogates=("lab:resnet",), recipe="quick", out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"`recipe` is the text 'quick'; give load_recipe\('quick'\)"):
        attack_folder(settings)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'attnshift' has no attribute 'LatentAtack'"):
        attnshift.LatentAtack  # type: ignore[attr-defined]  # noqa: B018


def test_looking_at_the_names_imports_nothing_heavy() -> None:
    program = "import sys, attnshift; dir(attnshift); print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_checkers_may_read_the_annotations() -> None:
    assert files("attnshift").joinpath("py.typed").is_file()


def test_a_public_name_stands_in_one_module() -> None:
    """One word has one meaning and one door; a package may show what its modules define."""
    package = Path(str(attnshift.__file__)).parent
    modules: dict[str, list[str]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for name in _names(ast.parse(path.read_text(encoding="utf-8")), shown=path.name != "__init__.py"):
            modules[name].append(path.relative_to(package).as_posix())
    assert len(modules) > 500
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}


def _names(module: ast.Module, shown: bool) -> set[str]:
    """Public names that the top level of ``module`` defines, and with ``shown`` those of its ``__all__``."""
    names: set[str] = set()
    for each in module.body:
        if isinstance(each, ast.FunctionDef | ast.ClassDef):
            names.add(each.name)
        elif isinstance(each, ast.Assign | ast.AnnAssign):
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            given = {target.id for target in targets if isinstance(target, ast.Name)}
            names |= given | (set(ast.literal_eval(each.value)) if shown and given == {"__all__"} else set())
    return {name for name in names if not name.startswith("_")}
