"""Documents: each link and each named file is there, examples import what is there, and prose is wrapped."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from attnshift import __version__

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
ROOMS = ("src", "tests", "docs", "examples", "benchmarks", ".github", "attnshift")
OURS = "attnshift."
PROSE = 100
"""Most characters in a line of prose."""
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, ROOMS))})/[\w./-]*\w(?:/|\b)")
CODE = re.compile(r"`([\w-]+/[\w./-]+\.(?:py|toml))(?=`|::)")
"""Files of code and tests, which pages also name from their own rooms: `losses/attention.py`."""
HISTORY = {"CHANGELOG.md"}
"""Pages that tell what was: the files that they name may be gone."""


def links(page: Path) -> list[str]:
    found = [first or second for first, second in LINK.findall(page.read_text(encoding="utf-8"))]
    return [each for each in found if "://" not in each and not each.startswith(("#", "mailto:"))]


def anchors(page: Path) -> set[str]:
    """Names that headings get, as code hosts make them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def is_there(name: str, *bases: Path) -> bool:
    """A file or folder below the root of the project, src or ``bases``; a module may lack its ending."""
    return any((base / name).exists() or (base / f"{name}.py").exists() for base in (ROOT, ROOT / "src", *bases))


def missing_links(page: Path) -> list[str]:
    missing = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            missing.append(link)
    return missing


def missing_names(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    rooms = (page.parent, ROOT / "src" / "attnshift", ROOT / "tests")
    missing = [name for name in NAMED.findall(text) if not is_there(name.rstrip("/."), page.parent)]
    return missing + [name for name in CODE.findall(text) if not is_there(name, *rooms) and name not in missing]


def missing_imports(page: Path) -> list[str]:
    """Names that the page's examples in Python import from attnshift, and that are not there."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text(encoding="utf-8"))
    imports = [each for block in blocks for each in ast.walk(ast.parse(block)) if isinstance(each, ast.ImportFrom)]
    names = [(str(each.module), name.name) for each in imports for name in each.names]
    return [f"{module}.{name}" for module, name in names if f"{module}.".startswith(OURS) and not defines(module, name)]


def defines(module: str, name: str) -> bool:
    """True if the file of ``module`` defines ``name`` or lists it as exported; nothing is imported."""
    path = ROOT / "src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = rf'(?m)^(?:def|class) {name}\b|^{name}\b.* = |^__all__ = .*"{name}"|^    "{name}",$'
    return re.search(found, file.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert missing_links(page) == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_named_file_is_there(page: Path) -> None:
    assert missing_names(page) == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")], ids=lambda page: page.name
)
def test_examples_import_what_is_there(page: Path) -> None:
    assert missing_imports(page) == []


def long_lines(page: Path) -> list[int]:
    """Numbers of the lines of prose that are too long. Tables, code and a link that cannot be wrapped may be longer."""
    numbers, fenced = [], False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        wraps = " " in re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", line).strip(" -")
        if len(line) > PROSE and wraps and not fenced and not line.startswith(("|", "    ")):
            numbers.append(number)
    return numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_wrapped(page: Path) -> None:
    assert long_lines(page) == []


def test_the_version_to_cite_is_this_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    for name in ("README.md", "README.zh-CN.md", "docs/citing.md"):
        assert f"version = {{{__version__}}}" in (ROOT / name).read_text(encoding="utf-8"), name


def test_what_is_missing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "[a](page.md#one) [b](page.md#two) [c](gone.md) `src/attnshift/gone.py` `tests/conftest.py`"
    page.write_text(f"# One\n{text}\n`losses/gone.py::Term` `losses/objective.py`")
    assert missing_links(page) == ["page.md#two", "gone.md"]
    assert missing_names(page) == ["src/attnshift/gone.py", "losses/gone.py"]
    page.write_text("```python\nfrom attnshift.errors import Gone, UserError\n```\n")
    assert missing_imports(page) == ["attnshift.errors.Gone"]
    code = f"```\n{'code ' * 30}\n```\n| {'cell ' * 30}|\n"
    page.write_text(f"{code}{'word ' * 30}\n[a link]({'x' * 100})\n{'`a name`' * 30}\n")
    assert long_lines(page) == [5]
