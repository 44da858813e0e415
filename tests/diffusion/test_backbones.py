"""A pipeline's name, or its folder, chooses the backbone that loads it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from attnshift import diffusion
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone, Loader
from attnshift.errors import ModelError, PluginError
from attnshift.registry import Entry, Table
from later import later

stable_diffusion = later("attnshift.diffusion.stable_diffusion")

STABLE = diffusion.BACKBONES["stable_diffusion"]


def load_other(source: str, precision: str) -> Backbone:
    raise ModelError(f"the other backbone got {source} in {precision}")


OTHER = Loader(("OtherPipeline",), load_other)


class _Broken(Entry):
    def load(self) -> object:
        raise PluginError("package broken 1.0 cannot be imported")


@pytest.fixture(autouse=True)
def backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable Diffusion, a broken plug-in and another backbone."""
    entries = {
        "stable_diffusion": STABLE,
        "broken": _Broken("", "", "", "broken 1.0"),
        "other": Entry("", "", f"{__name__}:OTHER"),
    }
    monkeypatch.setattr(diffusion, "BACKBONES", Table("backbone", entries))


@pytest.fixture
def folder(pipeline_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline_folder, tmp_path / "pipeline"))


def rename(folder: Path, name: str | None) -> None:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["_class_name"] = name
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"])
def test_the_class_in_the_folder_chooses(folder: Path, name: str) -> None:
    rename(folder, name)
    assert isinstance(load_pipeline(str(folder)), stable_diffusion.StableDiffusion)
    rename(folder, "OtherPipeline")
    with pytest.raises(ModelError, match=f"^the other backbone got {re.escape(str(folder))} in bfloat16$"):
        load_pipeline(str(folder), "bfloat16")


def test_a_prefix_overrides_the_class(folder: Path) -> None:
    rename(folder, "OtherPipeline")
    assert load_pipeline(f"stable_diffusion:{folder}").name == str(folder)
    with pytest.raises(ModelError, match="the other backbone got some/name in float32"):
        load_pipeline("other:some/name")


def test_an_unknown_class_is_refused_with_the_known_ones(folder: Path) -> None:
    rename(folder, "FluxPipeline")
    with pytest.raises(ModelError) as refused:
        load_pipeline(str(folder))
    assert str(refused.value) == (
        f"{folder / 'model_index.json'} names the pipeline class 'FluxPipeline', which no backbone reads; known: "
        "StableDiffusionPipeline (stable_diffusion), StableDiffusionImg2ImgPipeline (stable_diffusion), OtherPipeline "
        "(other); a folder of another class is read as one of them with BACKBONE: in front of its name"
    )


def test_an_unknown_prefix_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        ModelError, match=r"unknown backbone 'othr'; did you mean 'other'\?; known: stable_diffusion, br"
    ):
        load_pipeline("othr:some/name")


def test_a_broken_plug_in_stops_only_those_who_ask_for_it() -> None:
    with pytest.raises(PluginError, match="package broken"):
        load_pipeline("broken:some/name")


@pytest.mark.parametrize("source", [r"C:\models\mine", "C:/models/mine", "some/name"])
def test_drives_and_hub_names_are_no_prefixes(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    loader = Loader((), lambda source, precision: seen.append(source))  # type: ignore[arg-type, func-returns-value]
    monkeypatch.setattr(f"{__name__}.SEEN", loader, raising=False)
    monkeypatch.setattr(
        diffusion, "BACKBONES", Table("backbone", {"stable_diffusion": Entry("", "", f"{__name__}:SEEN")})
    )
    load_pipeline(source)
    assert seen == [source]
