"""Files of ratings: each that does not fit is refused in one line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attnshift.errors import RunError
from attnshift.results.ratings import read_ratings
from report.rated import FIRST, file_of, write_ratings

RUN = "0123456789abcdef"
GOOD = file_of(RUN, "one", FIRST)


def test_a_file_is_read_as_it_was_saved(tmp_path: Path) -> None:
    (read,) = read_ratings([write_ratings(tmp_path / "a.json", GOOD)], RUN)
    assert json.loads(read.model_dump_json()) == GOOD


def changed(**values: Any) -> str:
    return json.dumps(GOOD | {"answers": [GOOD["answers"][0] | values]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is no JSON; save it"),
        ("[1]", "should be an object"),
        ('{"a": 1}', "its format is not 1"),
        (json.dumps(GOOD | {"format": 2}), "its format is not 1, which this version reads"),
        (json.dumps(GOOD | {"answers": []}), "answers: .* at least 1 item"),
        (json.dumps(GOOD | {"rater": "Ann Smith"}), "rater: "),
        (json.dumps(GOOD | {"more": 1}), "more: "),
        (json.dumps(GOOD | {"answers": GOOD["answers"][:1] * 2}), "an image is answered twice in one round"),
        (changed(answer="clean"), "'clean' is no answer to the question 'label'"),
        (changed(arm="blurred"), "the question 'label' is not asked about the arm 'blurred'"),
        (changed(arm="nothing"), "answers.0.arm: "),
        (changed(milliseconds=-1), "answers.0.milliseconds: "),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(RunError, match=message) as refused:
        read_ratings([path])
    assert str(refused.value).startswith(f"{path}")
    assert "\n" not in str(refused.value)


def test_files_must_be_there_and_small(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no file .*gone.json"):
        read_ratings([tmp_path / "gone.json"])
    (tmp_path / "large.json").write_bytes(b" " * (2**22 + 1))
    with pytest.raises(RunError, match="it is no file of ratings"):
        read_ratings([tmp_path / "large.json"])


def test_files_are_about_one_run_and_each_of_another_rater(tmp_path: Path) -> None:
    first = write_ratings(tmp_path / "a.json", GOOD)
    again = write_ratings(tmp_path / "b.json", GOOD)
    other = write_ratings(tmp_path / "c.json", file_of("f" * 16, "two", FIRST))
    with pytest.raises(RunError, match=r"b\.json is of the rater one, as is .*a\.json"):
        read_ratings([first, again])
    with pytest.raises(RunError, match=rf"c\.json is about the run {'f' * 16}, not {RUN}"):
        read_ratings([first, other])
    with pytest.raises(RunError, match=rf"a\.json is about the run {RUN}, not {'f' * 16}"):
        read_ratings([first], "f" * 16)
