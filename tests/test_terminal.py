"""Text of others on the command line: one line, no control of the terminal, no markup."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnshift import cli
from attnshift.cli import main
from attnshift.cli.printing import print_summary
from attnshift.defences.names import load_surrogate
from attnshift.diffusion import load_pipeline
from attnshift.results.rows import ROW_TYPES
from attnshift.results.store import Store
from attnshift.terminal import LONGEST, one_line, print_error
from report.made_up import FIRST, quality, results, verdicts
from tables import typed

NAMES = {
    "markup": "[bold]x[/bold]",
    "markup that never began": "[/bold]",
    "a link": "[link=x]x[/link]",
    "colour": "\x1b[31mred\x1b[0m",
    "bell and backspace": "a\a\b\b",
    "line breaks": "a\nall is well\r\nb\u2028c",
    "text direction": "\u202egnp.exe\u2066\u200f",
    "half a surrogate": "\udcff",
    "emoji": "😀👩‍🔬",
    "long": "x" * 500,
    "very long": "x" * 5000,
    "percent and braces": "%s {0} {name}",
}

Line = Callable[..., str]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """The one line that ``attnshift ARGUMENTS`` ends with."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["attnshift", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert (caught.value.code, out) == (2, "")
        (only,) = err.splitlines()
        assert only.startswith("attnshift: ")
        assert only.isprintable()
        assert len(only) <= len("attnshift: ") + LONGEST
        return only

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_runs import write_photos

    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


def shown(name: str) -> str:
    """The beginning of ``name`` as a line shows it."""
    return one_line(name)[:60]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["preset", "recipe", "key", "value"])
def test_names_in_recipes(line: Line, photos: Path, tmp_path: Path, name: str, place: str) -> None:
    text = NAMES[name]
    options = {
        "preset": ["--preset", text],
        "recipe": ["--preset", f"{text}.toml"],
        "key": ["--set", f"{text}=1"],
        "value": ["--set", f"diffusion.pairing={text}"],
    }[place]
    out = tmp_path / "run"
    said = line("attack", photos / "images", "--labels", photos / "labels.csv", "--out", out, *options)
    # Dots separate keys, and a value is shown as Python writes it.
    expected = {"key": text.partition("=")[0].partition(".")[0], "value": "diffusion.pairing"}.get(place, text)
    assert shown(expected) in said
    assert not out.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("load", [load_pipeline, load_surrogate])
@pytest.mark.parametrize("form", ["{}", "timm:{}", "lab:{}", "jpeg({})+lab:resnet", "zeroshot:a@{}"])
def test_names_of_models(
    line: Line, monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[str], object], form: str
) -> None:
    """Whatever command loads them."""
    text = form.format(NAMES[name])
    monkeypatch.setattr(cli, "app", lambda **_: load(text))
    assert shown(NAMES[name]) in line()


@pytest.mark.parametrize("name", [name for name in NAMES if "long" not in name])
def test_names_of_runs(line: Line, name: str) -> None:
    assert shown(str(Path(NAMES[name]))) in line("report", NAMES[name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with accents: é 日本 😀", "plain, with accents: é 日本 😀"),
        ("  two\n\tlines  ", "two lines"),
        ("a\x00\x1b[31m\x7f\x9b", r"a\x00\x1b[31m\x7f\x9b"),
        ("\u202e\u2066\ufeff\ud800", r"\u202e\u2066\ufeff\ud800"),
        ("[bold]", "[bold]"),
        ("", ""),
    ],
)
def test_what_does_not_print_is_escaped(text: str, expected: str) -> None:
    assert one_line(text) == expected


def test_of_a_long_line_both_ends_stay() -> None:
    text = f"what {'x' * 5000} do this"
    short = one_line(text)
    assert len(short) <= LONGEST
    assert short.startswith("what xxx")
    assert short.endswith("xxx do this")
    assert " … " in short
    assert one_line("x" * LONGEST) == "x" * LONGEST


def test_nothing_is_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("[bold]x[/bold] [/nope]")
    assert capsys.readouterr().err == "attnshift: [bold]x[/bold] [/nope]\n"


class Tables(Store):
    """A judged run that lies nowhere, one of whose classifiers is called ``name``."""

    def __init__(self, name: str):
        self.folder = Path("nowhere")
        rows = [row | {"classifier": name if row["classifier"] == FIRST else row["classifier"]} for row in verdicts()]
        records = {"results": results(), "verdicts": rows, "quality": quality()}
        self.rows: dict[str, Any] = {name: typed(ROW_TYPES[name], each) for name, each in records.items()}

    def table(self, kind: type[Any]) -> list[Any]:
        return self.rows.get(kind.TABLE, [])

    def spec(self) -> Any:
        return SimpleNamespace(admitted=(), digest="")

    def planned(self) -> int:
        return len(self.rows["results"])


@pytest.mark.parametrize("name", ["a[/b]", "[bold]a[/bold]", "a\x1b[1m\u202e"], ids=ascii)
def test_a_table_shows_a_classifier_as_it_is_called(capsys: pytest.CaptureFixture[str], name: str) -> None:
    print_summary(Tables(name))
    assert f" {one_line(name)} " in capsys.readouterr().out
