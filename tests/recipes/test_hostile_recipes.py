"""Recipes of others, of either kind: what a TOML file or a ``--set`` can hold is accepted, or refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnshift.attack.method import Method
from attnshift.errors import RecipeError
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import Recipe


def build(source: str | Path, *settings: str) -> None:
    """Everything that happens to a recipe before an attack starts."""
    recipe = load_recipe(str(source), settings)
    if isinstance(recipe, Recipe):
        Method.of(recipe)


def complaint(source: str | Path, *settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        build(source, *settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def term(line: str) -> str:
    return f'name = "x"\n[terms.variance]\nweight = 1.0\n{line}'


def baseline(line: str) -> str:
    return f'name = "x"\n[baseline]\nattack = "pgd"\n{line}'


def top(line: str) -> str:
    return f'name = "x"\n{line}'


DEEP = "more than 12 tables or lists lie within each other"
FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "name: Field required"),
    "not UTF-8": (b'name = "\xff"', "is not UTF-8 text; save it as UTF-8"),
    "not text": (bytes(range(256)), "is not UTF-8 text"),
    "a null": (b'name = "a\x00b"', "not valid TOML: Illegal character"),
    "enormous": ("#" * 2_000_000, "holds more than 1048576 bytes; a recipe is a small TOML file"),
    "a key twice": ('name = "x"\nname = "y"', "not valid TOML: Cannot overwrite a value"),
    "a table twice": (top("[mask]\n[mask]"), "not valid TOML: Cannot declare .*twice"),
    "half a surrogate": (r'name = "\ud800"', "not valid TOML"),
    "unknown section": (top("[optimser]"), r"optimser: Extra inputs .*; did you mean 'optimiser'\?$"),
    "unknown key": (top("[optimiser]\nlerning_rate = 1.0"), r"optimiser\.lerning_rate: .*did you mean 'learning_rate'"),
    "unknown keys": (top("[optimiser]\nlerning_rate = 1.0\ncolour = 2"), "did you mean 'learning_rate', and 1 more$"),
    "unknown key of a schedule": (term('schedule = {shpae = "x"}'), "schedule of variance: shpae: .*mean 'shape'"),
    "unknown key of a selection": (term('select = {grdi = "full"}'), r"select\.grdi: .*did you mean 'grid'"),
    "unknown schedule": (term('schedule = {shape = "liner"}'), "shape: Input should be .*'linear'"),
    "unknown term": (top("[terms.varience]\nweight = 1.0"), "did you mean 'variance'"),
    "unknown fusion": (top('[classification]\nfusion = "unifrom"'), "did you mean 'uniform'"),
    "unknown transform": (top("[expectation]\ndraws = 2\n[expectation.transforms.rotat]"), "did you mean 'rotate'"),
    "unknown reconstruction": (top('[reconstruction]\nmethod = "nul_text"'), "did you mean 'null_text'"),
    "infinity": (top("[optimiser]\nlearning_rate = inf"), "learning_rate: Input should be a finite number"),
    "no number": (top("[optimiser]\nlearning_rate = nan"), "learning_rate: Input should be a finite number"),
    "beyond a number": (term("")[:-5] + "1e400", r"terms\.variance\.weight: Input should be a finite number"),
    "infinity in a list": (term("schedule = {window = [0.0, 1e400]}"), r"window\.1: Input should be a finite number"),
    "boolean for a number": (top("[optimiser]\niterations = true"), r"iterations: .*integer \(got True\)"),
    "boolean for a weight": (top("[terms.variance]\nweight = true"), r"weight: .*valid number \(got True\)"),
    "text for a number": (top('[terms.variance]\nweight = "1"'), r"weight: .*valid number \(got '1'\)"),
    "number for a boolean": (top("[diffusion]\nresidual = 1"), r"residual: .*boolean \(got 1\)"),
    "number for text": ("name = 3", r"name: .*string \(got 3\)"),
    "number for a name": (top("[classification]\nfusion = 3"), r"classification\.fusion: .*string"),
    "negative weight": (top("[terms.variance]\nweight = -1.0"), "greater than or equal to 0"),
    "enormous iterations": (top(f"[optimiser]\niterations = {2**70}"), "less than or equal to 10000"),
    "enormous seed": (top(f"seed = {10**30}"), "seed: Input should be less than 18446744073709551616"),
    "number of 5000 digits": (top(f"seed = {'9' * 5000}"), "not valid TOML: Exceeds the limit"),
    "a date": (top("seed = 2020-01-01"), "seed: a recipe cannot hold dates"),
    "a date in a list": (top("tuned_on = [2020-01-01]"), r"tuned_on\.0: a recipe cannot hold dates"),
    "a date in an option": (term("select = {steps = [1979-05-27]}"), r"variance\.select\.steps\.0: a recipe cannot"),
    "a list for a table": (top("terms = []"), "terms: Input should be an object"),
    "a number for a term": (top("terms = {variance = 3}"), r"terms\.variance: Input should be an object"),
    "deep lists": (top(f"seed = {'[' * 50_000}{']' * 50_000}"), DEEP),
    "rather deep lists": (top(f"tuned_on = {'[' * 200}{']' * 200}"), DEEP),
    "deep keys": (top(f"[terms.{'a.' * 5000}a]\nx = 1"), DEEP),
    "deep tables": (top(f"seed = {'{a = ' * 3000}1{'}' * 3000}"), DEEP),
    "deep option": (term(f"select.{'a.' * 700}a = 1"), DEEP),
    "markup": (top('[terms."[bold]x[/bold]"]\nweight = 1.0'), r"unknown term '\[bold\]x\[/bold\]'"),
    "baseline that is a number": (top("baseline = 3"), "baseline: Input should be an object"),
    "baseline that is a list": (top("baseline = [1]"), "baseline: Input should be an object"),
    "baseline without an attack": (top("[baseline]"), r"baseline\.attack: Field required"),
    "baseline's attack a number": (top("[baseline]\nattack = 1"), r"baseline\.attack: Input should be a valid string"),
    "baseline's unknown attack": (top('[baseline]\nattack = "mifsgm"'), "did you mean 'mifgsm'"),
    "baseline's unknown option": (baseline("epsilom = 0.1"), "epsilom: .*did you mean 'epsilon'"),
    "baseline's radius no number": (baseline("epsilon = nan"), "epsilon: Input should be a finite number"),
    "baseline's radius text": (baseline('epsilon = "0.1"'), "epsilon: Input should be a valid number"),
    "baseline's negative radius": (baseline("epsilon = -0.1"), "epsilon: Input should be greater than 0"),
    "baseline's steps a boolean": (baseline("steps = true"), "steps: Input should be a valid integer"),
    "baseline's enormous steps": (baseline(f"steps = {10**30}"), "steps: Input should be less than or equal to"),
    "baseline's date": (baseline("steps = 2020-01-01"), r"baseline\.steps: a recipe cannot hold dates"),
    "baseline with terms": (baseline("[terms.variance]\nweight = 1.0"), "terms: Extra inputs are not permitted"),
    "baseline's deep option": (baseline(f"epsilon.{'a.' * 700}a = 1"), DEEP),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_recipe_is_refused_in_a_line(tmp_path: Path, case: str) -> None:
    text, expected = FILES[case]
    path = tmp_path / "theirs.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert re.search(expected, complaint(path))


SETTINGS: dict[str, tuple[str, str]] = {
    "through a value": ("seed.x=1", r"seed: Input should be a valid integer \(got \{'x': 1\}\)"),
    "through a value that is there": ("terms.variance.weight.x=1", "weight is a value, not a section"),
    "nothing": ("=", "expected key=value, as in"),
    "no name": (".=1", "expected key=value, as in"),
    "a gap": ("terms..weight=1", "expected key=value, as in"),
    "no value": ("seed", "expected key=value, as in"),
    "empty value": ("seed=", r"seed: .*integer \(got ''\)"),
    "a table's place": ("terms=1", "terms: Input should be an object"),
    "deep key": ("a." * 5000 + "a=1", DEEP),
    "rather deep key": ("terms." + "a." * 12 + "a=1", DEEP),
    "deep value": ("seed=" + "[" * 5000, r"seed: .*integer \(got '\[\["),
    "deep list": ("tuned_on=" + "[" * 40 + "]" * 40, DEEP),
    "number of 5000 digits": ("seed=" + "9" * 5000, r"seed: .*integer \(got '999"),
    "not UTF-8": ("name=\udcff", "this is not UTF-8 text"),
    "another key behind a line break": ("seed=1\nname='y'", r"seed: .*integer \(got \"1"),
    "no number": ("seed=nan", r"seed: .*integer \(got nan\)"),
    "unknown key": ("optimiser.learnin_rate=1.0", "did you mean 'learning_rate'"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_cannot_be_meant_is_refused_in_a_line(case: str) -> None:
    setting, expected = SETTINGS[case]
    assert re.search(expected, complaint("quick", setting))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("baseline.attack.x=1", "attack is a value, not a section"),
        ("baseline=1", "baseline: Input should be an object"),
        ("baseline.steps=1e400", "steps: Input should be a valid integer"),
        ("baseline." + "a." * 5000 + "a=1", DEEP),
        ("baseline.epsilon=\udcff", "this is not UTF-8 text"),
    ],
)
def test_a_setting_of_a_peer_too(setting: str, expected: str) -> None:
    assert re.search(expected, complaint("pgd", setting))


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml is a folder; give" in complaint(tmp_path / "folder.toml")
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    assert "loop.toml: no such recipe file" in complaint(tmp_path / "loop.toml")
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    assert "device.toml: no such recipe file" in complaint(tmp_path / "device.toml")
    assert "a\0b.toml: no such recipe file" in complaint("a\0b.toml")
    assert "cannot be read: File name too long; give" in complaint("x" * 500 + ".toml")


@pytest.mark.parametrize("name", ["x" * 500, "", "a\0b", "[bold]x[/bold]", "\x1b[31m"], ids=ascii)
def test_what_is_no_preset(name: str) -> None:
    assert f"unknown preset '{name}'" in complaint(name)


@pytest.mark.parametrize(
    "text", [b'\xef\xbb\xbfname = "x"\n', b'name = "x"\r\n', b'name = "[bold]\\u202e"\n'], ids=ascii
)
def test_what_is_odd_and_can_be_meant(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "theirs.toml"
    path.write_bytes(text)
    build(path)
