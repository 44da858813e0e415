"""Inversions that are kept for other runs: found again only where everything is the same, and never trusted blindly."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import torch
from torch import Tensor

from attnshift.attack import prepare
from attnshift.errors import RunError
from attnshift.execution.coordinate import attack_prepared
from attnshift.execution.inversion_cache import InversionCache
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.worker import inversions_in
from attnshift.fingerprint import fingerprint_of
from small_runs import pngs, small_settings
from tables import untimed
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.attack.method import Method

SHORT = ("diffusion.denoising_steps=1", "diffusion.guidance=2.0", "optimiser.iterations=1")
NULL_TEXT = ("reconstruction.method=null_text", "reconstruction.updates=1")
METHODS = {
    "offset": (),
    "negative prompt": ("reconstruction.method=negative_prompt",),
    "null text": NULL_TEXT,
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each inversion was made of: those to attack, and behind them the saved files."""
    counted: list[int] = []
    original = prepare.timed_method

    def timed_method(method: Method) -> Method:
        timed = original(method)

        def invert(backbone: Any, noise_schedule: Any, latents: Tensor, *rest: Any) -> Any:
            counted.append(len(latents))
            return timed.invert(backbone, noise_schedule, latents, *rest)

        return replace(timed, invert=invert)

    monkeypatch.setattr(prepare, "timed_method", timed_method)
    return counted


Make = Callable[..., PreparedRun]


@pytest.fixture
def make(photos: Path, pipeline_folder: Path, tmp_path: Path) -> Make:
    def attack(*changes: str, **others: Any) -> PreparedRun:
        usual: dict[str, Any] = {"cache": tmp_path / "cache", "limit": 2}
        return prepare_run(small_settings(photos, pipeline_folder, Path(), *SHORT, *changes, **(usual | others)))

    return attack


@pytest.mark.heavy
@pytest.mark.parametrize("method", fast_first(METHODS))
def test_the_next_run_makes_none_and_the_same_bytes(make: Make, made: list[int], tmp_path: Path, method: str) -> None:
    without = attack_prepared(make(*METHODS[method], cache=None), tmp_path / "without")
    prepared = make(*METHODS[method])
    first = attack_prepared(prepared, tmp_path / "first")
    assert made == [2, 2] * 2
    second = attack_prepared(prepared, tmp_path / "second")
    assert made == [2, 2] * 2 + [2], "the second run inverts its saved files alone"
    assert pngs(without.folder) == pngs(first.folder) == pngs(second.folder)
    assert untimed(without) == untimed(first) == untimed(second)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    assert not list((tmp_path / "cache").rglob("*.partial"))


class AskedError(Exception):
    pass


def asked(prepared: PreparedRun) -> str:
    """What names the first inversion of a run; nothing is attacked."""

    def ask(inputs: Mapping[str, Tensor], facts: Sequence[object], compute: object) -> NoReturn:
        raise AskedError(fingerprint_of(inputs, facts))

    items = list(prepared.plan)
    with pytest.raises(AskedError) as caught:
        replace(prepared.worker, inversions=ask).attack(items, [item.id for item in items])
    return str(caught.value)


@pytest.fixture(scope="module")
def usual(photos: Path, pipeline_folder: Path) -> str:
    return asked(prepare_run(small_settings(photos, pipeline_folder, Path(), *SHORT, limit=2)))


def test_runs_that_differ_in_the_attack_alone_share_inversions(make: Make, usual: str) -> None:
    assert usual == asked(make("optimiser.learning_rate=0.2", "optimiser.iterations=2", "seed=5"))


@pytest.mark.parametrize(
    "changes",
    [
        ("diffusion.denoising_steps=3",),
        ("diffusion.schedule_steps=10",),
        ("diffusion.guidance=2.5",),
        ("diffusion.pairing=compat",),
        ("diffusion.inversion_rounds=1",),
        ("reconstruction.method=negative_prompt",),
        NULL_TEXT,
        ("prompt.template=a painting of a {}",),
    ],
    ids=lambda changes: changes[0],
)
def test_other_settings_of_the_clean_path_make_their_own(make: Make, usual: str, changes: tuple[str, ...]) -> None:
    assert asked(make(*changes)) != usual


