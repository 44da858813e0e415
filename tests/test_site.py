"""The site (mkdocs.yml): its reference shows all that is public, its tutorials give commands that there are."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from attnshift.cli import app

ROOT = Path(__file__).parent.parent
PACKAGES = ("attnshift", "attnshift.adapters", "attnshift.attention", "attnshift.testing")
"""Packages whose exports are public."""
SHOWN = [
    name
    for page in sorted((ROOT / "docs" / "api").glob("*.md"))
    for name in re.findall(r"(?m)^::: (\S+)$", page.read_text(encoding="utf-8"))
]
TUTORIALS = [ROOT / "docs" / "zh" / "own-photographs.md", *sorted((ROOT / "docs" / "tutorials").glob("[!i]*.md"))]
FIRST = ("0001-clean-branch-and-image-space-gradient", "0002-selections-are-relative")
Definition = ast.ClassDef | ast.FunctionDef


@cache
def statements(module: str) -> list[ast.stmt]:
    """Statements of a module's file, with those that only type checkers read. Nothing is imported."""
    path = ROOT / "src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return [each for part in body for each in (part.body if isinstance(part, ast.If) else [part])]


def exports(module: str) -> set[str]:
    (listed,) = [each.value for each in statements(module) if names(each) == ["__all__"]]  # type: ignore[attr-defined]
    return {f"{module}.{name}" for name in ast.literal_eval(listed)}


def names(statement: ast.stmt) -> list[str]:
    """What a statement defines or imports."""
    if isinstance(statement, ast.ImportFrom):
        return [each.name for each in statement.names]
    if isinstance(statement, ast.Assign):
        return [each.id for each in statement.targets if isinstance(each, ast.Name)]
    return [statement.name] if isinstance(statement, Definition) else []


def undocumented(shown: str) -> list[str]:
    """Public parts of ``shown``, a dotted name, that have no docstring: itself, methods and properties."""
    module, name = shown.rsplit(".", 1)
    body = statements(module)
    (place,) = [index for index, each in enumerate(body) if name in names(each)]
    found = body[place]
    if isinstance(found, ast.ImportFrom):
        return undocumented(f"{found.module}.{name}")
    if isinstance(found, ast.Assign):
        return [] if is_text(body[place + 1]) else [shown]
    assert isinstance(found, Definition)
    methods = (
        [each for each in found.body if isinstance(each, ast.FunctionDef)] if isinstance(found, ast.ClassDef) else []
    )
    parts = [(f"{shown}.{each.name}", each) for each in methods if not each.name.startswith("_")]
    return [name for name, each in [(shown, found), *parts] if not ast.get_docstring(each)]


def is_text(statement: ast.stmt) -> bool:
    """True for a string that stands alone, as behind a constant."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_shown(package: str) -> None:
    assert exports(package) - set(SHOWN) == set()


def test_every_protocol_of_the_guide_is_shown() -> None:
    guide = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    homes = guide[guide.index("The docstring of each protocol") : guide.index("The checks are in")]
    named = set(re.findall(r"`([A-Z]\w+)`", homes))
    assert len(named) > 5
    assert named - {each.rsplit(".", 1)[1] for each in SHOWN} == set()


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_shown_has_a_docstring(shown: str) -> None:
    assert undocumented(shown) == []


@cache
def root() -> Any:
    return get_command(app)


def commands(page: Path) -> list[list[str]]:
    """Arguments of each call of attnshift in the blocks of a page."""
    blocks = re.findall(r"(?ms)^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"))
    lines = [line for kind, block in blocks if not kind for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("attnshift ")]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_commands_of_tutorials_can_be_read(page: Path) -> None:
    found = commands(page)
    assert found
    for arguments in found:
        group, rest = root(), arguments
        while hasattr(group, "commands"):
            group, rest = group.commands[rest[0]], rest[1:]
        words = [word for word in rest if word not in {">", "table.tex"}]
        group.make_context(group.name, words).close()


HOOKS = runpy.run_path(str(ROOT / "examples" / "pages" / "site.py"))


@pytest.mark.parametrize(
    ("repository", "text"),
    [
        ("", "plug-in, [runs](../runs.md), ![a](../../a.png)"),
        (
            "https://host/us/it/",
            "[plug-in](https://host/us/it/blob/HEAD/examples/plugin), [runs](../runs.md), ![a](../../a.png)",
        ),
    ],
)
def test_links_out_of_the_pages_go_to_the_repository(repository: str, text: str) -> None:
    given = "[plug-in](../../examples/plugin), [runs](../runs.md), ![a](../../a.png)"
    assert HOOKS["outward_links"](given, "tutorials/own-term.md", repository) == text


def test_figures_in_tables_stay_on_one_line() -> None:
    given = "| 85 % [81, 89] | < 0.001 | -8 % [-11, -5] | `a < 3 %` |\na share of 85 % [81, 89]"
    kept = "| 85~% [81,~89] | <~0.001 | -8~% [-11,~-5] | `a < 3 %` |\na share of 85 % [81, 89]"
    assert HOOKS["unbroken_figures"](given).replace("\u00a0", "~") == kept


def test_links_to_notebooks_go_to_their_pages() -> None:
    page, config = SimpleNamespace(file=SimpleNamespace(src_uri="tutorials/index.md")), SimpleNamespace(repo_url="")
    given = "[one](../notebooks/own-term.ipynb), [elsewhere](https://host/a.ipynb)"
    kept = "[one](../notebooks/own-term.md), [elsewhere](https://host/a.ipynb)"
    assert HOOKS["on_page_markdown"](given, page, config, None) == kept


def test_a_folder_in_the_navigation_is_its_pages_in_order() -> None:
    config = SimpleNamespace(docs_dir=str(ROOT / "docs"), nav=[{"Start": ["index.md"]}, {"Decisions": "decisions"}])
    start, decisions = HOOKS["on_config"](config).nav
    assert start == {"Start": ["index.md"]}
    assert decisions["Decisions"][:2] == [f"decisions/{name}.md" for name in FIRST]
