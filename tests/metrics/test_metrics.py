"""Metrics of single images, against their formulas and against piq."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import piq
import pytest
import torch
import torchmetrics.functional.image.dists
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torchvision.models import vgg

from attnshift import downloaded
from attnshift.errors import UnavailableError
from attnshift.metrics import METRICS, metrics
from attnshift.metrics.metrics import dists, l2, linf, lpips, ms_ssim, psnr, ssim
from hubs import empty_hubs

ALEX, VGG = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"
SMALLEST = {"ms_ssim": 176, "lpips": 31, "dists": 16}


def pairs(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Three images and their edits, each edit stronger than the one before."""
    generator = torch.Generator().manual_seed(0)
    shades = interpolate(torch.rand(3, 3, 8, 6, generator=generator), (rows, columns), mode="bicubic").clamp(0, 1)
    strength = torch.tensor([0.02, 0.1, 0.5]).view(3, 1, 1, 1)
    return shades, (shades + strength * torch.randn(shades.shape, generator=generator)).clamp(0, 1)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return pairs(48, 40)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, nn.Sequential]]:
    """AlexNet's and VGG's features with random weights, as if their files had held them."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = {"alexnet": torchvision.models.AlexNet().features, "vgg16": vgg.make_layers(vgg.cfgs["D"])}
        for layer in (layer for each in features.values() for layer in each):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        checkpoints = empty_hubs(tmp_path_factory.mktemp("weights"), patch)
        for file in (ALEX, VGG):
            (checkpoints / file).touch()
        patch.setattr(torchvision.models, "alexnet", lambda weights: SimpleNamespace(features=features["alexnet"]))
        give = SimpleNamespace(features=features["vgg16"])
        patch.setattr(torchmetrics.functional.image.dists, "vgg16", lambda weights: give)
        patch.setattr(piq.perceptual, "vgg16", lambda pretrained, progress: give)
        yield features


def naive_ssim(reference: Tensor, candidate: Tensor) -> float:
    """SSIM of one image in float64: Wang et al. 2004, equation 13; 11 pixels, sigma 1.5.

    Borders are reflected, as torchmetrics does; the paper's code leaves them out.
    """
    axis = torch.arange(-5, 6).double()
    window = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = torch.outer(window, window) / window.sum() ** 2

    def local(values: Tensor) -> Tensor:
        padded = pad(values.double().unsqueeze(1), (5, 5, 5, 5), mode="reflect")
        return torch.nn.functional.conv2d(padded, window[None, None])

    mean_x, mean_y = local(reference), local(candidate)
    square_x, square_y = local(reference.double() ** 2) - mean_x**2, local(candidate.double() ** 2) - mean_y**2
    product = local(reference.double() * candidate.double()) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_x * mean_y + c1) * (2 * product + c2)
    return float((index / ((mean_x**2 + mean_y**2 + c1) * (square_x + square_y + c2))).mean())


def test_ssim_against_the_formula(pair: tuple[Tensor, Tensor]) -> None:
    expected = [naive_ssim(*both) for both in zip(*pair, strict=True)]
    assert ssim(*pair).tolist() == pytest.approx(expected, abs=1e-4)
    assert expected[0] > 0.9 > 0.6 > expected[2]


def test_ssim_against_piq(pair: tuple[Tensor, Tensor]) -> None:
    """piq leaves the borders out, so it gets reflected borders."""
    reflected = (pad(each, (5, 5, 5, 5), mode="reflect") for each in pair)
    torch.testing.assert_close(ssim(*pair), piq.ssim(*reflected, downsample=False, reduction="none"))


def test_ms_ssim_against_piq() -> None:
    """piq leaves out the borders of the coarsest scale too."""
    pair = pairs(176, 192)
    values = ms_ssim(*pair)
    torch.testing.assert_close(values, piq.multi_scale_ssim(*pair, reduction="none"), atol=2e-3, rtol=0)
    assert values[0] > 0.97 > 0.9 > values[1] > 0.6 > values[2]


def test_psnr_against_the_formula_and_piq(pair: tuple[Tensor, Tensor]) -> None:
    errors = [float((x.double() - y.double()).square().mean()) for x, y in zip(*pair, strict=True)]
    expected = [float(-10 * torch.log10(torch.tensor(error))) for error in errors]
    assert psnr(*pair).tolist() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(psnr(*pair), piq.psnr(*pair, reduction="none"), rtol=1e-5, atol=0)


def test_l2_and_linf_of_a_known_change() -> None:
    image = torch.full((2, 3, 16, 16), 0.5)
    edit = image.clone()
    edit[1, 0, 0, 0] += 0.3
    edit[1, 2, 5, 5] -= 0.4
    assert l2(image, edit).tolist() == pytest.approx([0, 0.5])
    assert linf(image, edit).tolist() == pytest.approx([0, 0.4])


def test_lpips_against_piq(networks: dict[str, nn.Sequential], pair: tuple[Tensor, Tensor]) -> None:
    """On AlexNet's features with the weights of LPIPS' layers, which torchmetrics brings."""
    layers = downloaded.load_lpips("alex").lins
    weights = [layer.model[-1].weight for layer in layers]
    assert len(weights) == 5
    theirs = piq.ContentLoss(
        networks["alexnet"][:12], ["1", "4", "7", "9", "11"], weights, reduction="none", normalize_features=True
    )
    values = lpips(*pair)
    torch.testing.assert_close(values, theirs(*pair).flatten(), rtol=1e-4, atol=1e-6)
    assert 0 < values[0] < values[1] < values[2]


def test_dists_against_piq(
    networks: dict[str, nn.Sequential], pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both bring the weights of the paper's means and correlations; piq's come with a download."""
    ours = downloaded.load_dists()
    weights = {"alpha": ours.alpha, "beta": ours.beta}
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, progress: weights)
    values = dists(*pair)
    torch.testing.assert_close(values, piq.DISTS(reduction="none")(*pair).flatten(), rtol=1e-4, atol=1e-6)
    assert 0 < values[0] < values[1] < values[2] < 1


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("networks")
def test_equal_images(name: str) -> None:
    side = max(24, SMALLEST.get(name, 0))
    image = pairs(side, side)[0]
    values = METRICS[name].load()(image, image)
    best = 1.0 if name.endswith("ssim") else float("inf") if name == "psnr" else 0.0
    assert values.tolist() == pytest.approx([best] * 3, abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("networks")
def test_one_value_per_image_that_batch_mates_do_not_change(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_TOGETHER", 2)
    side = max(24, SMALLEST.get(name, 0))
    pair = pairs(side, side + 8)
    metric = METRICS[name].load()
    together = metric(*pair)
    alone = [metric(x[None], y[None]) for x, y in zip(*pair, strict=True)]
    assert together.shape == (3,)
    assert all(value.shape == (1,) for value in alone)
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.usefixtures("networks")
def test_images_that_are_too_small(name: str) -> None:
    metric, least = METRICS[name].load(), SMALLEST[name]
    assert metric(*pairs(least, least)).isfinite().all()
    with pytest.raises(UnavailableError) as caught:
        metric(*pairs(least, least - 1))
    assert str(caught.value) == (
        f"needs images of at least {least} x {least} pixels, and these have {least} x {least - 1}"
    )


@pytest.mark.parametrize(("name", "file"), [("lpips", ALEX), ("dists", VGG)])
def test_weights_that_are_not_there(name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = empty_hubs(tmp_path, monkeypatch)
    with pytest.raises(UnavailableError) as caught:
        METRICS[name].load()(*pairs(48, 48))
    message = str(caught.value)
    assert message.startswith("needs torchvision's ")
    assert f"{checkpoints / file} is missing; put https://download.pytorch.org/models/{file} there" in message
    assert "\n" not in message
