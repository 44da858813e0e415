"""Weights of LPIPS in a folder of the user's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attnshift.cli import main
from attnshift.downloaded import load_lpips
from attnshift.errors import UnavailableError
from attnshift.weights_folder import WEIGHTS_FILES, LpipsNetwork, choose_folder
from hubs import empty_hubs
from later import later

models = later("torchvision.models")

SAFETENSORS, PUBLISHED = WEIGHTS_FILES["squeeze"].names


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNSHIFT_WEIGHTS", "")
    return empty_hubs(tmp_path / "hubs", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return models.SqueezeNet("1_1").state_dict()


@pytest.mark.parametrize("network", WEIGHTS_FILES)
def test_the_names_are_those_of_torchvision(network: LpipsNetwork) -> None:
    file = WEIGHTS_FILES[network]
    assert models.get_model_weights(file.model)["DEFAULT"].url.endswith(f"/{file.file}")


def test_half_precision_in_the_folder_comes_before_the_cache(folder: Path, checkpoints: Path) -> None:
    torch.save(weights(0), checkpoints / PUBLISHED)
    mine = {name: value.half() for name, value in weights(1).items()}
    save_file(mine, folder / SAFETENSORS)
    assert choose_folder(folder) == (
        f"weights in {folder}: found {SAFETENSORS}; not found alexnet.safetensors, vgg16.safetensors"
    )
    loaded = load_lpips("squeeze").net.state_dict()["slices.0.0.weight"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, mine["features.0.weight"].float())


def test_the_published_file_is_read_in_the_folder_too(folder: Path) -> None:
    torch.save(weights(0), folder / PUBLISHED)
    assert f"found {PUBLISHED};" in choose_folder(folder)
    assert load_lpips("squeeze").net.state_dict()["slices.0.0.weight"].shape == (64, 3, 3, 3)


def test_what_the_folder_lacks_is_told_with_the_file_to_put_there(folder: Path, checkpoints: Path) -> None:
    choose_folder(folder)
    with pytest.raises(UnavailableError) as caught:
        load_lpips("squeeze")
    assert str(caught.value).startswith(
        f"needs torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1, which {folder} does not hold, "
        f"and {checkpoints / PUBLISHED} is missing; put "
    )


@pytest.mark.parametrize("shape", [(2,), None], ids=["other shape", "no such weight"])
def test_other_weights_are_refused_in_one_line(folder: Path, shape: tuple[int, ...] | None) -> None:
    given = weights(0)
    if shape:
        given["features.0.weight"] = torch.zeros(shape)
    else:
        del given["features.0.weight"]
    save_file(given, folder / SAFETENSORS)
    choose_folder(folder)
    refused = r"safetensors cannot be used as weights of lpips network 'squeeze'"
    with pytest.raises(UnavailableError, match=refused) as caught:
        load_lpips("squeeze")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("there", [True, False])
def test_the_option_of_every_command(
    folder: Path, there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = folder if there else folder / "none"
    monkeypatch.setattr(sys, "argv", ["attnshift", "--weights", str(named), "list", "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    if there:
        assert not caught.value.code
        assert printed.err.startswith(f"attnshift: weights in {folder}: not found alexnet.safetensors, ")
    else:
        assert caught.value.code == 2
        assert printed.err == f"attnshift: {named}: no such folder of weights\n"
