"""Completion in the shell, as the scripts of bash and zsh ask for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from attnshift.baselines import BASELINES
from attnshift.cli import main
from attnshift.lab.weights import classifier_names
from attnshift.recipes.presets import preset_names

Answer = Callable[..., list[str]]
LAB = [*classifier_names()]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Answer]:
    """Lines that the script of a ``shell`` is answered, once the tab key is pressed behind the last word."""

    def ask(shell: str, *words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["attnshift"])
        monkeypatch.setenv("_ATTNSHIFT_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["attnshift", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["attnshift", *words]))
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out.splitlines()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield ask
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["att"], ["attack"]),
        (["attack", "--surr"], ["--surrogate"]),
        (["attack", "--preset", "str"], ["strong"]),
        (["attack", "--preset", "=", "str"], ["strong"]),
        (["attack", "--surrogate", "lab", ":", "re"], ["resnet"]),
        (["attack", "--surrogate", "lab", ":", "resnet", "--judge", "lab", ":", "nf"], ["nfnet"]),
        (["attack", "--surrogate", "torchv"], ["torchvision:"]),
        (["attack", "--judge", "jpe"], ["jpeg+"]),
        (["attack", "--judge", "jpeg+lab", ":", "nf"], ["nfnet"]),
        (["attack", "--set", "optimiser.it"], ["optimiser.iterations="]),
        (["sweep", "--sweep", "terms.contrast.w"], ["terms.contrast.weight="]),
        (["attack", "--budget", "ss"], ["ssim="]),
        (["attack", "--budget", "ssim", "=", "0.95,lpips-s"], ["0.95,lpips-squeeze="]),
        (["compare", "--adaptive", "puri"], ["purification"]),
        (["inspect", "--term", "self"], ["self_attention"]),
        (["report", "--table", ""], ["markdown", "csv", "latex"]),
        (["attack", "--telemetry", "json"], ["jsonl="]),
        (["tune", "--pipeline", "l"], ["lab", "lab-flow"]),
    ],
)
def test_bash_is_answered_the_last_word_as_it_splits_words(
    answer: Answer, words: list[str], expected: list[str]
) -> None:
    assert answer("bash", *words) == expected


def test_all_recipes_and_all_classifiers_of_the_lab_are_offered(answer: Answer) -> None:
    assert answer("bash", "show", "") == [*preset_names(), *BASELINES]
    assert answer("bash", "evaluate", "--judge", "lab", ":") == LAB


def test_zsh_is_answered_with_what_each_value_is(answer: Answer) -> None:
    (line,) = answer("zsh", "attack", "--surrogate", "lab:res")
    assert line == r"""_arguments '*: :(("lab\\:resnet":"classifier of the lab"))'"""
    lines = answer("zsh", "show", "p")
    assert all(line.count('":"') == 1 for line in lines), "no line is broken"
