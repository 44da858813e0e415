"""What every backbone of ``diffusion.BACKBONES`` must do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from attnshift.diffusion import BACKBONES, load_pipeline
from attnshift.diffusion.backbone import Backbone, Loader
from attnshift.testing.backbones import BACKBONE_CHECKS
from families import flux, lcm, sd3, sdxl

load = cache(load_pipeline)


@pytest.fixture(scope="module")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline on disk for every other backbone."""
    folders: dict[str, Path] = {}
    for family, make in {"lcm": lcm, "sdxl": sdxl, "sd3": sd3, "flux": flux}.items():
        folders[family] = tmp_path_factory.mktemp(family)
        make().save_pretrained(folders[family], safe_serialization=True)
    return folders


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
def test_contract(
    check: Callable[[Backbone], None], name: str, pipeline_folder: Path, family_folders: dict[str, Path]
) -> None:
    folders = {"stable_diffusion": pipeline_folder} | family_folders
    check(load(f"{name}:{folders[name]}" if name in folders else name))


@pytest.mark.parametrize("name", BACKBONES)
def test_it_says_which_pipeline_classes_it_reads(name: str) -> None:
    loader = BACKBONES[name].load()
    assert isinstance(loader, Loader)
    assert isinstance(loader.pipelines, tuple)


def test_no_pipeline_class_belongs_to_two() -> None:
    read = [each for name in BACKBONES for each in BACKBONES[name].load().pipelines]
    assert len(set(read)) == len(read)
