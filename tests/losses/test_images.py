"""Terms on the pixels against PyWavelets, piq and torchmetrics, and by their properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy
import pytest
import torch
from torch import Tensor

from attnshift.errors import ModelError
from attnshift.losses import TERMS
from attnshift.losses.images import L2, Frequency, Lpips, Perceptual
from attnshift.losses.objective import LossTerm
from attnshift.registry import build
from attnshift.sizes import Size
from attnshift.types import Branch, Observation, RandomKey
from hubs import empty_hubs
from later import later

piq = later("piq")
pywt = later("pywt")
torchvision = later("torchvision")
lpips = later("torchmetrics.functional.image.lpips")

OFFLINE: dict[str, LossTerm] = {
    "laplacian": Frequency(against="image"),
    "haar": Frequency("wavelet", "image", "haar", 2),
    "db2": Frequency("wavelet", "image", "db2", 1),
    "l2": L2(),
    "perceptual": Perceptual(),
}
SQUEEZE = "squeezenet1_1-b8a52dc0.pth"


@pytest.fixture(params=OFFLINE.values(), ids=list(OFFLINE))
def term(request: pytest.FixtureRequest) -> LossTerm:
    return request.param


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hubs(tmp_path, monkeypatch)


@pytest.fixture
def squeeze(checkpoints: Path) -> Lpips:
    """LPIPS over a SqueezeNet with random weights."""
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), checkpoints / SQUEEZE)
    return Lpips("squeeze")


def pictures(seed: int, rows: int = 24, columns: int = 32, batch: int = 3) -> Tensor:
    """Smooth shades with some noise, in [0.1,0.9]."""
    draw = torch.Generator().manual_seed(seed)
    shades = torch.nn.functional.interpolate(
        torch.rand(batch, 3, 4, 4, generator=draw), (rows, columns), mode="bicubic"
    )
    return (shades + 0.1 * torch.randn(batch, 3, rows, columns, generator=draw)).clamp(0.1, 0.9)


def observe(
    changed: Tensor, clean: Tensor, reconstruction: Tensor | None = None, weights: Tensor | None = None
) -> Observation:
    none = torch.zeros(len(clean), 4, 3, 4)
    return Observation(
        images=clean,
        clean=Branch(none, clean if reconstruction is None else reconstruction, {}),
        adversarial=Branch(none, changed, {}),
        tokens=((1,),) * len(clean),
        progress=0.5,
        key=RandomKey(0, tuple(map(str, range(len(clean)))), 0),
        weights=torch.ones_like(clean[:, :1]) if weights is None else weights,
    )


def gradient(term: LossTerm, changed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    leaf = changed.clone().requires_grad_()
    values = term(observe(leaf, clean))
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def check_unchanged(term: LossTerm, clean: Tensor) -> None:
    values, slope = gradient(term, clean, clean)
    assert torch.equal(values, torch.zeros(len(clean)))
    assert torch.equal(slope, torch.zeros_like(clean))


def check_per_image(term: LossTerm, changed: Tensor, clean: Tensor) -> None:
    values = term(observe(changed, clean))
    assert values.shape == (len(clean),)
    assert values.dtype == torch.float32
    for at in range(len(clean)):
        alone = term(observe(changed[at : at + 1], clean[at : at + 1]))
        torch.testing.assert_close(alone, values[at : at + 1], rtol=1e-5, atol=1e-7)


def check_descent(term: LossTerm, changed: Tensor, clean: Tensor) -> None:
    """Twenty plain gradient steps lower the value of every image by a quarter and more."""
    first, slope = gradient(term, changed, clean)
    scale = 0.03 * first / slope.square().sum((1, 2, 3))
    for _ in range(20):
        changed = changed - scale[:, None, None, None] * gradient(term, changed, clean)[1]
    assert bool((term(observe(changed, clean)) < 0.75 * first).all())


def test_the_table_builds_each_term_and_none_reads_attention(squeeze: Lpips) -> None:
    options = {
        "frequency": {"kind": "wavelet", "levels": 2},
        "l2": {},
        "perceptual": {},
        "lpips": {"network": "squeeze"},
    }
    built = {name: build(TERMS, name, chosen) for name, chosen in options.items()}
    for each in built.values():
        assert isinstance(each, LossTerm)
        assert each.sites((), Size.of(8)) == ()
        assert not each.reads_interference
    assert built["lpips"] == squeeze


def test_nothing_changed_is_zero_without_a_gradient(term: LossTerm) -> None:
    check_unchanged(term, pictures(0))


@pytest.mark.parametrize("shade", [0.0, 0.5, 1.0])
def test_nothing_changed_in_a_flat_image_is_zero_without_a_gradient(term: LossTerm, shade: float) -> None:
    check_unchanged(term, torch.full((2, 3, 24, 32), shade))


def test_a_slight_change_of_a_black_image_has_a_finite_gradient(term: LossTerm) -> None:
    values, slope = gradient(term, 1e-4 * pictures(1), torch.zeros(3, 3, 24, 32))
    assert bool((values > 0).all())
    assert bool(slope.isfinite().all())


def test_one_value_per_image(term: LossTerm) -> None:
    check_per_image(term, pictures(1), pictures(0))


def test_gradient_steps_lower_it(term: LossTerm) -> None:
    clean = pictures(0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    check_descent(term, clean + 0.05 * noise, clean)


def test_more_noise_costs_more(term: LossTerm) -> None:
    clean = pictures(0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    values = torch.stack([term(observe(clean + size * noise, clean)) for size in (0.01, 0.02, 0.04, 0.08)])
    assert bool((values.diff(dim=0) > 0).all())
    assert bool((values < 1).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(term: LossTerm, dtype: torch.dtype) -> None:
    changed, clean = pictures(1).to(dtype), pictures(0).to(dtype)
    assert torch.equal(term(observe(changed, clean)), term(observe(changed.float(), clean.float())))


def test_gradients_match_finite_differences(term: LossTerm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    clean = pictures(0, 8, 8, 1).double()
    changed = pictures(1, 8, 8, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda each: term(observe(each, clean)), changed)


def laplacian(images: numpy.ndarray) -> numpy.ndarray:
    """Neighbours less four times the pixel, borders repeated, along the last two axes."""
    around = numpy.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    neighbours = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
    return neighbours - 4 * images


def half_object() -> Tensor:
    """1 in the left half, 0.1 in the right one."""
    return torch.cat([torch.ones(3, 1, 24, 16), torch.full((3, 1, 24, 16), 0.1)], 3)


def test_laplacian_is_a_weighted_mean_of_absolute_differences() -> None:
    changed, clean, weights = pictures(1), pictures(0), half_object()
    differences = numpy.abs(laplacian(changed.double().numpy()) - laplacian(clean.double().numpy())).mean((1,))
    expected = [numpy.average(each, weights=under) for each, under in zip(differences, weights[:, 0], strict=True)]
    values = Frequency(against="image")(observe(changed, clean, weights=weights))
    torch.testing.assert_close(values.double(), torch.tensor(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("size", [(48, 64), (45, 62)])
def test_wavelet_details_are_those_of_pywavelets(
    wavelet: Literal["haar", "db2"], levels: int, size: tuple[int, int]
) -> None:
    changed, clean = pictures(1, *size), pictures(0, *size)
    _, *details = pywt.wavedec2((changed - clean).double().numpy(), wavelet, mode="periodization", level=levels)
    means = [numpy.mean([numpy.abs(band).mean((1, 2, 3)) for band in bands], axis=0) for bands in details]
    values = Frequency("wavelet", "image", wavelet, levels)(observe(changed, clean))
    torch.testing.assert_close(values.double(), torch.from_numpy(numpy.mean(means, axis=0)), rtol=1e-5, atol=1e-7)


def test_each_wavelet_coefficient_is_that_of_pywavelets_and_counts_as_its_pixels_do() -> None:
    changed, clean = pictures(1), pictures(0)
    weights = torch.rand(3, 1, 24, 32, generator=torch.Generator().manual_seed(3)) + 0.1
    _, bands = pywt.dwt2((changed - clean).double().numpy(), "db2", mode="periodization")
    pooled = weights.double().numpy().reshape(3, 12, 2, 16, 2).mean((2, 4))
    magnitudes = numpy.mean([numpy.abs(band).mean(1) for band in bands], axis=0)
    expected = (magnitudes * pooled).sum((1, 2)) / pooled.sum((1, 2))
    values = Frequency("wavelet", "image", "db2")(observe(changed, clean, weights=weights))
    torch.testing.assert_close(values.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["laplacian", "haar", "db2"])
def test_detail_outside_the_object_counts_less(name: str) -> None:
    clean, noise = pictures(0), 0.1 * torch.randn(3, 3, 16, 8, generator=torch.Generator().manual_seed(5))
    inside, outside = clean.clone(), clean.clone()
    inside[:, :, 4:20, 4:12] += noise
    outside[:, :, 4:20, 20:28] += noise
    on, off = (OFFLINE[name](observe(each, clean, weights=half_object())) for each in (inside, outside))
    torch.testing.assert_close(off, 0.1 * on)


def test_frequency_is_measured_against_what_is_asked_for() -> None:
    clean, reconstruction = pictures(0), pictures(2)
    observed = observe(reconstruction, clean, reconstruction)
    assert torch.equal(Frequency()(observed), torch.zeros(3))
    assert bool((Frequency(against="image")(observed) > 0.01).all())
    assert torch.equal(Frequency(against="image")(replace(observed, images=reconstruction)), torch.zeros(3))


def test_l2_is_the_root_mean_square() -> None:
    changed, clean = pictures(1), pictures(0)
    expected = (changed - clean).double().square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(L2()(observe(changed, clean)).double(), expected, rtol=1e-6, atol=0)
    assert float(L2()(observe(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))) == pytest.approx(1)


@pytest.mark.parametrize("size", [(64, 64), (45, 38)])
@pytest.mark.parametrize("strength", [0.02, 0.2, 1.0])
def test_perceptual_is_one_less_piqs_haarpsi(size: tuple[int, int], strength: float) -> None:
    changed, clean = torch.lerp(pictures(0, *size), pictures(1, *size), strength), pictures(0, *size)
    expected = 1 - piq.haarpsi(changed.double(), clean.double(), reduction="none")
    torch.testing.assert_close(Perceptual()(observe(changed, clean)).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "weights", "file"),
    [
        ("alex", "AlexNet_Weights.IMAGENET1K_V1", "alexnet-owt-7be5be79.pth"),
        ("vgg", "VGG16_Weights.IMAGENET1K_V1", "vgg16-397923af.pth"),
        ("squeeze", "SqueezeNet1_1_Weights.IMAGENET1K_V1", SQUEEZE),
    ],
)
def test_lpips_without_weights_is_one_line_at_construction(
    checkpoints: Path, network: str, weights: str, file: str
) -> None:
    with pytest.raises(ModelError) as caught:
        build(TERMS, "lpips", {"network": network})
    assert str(caught.value) == (
        f"loss term 'lpips' with network '{network}': needs torchvision's {weights}, and {checkpoints / file} is "
        f"missing; put https://download.pytorch.org/models/{file} there (TORCH_HOME moves the folder); the term "
        "'perceptual' needs none"
    )


class Malicious:
    """What an unrestricted unpickler would call."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("ran code out of a file of weights",)


