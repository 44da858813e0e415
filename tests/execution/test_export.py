"""Images of a run under their own names, and at their own size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pytest
import torch
from PIL import Image

from attnshift.data.datasets import identify
from attnshift.data.images import encode_png, quantise
from attnshift.data.references import Reference
from attnshift.errors import ImageError, RunError, UserError
from attnshift.execution.export import export_run
from attnshift.results.plan import Plan
from attnshift.results.store import Store
from attnshift.sizes import Size
from small_runs import planned

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Size(80, 120)


def values(path: Path) -> torch.Tensor:
    return torch.from_numpy(numpy.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float()


def stored(folder: Path, files: Sequence[str], attacked: Size, whole: bool, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run with finished images: smooth sources, and attacks that brighten the left half by 20 levels."""
    store, items = Store(folder), []
    (folder / "images").mkdir(parents=True)
    for at, (item, file) in enumerate(zip(planned(*files), files, strict=True)):
        ramp = torch.linspace(0.2, 0.6, SOURCE.columns).expand(3, *SOURCE) + at / 50
        content = encode_png(ramp, {})
        path = folder / f"source-{at}.png"
        path.write_bytes(content)
        id = identify(content, item.label, item.class_name)
        size = attacked if whole else None
        items.append(replace(item, id=id, file=file, image=Reference("file", str(path)), size=size))
        clean = quantise(torch.full((3, *attacked), 0.4))
        attack = clean.clone()
        attack[:, :, : attacked.columns // 2] += 20 / 255
        for arm, image in (("clean", clean), ("attack", attack)):
            store.image_path(id, arm).write_bytes(encode_png(image, {"attnshift:arm": arm}))
    plan = Plan.draw(items)
    (folder / "plan.parquet").write_bytes(plan.path.read_bytes())
    monkeypatch.setattr(Store, "is_finished", lambda store, id: True)
    monkeypatch.setattr(Store, "spec", lambda store: type("Spec", (), {"arms": ("clean", "attack")})())
    return store


def test_names_are_those_of_the_sources_and_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("cat/a.jpg", "cat/A.png", "https://example.org/x/b.webp?size=2", "c.parquet row 5")
    store = stored(tmp_path / "run", files, Size(64, 64), False, monkeypatch)
    assert len(export_run(store, tmp_path / "out")) == 4
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    first, second = found[1:3]
    assert first.startswith("cat/A-")
    assert second.startswith("cat/a-")
    assert [found[0], found[3]] == ["c.parquet row 5.png", "example.org/x/b.png"]
    id = Path(first).stem.removeprefix("A-")
    assert (tmp_path / "out" / first).read_bytes() == store.image_path(id, "attack").read_bytes()


def test_a_folder_with_files_and_names_that_leave_it_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored(tmp_path / "run", ["../../a.png"], Size(64, 64), False, monkeypatch)
    with pytest.raises(RunError, match=r"'\.\./\.\./a\.png' is no path inside a folder"):
        export_run(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"`arm` is atack.*attack.*this run has clean, attack"):
        export_run(store, tmp_path / "out", "atack")
    (tmp_path / "plan.parquet").write_bytes(b"")
    good = stored(tmp_path / "good", ["/data/a.png"], Size(64, 64), False, monkeypatch)
    with pytest.raises(RunError, match="holds files already"):
        export_run(good, tmp_path / "good")
    assert len(export_run(good, tmp_path / "out")) == 1
    assert (tmp_path / "out/data/a.png").exists()


@pytest.mark.parametrize(("attacked", "whole"), [(Size(40, 60), True), (Size(40, 40), False), (SOURCE, True)])
def test_the_change_is_pasted_where_the_image_was_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attacked: Size, whole: bool
) -> None:
    store = stored(tmp_path / "run", ["a.png"], attacked, whole, monkeypatch)
    export_run(store, tmp_path / "out", own_size=True)
    change = values(tmp_path / "out/a.png") - values(tmp_path / "run/source-0.png")
    assert change.shape == (3, *SOURCE)
    left, middle, right = (20, 60, 100) if attacked.columns == attacked.rows else (0, 60, 120)
    assert not change[:, :, :left].any()
    assert not change[:, :, right:].any()
    assert ((change[:, :, left : middle - 3] - 20).abs() <= 1).all()
    assert (change[:, :, middle + 3 : right].abs() <= 1).all()
    assert Image.open(tmp_path / "out/a.png").text == {"attnshift:arm": "attack"}  # type: ignore[attr-defined]


def test_a_source_that_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path / "run", ["a.png"], Size(40, 60), True, monkeypatch)
    (tmp_path / "run/source-0.png").write_bytes(encode_png(torch.zeros(3, 8, 8), {}))
    with pytest.raises(ImageError, match="changed since the run was planned"):
        export_run(store, tmp_path / "out", own_size=True)
