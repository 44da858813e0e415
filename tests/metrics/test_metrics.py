"""Metrics of single images, against their formulas and against piq."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from attnshift import downloaded
from attnshift.errors import UnavailableError
from attnshift.metrics import METRICS, budget_metric, metrics
from attnshift.metrics.metrics import dists, flat_noise, haarpsi, l2, linf, lpips_alex, ms_ssim, psnr, ssim
from hubs import empty_hubs
from later import later

piq = later("piq")
their_dists = later("torchmetrics.functional.image.dists")
torchvision = later("torchvision")
vgg = later("torchvision.models.vgg")

ALEX, VGG, SQUEEZE = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth", "squeezenet1_1-b8a52dc0.pth"
SMALLEST = {"ms_ssim": 176, "flat_noise": 8, "lpips-squeeze": 17, "lpips-alex": 31, "lpips-vgg": 16, "dists": 16}


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
    """Features with random weights, without the large layers behind them, as if their files had held them."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = {
            "alexnet": torchvision.models.AlexNet().features,
            "vgg16": vgg.make_layers(vgg.cfgs["D"]),
            "squeezenet1_1": torchvision.models.SqueezeNet("1_1").features,
        }
        checkpoints = empty_hubs(tmp_path_factory.mktemp("weights"), patch)
        for (name, layers), file in zip(features.items(), (ALEX, VGG, SQUEEZE), strict=True):
            for layer in layers.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)
            torch.save({f"features.{key}": value for key, value in layers.state_dict().items()}, checkpoints / file)
            model = SimpleNamespace(features=layers)
            patch.setattr(torchvision.models, name, lambda weights, model=model: model)
        patch.setattr(their_dists, "vgg16", torchvision.models.vgg16)
        patch.setattr(piq.perceptual, "vgg16", lambda pretrained, progress: SimpleNamespace(features=features["vgg16"]))
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


def test_haarpsi_against_piq(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(haarpsi(*pair), piq.haarpsi(*pair, reduction="none"), rtol=1e-4, atol=1e-5)


def test_noise_on_flat_ground_is_told_in_levels() -> None:
    """The left quarter is flat, the rest busy; each edit has noise of 4 levels, on one side or everywhere."""
    draw = torch.Generator().manual_seed(0)
    clean = 0.3 + 0.4 * torch.rand(3, 3, 64, 64, generator=draw)
    clean[..., :16] = 0.5
    noise = 4 / 255 * torch.randn(clean.shape, generator=draw)
    edit = clean + noise
    edit[1, ..., 16:] = clean[1, ..., 16:]
    edit[2, ..., :16] = clean[2, ..., :16] + 0.1
    values = flat_noise(clean, edit)
    assert values[:2].tolist() == pytest.approx([4, 4], rel=0.03)
    assert values[2] == pytest.approx(0, abs=0.01), "busy ground hides it, and another shade is no noise"
    assert flat_noise(edit, clean)[1] == pytest.approx(0, abs=0.01), "less noise is none"


def test_equally_flat_patches_all_count() -> None:
    clean = torch.full((1, 3, 64, 64), 0.5)
    edit = clean.clone()
    edit[..., 32:, :] += 4 / 255 * (torch.arange(64) % 2 * 2 - 1)
    assert flat_noise(clean, edit).item() == pytest.approx(2, rel=1e-3)


def test_lpips_against_piq(networks: dict[str, nn.Sequential], pair: tuple[Tensor, Tensor]) -> None:
    """On AlexNet's features with the weights of LPIPS' layers, which torchmetrics brings."""
    layers = downloaded.load_lpips("alex").lins
    weights = [layer.model[-1].weight for layer in layers]
    assert len(weights) == 5
    theirs = piq.ContentLoss(
        networks["alexnet"][:12], ["1", "4", "7", "9", "11"], weights, reduction="none", normalize_features=True
    )
    values = lpips_alex(*pair)
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
    best = float("inf") if name == "psnr" else float(budget_metric(name).higher_is_better)
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


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("networks")
def test_the_table_says_which_direction_is_better_and_what_has_a_gradient(name: str) -> None:
    side = max(24, SMALLEST[name]) if name in SMALLEST else 24
    clean, _ = pairs(side, side)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    stated, metric = budget_metric(name), METRICS[name].load()
    slight, strong = (metric(clean, (clean + size * noise).clamp(0, 1)) for size in (0.05, 0.3))
    assert bool((slight > strong if stated.higher_is_better else slight < strong).all())
    if stated.differentiable:
        for reference in (clean, torch.full_like(clean, 0.5)):
            for edit in (reference, (reference + 0.1 * noise).clamp(0, 1)):
                assert slope(metric, reference, edit).isfinite().all()
        assert (slope(metric, clean, clean + 0.1 * noise) != 0).float().mean() > 0.5


def slope(metric: metrics.Metric, reference: Tensor, edit: Tensor) -> Tensor:
    leaf = edit.clone().requires_grad_()
    return torch.autograd.grad(metric(reference, leaf).sum(), leaf)[0]


@pytest.mark.parametrize(
    ("name", "file"), [("lpips-squeeze", SQUEEZE), ("lpips-alex", ALEX), ("lpips-vgg", VGG), ("dists", VGG)]
)
def test_weights_that_are_not_there(name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = empty_hubs(tmp_path, monkeypatch)
    with pytest.raises(UnavailableError) as caught:
        METRICS[name].load()(*pairs(48, 48))
    message = str(caught.value)
    assert message.startswith("needs torchvision's ")
    assert f"{checkpoints / file} is missing; put https://download.pytorch.org/models/{file} there" in message
    assert "\n" not in message
