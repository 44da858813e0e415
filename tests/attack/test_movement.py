"""How far attention has moved, on the attack's own path and on the saved file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attack.movement import ALL_LAYERS, Moved, attention_on_file, attention_on_path
from attnshift.data.images import quantise

if TYPE_CHECKING:
    from attack.conftest import Prepare


def test_two_maps_by_hand() -> None:
    before, after = torch.tensor([[0.2, 0.0], [0.2, 0.0]]), torch.tensor([[0.1, 0.1], [0.0, 0.0]])
    moved = Moved.of(before, after)
    assert (moved.before, moved.after) == pytest.approx((0.1, 0.05))
    assert moved.distance == pytest.approx(0.5), "half of the attention has changed its place"
    assert Moved.of(before, before / 2).distance == pytest.approx(0), "less of it, at the same places"


@pytest.mark.parametrize("preset", ["quick", "attention"])
def test_an_image_that_is_not_changed_has_not_moved_and_a_changed_one_has(prepared: Prepare, preset: str) -> None:
    """Layer by layer, for the true phrase and, where there is one, for the interference phrase."""
    batch = prepared(preset, (), slice(2))
    layers = {ALL_LAYERS} | {site.layer for site in batch.render.backbone.sites(64) if site.kind == "cross"}
    draw = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(batch.images.shape, generator=draw, dtype=batch.images.dtype)
    still, noisy = (attention_on_file(batch, quantise((batch.images + each).clamp(0, 1))) for each in (0.0, noise))
    for unmoved, moved in zip(still, noisy, strict=True):
        phrases = [(unmoved.true, moved.true)]
        if preset == "attention":
            phrases.append((unmoved.interference, moved.interference))
        else:
            assert unmoved.interference == moved.interference == {}
        for before, after in phrases:
            assert set(before) == set(after) == layers
            assert all(each.before == pytest.approx(each.after) and each.distance < 1e-9 for each in before.values())
            assert after[ALL_LAYERS].distance > 1e-4
            assert after[ALL_LAYERS].before == pytest.approx(before[ALL_LAYERS].before)


def test_the_clean_path_has_not_moved_on_itself(prepared: Prepare) -> None:
    batch = prepared("quick", (), slice(2))
    for each in attention_on_path(batch, batch.render.trajectory.start):
        assert all(moved.distance == 0 for moved in each.true.values())
        assert torch.equal(*each.maps)
        assert each.true[ALL_LAYERS].before == pytest.approx(float(each.maps[0].mean()))
