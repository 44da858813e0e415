"""Output of an attack: a line for each image, and a bar on a terminal."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import pytest

from attnshift.telemetry import ImageFailed, RunEnded
from attnshift.telemetry.terminal import ProgressBar, ProgressLines
from attnshift.testing.recorded import RECORDED, SURROGATES, begun, done, iteration

EXPECTED = [
    "2/4 id-0-0.png (mug): succeeds on 2 of 2 surrogates, iterate 1 of 3, 1.50 s",
    "3/4 id-0-1.png (mug): succeeds on 1 of 2 surrogates, iterate 1 of 3, 1.50 s",
    "4/4 id-1-0.png failed after 3 attempts: the attack gave values that are not finite",
]


def test_a_line_for_each_image_and_no_more() -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    for event in RECORDED:
        lines(event)
    lines.close()
    assert stream.getvalue().splitlines() == EXPECTED


def test_lines_name_targets_and_runs_and_leave_out_iterates_of_attacks_on_pixels() -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    lines(begun(name="fast@0.5", done=0))
    lines(done("a", -1.0, 1.0, target="ball", evaluated=0))
    assert stream.getvalue() == "fast@0.5 1/4 a.png (mug → ball): succeeds on 1 of 2 surrogates, 1.50 s\n"


def test_each_note_of_a_run_is_a_line() -> None:
    stream = io.StringIO()
    ProgressLines(stream)(begun(name="fast@0.5", notes=("the first", "the second\nis long")))
    assert stream.getvalue() == "fast@0.5 the first\nfast@0.5 the second is long\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("kind", [ProgressLines, ProgressBar])
def test_no_file_name_steers_the_terminal_or_cannot_be_shown(
    kind: type[ProgressLines | ProgressBar], encoding: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    consumer = kind(stream)
    consumer(begun(done=0))
    consumer(done(os.fsdecode(b"\x1b[2J\r\n\xff[bold]"), -1.0, -1.0, target="猫"))
    consumer.close()
    stream.flush()
    written = stream.buffer.getvalue().decode(encoding)  # pyright: ignore[reportAttributeAccessIssue]
    shown = "猫" if encoding == "utf-8" else "\\u732b"
    arrow = "→" if encoding == "utf-8" else "\\u2192"
    assert f"1/4 \\x1b[2J\\r\\n\\udcff[bold].png (mug {arrow} {shown}): succeeds on 2 of 2 surrogates" in written


def test_the_bar_shows_the_same_lines_and_how_far_everything_is() -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    try:
        bar(RECORDED[0])
        (task,) = bar._progress.tasks
        assert (task.completed, task.total) == (1, 4), "one was done before"
        for event in RECORDED[1:6]:
            bar(event)
        assert (task.completed, task.total) == (2, 4)
        bar(iteration(0, 1, 1.0))
        assert task.description == "iteration 1/2"
        for event in RECORDED[6:]:
            bar(event)
        assert (task.completed, task.total) == (4, 4)
        bar(begun(images=7, done=0, name="next"))
        assert (task.completed, task.total) == (0, 7)
    finally:
        bar.close()
    for line in EXPECTED:
        assert line in stream.getvalue()
    assert not bar._progress.live.is_started


def test_the_bar_gives_the_terminal_back_after_an_exception() -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar.close()
    bar.close()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_an_image_that_was_wrong_before_the_attack_is_no_success() -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    lines(begun(done=0))
    lines(replace(done("a", -1.0, -2.0), unknown=SURROGATES[:1], fooled=False))
    assert "succeeds on 1 of 2 surrogates (1 wrong before the attack), iterate 1 of 3" in stream.getvalue()


def test_failures_of_one_kind_are_ten_lines_and_a_count() -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    lines(begun(images=5000, done=0))
    for number in range(5000):
        lines(ImageFailed(str(number), f"my photo {number}.png", f"my photo {number}.png: not a readable image"))
    lines(ImageFailed("other", "other.png", "memory does not hold one image"))
    lines(RunEnded(0, 5001, 1.0, "finished"))
    written = stream.getvalue().splitlines()
    assert len(written) == 12
    assert "other.png failed: memory" in written[10]
    assert written[11] == "failed: and 4990 more of the kind: …: not a readable image"
