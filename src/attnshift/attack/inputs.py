"""Checks of what an attack from Python is given: images, masks and class numbers.

Whatever has one obvious meaning is accepted: NumPy arrays, every floating-point dtype, tensors on
another device, tensors that require a gradient or come from ``torch.inference_mode``. Anything else
is one error that says what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from attnshift.errors import ImageError, LabelError, UserError

__all__ = ["check_device", "class_numbers", "given_images", "given_masks"]


def given_images(images: object) -> Tensor:
    """``images`` as a tensor of its own, fp32 [batch,3,height,width] in [0,1], without a gradient.

    Raises ``ImageError`` for anything but floating-point images of that shape and range.
    """
    given = _as_tensor("images", images)
    _check_shape(given)
    if not given.is_floating_point():
        raise ImageError(f"images are {_dtype(given)}; give values in [0,1]: images.float() / 255 for 8-bit ones")
    made = given.detach().clone().to(torch.float32)
    if not bool(((made >= 0) & (made <= 1)).all()):
        raise ImageError(_out_of_range(made))
    return made


def given_masks(masks: object, images: Tensor) -> Tensor:
    """``masks`` as a tensor, fp32 [batch,1,height,width] in [0,1]; booleans count as 0 and 1.

    Raises ``ImageError`` for anything that does not fit ``images`` [batch,3,height,width].
    """
    given, expected = _as_tensor("masks", masks), tuple(images[:, :1].shape)
    if tuple(given.shape) != expected:
        raise ImageError(f"masks have shape {tuple(given.shape)}; expected {expected}")
    if not given.is_floating_point() and given.dtype != torch.bool:
        raise ImageError(f"masks are {_dtype(given)}; give values in [0,1]: masks.float() / 255 for 8-bit ones")
    made = given.detach().clone().to(torch.float32)
    if not bool(((made >= 0) & (made <= 1)).all()):
        raise ImageError("masks have values outside [0,1]; divide 8-bit values by 255")
    return made


def class_numbers(kind: str, values: object) -> list[int]:
    """The whole numbers in ``values``, a tensor or array [batch] or a list; ``kind`` names them.

    Raises ``LabelError`` for names, for floating-point or one-hot values, and for other shapes.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Tensor | numpy.ndarray | Sequence):
        raise LabelError(f"{kind} are a {type(values).__name__}; give one class number for each image, such as [3, 7]")
    if isinstance(values, Tensor | numpy.ndarray):
        array = values.detach().cpu() if isinstance(values, Tensor) else values
        if array.ndim == 2 and array.shape[1] > 1:
            raise LabelError(
                f"{kind} have shape {tuple(array.shape)}, as one-hot rows have; give class numbers: {kind}.argmax(1)"
            )
        if array.ndim != 1:
            hint = f"{kind}.flatten()" if array.size != 0 else "one for each image"
            raise LabelError(f"{kind} have shape {tuple(array.shape)}; give class numbers [batch]: {hint}")
        return [_whole(kind, value, _dtype(values)) for value in array.tolist()]
    return [_whole(kind, value) for value in values]


def check_device(device: torch.device | str) -> None:
    """Raise ``UserError`` for a ``device`` that does not exist here or cannot hold values."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"`device` is {device}, which cannot be used ({reason}); use cpu or cuda") from None


def _as_tensor(kind: str, given: object) -> Tensor:
    if isinstance(given, Tensor):
        return given
    if isinstance(given, numpy.ndarray) and given.dtype.kind in "fiub":
        return torch.from_numpy(numpy.ascontiguousarray(given))
    if isinstance(given, Sequence) and given and all(isinstance(each, Tensor) for each in given):
        raise ImageError(f"{kind} are a {type(given).__name__} of tensors; give one tensor: torch.stack({kind})")
    what = f"an array of {given.dtype}" if isinstance(given, numpy.ndarray) else f"a {type(given).__name__}"
    channels = 1 if kind == "masks" else 3
    raise ImageError(f"{kind} are {what}; give a tensor or a NumPy array [batch, {channels}, height, width] in [0,1]")


def _check_shape(images: Tensor) -> None:
    shape = tuple(images.shape)
    if len(shape) == 4 and shape[0] > 0 and shape[1] == 3 and min(shape[2:]) > 0:
        return
    found = f"images have shape {shape}"
    if len(shape) == 3 and shape[0] == 3:
        raise ImageError(f"{found}, as a single image has; add the batch: images[None]")
    if len(shape) != 4:
        raise ImageError(f"{found}; expected [batch, 3, height, width]")
    if not shape[0]:
        raise ImageError(f"{found}, an empty batch; give at least one image")
    if shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4):
        raise ImageError(f"{found}, with the channels last; put them first: images.permute(0, 3, 1, 2)")
    advice = {1: "repeat the grey channel: images.expand(-1, 3, -1, -1)", 4: "leave alpha out: images[:, :3]"}
    if shape[1] in advice:
        raise ImageError(f"{found}; expected [batch, 3, height, width]; {advice[shape[1]]}")
    raise ImageError(f"{found}; expected [batch, 3, height, width]")


def _out_of_range(images: Tensor) -> str:
    if not bool(images.isfinite().all()):
        return "images have values that are not finite; give values in [0,1]"
    lowest, highest = float(images.min()), float(images.max())
    found = f"images have values outside [0,1], from {lowest:.3g} to {highest:.3g}"
    if lowest >= 0 and highest > 2:
        return f"{found}; divide 8-bit values by 255"
    if lowest < 0:
        return f"{found}; undo the normalisation, which classifiers and pipeline do themselves"
    return f"{found}; images.clamp(0, 1) if this is rounding"


def _whole(kind: str, value: object, dtype: str = "") -> int:
    if isinstance(value, Tensor | numpy.ndarray | numpy.generic):
        if value.ndim:
            raise LabelError(
                f"{kind} hold a list of shape {tuple(value.shape)} for an image; give class numbers, not one-hot rows"
            )
        dtype, value = dtype or _dtype(value), value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        raise LabelError(f"{kind} hold a list for an image; give one class number for each, not one-hot rows")
    if isinstance(value, str):
        raise LabelError(f"{kind} hold {value!r:.80}; give class numbers from 0, and names in class_names")
    what = dtype or type(value).__name__
    raise LabelError(f"{kind} are {what}; give whole numbers, the classes from 0: {kind}.long() if they are such")


def _dtype(given: Tensor | numpy.ndarray | numpy.generic) -> str:
    return str(given.dtype).removeprefix("torch.")
