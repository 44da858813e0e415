"""The examination of an installation: what is there, what is lacking and what is wrong, with what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from attnshift import doctor
from attnshift.cli import main
from attnshift.doctor import Finding, examine

STATED = [
    "rich>=13.9",
    "torch<2",
    'nowhere>=1; python_version < "3"',
    "absent>=1",
    'absent>=1; extra == "more"',
    'tqdm>=99; extra == "more"',
    'numpy>=1; extra == "less"',
]
VERSIONS = {"rich": "14.0", "torch": "2.9.0+cpu", "tqdm": "4.0", "numpy": "2.0"}


def version_of(package: str) -> str:
    try:
        return VERSIONS[package]
    except KeyError:
        raise PackageNotFoundError(package) from None


def called(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in findings}


def test_versions_and_extras_are_compared_with_what_the_package_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_stated", lambda: STATED)
    monkeypatch.setattr(doctor, "_names_of_extras", lambda: {"more", "less"})
    monkeypatch.setattr(doctor, "version", version_of)
    versions = called([*doctor._versions()])
    assert versions["rich"] == Finding("versions", "rich", "14.0")
    assert versions["torch"] == Finding("versions", "torch", "2.9.0+cpu", "wrong", "pip install 'torch<2'")
    assert versions["absent"].found == "not installed"
    assert "nowhere" not in versions
    extras = called([*doctor._extras()])
    assert extras["less"] == Finding("extras", "less", "numpy 2.0")
    assert extras["more"] == Finding(
        "extras", "more", "without absent, tqdm", "lacking", "pip install 'attnshift[more]'"
    )


def test_findings_are_printed_with_what_to_do_and_the_status_says_whether_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding("a", "b", "c"), Finding("a", "d", "e\nf", "lacking", "do this"), Finding("g", "h", "i")]
    for wrong, status in (([], 0), ([Finding("g", "j", "k", "wrong", "do that")], 1)):
        monkeypatch.setattr(doctor, "examine", lambda wrong=wrong: iter([*found, *wrong]))
        monkeypatch.setattr(sys, "argv", ["attnshift", "doctor"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == status
        more = "  ! j: k; do that\n" if wrong else ""
        assert capsys.readouterr().out == f"a\n    b: c\n  - d: e f; do this\ng\n    h: i\n{more}"
    monkeypatch.setattr(sys, "argv", ["attnshift", "doctor", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)[1] == {
        "topic": "a", "name": "d", "found": "e\nf", "state": "lacking", "advice": "do this",
    }  # fmt: skip


@pytest.mark.heavy
def test_this_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are looked for where the metrics look, and nothing asks a network."""
    (tmp_path / "squeezenet1_1.safetensors").write_bytes(b"")
    for name in ("HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("ATTNSHIFT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", None)
    found = list(examine())
    names = called(found)
    assert {each.topic for each in found} >= {
        "versions", "devices", "threads", "memory", "caches", "weights of metrics", "extras",
    }  # fmt: skip
    assert all(each.found and bool(each.advice) == (each.state != "fine") for each in found)
    assert names["lpips-squeeze"].found == str(tmp_path / "squeezenet1_1.safetensors")
    assert names["dists"].state == "lacking"
    assert str(tmp_path / "TORCH_HOME") in names["dists"].advice
    assert names["ATTNSHIFT_WEIGHTS"].found == str(tmp_path)
    assert names["torch"].found
