"""What sets of images are compared by: images [batch,3,height,width] in [0,1] -> features [batch,width] in fp32."""

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
from attnshift.downloaded import hub_file, reading
from attnshift.errors import ModelError, UnavailableError
from attnshift.metrics.inception import inception

__all__ = ["Features", "classifier_features", "clip_features", "inception_features"]

_INCEPTION = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
_CLIP = "openai/clip-vit-large-patch14-336"


@dataclass(frozen=True, eq=False)
class Features:
    """``extract`` raises ``UnavailableError`` where the weights of the network are not there."""

    name: str
    width: int
    extract: Callable[[Tensor], Tensor]


def inception_features() -> Features:
    """The last pooled features of the Inception-v3 of 2015, of 8-bit images as (v - 128) / 128 at 299 x 299.

    They are resized as in torchmetrics, with a filter that is wide enough for larger images; TensorFlow's has holes
    there (Parmar, Zhang and Zhu, CVPR 2022).
    """
    middle = (128 / 255, 128 / 255, 128 / 255)
    seen = Preprocessing((299, 299), "bilinear", middle, middle)
    return Features("Inception-v3", 2048, lambda images: _inception(_inception_file()).to(images.device)(seen(images)))


def clip_features() -> Features:
    """The image embeddings of CLIP's ViT-L/14 at 336 x 336."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    seen = Preprocessing((336, 336), "bicubic", mean, std)
    return Features("CLIP ViT-L/14-336", 768, lambda images: _clip(_clip_folder())(seen(images)))


def classifier_features(classifier: Classifier) -> Features:
    """What the last layer of ``classifier`` reads; ``ModelError`` where that is no vector."""
    extract = partial(_penultimate, classifier)
    sides = classifier.preprocessing.size
    return Features(classifier.name, extract(torch.full((1, 3, *sides), 0.5)).shape[1], extract)


def _inception_file() -> Path:
    return hub_file(_INCEPTION, "the weights of FID's Inception-v3")


@cache
def _inception(path: Path) -> nn.Module:
    network = inception()
    with reading(path, "FID's Inception-v3"):
        network.load_state_dict(torch.load(path, map_location="cpu"))
    network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


def _clip_folder() -> Path:
    """Where the Hugging Face cache keeps the model: its weights as safetensors, or else as PyTorch's."""
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
    with reading(folder, "CLIP ViT-L/14-336"):
        # A folder, because a model that is loaded by its name may still ask the hub for other formats.
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
            "use another classifier for --features"
        )
    return values.float()


def _given_to_last_layer(classifier: Classifier, inputs: Tensor) -> Tensor | None:
    """What the last linear layer with one output for each class gets, where there is one."""
    given: list[Tensor] = []
    layers = [each for each in classifier.network.modules() if isinstance(each, nn.Linear)]
    heads = [each for each in layers if each.out_features == classifier.classes]
    if heads:
        with heads[-1].register_forward_pre_hook(lambda _, arguments: given.append(arguments[0])):
            classifier.network(inputs)
    return given[-1] if given else None
