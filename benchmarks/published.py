"""DiffAttack's published code, run on the benchmarks' models from a clone of its repository.

Its repository is https://github.com/WindVChen/DiffAttack, which is no part of this one. What its
attack has to do is not touched. Written in its source and given here by the model are the factor of
the latents, the number of tokens and the device; the classifier, the words of a class and the
pictures that it draws are handed over as modules of the names that it imports.
"""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import types
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from diffusers import DDIMScheduler
from models import Model
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from attnshift.attack.prepare import Task
from attnshift.errors import ModelError
from attnshift.recipes.reading import load_recipe

__all__ = ["Published"]


class Published:
    """Attack on images one at a time, as ``diff_latent_attack.py`` in ``folder`` does it.

    Raises ``ModelError`` if ``folder`` does not have the code.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self.model, self.recipe = model, load_recipe("diffattack")
        # It leaves its own attention in the denoiser.
        self.pipeline: Any = copy.copy(model.backbone)
        self.pipeline.unet = copy.deepcopy(model.backbone.unet)
        self.pipeline.scheduler = DDIMScheduler.from_config(model.backbone.scheduler.config)
        self.code = {name: _source(folder, name, model) for name in ("utils", "attentionControl", "diff_latent_attack")}

    def __call__(self, tasks: Sequence[Task]) -> Tensor:
        """Images [images,3,height,width] in [0,1], as its files have them."""
        return torch.stack([self._attacked(task) for task in tasks])

    def _attacked(self, task: Task) -> Tensor:
        pixels = (task.image.permute(1, 2, 0).numpy() * 255).round().astype(numpy.uint8)
        # Its two sizes of attention are those of latents of an eighth of this side.
        side = 8 * self.model.side // self.model.backbone.pixels_per_latent
        options = types.SimpleNamespace(
            dataset_name="imagenet_compatible",
            res=side,
            is_apply_mask=False,
            is_hard_mask=False,
            attack_loss_weight=10,
            cross_attn_loss_weight=10000,
            self_attn_loss_weight=100,
        )
        with self._imported(task) as modules, contextlib.redirect_stdout(io.StringIO()):
            found, *_ = modules["diff_latent_attack"].diffattack(
                self.pipeline,
                numpy.array([task.label]),
                modules["attentionControl"].AttentionControlEdit(20, 1.0, side),
                num_inference_steps=20,
                guidance_scale=2.5,
                image=Image.fromarray(pixels),
                save_path="",
                res=self.model.side,
                start_step=15,
                iterations=self.recipe.optimiser.iterations,
                verbose=False,
                args=options,
            )
        return torch.from_numpy(found).permute(2, 0, 1) / 255

    @contextlib.contextmanager
    def _imported(self, task: Task) -> Iterator[dict[str, Any]]:
        """Its modules, with ours in place of those that it imports beside them."""
        network = self.model.classifiers()[0].network
        words = types.SimpleNamespace(refined_Label={task.label: task.class_name})
        given: dict[str, dict[str, object]] = {
            "cv2": {},
            "tqdm": {"tqdm": partial(tqdm, disable=True)},
            "distances": {"LpDistance": lambda order: lambda first, second: 0.0},
            "other_attacks": {"model_selection": lambda name: network},
            "dataset_caption": {"imagenet_label": words},
        }
        kept, cuda = {name: sys.modules.get(name) for name in (*given, *self.code)}, Tensor.cuda
        Tensor.cuda = lambda tensor: tensor.to(self.model.device)  # type: ignore[method-assign]
        try:
            for name, values in given.items():
                sys.modules[name] = _module(name, values)
            for name, code in self.code.items():
                sys.modules[name] = module = _module(name, {})
                exec(code, module.__dict__)
                if name == "utils":  # The attack, which comes after it, takes this one.
                    module.__dict__["view_images"] = lambda *_, **__: None
            yield {name: sys.modules[name] for name in self.code}
        finally:
            Tensor.cuda = cuda  # type: ignore[method-assign]
            for name, module in kept.items():
                if module is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = module


def _module(name: str, values: dict[str, object]) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(values)
    return module


def _source(folder: Path, name: str, model: Model) -> types.CodeType:
    path = folder / f"{name}.py"
    if not path.is_file():
        raise ModelError(f"{path} is not there; clone https://github.com/WindVChen/DiffAttack and give its folder")
    vae, tokenizer, reduced = model.backbone.vae, model.backbone.tokenizer, model.backbone.pixels_per_latent
    constants = {
        "0.18215": repr(float(vae.config["scaling_factor"])),
        "max_length = 77": f"max_length = {tokenizer.model_max_length}",
        "model.unet.in_channels, height // 8, width // 8": f"-1, height // {reduced}, width // {reduced}",
    }
    text = path.read_text(encoding="utf-8")
    for theirs, ours in constants.items():
        text = text.replace(theirs, ours)
    return compile(text, str(path), "exec")
