"""Compute the memory above the weights that an attack iteration on one large image takes, without
having it.

    python benchmarks/large_images.py [--models sd2] [--sides 224 512 768 1024] [--check] [--quick]

The attack runs on torch's fake tensors, which have shapes and no values. Every storage that an
operation makes is counted for as long as it exists. Memory that a kernel takes for itself while it
runs is not seen. Tiles of attention rows are 16 times as large as in a run, which saves counting and
adds 40 MB. The terms and guided steps are those of preset ``diffattack``. Its tuning reads
values, so the offset takes its place. --quick writes nothing.

`python benchmarks/large_images.py --models tiny mini --check` compares with benchmarks/memory.py on
a CPU. Computed is 0.97 of measured for mini and 0.93 with checkpointing, 22 and 25 MB less; 0.84
and 0.66 for tiny, 7 and 5 MB less.
"""

from __future__ import annotations

import argparse
import copy
import gc
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from diffusers.utils import logging
from memory import in_a_process
from models import SHAPES, Model, pipeline
from pieces import NUMBER
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnshift.attack.loop import AttackState, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attention import tiles
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.recipes.reading import load_latent_recipe
from results import read, record

__all__ = ["VARIANTS", "Alive", "Imagined", "Unreal", "computed", "iteration_bytes", "with_levels"]

CHECKPOINTED = ("diffusion.checkpointing=true",)
VARIANTS = {"exact": (), "checkpointed": CHECKPOINTED}
WITHOUT = "_without_terms"
"""Behind the name of a variant: the same iteration without attention terms, which reads nothing."""
GUIDED = ("diffusion.guidance=2.5", "diffusion.denoising_steps=5")
PRECISIONS = ("bfloat16", "float32")
SCORES = 2**21
"""Scores in a tile of attention rows, 16 times as many as in a run."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["sd2"])
    parser.add_argument("--sides", nargs="+", type=int, default=[224, 512, 768, 1024])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--check", action="store_true", help="compare with what is measured, and write nothing")
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    options = parser.parse_args(arguments)
    for name in options.models:
        if options.check:
            _check(name)
            continue
        for side in options.sides:
            for precision in options.precisions:
                model = Unreal(name, getattr(torch, precision))
                taken = {"weights": model.weights}
                for variant, settings in VARIANTS.items():
                    taken[variant] = computed(model, side, settings)
                    taken[variant + WITHOUT] = computed(model, side, settings, terms=False)
                print(name, side, precision, *(f"{key} {value / 1e9:.2f} GB" for key, value in taken.items()), sep="  ")
                if not options.quick:
                    _record(name, side, precision, taken)


class Unreal:
    """A benchmark's backbone and first surrogate, with weights that have shapes and no values."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32):
        logging.set_verbosity_error()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with torch.device("meta"):
            built = pipeline(SHAPES[name])
        self.backbone = with_levels(StableDiffusion)(built, name)
        (real,) = Model(name, self.backbone, SHAPES[name].side, "cpu").classifiers()
        self.classifier = replace(real, network=copy.deepcopy(real.network).to("meta"))
        for network in (self.backbone.vae, self.backbone.unet):
            network.to(dtype=dtype)
        with self.mode:
            for network in (*self._networks, self.backbone.text_encoder):
                network.to_empty(device="cpu")
        self.backbone.device = torch.device("cpu")

    @property
    def _networks(self) -> tuple[nn.Module, ...]:
        return self.backbone.vae, self.backbone.unet, self.classifier.network

    @property
    def weights(self) -> int:
        """Bytes of denoiser, autoencoder and surrogate."""
        return sum(each.nbytes for network in self._networks for each in network.parameters())

    def held(self) -> Iterable[torch.Tensor]:
        """Return every tensor that exists before an attack."""
        for network in (*self._networks, self.backbone.text_encoder):
            yield from network.parameters()
            yield from network.buffers()


def with_levels(kind: type) -> type:
    """Return the backbone ``kind`` with noise levels that have values."""

    class WithLevels(kind):
        def noise_schedule(self, *arguments: Any, **named: Any) -> NoiseSchedule:
            with unset_fake_temporarily():
                return super().noise_schedule(*arguments, **named)

    return WithLevels


class Imagined(Protocol):
    """A backbone and a surrogate whose weights have shapes and no values, in the ``mode`` of such
    tensors."""

    mode: FakeTensorMode
    backbone: Any
    classifier: Classifier

    def held(self) -> Iterable[torch.Tensor]: ...


class Alive(TorchDispatchMode):
    """Counts the bytes of the storages that operations inside make, for as long as they exist.

    ``now`` is the current count and ``peak`` the highest. Tensors that were ``held`` before do not
    count.
    """

    def __init__(self, held: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self._known = {each.untyped_storage()._cdata for each in held}

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: object, arguments: Any = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        made = operation(*arguments, **(named or {}))
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor):
                self._see(each.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._lose, storage._cdata, storage.nbytes())

    def _lose(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def computed(model: Unreal, side: int, settings: Sequence[str] = (), terms: bool = True) -> int:
    """Return the bytes above the weights that one iteration takes, preparation included.

    The image is ``side`` pixels wide. ``settings`` change a recipe whose terms and steps are
    those of ``diffattack``; without ``terms`` the classification alone is lowered.
    """
    recipe = load_latent_recipe("quick", [*GUIDED, *settings])
    method = Method.of(recipe if terms else recipe.model_copy(update={"terms": {}}))
    return iteration_bytes(model, side, method)


def iteration_bytes(model: Imagined, side: int, method: Method) -> int:
    """Return the bytes above the weights of one iteration on one image, preparation included."""
    gc.collect()
    tiles._SCORES["cpu"] = SCORES
    with model.mode, Alive(model.held()) as alive:
        task = Task("one", torch.zeros(3, side, side), 0, "mug")
        batch = prepare_batch(method, model.backbone, [model.classifier], [task])
        value_and_grad(batch, batch.render.trajectory.start.clone(), NUMBER, AttackState.start(batch))
    return alive.peak


def _check(name: str) -> None:
    """Print computed bytes beside those of a process that does the same work on real tensors."""
    model = Unreal(name)
    for variant, measured in (("exact", "exact"), ("checkpointed", "checkpointed")):
        told, found = computed(model, SHAPES[name].side, VARIANTS[variant]), in_a_process(name, measured, "cpu")
        print(f"{name}  {variant}: computed {told / 1e6:.1f} MB, measured {found / 1e6:.1f} MB: {told / found:.2f}")


def _record(name: str, side: int, precision: str, taken: Mapping[str, int]) -> None:
    before = read("cpu").get(name, {}).get("large_images", {})
    sides = before | {str(side): before.get(str(side), {}) | {precision: dict(taken)}}
    circumstances = {"figures": "computed", "torch": torch.__version__}
    record("cpu", name, {"large_images": sides}, "large_images", circumstances)


if __name__ == "__main__":
    main()
