"""Classes by their names alone: models in the manner of CLIP that compare images with texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForZeroShotImageClassification, AutoTokenizer
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.classifiers.huggingface_source import check_code, load_network
from attnshift.errors import ModelError
from attnshift.randomness import generator
from attnshift.untrusted import UNUSABLE, reason

__all__ = ["PROMPT", "load_zeroshot", "read_names"]

PROMPT = "a photo of a {}"
"""What an image is compared with, for each class (Radford et al., ICML 2021, section 3.1.4)."""

_LARGEST = 2**24
"""Bytes of a file of class names."""

_TOGETHER = 64
"""Texts that are encoded at once."""


def load_zeroshot(name: str) -> Classifier:
    """``MODEL@NAMES.txt``: a model of the Hugging Face hub, or a folder in its format, and a file of class names.

    An image's logits are its scaled cosine similarities to ``PROMPT`` with each name (Radford et al., "Learning
    transferable visual models", ICML 2021); the texts are encoded once, and a gradient reaches the image. Safetensors
    only, and code that comes with a model is never run. SigLIP's bias, which no class order depends on, is kept.

    Raises ModelError for names that ``read_names`` refuses or that are too long for the model, and where the model's
    own logits are something else than this.
    """
    model, path = _split(name)
    called, names = f"zeroshot:{name}", read_names(path)
    network, preprocessing = load_network(
        called,
        model,
        AutoModelForZeroShotImageClassification,
        "take a whole model, such as openai/clip-vit-base-patch32",
    )
    parts = ("get_image_features", "get_text_features", "logit_scale")
    if not all(hasattr(network, part) for part in parts):
        raise ModelError(f"{called} does not compare images with texts as CLIP does; take a CLIP or SigLIP model")
    texts = _tokens(called, model, network, path, names)
    with torch.no_grad():
        classifier = _ZeroShot(network.eval(), _encoded(network, texts))
        _prove(called, network, classifier, texts, preprocessing)
    return Classifier(called, classifier, preprocessing, len(names), names)


def read_names(path: Path) -> tuple[str, ...]:
    """One class a line, in the order of the labels: UTF-8, whatever its line ends, with or without a mark in front.

    Raises ModelError for a line that is blank, and for a name that is given twice in whatever case: their texts are
    one and the same to most models.
    """
    try:
        # A device would be read for ever.
        if not (path.is_file() or path.is_dir()):
            raise FileNotFoundError
        if path.stat().st_size > _LARGEST:
            raise ModelError(f"{path} holds more than {_LARGEST} bytes; it should be a list of class names")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file of class names; it holds one class a line, in label order") from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ModelError(f"{path}: the class names cannot be read: {why}") from None
    names = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    lines: dict[str, int] = {}
    for number, each in enumerate(names, 1):
        if not each:
            raise ModelError(f"{path} line {number}: blank; give one class a line, in label order")
        first = lines.setdefault(each.casefold(), number)
        if first < number:
            raise ModelError(
                f"{path} line {number}: '{each}' stands in line {first} already; say what tells them apart"
            )
    return names


def _split(name: str) -> tuple[str, Path]:
    """Model and file: at the first ``@`` that a file's path stands behind, since folders may be named with one."""
    parts = name.split("@")
    given = [("@".join(parts[:at]), "@".join(parts[at:])) for at in range(1, len(parts))]
    splits = [(model, Path(file)) for model, file in given if model and file]
    if not splits:
        raise ModelError(f"classifier 'zeroshot:{name}' is not of the form zeroshot:MODEL@NAMES.txt")
    return next((split for split in splits if split[1].is_file()), splits[-1])


def _tokens(called: str, model: str, network: Any, path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """What the model's tokenizer makes of the prompts, one row for each; no two rows are equal."""
    longest = network.config.text_config.max_position_embeddings
    prompts = [PROMPT.format(each) for each in names]
    try:
        check_code(called, {}, get_tokenizer_config(model))
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        rows = [tuple(each) for each in tokenizer(prompts)["input_ids"]]
        # SigLIP has been trained on texts that were filled up, and does not tell the filling from the text.
        filled = {"padding": "max_length", "max_length": longest} if "siglip" in network.config.model_type else {}
        texts = tokenizer(prompts, return_tensors="pt", **({"padding": True} | filled))
    except UNUSABLE as error:
        raise ModelError(f"cannot load the tokenizer of '{called}': {reason(error)}; check its folder") from error
    # Without its files transformers makes a tokenizer that knows no words.
    if _letters(PROMPT.format("")) not in _letters(tokenizer.decode(rows[0])):
        raise ModelError(
            f"the tokenizer of '{called}' cannot read '{prompts[0]}'; are its files in the model's folder?"
        )
    for number, (name, row) in enumerate(zip(names, rows, strict=True), 1):
        if len(row) > longest:
            raise ModelError(
                f"{path} line {number}: '{name:.40}' is {len(row)} tokens long; at most {longest} are read"
            )
        if row in rows[: number - 1]:
            other = names[rows.index(row)]
            raise ModelError(f"{path} line {number}: the model reads '{name}' as it reads '{other}'; use other words")
    return dict(texts)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _encoded(network: Any, texts: dict[str, Tensor]) -> Tensor:
    """The texts as unit vectors, [classes,width]."""
    count = len(texts["input_ids"])
    parts = [
        _features(network.get_text_features(**{key: each[start : start + _TOGETHER] for key, each in texts.items()}))
        for start in range(0, count, _TOGETHER)
    ]
    return torch.cat(parts)


def _features(output: Any) -> Tensor:
    """Unit vectors [batch,width]; some versions of transformers give them alone, and some within a record."""
    vectors = output if isinstance(output, Tensor) else output.pooler_output
    return vectors / vectors.norm(dim=-1, keepdim=True)


class _ZeroShot(nn.Module):
    """Normalised images [batch,3,rows,columns] -> similarities to ``texts`` [classes,width], scaled."""

    def __init__(self, network: Any, texts: Tensor) -> None:
        super().__init__()
        self.network = network
        self.texts = nn.Buffer(texts)

    def forward(self, images: Tensor) -> Tensor:
        similarities = _features(self.network.get_image_features(pixel_values=images)) @ self.texts.T
        logits = similarities * self.network.logit_scale.exp()
        return logits + self.network.logit_bias if hasattr(self.network, "logit_bias") else logits


def _prove(
    called: str, network: Any, classifier: _ZeroShot, texts: dict[str, Tensor], preprocessing: Preprocessing
) -> None:
    """That the logits are those which the model itself gives for an image and all texts."""
    sides = preprocessing.resized or preprocessing.size
    image = preprocessing(torch.from_numpy(generator("zero-shot").random((1, 3, *sides), dtype="float32")))
    expected = network(**texts, pixel_values=image).logits_per_image
    given = classifier(image)
    if given.shape != expected.shape or not torch.allclose(given, expected, rtol=1e-3, atol=1e-2):
        raise ModelError(f"{called} does not compare images with texts as CLIP does; take a CLIP or SigLIP model")
