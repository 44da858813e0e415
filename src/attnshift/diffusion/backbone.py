"""The protocol of diffusion models, as the attack uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnshift.batching import batch_record, per_image
from attnshift.diffusion import Precision
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.errors import ModelError
from attnshift.sizes import Sides, Size
from attnshift.types import Site, TokenSpan

__all__ = ["Backbone", "Loader", "Prediction", "Probe", "Read", "check_steps"]


@batch_record
class Probe:
    """Text states of a further phrase for queries to meet; in a batch those of a short one are
    filled up.

    ``tokens`` are their positions in the phrase's own prompt: keys of joint attention come from
    there, since its text is another one in every layer.
    """

    states: Float[Tensor, "batch tokens width"] = per_image()
    tokens: Int[Tensor, "batch tokens"] | None = per_image(default=None)


@dataclass(frozen=True)
class Read:
    """Read the attention of ``site`` for the batch ``rows``; a site in the view "probe" also needs
    its ``probe``, and where it is joint the rows ``apart`` of the batch, which stand under the
    phrase's own prompt.

    In the form "projections" it is read as all of its queries and behind them its keys,
    [batch,heads,queries + keys,width]; the text's keys of a joint site stand behind the image's,
    and those of a probe last. A probe is read in this form alone: ``ValueError``.
    """

    site: Site
    rows: slice = field(default_factory=lambda: slice(None))
    probe: Probe | None = None
    apart: slice | None = None

    def __post_init__(self) -> None:
        if self.probe is not None and self.site.form == "map":
            raise ValueError(f"{self.site.layer} in the view 'probe' has no map; read it as projections")


@dataclass(frozen=True)
class Prediction:
    """What a step of the noise schedule follows, and the attention of the sites asked for.

    It is the noise where the path is DDIM's, whatever the model itself predicts, and the velocity
    of a flow.
    """

    output: Float[Tensor, "batch channels rows columns"]
    attention: Mapping[Site, Float[Tensor, "..."]]


@runtime_checkable
class Backbone(Protocol):
    """A frozen latent diffusion model.

    Images are in [0,1]; latents are scaled as it denoises them.
    """

    name: str
    device: torch.device
    suggested_size: int
    """Side of the square images that the model was trained on, in pixels."""
    guided: bool
    """True for a model that takes classifier-free guidance, False for one with guidance
    distilled."""
    streams: tuple[str, ...]
    """Names of its text encoders whose tokens the image attends to, in their order."""

    def to(self, device: torch.device | str) -> Backbone:
        """The backbone itself, whose networks now stand on ``device``."""
        ...

    def fingerprint(self) -> str:
        """A short name, which differs wherever weights, schedule or vocabulary differ."""
        ...

    def check_size(self, size: Sides) -> None:
        """Raise ``ModelError`` naming the nearest sizes that work if images of ``size`` do not."""
        ...

    def nearest_size(self, size: Size) -> Size:
        """The size nearest to ``size`` whose sides are multiples of the model's factor."""
        ...

    def encode(
        self,
        images: Float[Tensor, "batch 3 height width"],
        noise: Float[Tensor, "batch channels rows columns"] | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Posterior mean of the autoencoder, or the sample that ``noise`` selects."""
        ...

    def decode(
        self, latents: Float[Tensor, "batch channels rows columns"], checkpointing: bool = False
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images, not clamped.

        With ``checkpointing`` most of what backward needs is computed there once more.
        """
        ...

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """What the denoiser is told of each prompt; the empty one stands for no prompt."""
        ...

    def summarise(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        """One unit vector for each whole prompt: where the text encoder puts its
        meaning."""
        ...

    def release_texts(self) -> None:
        """Free the memory that only prompts need; the next prompt takes it again."""
        ...

    def locate(self, prompt: str, phrase: str, start: int | None = None, stream: str = "all") -> TokenSpan:
        """Token positions of ``phrase`` in ``prompt``, at character ``start`` or where it stands
        last.

        A phrase stands in every one of ``streams``; ``stream`` names one of them, or "all", which
        gives the positions in one after the other. ``ModelError`` if it is absent or cut off, or if
        there is no such stream.
        """
        ...

    def noise_schedule(self, schedule_steps: int, denoising_steps: int, size: Sides = 0) -> NoiseSchedule:
        """The last ``denoising_steps`` of ``schedule_steps``, for images of ``size``; 0 stands for
        the suggested size. Some models shift their levels by it."""
        ...

    def latent_size(self, size: Sides) -> Size:
        """Rows and columns of the latents of images of ``size``."""
        ...

    def sites(self, size: Sides) -> tuple[Site, ...]:
        """Attention sites for images of ``size``."""
        ...

    def denoise(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timestep: float,
        text: Conditioning,
        reads: Sequence[Read] = (),
    ) -> Prediction:
        """Predict what takes ``latents`` to the next level, and read on the way what ``reads`` asks
        for."""
        ...


@dataclass(frozen=True)
class Loader:
    """An entry of ``BACKBONES``: loads what stands behind ``BACKBONE:`` in a pipeline's name, or a
    local folder.

    ``pipelines`` are the pipeline classes of diffusers that it reads, as a folder's
    model_index.json names them in ``_class_name``. ``load`` raises ``ModelError`` for what cannot
    be loaded.
    """

    pipelines: tuple[str, ...]
    load: Callable[[str, Precision], Backbone]
    guided: bool = True
    """True if its models take classifier-free guidance."""
    flow: bool = False
    """True if its models predict the velocity of a rectified flow."""

    def __call__(self, source: str, precision: Precision = "float32") -> Backbone:
        return self.load(source, precision)


def check_steps(backbone: Backbone, schedule_steps: int, steps: int, size: Sides, options: str) -> None:
    """Raise ``ModelError`` if ``backbone`` cannot walk so many ``steps`` of a schedule for
    images of ``size``; ``options`` are the names of what says how many."""
    try:
        backbone.noise_schedule(schedule_steps, steps, size)
    except ModelError as error:
        raise ModelError(f"{options}: {error}") from None
