"""What two people say about three images, counted by hand, and where it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnshift.cli import app
from attnshift.cli.printing import print_summary
from attnshift.errors import UserError
from attnshift.metrics.statistics import wilson
from attnshift.report.page import write_report
from attnshift.report.people import people_of
from attnshift.report.run_tables import run_data
from attnshift.results.store import Store
from report.made_up import fail, made_up_run
from report.rated import rate_by_two
from report.seen import Seen


@pytest.fixture
def rated(tmp_path: Path) -> Store:
    store = made_up_run(tmp_path / "run")
    rate_by_two(store)
    return store


def test_the_shares_of_each_arm(rated: Store) -> None:
    people = people_of(rated)
    assert people is not None
    assert (people.raters, people.images, people.answers, people.stopped) == (2, 3, 12, 0)
    seen = {each.name: (each.taken.value, each.pairs, each.kept.value, each.labels) for each in people.arms}
    assert seen["attack"] == (0.5, 4, 0.5, 4), "cannot say is no yes"
    assert seen["reconstruction"][:2] == (1.0, 1)
    assert seen["blurred"][:2] == (0.0, 1)
    assert seen["clean"][2:] == (1.0, 1)
    assert seen["clean, another class's name"][2:] == (1.0, 1)
    gaps = {gap.name: gap.value.value for gap in people.gaps}
    assert gaps == {
        "attack taken for the original, less chance": 0.0,
        "the same, less the reconstruction's": -0.5,
        "label kept, attack less clean": -0.5,
    }


def test_agreement_and_checks(rated: Store) -> None:
    """The two agree about the class in a, and not in b (no against cannot say): 1 - 3 * 2 / (16 - 6)."""
    people = people_of(rated)
    assert people is not None
    assert people.agreement["label"] == pytest.approx(1 - 3 * 2 / 10)
    assert people.checks == {"one": wilson(1, 1), "two": wilson(0, 1)}
    assert people.careless == ("two",)


def test_success_counts_only_where_most_raters_see_the_class(rated: Store) -> None:
    """Both see it in a, neither in b; nobody was asked about the attack on c. Judges: one of two fooled in a, both
    of one in b."""
    people = people_of(rated)
    assert people is not None
    assert people.success is not None
    assert people.success.share == wilson(1, 2)
    assert people.success.plain.success["attack"].value == pytest.approx((0.5 + 1) / 2)
    assert people.success.kept.success["attack"].value == pytest.approx((0.5 + 0) / 2)


def test_images_that_left_the_run_do_not_count(rated: Store) -> None:
    fail(rated, "b")
    people = people_of(rated)
    assert people is not None
    assert (people.images, people.answers) == (2, 8)


def test_the_report_says_what_people_say(rated: Store) -> None:
    words = Seen(write_report(rated).read_text(encoding="utf-8")).text
    section = words.partition("What people say")[2].partition("The images")[0]
    assert section.startswith(" 2 people gave 12 answers about 3 images. ")
    assert "label kept, say most raters 25 % [0, 50]" in section
    assert "No person was asked" not in words
    assert run_data(rated)["people"]["arms"][0]["arm"] == "clean"


@pytest.mark.parametrize("judged", [True, False])
def test_the_report_says_that_nobody_was_asked(tmp_path: Path, judged: bool) -> None:
    store = made_up_run(tmp_path / "run", judged=judged)
    assert "No person was asked." in Seen(write_report(store).read_text(encoding="utf-8")).text
    assert run_data(store)["people"] is None


def test_the_printed_summary_says_both(rated: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(made_up_run(tmp_path / "unrated"))
    assert "no person was asked" in capsys.readouterr().out.splitlines()
    print_summary(rated)
    lines = capsys.readouterr().out.splitlines()
    assert "2 people gave 12 answers about 3 images" in lines
    assert any(line.startswith("people, attack: taken for the original 50 % [") for line in lines)
    assert any(
        line.startswith("success with the label kept by people, mean of 2 judges: attack 25 %") for line in lines
    )


def test_the_command_reads_files_or_their_run(rated: Store) -> None:
    of_run = CliRunner().invoke(app, ["ratings", str(rated.folder), "--json"])
    files = sorted(map(str, (rated.folder / "ratings").iterdir()))
    of_files = CliRunner().invoke(app, ["ratings", *files, "--run", str(rated.folder), "--json"])
    assert json.loads(of_run.stdout) == json.loads(of_files.stdout)
    alone = json.loads(CliRunner().invoke(app, ["ratings", *files, "--json"]).stdout)
    assert alone == json.loads(of_run.stdout) | {"success": None}
    table = CliRunner().invoke(app, ["ratings", *files, "--table", "csv"])
    assert table.stdout.startswith("arm,taken for the original,taken for the original low,")
    assert "attnshift: 2 people gave 12 answers about 3 images\n" in table.stderr


def test_where_nobody_was_asked_the_command_says_so(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    done = CliRunner().invoke(app, ["ratings", str(store.folder)])
    assert isinstance(done.exception, UserError)
    assert "no person was asked yet" in str(done.exception)
    given_twice = CliRunner().invoke(app, ["ratings", str(store.folder), "--run", str(store.folder)])
    assert "is a folder" in str(given_twice.exception)
