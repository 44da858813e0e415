"""The re-render test: nearest of the scene's renders, told from the names of the files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import in_order_of
from attnshift.errors import ModelError
from attnshift.lab import rerender
from attnshift.lab.rerender import Rerender, load_rerender
from attnshift.lab.scenes import CLASSES
from lab_scenes import rendered

DONUT = "images/test-0-00002-donut.png"


@pytest.fixture(scope="module")
def renders() -> Tensor:
    return rerender._renders(DONUT) / 255


def test_an_image_is_what_its_pixels_are_nearest_to(renders: Tensor) -> None:
    test, own = load_classifier("lab:rerender"), rendered([2]).images
    assert isinstance(test, Rerender)
    asked = test.of_files([DONUT])
    logits = asked(own)[0]
    assert int(logits.argmax()) == 2
    assert logits[2] > -0.5, "rounding alone"
    assert logits.topk(2).values[1] < -3
    for other, name in ((0, "ball"), (-1, "nothing")):
        for share, seen in ((0.4, "donut"), (0.6, name)):
            mixed = torch.lerp(renders[2], renders[other], share)
            assert test.class_names[int(asked(mixed[None]).argmax())] == seen
    larger = torch.nn.functional.interpolate(own, scale_factor=2, mode="nearest")
    assert int(asked(larger).argmax()) == 2
    turned = in_order_of(CLASSES[::-1], test)
    assert isinstance(turned, Rerender)
    assert int(turned.of_files([DONUT])(own).argmax()) == 7


def test_the_camera_and_what_is_around_the_object_stay(renders: Tensor) -> None:
    assert renders.shape == (len(CLASSES) + 1, 3, 64, 64)
    assert (renders == renders[-1]).all(0).float().mean() > 0.2
    assert all((renders[i] - renders[j]).abs().max() > 0.1 for i in range(11) for j in range(i))


def test_it_says_what_it_lacks() -> None:
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(ModelError, match="needs the scenes of the images; let it be the reference"):
        load_rerender()(images)
    with pytest.raises(ModelError, match=r"and mug\.png is none of them"):
        load_rerender().of_files(["mug.png"])(images)
