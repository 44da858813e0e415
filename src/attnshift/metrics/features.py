"""Features of images [batch,3,height,width] in [0,1] for metrics of sets, [batch,width] in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.utils import cached_file, logging

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.downloaded import hub_file, reading_weights
from attnshift.errors import ModelError, UnavailableError
from attnshift.metrics.inception import inception

__all__ = ["Features", "classifier_features", "clip_features", "clip_folder", "inception_features", "inception_file"]

_INCEPTION = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
_CLIP = "openai/clip-vit-large-patch14-336"


@dataclass(frozen=True, eq=False)
class Features:
    """Function ``extract`` from images [batch,3,height,width] in [0,1] to features [batch,width].

    ``extract`` raises ``UnavailableError`` if the network's weights are missing.
    """

    name: str
    width: int
    extract: Callable[[Tensor], Tensor]


def inception_features() -> Features:
    """Last pooled features of the Inception-v3 of 2015.

    Its input is (v - 128) / 128 for 8-bit values v, at 299 x 299 pixels. Images are resized with
    antialiasing, as in torchmetrics. TensorFlow's resizing of larger images has none and skips
    pixels (Parmar, Zhang and Zhu, CVPR 2022).
    """
    middle = (128 / 255, 128 / 255, 128 / 255)
    seen = Preprocessing((299, 299), "bilinear", middle, middle, squash=True)
    return Features("Inception-v3", 2048, lambda images: _inception(inception_file()).to(images.device)(seen(images)))


def clip_features() -> Features:
    """Image embeddings of CLIP ViT-L/14 at 336 x 336 pixels."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    seen = Preprocessing((336, 336), "bicubic", mean, std, squash=True)
    return Features("CLIP ViT-L/14-336", 768, lambda images: _clip(clip_folder())(seen(images)))


def classifier_features(classifier: Classifier) -> Features:
    """Input of the last layer of ``classifier``. Raises ``ModelError`` if that is not a vector."""
    extract = partial(_penultimate, classifier)
    sides = classifier.preprocessing.size
    return Features(classifier.name, extract(torch.full((1, 3, *sides), 0.5)).shape[1], extract)


def inception_file() -> Path:
    """File of the weights of FID's Inception-v3; ``UnavailableError`` says where it is missing."""
    return hub_file(_INCEPTION, "the weights of FID's Inception-v3")


@cache
def _inception(path: Path) -> nn.Module:
    network = inception()
    with reading_weights(path, "FID's Inception-v3"):
        network.load_state_dict(torch.load(path, map_location="cpu"))
    network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


def clip_folder() -> Path:
    """Folder of CLIP in the Hugging Face cache, with safetensors or else PyTorch's format;
    ``UnavailableError`` says what is missing."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        try:
            return Path(str(cached_file(_CLIP, name, local_files_only=True))).parent
        except OSError:
            continue
    raise UnavailableError(
        f"needs {_CLIP}, and the Hugging Face cache does not hold it; `hf download {_CLIP}` puts it there "
        "(HF_HOME moves the cache)"
    )


@cache
def _clip(folder: Path) -> Callable[[Tensor], Tensor]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with reading_weights(folder, "CLIP ViT-L/14-336"):
        # The folder is given, since transformers may ask the hub for other formats of a model given
        # by name.
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        network, found = loaded
        if found["missing_keys"]:
            raise ValueError(f"{min(found['missing_keys'])} is missing")
    network.eval().requires_grad_(False)
    return lambda inputs: network.to(inputs.device)(pixel_values=inputs).image_embeds


def _penultimate(classifier: Classifier, images: Tensor) -> Tensor:
    network, inputs = classifier.network, classifier.preprocessing(images)
    if hasattr(network, "forward_features") and hasattr(network, "forward_head"):
        values = network.forward_head(network.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
    else:
        values = _given_to_last_layer(classifier, inputs)
    if not isinstance(values, Tensor) or values.ndim != 2:
        found = tuple(values.shape) if isinstance(values, Tensor) else "none"
        raise ModelError(
            f"{classifier.name} has no features [images,width] before its last layer (found: {found}); "
            "use another classifier for `features`"
        )
    return values.float()


def _given_to_last_layer(classifier: Classifier, inputs: Tensor) -> Tensor | None:
    """Input of the last linear layer with one output for each class; None without such a layer."""
    given: list[Tensor] = []
    layers = [each for each in classifier.network.modules() if isinstance(each, nn.Linear)]
    heads = [each for each in layers if each.out_features == classifier.classes]
    if heads:
        with heads[-1].register_forward_pre_hook(lambda _, arguments: given.append(arguments[0])):
            classifier.network(inputs)
    return given[-1] if given else None
