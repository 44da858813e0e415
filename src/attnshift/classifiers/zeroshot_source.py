"""Zero-shot classifiers: CLIP and similar models, which compare images with names of classes."""

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
from attnshift.classifiers.names import mended, read_lines
from attnshift.errors import ModelError
from attnshift.randomness import generator
from attnshift.untrusted import UNUSABLE, reason

__all__ = ["PROMPT", "load_zeroshot", "model_and_names", "read_names"]

PROMPT = "a photo of a {}"
"""Text that stands for a class (Radford et al., ICML 2021, section 3.1.4)."""

_TOGETHER = 64
"""Number of texts that are encoded at once."""


def load_zeroshot(name: str) -> Classifier:
    """Classifier ``MODEL@NAMES.txt``: a CLIP or SigLIP model and a file of class names.

    ``MODEL`` is a name on the Hugging Face hub or a folder in its format. An image's logits are its
    scaled cosine similarities to ``PROMPT`` with each name (Radford et al., "Learning transferable
    visual models", ICML 2021). Texts are encoded once, and a gradient reaches the image. SigLIP's
    bias, which does not change the order of classes, is kept. Only safetensors are read, and code
    of a model is never run.

    Raises ``ModelError`` for names that ``read_names`` refuses or that are too long for the model,
    and for a model whose own logits are different.
    """
    model, path = model_and_names(name)
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
    """Class names in the file ``path``: UTF-8 text, one name a line, in label order.

    Any line ends are read, and a byte order mark is skipped. Raises ``ModelError`` for a blank line
    and for a name given twice. Upper and lower case count as equal, since most models cannot tell
    them apart.
    """
    names = tuple(map(mended, read_lines(path)))
    lines: dict[str, int] = {}
    for number, each in enumerate(names, 1):
        first = lines.setdefault(each.casefold(), number)
        if first < number:
            raise ModelError(
                f"{path} line {number}: '{each}' is also in line {first}; give the two classes different names"
            )
    return names


def model_and_names(name: str) -> tuple[str, Path]:
    """Model and file of ``name``, split at the first ``@`` with an existing file behind it.

    The name of a folder may contain an ``@`` too.
    """
    parts = name.split("@")
    given = [("@".join(parts[:at]), "@".join(parts[at:])) for at in range(1, len(parts))]
    splits = [(model, Path(file)) for model, file in given if model and file]
    if not splits:
        raise ModelError(f"classifier 'zeroshot:{name}' is not of the form zeroshot:MODEL@NAMES.txt")
    return next((split for split in splits if split[1].is_file()), splits[-1])


def _tokens(called: str, model: str, network: Any, path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Tokens of the prompts, one row for each name.

    Raises ``ModelError`` if a row is too long, or if two rows are equal.
    """
    longest = network.config.text_config.max_position_embeddings
    prompts = [PROMPT.format(each) for each in names]
    try:
        check_code(called, {}, get_tokenizer_config(model))
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        rows = [tuple(each) for each in tokenizer(prompts)["input_ids"]]
        # SigLIP was trained on texts padded to full length and does not mask the padding.
        filled = {"padding": "max_length", "max_length": longest} if "siglip" in network.config.model_type else {}
        texts = tokenizer(prompts, return_tensors="pt", **({"padding": True} | filled))
    except UNUSABLE as error:
        raise ModelError(f"cannot load the tokenizer of '{called}': {reason(error)}; check its folder") from error
    # If files are missing, transformers makes a tokenizer without words.
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
    """Embeddings of ``texts`` as unit vectors, [classes,width]."""
    count = len(texts["input_ids"])
    parts = [
        _features(network.get_text_features(**{key: each[start : start + _TOGETHER] for key, each in texts.items()}))
        for start in range(0, count, _TOGETHER)
    ]
    return torch.cat(parts)


def _features(output: Any) -> Tensor:
    """Unit vectors [batch,width]. Versions of transformers return them directly or in a record."""
    vectors = output if isinstance(output, Tensor) else output.pooler_output
    return vectors / vectors.norm(dim=-1, keepdim=True)


class _ZeroShot(nn.Module):
    """Normalised images [batch,3,rows,columns] -> scaled similarities to texts [classes,width]."""

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
    """Raise ``ModelError`` unless ``classifier`` gives the model's own logits for a test image."""
    sides = preprocessing.resized or preprocessing.size
    image = preprocessing(torch.from_numpy(generator("zero-shot").random((1, 3, *sides), dtype="float32")))
    expected = network(**texts, pixel_values=image).logits_per_image
    given = classifier(image)
    if given.shape != expected.shape or not torch.allclose(given, expected, rtol=1e-3, atol=1e-2):
        raise ModelError(f"{called} does not compare images with texts as CLIP does; take a CLIP or SigLIP model")
