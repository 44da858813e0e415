"""What installed packages add to the tables, and in which words one that cannot be used is refused."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import pytest

from attnshift.errors import PluginError, RecipeError
from attnshift.metrics import METRICS
from attnshift.plugins import installed_plugins, misfit
from attnshift.registry import STRICT, Entry, Table, build, check, look_up
from attnshift.results.rows import QualityRow, columns_of

Install = Callable[..., None]


class Tool(Protocol):
    """The contract of the table of these tests."""

    price: ClassVar[float]

    def sharpen(self, stone: str, strokes: int = 3) -> None: ...

    def __call__(self, wood: str) -> str: ...


@dataclass(frozen=True)
class Plane:
    __pydantic_config__ = STRICT
    price: ClassVar[float] = 3.0
    width: float = 1.0

    def sharpen(self, stone: str, strokes: int = 3) -> None:
        pass

    def __call__(self, wood: str) -> str:
        return f"{wood} {self.width}"


def table() -> Table:
    return Table(
        "tool", {"plane": Entry("a plane", "here", f"{__name__}:Plane")}, "attnshift.tools", [f"{__name__}:Tool"]
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with one module and entry points where Python finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def put(package: str, points: dict[str, str], code: str) -> None:
        module = package.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        summary = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nSummary: Tools of {package}\n"
        (info / "METADATA").write_text(summary, encoding="utf-8")
        lines = [f"{name} = {module}:{attribute}" for name, attribute in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[attnshift.tools]", *lines]), encoding="utf-8")
        installed_plugins.cache_clear()

    yield put
    installed_plugins.cache_clear()
    for name in modules:
        sys.modules.pop(name, None)


SAW = """
    from dataclasses import dataclass
    from typing import ClassVar
    import attnshift

    @dataclass(frozen=True)
    class Saw:
        __pydantic_config__ = attnshift.STRICT
        price: ClassVar[float] = 2.0
        teeth: int = 8
        def sharpen(self, stone, strokes=3): pass
        def __call__(self, wood): return wood * self.teeth
"""


def test_a_plug_in_is_an_entry_like_any_other(install: Install) -> None:
    install("fine-saws", {"saw": "Saw"}, SAW)
    tools = table()
    assert list(tools) == ["plane", "saw"]
    assert len(tools) == 2
    assert tools["saw"] == Entry("Tools of fine-saws", "fine-saws 1.0", "fine_saws:Saw", "fine-saws 1.0")
    assert "fine_saws" not in sys.modules, "listing imports nothing"
    assert build(tools, "saw", {"teeth": 2})("o") == "oo"
    with pytest.raises(RecipeError, match=r"^tool 'saw': tooth: Unexpected keyword argument .*did you mean 'teeth'\?$"):
        build(tools, "saw", {"tooth": 2})


def test_our_names_are_found_without_a_look_at_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnshift.registry.installed_plugins", lambda: pytest.fail("packages were searched"))
    assert build(table(), "plane", {}) == Plane()


def test_a_name_of_ours_stays_ours(install: Install) -> None:
    install("other-planes", {"plane": "Saw"}, SAW)
    tools = table()
    assert build(tools, "plane", {}) == Plane()
    assert list(tools) == ["plane"]
    assert tools.clashes() == ["tool 'plane' of package other-planes 1.0 is not used: attnshift has one of that name"]


def test_a_name_of_two_packages_belongs_to_none(install: Install) -> None:
    install("fine-saws", {"saw": "Saw", "jigsaw": "Saw"}, SAW)
    install("bad-saws", {"saw": "Saw"}, SAW)
    tools = table()
    assert list(tools) == ["plane", "jigsaw", "saw"]
    with pytest.raises(PluginError, match=r"saws 1\.0 and .*saws 1\.0 both have a tool 'saw'; uninstall one of them$"):
        build(tools, "saw", {})
    assert build(tools, "jigsaw", {}).teeth == 8


def test_a_reserved_name_is_refused(install: Install) -> None:
    install("fine-saws", {"saw": "Saw", "hand": "Saw"}, SAW)
    tools = Table("tool", {}, "attnshift.tools", reserved={"hand": "which holds it"})
    assert build(tools, "saw", {"teeth": 2}).teeth == 2
    with pytest.raises(PluginError, match=r"^package fine-saws 1\.0: a tool cannot be called 'hand', which holds it; "):
        build(tools, "hand", {})


def test_a_metric_has_no_name_of_another_column_of_its_table() -> None:
    assert set(METRICS.reserved) == {column.name for column in columns_of(QualityRow) if column.wide is None}


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import no_such_library", r"cannot be imported \(ModuleNotFoundError: .*no_such_library.*; mend the package"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError"),
        ("", r"cannot be imported \(AttributeError"),
        ("class Saw: pass", r"tool 'saw' of package bad-saws 1\.0 is no dataclass whose fields are its options"),
        (
            SAW.replace("        __pydantic_config__ = attnshift.STRICT\n", ""),
            "lacks __pydantic_config__ = attnshift.ST",
        ),
        (SAW.replace("price: ClassVar[float] = 2.0", ""), r"tool 'saw' of package bad-saws 1\.0 lacks price$"),
        (SAW.replace("def sharpen", "def blunt"), r"lacks sharpen\(stone, strokes\)$"),
        (SAW.replace("stone, strokes=3", "stone"), r"has sharpen with other arguments than sharpen\(stone, strokes\)$"),
        (SAW.replace("def __call__", "def saw"), r"lacks __call__\(wood\)$"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_one_line(install: Install, code: str, complaint: str) -> None:
    install("bad-saws", {"saw": "Saw"}, code)
    tools = table()
    assert list(tools) == ["plane", "saw"], "it is listed all the same"
    with pytest.raises(PluginError, match=complaint) as refused:
        build(tools, "saw", {})
    assert "bad-saws 1.0" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert build(tools, "plane", {}) == Plane()


def test_an_object_of_the_caller_is_held_to_the_contract() -> None:
    assert check(table(), "mine", Plane()) == Plane()
    with pytest.raises(RecipeError, match=r"^tool 'mine' lacks price$"):
        check(table(), "mine", object())


def test_a_table_without_group_is_closed(install: Install) -> None:
    install("fine-saws", {"saw": "Saw"}, SAW)
    closed = Table("tool", {"plane": Entry("a plane", "here", f"{__name__}:Plane")})
    assert list(closed) == ["plane"]
    with pytest.raises(RecipeError, match="unknown tool 'saw'"):
        look_up(closed, "saw")


def test_one_of_several_protocols_is_enough() -> None:
    either = Table("tool", {}, contract=[f"{__name__}:Tool", "builtins:str"])
    assert check(either, "mine", "text") == "text"
    with pytest.raises(RecipeError, match="lacks price"):
        check(either, "mine", 3)


def test_a_class_is_not_mistaken_for_what_it_makes() -> None:
    assert misfit(Plane, f"{__name__}:Tool") == "lacks __call__(wood)"
