"""Latent diffusion models whose denoiser is a transformer with joint attention, on a rectified
flow."""

# The annotations of diffusers are narrower than what it accepts and returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.diffusion.attention import record_attention
from attnshift.diffusion.autoencoder import Autoencoder, facts, precision_of
from attnshift.diffusion.backbone import Prediction, Read
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.flow import Flow
from attnshift.diffusion.joint import JointRecorder, joint_sites
from attnshift.diffusion.latent_model import LatentModel
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.diffusion.texts import Encoders, TextStream
from attnshift.fingerprint import fingerprint
from attnshift.sizes import Sides, Size
from attnshift.types import Site

__all__ = ["FlowModel"]


class FlowModel(LatentModel):
    """Models of the velocity. Patches of 2 x 2 latents are the positions of their one grid."""

    patch: ClassVar[int] = 2
    spaced_by_pipeline: ClassVar[bool]
    """True if the pipeline's own code spaces the levels evenly before they are shifted, False if
    the scheduler does."""

    def __init__(
        self,
        name: str,
        vae: Autoencoder,
        transformer: Any,
        scheduler: FlowMatchEulerDiscreteScheduler,
        encoders: Encoders,
        streams: Sequence[TextStream],
    ):
        super().__init__(name, vae, transformer, encoders, streams)
        self.transformer, self.scheduler = transformer, scheduler

    def fingerprint(self) -> str:
        return fingerprint(
            {"vae": self.vae, "transformer": self.transformer} | dict(self.encoders.all()),
            (sorted(map(str, self.scheduler.config.items())), *facts(self.vae), *self._vocabularies()),
        )

    def noise_schedule(self, schedule_steps: int, denoising_steps: int, size: Sides = 0) -> NoiseSchedule:
        """The levels of the model's own scheduler, shifted for images of ``size`` where it says
        so."""
        config = self.scheduler.config
        trained = int(config["num_train_timesteps"])
        self._check_trained(schedule_steps, trained)
        self._check_walked(schedule_steps, denoising_steps, schedule_steps)
        spacing: dict[str, Any] = {"num_inference_steps": schedule_steps}
        if self.spaced_by_pipeline:
            spacing["sigmas"] = [1 - at / schedule_steps for at in range(schedule_steps)]
        if config.get("use_dynamic_shifting"):
            tokens = self._grid(size or self.suggested_size).area
            limits = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            spacing["mu"] = calculate_shift(tokens, *(config[each] for each in limits))
        self.scheduler.set_timesteps(**spacing)
        levels = [float(each) for each in self.scheduler.sigmas.double()]
        first = schedule_steps - denoising_steps
        timesteps = tuple(trained * level for level in levels[first:-1])
        return NoiseSchedule(timesteps, tuple(levels[first:]), levels[max(first - 1, 0)], Flow())

    def sites(self, size: Sides) -> tuple[Site, ...]:
        return joint_sites(self._blocks(), self._grid(size))

    def _grid(self, size: Sides) -> Size:
        """Rows and columns of the patches, one for each image token."""
        return self.latent_size(size).shrunk(self.patch)

    def denoise(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timestep: float,
        text: Conditioning,
        reads: Sequence[Read] = (),
    ) -> Prediction:
        inner = precision_of(self.transformer)
        with record_attention(self.transformer, reads, JointRecorder) as attention:
            output = self._velocity(latents.to(inner), latents.new_full((len(latents),), timestep), text)
        return Prediction(output.to(latents.dtype), attention)

    @abstractmethod
    def _blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """The blocks with joint attention, named and in their order."""

    @abstractmethod
    def _velocity(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timesteps: Float[Tensor, "batch"],
        text: Conditioning,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """What the transformer predicts of ``latents``, in its own precision."""
