"""No silent wrong answers: input as people have it gets the right answer, or one line that says why not.

Each test is named by its row of the table of kinds that were tried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor

from attnshift import LatentAttack, PixelAttack, load_recipe
from attnshift.data.images import quantise
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.errors import ImageError, LabelError, UserError
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import scene
from attnshift.recipes.reading import load_latent_recipe

LABELS = [3, 7]


@pytest.fixture(scope="module")
def lab_images() -> Tensor:
    return quantise(render_scenes([scene(0, "test", index) for index in LABELS]).images)


@pytest.fixture(scope="module")
def on_pixels() -> PixelAttack:
    return PixelAttack(["lab:resnet"], load_recipe("mifgsm", ["baseline.steps=1"]))


SHORT = ("optimiser.iterations=1", "diffusion.denoising_steps=1", "diffusion.schedule_steps=4")


@pytest.fixture(scope="module")
def on_latents(backbone: StableDiffusion) -> LatentAttack:
    return LatentAttack(backbone, ["lab:resnet"], load_latent_recipe("fast", SHORT))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([3.0, 7.9]), "labels are float32; give whole numbers"),
        (numpy.array([3.0, 7.0]), "labels are float64; give whole numbers"),
        ([3, 7.5], "labels are float; give whole numbers"),
        ([torch.tensor(3.5), torch.tensor(7)], "labels are float32; give whole numbers"),
        (torch.tensor([True, False]), "labels are bool; give whole numbers"),
        (torch.eye(10)[LABELS], r"labels have shape \(2, 10\), as one-hot rows have; .*labels\.argmax\(1\)"),
        (torch.eye(10).long()[LABELS].numpy(), r"as one-hot rows have; .*labels\.argmax\(1\)"),
        ([[0, 1], [1, 0]], "not one-hot rows"),
        (list(torch.eye(10)[LABELS]), "not one-hot rows"),
        (torch.tensor([[3], [7]]), r"labels have shape \(2, 1\); .*labels\.flatten\(\)"),
        (torch.tensor(3), r"labels have shape \(\); give class numbers \[batch\]"),
        (["mug", "tree"], "labels hold 'mug'; give class numbers from 0, and names in class_names"),
        ("37", "labels are a str; give one class number for each image"),
        (3, "labels are a int; give one class number for each image"),
        ([3], "2 images and 1 label; give every image one"),
        ([3, 10], "image 1: label 10 is out of range; the surrogates have classes 0 to 9"),
        ([-1, 7], "image 0: label -1 is out of range"),
    ],
)
def test_row_15_labels_that_are_no_class_numbers(
    on_pixels: PixelAttack, lab_images: Tensor, labels: object, message: str
) -> None:
    with pytest.raises(LabelError, match=f"^{message}" if message[0] in "li2" else message) as caught:
        on_pixels(lab_images, labels)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[:0], r"images have shape \(0, 3, 64, 64\), an empty batch; give at least one image"),
        (lambda images: images.permute(0, 2, 3, 1), r"with the channels last; .*images\.permute\(0, 3, 1, 2\)"),
        (lambda images: images.permute(0, 2, 3, 1).numpy(), r"images\.permute\(0, 3, 1, 2\)"),
        (lambda images: images[0], r"as a single image has; add the batch: images\[None\]"),
        (lambda images: images[:, :1], "repeat the grey channel"),
        (lambda images: images[:, [0, 1, 2, 0]], "leave alpha out"),
        (lambda images: images[..., :40], "is not square"),
        (lambda images: (images * 255).byte(), r"images are uint8; .*images\.float\(\) / 255"),
        (lambda images: (images * 255).byte().numpy(), "images are uint8"),
        (lambda images: images * 255, "divide 8-bit values by 255"),
        (lambda images: (images - 0.5) / 0.25, "undo the normalisation"),
        (lambda images: images / 0, "not finite"),
        (lambda images: list(images), r"images are a list of tensors; give one tensor: torch\.stack\(images\)"),
        (lambda images: ["a.png", "b.png"], "images are a list; give a tensor or a NumPy array"),
        (lambda images: numpy.array(["a.png", "b.png"]), "images are an array of <U5"),
        (lambda images: None, "images are a NoneType"),
    ],
)
def test_row_15_images_that_are_none(
    on_pixels: PixelAttack,
    on_latents: LatentAttack,
    lab_images: Tensor,
    change: Callable[[Tensor], object],
    message: str,
) -> None:
    for attack in (on_pixels, on_latents):
        with pytest.raises(ImageError, match=message) as caught:
            attack(change(lab_images), LABELS)  # type: ignore[operator]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.double(),
        lambda images: images.numpy(),
        lambda images: images.double().numpy(),
        lambda images: images.numpy()[:, :, ::-1, ::-1][:, :, ::-1, ::-1],
        lambda images: images.clone().requires_grad_(),
        lambda images: images.requires_grad_(False).contiguous(memory_format=torch.channels_last),
    ],
)
def test_row_15_images_with_an_obvious_meaning(
    on_pixels: PixelAttack, lab_images: Tensor, change: Callable[[Tensor], object]
) -> None:
    expected = on_pixels(lab_images, LABELS)
    found = on_pixels(change(lab_images), LABELS)  # type: ignore[arg-type]
    assert torch.equal(found.images, expected.images)
    assert found.images.dtype == torch.float32
    assert not found.images.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_row_15_images_of_half_precision_are_attacked_as_they_are(
    on_pixels: PixelAttack, lab_images: Tensor, dtype: torch.dtype
) -> None:
    found = on_pixels(lab_images.to(dtype), LABELS)
    assert torch.equal(found.images, on_pixels(lab_images.to(dtype).float(), LABELS).images)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor(LABELS, dtype=torch.uint8),
        numpy.array(LABELS),
        numpy.array(LABELS, dtype=numpy.int32),
        tuple(LABELS),
        [numpy.int64(3), numpy.int64(7)],
        list(torch.tensor(LABELS)),
    ],
)
def test_row_15_labels_with_an_obvious_meaning(on_pixels: PixelAttack, lab_images: Tensor, labels: object) -> None:
    found = on_pixels(lab_images, labels)  # type: ignore[arg-type]
    assert torch.equal(found.images, on_pixels(lab_images, LABELS).images)


def test_row_15_inference_mode_around_the_call(
    on_pixels: PixelAttack, on_latents: LatentAttack, lab_images: Tensor
) -> None:
    for attack in (on_pixels, on_latents):
        expected = attack(lab_images, LABELS)
        with torch.inference_mode():
            made = lab_images + 0
            found = attack(made, LABELS)
        assert made.is_inference()
        assert torch.equal(found.images, expected.images)
        with torch.no_grad():
            assert torch.equal(attack(lab_images, LABELS).images, expected.images)


def test_row_15_surrogates_that_are_none(lab_images: Tensor) -> None:
    with pytest.raises(UserError, match=r"^surrogates are \[\]; give a list with at least one"):
        PixelAttack([])
    with pytest.raises(UserError, match=r"^surrogates are 'lab:resnet'; give a list"):
        PixelAttack("lab:resnet")
    with pytest.raises(UserError, match=r"^`device` is nowhere, which cannot be used"):
        PixelAttack(["lab:resnet"], device="nowhere")
    with pytest.raises(UserError, match=r"^`device` is meta, which cannot be used"):
        PixelAttack(["lab:resnet"], device="meta")
    with pytest.raises(UserError, match=r"^0 images cannot be attacked together"):
        PixelAttack(["lab:resnet"], batch=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mug", "class_names is 'mug'; give a list with a name for each image"),
        (["mug", "tree", "die"], "class_names has 3 names for 2 images; it names the class of each image"),
    ],
)
def test_row_15_class_names_that_name_no_image(
    on_latents: LatentAttack, lab_images: Tensor, names: list[str], message: str
) -> None:
    with pytest.raises(LabelError, match=f"^{message}"):
        on_latents(lab_images, LABELS, names)


def test_row_15_masks_as_people_have_them(backbone: StableDiffusion, lab_images: Tensor) -> None:
    recipe = load_latent_recipe("fast", [*SHORT, "mask.source=given", "mask.paste_back=true"])
    attack = LatentAttack(backbone, ["lab:resnet"], recipe)
    masks = torch.zeros(2, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    expected = attack(lab_images, LABELS, masks=masks).images
    for given in (masks.bool(), masks.numpy(), masks.double()):
        assert torch.equal(attack(lab_images, LABELS, masks=given).images, expected)
    for wrong, message in (
        (masks * 255, r"masks have values outside \[0,1\]; divide"),
        ((masks * 255).byte(), "masks are uint8"),
        (masks[:, 0], r"masks have shape \(2, 64, 64\); expected \(2, 1, 64, 64\)"),
        (None, "no mask was given"),
    ):
        with pytest.raises(UserError, match=message):
            attack(lab_images, LABELS, masks=wrong)
