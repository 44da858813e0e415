"""The folder of an attack, and the command that repeats it."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

import pytest

from attnshift.data.samples import Sample
from attnshift.data.sources import open_source
from attnshift.errors import UserError
from attnshift.studio.folder import Arguments, AttackFolder, command
from attnshift.studio.networks import LAB_JUDGES, LAB_SURROGATES, StudioOptions

ARGUMENTS = Arguments("models/my pipeline", ("timm:one", "jpeg(quality=60)+timm:two"), 224, 2, "cuda", "bfloat16", True)


@pytest.fixture
def folder(tmp_path: Path) -> AttackFolder:
    made = AttackFolder.make(tmp_path / "a b", b"image", 3, 'mug, "the"', b"mask")
    made.recipe.write_text("name = 'x'", encoding="utf-8")
    return made


def test_a_command_survives_the_shell(folder: AttackFolder) -> None:
    words = shlex.split(command(folder, ARGUMENTS).replace("\\\n", " "))
    assert words[:3] == ["attnshift", "attack", str(folder.images)]
    options = {words[at]: words[at + 1] for at in range(3, len(words) - 1, 2) if words[at] != "--surrogate"}
    assert (options["--pipeline"], options["--preset"]) == (ARGUMENTS.pipeline, str(folder.recipe))
    assert (options["--masks"], options["--device"], options["--batch"]) == (str(folder.masks), "cuda", "1")
    assert [words[at + 1] for at, word in enumerate(words) if word == "--surrogate"] == [*ARGUMENTS.surrogates]
    assert words[-1] == "--accept-pipeline"


def test_the_archive_holds_what_the_command_needs(folder: AttackFolder) -> None:
    with zipfile.ZipFile(folder.pack(ARGUMENTS)) as archive:
        names = set(archive.namelist())
        script = archive.read("attack.sh").decode()
    files = {"attack/images/image.png", "attack/masks/image.png", "attack/labels.csv", "attack/recipe.toml"}
    assert names == {*files, "attack.sh"}
    assert shlex.split(script)[2] == "attack/images"


def test_labels_are_read_as_they_were_written(folder: AttackFolder) -> None:
    (sample,) = open_source(folder.images, folder.labels, (), folder.masks)
    assert isinstance(sample, Sample)
    assert (sample.file, sample.values["label"], sample.values["class_name"]) == ("image.png", "3", 'mug, "the"')
    assert sample.mask is not None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"`out` .*file cannot be written"):
        AttackFolder.make(tmp_path / "file", b"", 0, "mug")


def test_the_lab_has_classifiers_of_its_own_and_others_are_asked_for(tmp_path: Path) -> None:
    lab = StudioOptions(out=tmp_path).completed()
    assert (lab.surrogates, lab.judges) == (LAB_SURROGATES, LAB_JUDGES)
    with pytest.raises(UserError, match="`surrogates` is empty"):
        StudioOptions(out=tmp_path, pipeline="models/other").completed()
    with pytest.raises(UserError, match="lab:resnet cannot be a judge"):
        StudioOptions(out=tmp_path, judges=("jpeg+lab:resnet",)).completed()
