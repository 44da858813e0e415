"""The commands that only look at something answer at once: they never import what takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from attnshift.baselines import BASELINES
from report.made_up import made_up_run
from report.rated import rate_by_two
from small_runs import write_photos

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


MANY = """
import json, sys
from attnshift.cli import main
for name, arguments in json.loads(sys.argv[1]).items():
    sys.argv = ["attnshift", *arguments]
    status = 0
    try:
        main()
    except SystemExit as exit:
        status = exit.code or 0
    heavy = sorted(set(json.loads(sys.argv0)) & set(sys.modules))
    print(json.dumps([name, status, heavy]), file=sys.stderr)
"""


def asked(commands: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One process that carries out the ``commands`` of a JSON object, and tells of each in a line."""
    program = MANY.replace("sys.argv0", repr(json.dumps(HEAVY)))
    return subprocess.run(
        [sys.executable, "-c", program, commands], capture_output=True, text=True, timeout=120, cwd=folder
    )


def test_looking_imports_nothing_heavy() -> None:
    """One process looks at all of it, one after the other, and says of each which modules are loaded after it."""
    looks = [["--help"], ["--version"], ["attack", "--help"], ["lab", "--help"], ["list"], ["list", "--json"]]
    done = asked(json.dumps({" ".join(look): look for look in looks}))
    ended = [json.loads(line) for line in done.stderr.splitlines()]
    assert ended == [[" ".join(look), 0, []] for look in looks]


def test_help_does_not_even_import_numpy() -> None:
    assert imported("--help").isdisjoint({"numpy", "pyarrow", "PIL", "jinja2"})


def test_a_report_imports_nothing_heavy(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run").folder
    modules = imported("report", str(run))
    assert "jinja2" in modules, "the probe sees what is imported"
    assert modules.isdisjoint(HEAVY)


def test_rating_imports_nothing_heavy(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    rate_by_two(store)
    done = asked(json.dumps({name: [name, str(store.folder)] for name in ("rate", "ratings")}))
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
    assert told == [["rate", 0, []], ["ratings", 0, []]]


def test_recipes_are_read_without_torch() -> None:
    names = ["quick", *(name for name, entry in BASELINES.items() if not entry.package)]
    program = (
        f"import attnshift, sys; print([attnshift.load_recipe(name).name for name in {names}], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"{names} False", done.stderr


TRUE = ("--labels", "true.csv", "--surrogate", "lab:resnet")
JUDGE = ("--judge", "lab:nfnet")
ATTACK = ("--labels", "labels.csv", "--surrogate", "lab:resnet")

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "folder": (("attack", "nope", *ATTACK, "--out", "run"), "nope: no such folder of images"),
    "folder of validate": (("validate", "nope", *ATTACK), "nope: no such folder of images"),
    "no labels": (("attack", "photos", *TRUE[2:], "--out", "run"), "nothing there gives labels"),
    "label file": (("attack", ".", *ATTACK, "--out", "run"), "labels.csv: no such label file"),
    "masks": (("validate", "photos", *ATTACK, "--masks", "none"), "none: no such folder of masks"),
    "no surrogate": (("attack", "nope", "--out", "run"), "give at least one in --surrogate"),
    "limit": (("attack", "nope", *ATTACK, "--limit", "-1", "--out", "run"), "--limit is -1; it must lie between"),
    "size": (("validate", "photos", *TRUE, "--size", "-64"), "--size is -64; it must lie between"),
    "batch": (("compare", "nope", *ATTACK, "--batch", "-1", "--out", "run"), "--batch is -1; it must lie between"),
    "preset": (("attack", "photos", *TRUE, "--preset", "fsat", "--out", "run"), "did you mean 'fast'"),
    "source": (("attack", "photos", *TRUE, "--surrogate", "tim:resnet50", "--out", "run"), "did you mean 'timm'"),
    "source of validate": (("validate", "photos", *TRUE[:2], "--surrogate", "tim:a"), "did you mean 'timm'"),
    "no source": (("attack", "photos", *TRUE[:2], "--surrogate", "resnet50", "--out", "run"), "source:name"),
    "defence": (("attack", "photos", *TRUE[:2], "--surrogate", "jpg+lab:a", "--out", "run"), "did you mean 'jpeg'"),
    "preset of a comparison": (("compare", "photos", *TRUE, *JUDGE, "--recipe", "fsat", "--out", "run"), "'fast'"),
    "folder of a comparison": (
        ("compare", "nope", *ATTACK, *JUDGE, "--recipe", "pgd", "--out", "run"),
        "nope: no such",
    ),
    "label file of a comparison": (("sweep", ".", *ATTACK, *JUDGE, "--out", "run"), "labels.csv: no such label file"),
    "limit of a comparison": (("sweep", "photos", *TRUE, *JUDGE, "--limit", "-1", "--out", "run"), "--limit is -1"),
    "strength": (("sweep", "photos", *TRUE, *JUDGE, "--strength", "0", "--out", "run"), "--strength of fast: 0"),
    "preset of a study": (
        ("tune", "photos", *TRUE, "--search", "a", "--preset", "pgd", "--out", "run"),
        "attacks pixels",
    ),
    "no judge": (("sweep", "photos", *TRUE, "--out", "run"), "give at least one in --judge"),
    "tolerance": (("sweep", "photos", *TRUE, *JUDGE, "--max-failed", "1.5", "--out", "run"), "--max-failed is 1.5"),
    "judge": (("sweep", "photos", *TRUE, "--judge", "timn:a", "--out", "run"), "did you mean 'timm'"),
    "run": (("evaluate", "nope", "--judge", "lab:nfnet"), "nope"),
}


def test_wrong_input_is_answered_before_anything_heavy(tmp_path: Path) -> None:
    """One process asks all of it, one after the other; the first that imports torch is named."""
    write_photos(tmp_path / "photos")
    (tmp_path / "photos" / "labels.csv").rename(tmp_path / "true.csv")
    for file in (tmp_path / "photos" / "images").iterdir():
        file.rename(tmp_path / "photos" / file.name)
    (tmp_path / "photos" / "images").rmdir()
    done = asked(json.dumps({name: arguments for name, (arguments, _) in WRONG.items()}), tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    for (name, (_, message)), line, ended in zip(WRONG.items(), lines[::2], lines[1::2], strict=True):
        assert (name, message in line) == (name, True), line
        assert json.loads(ended) == [name, 2, []]
    assert not (tmp_path / "run").exists()