def test_other_batch_mates_make_their_own(make: Make, usual: str) -> None:
    """They decide the last bits."""
    assert asked(make(limit=1)) != usual


@pytest.mark.parametrize(
    "change", [{"weights": {"pipeline": "others"}}, {"threads": 2}, {"device": "cuda"}, {"software": {"torch": "1.0"}}]
)
def test_what_another_machine_or_model_has_made_is_not_found(make: Make, tmp_path: Path, change: Any) -> None:
    spec = make().worker.spec
    inputs = {"latents": torch.ones(1, 4)}
    computed: list[int] = []

    def compute() -> dict[str, Tensor]:
        computed.append(1)
        return {"stored.0": torch.ones(1)}

    for each in (spec, spec, spec.model_copy(update=change)):
        inversions_in(tmp_path / "cache", each)(inputs, ("facts",), compute)
    assert len(computed) == 2


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5),
        torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(3 * 4 * 5.0).reshape(1, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(2 * 3 * 4.0).reshape(2, 3, 4).transpose(0, 2),
        torch.tensor(1.5),
        torch.arange(6.0, dtype=torch.bfloat16),
    ],
    ids=["usual", "channels last", "channels last, one image", "turned round", "a number", "bfloat16"],
)
def test_what_is_found_lies_in_memory_as_it_was_made(tmp_path: Path, value: Tensor) -> None:
    """Convolutions give other last bits where it does not."""
    cache = InversionCache(tmp_path, ())
    for _ in range(2):
        (found,) = cache({"latents": value}, (), lambda: {"a.0": value}).values()
        assert torch.equal(found, value)
        assert (found.stride(), found.dtype) == (value.stride(), value.dtype)


def test_inputs_and_facts_decide(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path, ("weights",))
    one, other = {"latents": torch.ones(1, 4)}, {"latents": torch.tensor([[1, 1, 1, 1 + 2**-22]])}
    for value, (inputs, facts) in enumerate([(one, (1,)), (other, (1,)), (one, (2,)), (one, (1, ""))]):
        cache(inputs, facts, lambda value=value: {"stored.0": torch.full((3,), float(value))})

    def refuse() -> dict[str, Tensor]:
        raise AssertionError("it is there")

    found = [cache(inputs, facts, refuse)["stored.0"] for inputs, facts in [(one, (1,)), (other, (1,)), (one, (2,))]]
    assert [float(each[0]) for each in found] == [0, 1, 2]


@pytest.mark.parametrize("kept", fast_first([100, 0, 4, -1]))
def test_a_damaged_file_is_made_anew(make: Make, made: list[int], tmp_path: Path, kept: int) -> None:
    prepared = make()
    first = attack_prepared(prepared, tmp_path / "first")
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    second = attack_prepared(prepared, tmp_path / "second")
    assert made == [2, 2] * 2
    assert pngs(first.folder) == pngs(second.folder)
    assert path.read_bytes() == content


def test_what_is_kept_takes_no_gradient(make: Make, tmp_path: Path) -> None:
    """Nothing of the search for embeddings hangs on to what is attacked, made or found."""
    prepared = make(*NULL_TEXT)
    seen: list[dict[str, Tensor]] = []

    def watching(inputs: Any, facts: Any, compute: Any) -> dict[str, Tensor]:
        seen.append(prepared.worker.inversions(inputs, facts, compute))
        return seen[-1]

    worker = replace(prepared.worker, inversions=watching)
    for name in ("first", "second"):
        attack_prepared(replace(prepared, worker=worker), tmp_path / name)
    made, found = seen
    assert made.keys() == found.keys()
    for name, tensor in made.items():
        assert torch.equal(tensor, found[name])
        assert not tensor.requires_grad
        assert not found[name].requires_grad


@pytest.mark.parametrize("taken", ["file", "below a file", "read-only"])
def test_a_folder_that_cannot_be_written_is_one_line(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    (tmp_path / "taken").write_text("precious")
    cache = {"file": tmp_path / "taken", "below a file": tmp_path / "taken" / "x", "read-only": tmp_path / "cache"}
    original = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if "cache" in path.parts and mode == "wb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return original(path, mode, *rest, **named)

    if taken == "read-only":
        monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(RunError, match="cannot write to ") as caught:
        attack_prepared(make(cache=cache[taken]), tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "taken").read_text() == "precious"
