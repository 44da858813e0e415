"""Runs with masks of the user's own: when they are refused, and that they decide where an image is changed."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.classifiers import load_classifier
from attnshift.cli import main
from attnshift.data.images import read_image, write_png
from attnshift.errors import LabelError, ModelError, RunError, UserError
from attnshift.execution.coordinate import attack_folder
from attnshift.results.store import Store
from small_runs import SHORT_PATH, SIDE, SURROGATE, Told, contents, pngs, run_small, small_settings
from tables import records

if TYPE_CHECKING:
    from attnshift.execution.settings import AttackSettings

GIVEN = ("mask.source=given", "mask.edge=hard", "mask.paste_back=true", "optimiser.learning_rate=0.1")


def box(number: int) -> Tensor:
    """The mask of photo ``number``, [1,side,side]: a square of its own."""
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 8 * number : 8 * number + 24, 16:48] = 1
    return mask


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of the three photos."""
    folder = tmp_path_factory.mktemp("masks")
    for number in (1, 2, 3):
        write_png(folder / f"photo-{number}.png", box(number).expand(3, SIDE, SIDE), {})
    return folder


@pytest.fixture(scope="session")
def masked(photos: Path, masks: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run with these masks. Not to be written to."""
    out = tmp_path_factory.mktemp("masked") / "run"
    return run_small(small_settings(photos, pipeline_folder, out, *GIVEN, masks=masks))


def refused(settings: AttackSettings, error: type[UserError]) -> str:
    with pytest.raises(error) as caught:
        run_small(settings)
    assert len(str(caught.value).splitlines()) == 1
    assert not settings.out.exists()
    return str(caught.value)


@pytest.mark.parametrize("source", ["none", "attention", "gradcam"])
def test_masks_without_use_are_refused(
    photos: Path, masks: Path, pipeline_folder: Path, tmp_path: Path, source: str
) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", f"mask.source={source}", masks=masks)
    message = refused(settings, UserError)
    assert f"`masks` is {masks}, which this recipe does not read" in message
    assert "mask.source=given" in message


def test_a_given_mask_without_masks_is_refused(photos: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", *GIVEN)
    assert "set `masks` to their folder" in refused(settings, UserError)


def test_a_mask_that_is_missing_is_noticed_before_anything_is_written(
    photos: Path, masks: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    """The last image's: the first two would have been attacked."""
    copy = shutil.copytree(masks, tmp_path / "masks")
    (copy / "photo-1.png").unlink()
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", *GIVEN, masks=copy)
    assert "photo-1.png does not exist" in refused(settings, LabelError)


def test_a_mask_that_cannot_be_read_fails_with_its_image(
    photos: Path, masks: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(masks, tmp_path / "masks")
    whole = (copy / "photo-1.png").read_bytes()
    (copy / "photo-1.png").write_bytes(whole[: len(whole) // 2])
    store = run_small(small_settings(photos, pipeline_folder, tmp_path / "run", *GIVEN, masks=copy))
    assert [row["file"] for row in records(store, "results")] == ["photo-3.png", "photo-2.png"]
    (failed,) = records(store, "failed")
    assert failed["reason"].startswith("the mask of photo-1.png: not a readable image")


def test_a_surrogate_without_grad_cam_is_noticed_before_anything_is_written(
    photos: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mapless(name: str) -> Any:
        classifier = load_classifier(name)
        return replace(classifier, network=nn.Sequential(classifier.network))

    monkeypatch.setattr("attnshift.defences.names.load_classifier", mapless)
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", "mask.source=gradcam")
    assert "no Grad-CAM for classifier" in refused(settings, ModelError)


def test_only_the_pixels_inside_the_masks_are_changed(masked: Store) -> None:
    rows = records(masked, "results")
    assert [row["file"] for row in rows] == ["photo-3.png", "photo-2.png", "photo-1.png"]
    for row in rows:
        clean, attacked = (read_image(masked.image_path(row["id"], arm), SIDE) for arm in ("clean", "attack"))
        changed = (clean != attacked).any(0, keepdim=True)
        mask = box(int(row["file"][6])) > 0
        assert not (changed & ~mask).any()
        assert (changed & mask).sum() > 0.2 * mask.sum()


@pytest.mark.heavy
def test_an_interrupted_run_with_masks_is_continued(
    masked: Store, photos: Path, masks: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", *GIVEN, masks=masks)
    with pytest.raises(KeyboardInterrupt):
        attack_folder(settings, Told(stop=1).telemetry())
    assert Store.open(settings.out).count() == 2, "a batch is saved before its first image is reported"
    store = run_small(settings)
    assert pngs(store.folder) == pngs(masked.folder)
    before = contents(store.folder)
    run_small(settings)
    assert contents(store.folder) == before


@pytest.mark.heavy
def test_the_same_masks_elsewhere_continue_a_run_and_other_masks_are_another_run(
    masked: Store, photos: Path, masks: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(masks, tmp_path / "masks")
    before = contents(masked.folder)
    run_small(small_settings(photos, pipeline_folder, masked.folder, *GIVEN, masks=copy))
    assert contents(masked.folder) == before
    for number in (1, 2, 3):
        write_png(copy / f"photo-{number}.png", (1 - box(number)).expand(3, SIDE, SIDE), {})
    with pytest.raises(RunError, match="holds another run: none of these images belongs to it"):
        run_small(small_settings(photos, pipeline_folder, masked.folder, *GIVEN, masks=copy))
    assert contents(masked.folder) == before


def test_a_mask_that_is_corrected_is_taken_in(
    masked: Store, photos: Path, masks: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    """Its image alone is attacked again, and keeps to the new mask."""
    copy = shutil.copytree(masks, tmp_path / "masks")
    out = shutil.copytree(masked.folder, tmp_path / "run")
    write_png(copy / "photo-2.png", (1 - box(2)).expand(3, SIDE, SIDE), {})
    store = run_small(small_settings(photos, pipeline_folder, out, *GIVEN, masks=copy))
    old, new = records(masked, "results"), records(store, "results")
    assert [row["file"] for row in new] == ["photo-3.png", "photo-1.png", "photo-2.png"]
    assert new[:2] == [row for row in old if row["file"] != "photo-2.png"]
    kept = pngs(masked.folder)
    assert {name: content for name, content in pngs(out).items() if name in kept} == kept
    clean, attacked = (read_image(store.image_path(new[2]["id"], arm), SIDE) for arm in ("clean", "attack"))
    changed = (clean != attacked).any(0, keepdim=True)
    assert changed.any()
    assert not (changed & (box(2) > 0)).any()


@pytest.fixture
def signals() -> Iterator[None]:
    """The command line takes signals over; give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_the_command_line_hands_masks_over_and_complains_in_one_line(
    masked: Store,
    photos: Path,
    masks: Path,
    pipeline_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call(out: Path, *more: str) -> tuple[int, str]:
        arguments = [
            "attnshift", "attack", photos / "images", "--labels", photos / "labels.csv", "--pipeline", pipeline_folder,
            "--surrogate", SURROGATE, "--preset", "quick", "--out", out, "--batch", "2", "--set",
            "optimiser.iterations=2", "--set", "finish.keep=last", "--set", SHORT_PATH, *more,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(each) for each in arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr().err

    given = [part for setting in GIVEN for part in ("--set", setting)]
    before = contents(masked.folder)
    status, _ = call(masked.folder, "--masks", str(masks), *given)
    assert (status, contents(masked.folder)) == (0, before), "the very run that is finished already"
    for arguments, message in ((given, "set --masks to their folder"), (["--masks", str(masks)], "does not read")):
        status, said = call(tmp_path / "run", *arguments)
        assert status == 2
        assert len(said.splitlines()) == 1
        assert message in said
        assert not (tmp_path / "run").exists()
