"""What a denoiser of the lab is trained on: latents, captions, class phrases and masks of one scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.lab.scenes import scene
from attnshift.lab.splits import Split
from attnshift.lab.training import TrainingBatch
from attnshift.randomness import generator
from attnshift.sizes import Size
from later import later

if TYPE_CHECKING:
    from attnshift.lab.examples import Drawn, Examples

tokenizer_of = later("attnshift.lab.tokenizer")
examples_of = later("attnshift.lab.examples")

COUNT = 8


@pytest.fixture(scope="module")
def drawn() -> tuple[Examples, TrainingBatch, Drawn]:
    """Scene n has the latents n, or -n mirrored, and a mask whose left column alone is set."""
    masks = torch.zeros(COUNT, 1, 4, 4, dtype=torch.uint8)
    masks[..., 0] = 255
    split = Split(masks.expand(-1, 3, -1, -1), masks, tuple(scene(0, "train", at) for at in range(COUNT)))
    numbers = torch.arange(1.0, COUNT + 1).view(1, COUNT, 1, 1, 1)
    examples = examples_of.Examples(split, tokenizer_of.build_tokenizer(), torch.cat([numbers, -numbers]))
    draw = generator("examples")
    batch = TrainingBatch(torch.from_numpy(draw.integers(COUNT, size=200)), draw)
    return examples, batch, examples.draw(batch)


def test_a_row_is_one_scene_or_its_mirror_image(drawn: tuple[Examples, TrainingBatch, Drawn]) -> None:
    _, batch, rows = drawn
    mirrored = rows.clean.flatten() < 0
    assert torch.equal(rows.clean.flatten().abs().long(), batch.indices + 1)
    assert torch.equal(rows.masks[:, 0, 0, 0] == 1, ~mirrored)
    assert torch.equal(rows.masks[:, 0, 0, 3] == 1, mirrored)
    assert 0.3 < float(mirrored.float().mean()) < 0.7


def test_a_phrase_is_the_class_name_in_its_caption(drawn: tuple[Examples, TrainingBatch, Drawn]) -> None:
    examples, batch, rows = drawn
    tokenizer = tokenizer_of.build_tokenizer()
    empty = (rows.ids == examples.empty).all(1)
    assert 0 < int(empty.sum()) < 50
    assert not rows.phrase[empty].any()
    for row in (~empty).nonzero()[:40, 0].tolist():
        told = tokenizer.decode(rows.ids[row][rows.phrase[row]])
        assert str(told).strip() == scene(0, "train", int(batch.indices[row])).class_name


def test_attention_outside_the_mask_is_penalised() -> None:
    masks = torch.zeros(3, 1, 4, 4)
    masks[..., :2] = 1
    phrase = torch.tensor([[False, True]] * 3)
    rows = examples_of.Drawn(torch.zeros(3, 1, 2, 2), masks, torch.zeros(3, 2, dtype=torch.long), phrase)
    probabilities = torch.full((3, 2, 4, 2), 0.5)
    probabilities[1, :, :, 1] = torch.tensor([0.5, 0.0, 0.5, 0.0])
    probabilities[2, :, :, 1] = torch.tensor([0.0, 0.5, 0.0, 0.5])
    found = examples_of.outside(probabilities, rows, Size(2, 2))
    assert found.tolist() == pytest.approx([-torch.log(torch.tensor(0.501)).item(), 0, 6.9], abs=0.02)
