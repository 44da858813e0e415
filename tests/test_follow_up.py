"""Parts that follow an attack: done as far as asked for, once the run is whole, with the status of the worst."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.cli.follow_up import FollowUp, check_follow_up
from attnshift.cli.options import AfterOptions
from attnshift.errors import RunError, UserError
from attnshift.judging import verdicts
from attnshift.results.rows import ResultRow
from report.made_up import made_up_run


def test_nothing_follows_unless_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = made_up_run(tmp_path / "run")
    assert FollowUp(AfterOptions())(store) == 0
    assert capsys.readouterr().out == ""


def test_a_part_that_fails_leaves_the_next_one_to_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RunError("the reference is plainly wrong")

    monkeypatch.setattr(verdicts, "evaluate_run", refuse)
    monkeypatch.setattr("attnshift.judging.pending.missing_reference", lambda store, name: name)
    store = made_up_run(tmp_path / "run")
    follow_up = FollowUp(AfterOptions(reference="a", report=True), reference=object())  # type: ignore[arg-type]
    assert follow_up(store) == 2
    said = capsys.readouterr()
    assert said.err == "attnshift: the reference is plainly wrong\n"
    assert said.out == f"{tmp_path / 'run' / 'report.html'}\n"


def test_a_run_that_others_work_on_is_left_to_the_last_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = made_up_run(tmp_path / "run")
    store.write_table(ResultRow, store.table(ResultRow)[:-2])
    assert FollowUp(AfterOptions(report=True))(store) == 0
    assert not (tmp_path / "run" / "report.html").exists()
    assert "left to other processes; the same command goes on once they are done" in capsys.readouterr().err


def test_judges_and_a_reference_that_the_attack_sees_are_refused_before_it() -> None:
    with pytest.raises(UserError, match="lab:resnet cannot be a judge"):
        check_follow_up(AfterOptions(judges=("lab:resnet",)), ["lab:resnet"])
    with pytest.raises(UserError, match=r"jpeg\+lab:resnet cannot be the reference"):
        check_follow_up(AfterOptions(reference="jpeg+lab:resnet"), ["lab:resnet"])