@pytest.mark.parametrize("content", [Malicious(), {"features.0.weight": torch.zeros(2)}, torch.zeros(2)])
def test_lpips_refuses_a_file_that_holds_no_such_weights(checkpoints: Path, content: object) -> None:
    torch.save(content, checkpoints / SQUEEZE)
    with pytest.raises(ModelError, match="cannot be used as weights of lpips network 'squeeze'") as caught:
        Lpips("squeeze")
    assert "\n" not in str(caught.value)


def test_lpips_refuses_a_truncated_file(checkpoints: Path) -> None:
    (checkpoints / SQUEEZE).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelError, match="cannot be used as weights"):
        Lpips("squeeze")


def test_lpips_is_that_of_torchmetrics_image_by_image(squeeze: Lpips) -> None:
    changed, clean = pictures(1, 64, 64), pictures(0, 64, 64)
    expected = lpips.learned_perceptual_image_patch_similarity(
        changed, clean, "squeeze", reduction="none", normalize=True
    )
    assert isinstance(expected, Tensor)
    values = squeeze(observe(changed, clean))
    assert bool((values > 0).all())
    torch.testing.assert_close(values, expected)
    check_per_image(squeeze, changed, clean)


def test_lpips_properties(squeeze: Lpips) -> None:
    clean = pictures(0, 64, 64)
    check_unchanged(squeeze, clean)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    check_descent(squeeze, clean + 0.05 * noise, clean)
    assert squeeze(observe(clean.bfloat16(), clean)).dtype == torch.float32


def test_lpips_loads_its_network_once(squeeze: Lpips) -> None:
    from attnshift.downloaded import load_lpips

    network = load_lpips("squeeze")
    assert Lpips("squeeze") == squeeze
    assert load_lpips("squeeze") is network
    assert not network.training
    assert not any(each.requires_grad for each in network.parameters())
