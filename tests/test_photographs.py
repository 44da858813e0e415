"""The material of the study of photographs: its layout, and what real weights see in real photographs."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.data.images import read_image
from attnshift.metrics.metrics import flat_noise, lpips_squeeze
from attnshift.weights_folder import choose_folder
from later import later

described = later("attnshift.classifiers.described")

PREPARE = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "photographs" / "prepare.py"))
PREPROCESSING = {"size": 224, "crop_pct": 0.875, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}


def made_up(folder: Path) -> Path:
    """A folder laid out as the material is, without weights and photographs."""
    (folder / "classifiers").mkdir(parents=True)
    for name in PREPARE["NETWORKS"]:
        (folder / "classifiers" / f"{name}.safetensors").touch()
        # The text that says how to create a network is never run.
        values: dict[str, Any] = {"create": "pytest.fail('it ran')", "preprocessing": PREPROCESSING | {"more": 1}}
        (folder / "classifiers" / f"{name}.json").write_text(json.dumps(values))
    for labels in PREPARE["LABELS"].values():
        path = folder / "photos" / labels
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [("a-0.png", 3, "ball"), ("a-1.png", 3, "ball"), ("a-2.png", 3, "ball"), ("b-0.png", 7, "mug")]
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([("file", "label", "class_name"), *rows])
    return folder


def test_the_material_is_put_into_our_layout(tmp_path: Path) -> None:
    material = made_up(tmp_path / "material")
    for _ in range(2):
        PREPARE["main"](material, tmp_path / "out")
    descriptions = sorted((tmp_path / "out" / "classifiers").glob("*.json"))
    assert len(descriptions) == 8
    for path in descriptions:
        assert path.with_suffix(".safetensors").resolve() == (material / "classifiers" / f"{path.stem}.safetensors")
        assert len(described.read_description(path).names_of(1000)) == 1000
    assert "found squeezenet1_1.safetensors" in choose_folder(tmp_path / "out" / "lpips")
    for name in PREPARE["LABELS"]:
        with (tmp_path / "out" / "photos" / f"{name}.csv").open(newline="") as stream:
            assert [row["file"] for row in csv.DictReader(stream)] == ["a-0.png", "b-0.png", "a-1.png", "a-2.png"]


@pytest.fixture(scope="module")
def prepared(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("photographs")
    PREPARE["main"](material, out)
    return out


def photographs(prepared: Path, count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    with (prepared / "photos" / "imagenette-test.csv").open(newline="") as stream:
        rows = [*csv.DictReader(stream)][:count]
    images = [read_image(prepared / "photos" / "imagenette" / row["file"], side) for row in rows]
    return torch.stack(images), torch.tensor([int(row["label"]) for row in rows])


@pytest.mark.heavy
@pytest.mark.parametrize("name", PREPARE["NETWORKS"])
@torch.no_grad()
def test_real_networks_name_real_photographs(name: str, prepared: Path) -> None:
    images, labels = photographs(prepared, 40, 224)
    classifier = load_classifier(f"checkpoint:{prepared / 'classifiers' / name}.safetensors")
    right = (classifier(images).argmax(1) == labels).float().mean()
    assert 0.4 <= float(right) <= 0.95


@torch.no_grad()
def test_real_lpips_and_noise_on_flat_ground_rise_with_noise(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNSHIFT_WEIGHTS", str(prepared / "lpips"))
    images, _ = photographs(prepared, 4, 128)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    edits = [(images + level / 255 * noise).clamp(0, 1) for level in (2, 8)]
    for metric in (lpips_squeeze, flat_noise):
        slight, strong = (metric(images, edit) for edit in edits)
        assert bool((slight > 0).all())
        assert bool((slight < strong).all())
    assert float(flat_noise(images, edits[0]).mean()) == pytest.approx(2, rel=0.4)
