"""Recipes as data: validated, complete, and free of what a machine or a run decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from attnshift.baselines import generates, needs_diffusion
from attnshift.metrics import budget_metric
from attnshift.recipes.prompts import Prompt, PromptSection
from attnshift.recipes.sections import OpenSection, Section

__all__ = ["AnyRecipe", "BaselineRecipe", "BaselineSection", "BudgetSection", "MaskSection", "PathSection", "Recipe"]

Grid = Literal["full", "half", "quarter", "eighth", "all"]


class InterferenceSection(Section):
    choose: Literal["confusion", "target", "text", "given", "random"] = "confusion"
    """The surrogates' highest wrong class on the clean image; the target of a targeted attack; the
    class nearest to the true one for the text encoder; ``phrase``; or any class, as a control."""
    phrase: str = ""
    """The phrase where ``choose`` is ``given``."""

    @model_validator(mode="after")
    def _has_what_it_names(self) -> InterferenceSection:
        if (self.choose == "given") != bool(self.phrase.strip()):
            raise ValueError("phrase goes with choose = 'given', and only with it")
        return self


class MaskSection(Section):
    source: Literal["none", "attention", "gradcam", "given"] = "none"
    """Origin of the mask: the clean attention to the true phrase, Grad-CAM of the surrogates, or
    masks that are given beside the images."""
    grid: Grid = "all"
    """Grids whose cross-attention makes an attention mask."""
    refine: int = Field(default=0, ge=0, le=10)
    """Rounds in which the self-attention spreads an attention mask over the object."""
    edge: Literal["soft", "hard"] = "soft"
    """``soft``: what the source says, divided by its maximum. ``hard``: 1 from half of the maximum
    on, else 0."""
    outside: float = Field(default=0.1, gt=0, le=1)
    """Weight of a pixel outside the mask; inside it is 1."""
    paste_back: bool = False
    """Take pixels outside the mask from the clean image."""


class DiffusionSection(Section):
    schedule_steps: int = Field(default=20, ge=2, le=1000)
    """Steps of the whole denoising schedule, of which the last ones are walked."""
    denoising_steps: int = Field(default=5, ge=1, le=999)
    """Number of the last steps that are carried out and differentiated (K)."""
    gradient_steps: int = Field(default=0, ge=0)
    """Number of the last of them through which the gradient goes back; 0 is all.

    The earlier ones count as the identity: the gradient passes from their end straight to the start
    latents, and attention maps read in them count in the losses as values without a gradient.
    """
    guidance: float = Field(default=2.5, ge=0)
    """Weight of classifier-free guidance; 1 is the conditional prediction alone."""
    pairing: Literal["aligned", "compat"] = "aligned"
    """Noise levels of the inversion. ``aligned``: exactly those that denoising walks. ``compat``:
    each step starts one level higher than its denoising partner ends, as in DiffAttack."""
    inversion_rounds: int = Field(default=0, ge=0, le=20)
    """Fixed-point rounds that repeat each step of the inversion at its upper end."""
    encoding: Literal["mean", "sample"] = "mean"
    """Latents of an image: the mean of the autoencoder's distribution, or a draw from it."""
    residual: bool = True
    """Add what the clean path loses to each decoded image, so that iteration 0 changes nothing."""
    checkpointing: bool = False
    """Keep only the input of each step, and compute the step again in backward: less memory, more
    time."""
    decoder: Literal["own", "tiny"] = "own"
    """Through which decoder the gradient goes back: the pipeline's own, or a tiny one in its place.
    The images are always those of the pipeline's own."""
    decoder_source: str = ""
    """Folder or hub name of the tiny decoder, an AutoencoderTiny of diffusers."""

    @model_validator(mode="after")
    def _has_the_decoder_that_it_names(self) -> DiffusionSection:
        if (self.decoder == "tiny") != bool(self.decoder_source.strip()):
            raise ValueError(
                "decoder_source goes with decoder = 'tiny', and only with it; for Stable Diffusion 1 and 2 it is "
                "madebyollin/taesd"
            )
        return self

    @model_validator(mode="after")
    def _goes_back_where_it_walks(self) -> DiffusionSection:
        if self.gradient_steps > self.denoising_steps:
            raise ValueError(
                f"gradient_steps is {self.gradient_steps} and cannot exceed denoising_steps, which is "
                f"{self.denoising_steps}; 0 goes back through all of them"
            )
        return self


class PathSection(Section):
    """Ingredients along the denoising steps of an attack; each is off by default."""

    seen: Literal["end", "preview"] = "end"
    """Image that the classifiers see: the end of the path, or the one-step preview of it at a
    step."""
    level: Annotated[int, Field(ge=0)] | Literal["random"] = 0
    """Step at which a preview is taken, 0 at the start latents; or any step, drawn for each image
    in every iteration."""
    look_ahead: float = Field(default=1.0, ge=0, le=1)
    """Weight of the classification on the preview at ``level``; the rest weighs that on the preview
    after the next step. 1 does not look ahead."""
    tangent: bool = False
    """Take the gradient's part along the score at the latents out of it."""
    boundary: float = Field(default=0.0, ge=0, le=1)
    """Pull of the path towards a prompt that names the interference class beside the true one.

    It grows from 0 in the first iteration to this share in the last one.
    """
    boundary_guidance: float = Field(default=7.5, gt=0)
    """Factor on ``boundary``, as of guidance."""
    boundary_template: str = "a photo of a {interference} and a {}"
    """Prompt of the boundary; ``{}`` stands for the class name and ``{interference}`` for the
    other."""
    passes: int = Field(default=1, ge=1, le=100)
    """Visits of each step within ``travelled``, with new noise in between (time travel)."""
    travelled: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.5, 1.0)
    """Part of the path that is walked ``passes`` times: least and greatest share of its steps that
    follow a step."""

    @property
    def looks_ahead(self) -> bool:
        return self.look_ahead < 1

    def joint_prompt(self, class_name: str, interference: str) -> Prompt:
        """The prompt of the boundary."""
        return PromptSection(template=self.boundary_template).prompt(class_name, interference)

    @field_validator("boundary_template")
    @classmethod
    def _names_both(cls, template: str) -> str:
        if not PromptSection(template=template).names_both:
            raise ValueError("must hold {interference} once, for the other class")
        return template

    @field_validator("travelled")
    @classmethod
    def _is_ordered(cls, travelled: tuple[float, float]) -> tuple[float, float]:
        if travelled[0] > travelled[1]:
            raise ValueError("the first number must not exceed the second")
        return travelled

    @model_validator(mode="after")
    def _looks_ahead_of_a_preview(self) -> PathSection:
        if self.looks_ahead and self.seen == "end":
            raise ValueError("look_ahead looks ahead of a preview, and seen is 'end'; set seen = 'preview'")
        return self


class ReconstructionSection(OpenSection):
    method: str = "offset"
    """Name of a reconstruction, which makes the clean path end at the image."""


class ClassificationSection(OpenSection):
    loss: str = "cross_entropy"
    """Name of a classification loss; its options stand beside this key."""
    weight: float = Field(default=1.0, ge=0)
    """Factor on the classification; 0 leaves the terms alone."""
    schedule: dict[str, Any] = Field(default_factory=dict)
    """Factor on the weight over the iterations: a table with the keys of a schedule."""
    fusion: str = "uniform"
    """Name of a fusion rule, which makes one direction of the surrogates' gradients."""
    fusion_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fusion rule."""
    space: Literal["image", "latent"] = "image"
    """Place where the surrogates' gradients are taken and fused: the image, with one pass back
    through decoder and denoiser, or the latents, with one pass for each surrogate."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last fused direction that is added to the next one.

    It is for optimisers that have no momentum of their own.
    """
    clip: float = Field(default=0.0, ge=0)
    """Highest norm of the fused direction of an image; 0 sets no limit."""
    skip_decay: float = Field(default=1.0, ge=0, le=1)
    """Factor on the gradient that the surrogates send into their residual branches; 1 leaves it as
    it is."""
    relu_leak: float = Field(default=0.0, ge=0, le=1)
    """Share of the gradient that the surrogates' rectifiers pass where they are off; 0 leaves them
    as they are."""


class FeaturesSection(Section):
    """Features of the surrogates that speak for the true class, lowered beside the classification.

    The options are those of ``ensemble.backward.FeatureLoss``.
    """

    share: float = Field(default=0.0, ge=0, le=1000)
    """Pull of the features at their layer, as a multiple of the classification's; 0 switches them
    off."""
    layer: Annotated[float, Field(gt=0, lt=1)] | str = 0.5
    """Share of the surrogates' depth, or the name of a module."""
    draws: int = Field(default=8, ge=1, le=1000)
    """Copies of the clean image whose gradients make the weights."""
    dropped: float = Field(default=0.3, ge=0, lt=1)
    """Share of each copy's values that is black."""


class TransformSection(OpenSection):
    pass


class ExpectationSection(Section):
    """Expectation over transformations: the views of an image that the surrogates see."""

    draws: int = Field(default=1, ge=1, le=1000)
    """Views of an image, itself included; 1 switches the transforms off."""
    every: int = Field(default=1, ge=1)
    """Apply views every N iterations, from the first on; others show the image as it is."""
    transforms: dict[str, TransformSection] = Field(default_factory=dict)
    """Transforms that make a view, in this order, with options."""

    @model_validator(mode="after")
    def _has_what_it_draws(self) -> ExpectationSection:
        if self.draws > 1 and not self.transforms:
            raise ValueError("draws above 1 need transforms, such as [expectation.transforms.rotate]")
        return self


class TermSection(OpenSection):
    weight: float = Field(ge=0)
    """Coefficient of the term; 0 switches it off. Under ``optimiser.balance = "share"`` it is a
    share of the classification's pull."""
    schedule: dict[str, Any] = Field(default_factory=dict)
    """Factor on the weight over the iterations: a table with the keys of a schedule."""


class BudgetSection(Section):
    """Naturalness that every saved image keeps; the attack spends it all."""

    metric: str = "none"
    """Name of a metric, or none: ssim, ms_ssim, haarpsi, l2, linf, lpips-squeeze, lpips-alex,
    lpips-vgg, dists."""
    limit: float = 0.0
    """Least similarity, or greatest distance, of the 8-bit file to the clean image."""
    also: dict[str, float] = Field(default_factory=dict)
    """Further metrics with their limits; the file keeps them all, so that no change can buy one
    metric with another."""

    @property
    def given(self) -> bool:
        return self.metric != "none"

    @model_validator(mode="after")
    def _limits_what_it_names(self) -> BudgetSection:
        if self.given != (self.limit != 0.0):
            raise ValueError("limit goes with a metric, and a metric with a limit, such as ssim and 0.95")
        if self.also and not self.given:
            raise ValueError("also adds to metric and limit; give these, such as ssim and 0.95")
        if self.metric in self.also:
            raise ValueError(f"also holds {self.metric}, which metric names already; give each metric once")
        for name in self.limits:
            budget_metric(name)
        return self

    @property
    def limits(self) -> dict[str, float]:
        """Metric -> limit, of all that the file keeps."""
        return {self.metric: self.limit} | self.also if self.given else {}

    def __str__(self) -> str:
        return ",".join(f"{name}={limit:g}" for name, limit in self.limits.items())


class OptimiserSection(Section):
    method: Literal["adamw", "gradient", "sign"] = "adamw"
    """Step of the latents: by AdamW, along the gradient, or along its sign."""
    balance: Literal["none", "share"] = "none"
    """``share``: the coefficient of a term is its share of the classification's pull, the ratio of
    their gradients at the latents.

    A term that steers has that share throughout; one that holds back has it where the budget is
    spent, or SSIM 0.95 without a budget, and none at the clean image.
    """
    learning_rate: float = Field(default=0.01, ge=0)
    """Learning rate of the latents. 0 keeps them still, for an attack on pixels alone
    (``pixels.learning_rate``)."""
    relative: bool = False
    """The learning rate is in standard deviations of each image's start latents, and ``gradient``
    follows the gradient's direction alone. Steps then do not depend on the scale of latents and
    losses."""
    schedule: dict[str, Any] = Field(default_factory=dict)
    """Factor on the learning rate over the iterations, as a term's schedule."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    iterations: int = Field(default=30, ge=1, le=10_000)
    """Number of updates."""


class PixelSection(Section):
    """A change of pixels that is added to what the latents show, and optimised beside them."""

    learning_rate: float = Field(default=0.0, ge=0, le=1)
    """Root mean square of a step, pixels counting from 0 to 1; 0 moves the latents alone."""
    radius: float = Field(default=1.0, gt=0, le=1)
    """Greatest change of a value, pixels counting from 0 to 1; 1 sets no bound."""
    contrast: float = Field(default=0.0, ge=0, le=100)
    """Greatest change of a value in standard deviations of the pixels around it, below the radius:
    flat ground stays clean. 0 leaves the radius alone."""


class FinishSection(Section):
    keep: Literal["last", "best"] = "best"
    """``last``: the last iterate. ``best``: the nearest iterate that fools every surrogate by
    ``confidence``.

    If there is none, it is the iterate with the lowest margin.
    """
    confidence: float = Field(default=0.0, ge=0)
    """Logit margin by which a surrogate counts as fooled when iterates are compared."""
    early: bool = False
    """An image leaves the batch at the first iterate
    that fools every surrogate by ``confidence``."""
    after: int = Field(default=0, ge=0, le=10_000)
    """Number of updates after which the attack ends, while its schedules count all iterations.

    It is that of an attack that somebody stopped and kept; 0 carries out all of them.
    """


class Recipe(Section):
    """Complete description of an attack.

    Two runs with equal recipes, seeds and inputs give equal results.
    """

    name: str
    """Name under which runs, tables and reports show the recipe."""
    summary: str = ""
    """One line about the recipe, for people."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of everything that is drawn."""
    tuned_on: tuple[str, ...] = ()
    """Classifiers that chose its numbers; they cannot judge it."""
    prompt: PromptSection = PromptSection()
    interference: InterferenceSection = InterferenceSection()
    mask: MaskSection = MaskSection()
    diffusion: DiffusionSection = DiffusionSection()
    path: PathSection = PathSection()
    reconstruction: ReconstructionSection = ReconstructionSection()
    classification: ClassificationSection = ClassificationSection()
    features: FeaturesSection = FeaturesSection()
    expectation: ExpectationSection = ExpectationSection()
    terms: dict[str, TermSection] = Field(default_factory=dict)
    optimiser: OptimiserSection = OptimiserSection()
    pixels: PixelSection = PixelSection()
    finish: FinishSection = FinishSection()
    budget: BudgetSection = BudgetSection()

    @property
    def uses_pipeline(self) -> bool:
        """True: latents are those of a pipeline."""
        return True

    @property
    def generates(self) -> bool:
        """False: the images are those that are given."""
        return False

    @property
    def previews_the_end(self) -> bool:
        """Whether what an iteration shows, or looks ahead to, is the end of the path."""
        path, last = self.path, self.diffusion.denoising_steps - 1
        return path.seen == "end" or (path.level != "random" and path.level + path.looks_ahead == last)

    @model_validator(mode="after")
    def _previews_where_it_walks(self) -> Recipe:
        path, steps = self.path, self.diffusion.denoising_steps
        lowest = 0 if path.level == "random" else path.level
        if path.seen == "preview" and lowest + path.looks_ahead >= steps:
            ahead = ", and look_ahead needs a step after it" if path.looks_ahead else ""
            raise ValueError(
                f"path.level is {path.level} and diffusion.denoising_steps {steps}{ahead}; "
                f"the steps count from 0 to {steps - 1}"
            )
        if path.looks_ahead and 0 < self.diffusion.gradient_steps <= path.passes:
            raise ValueError(
                "path.look_ahead needs a gradient from before the last step; leave diffusion.gradient_steps out, or "
                f"set more than {path.passes}"
            )
        return self

    @model_validator(mode="after")
    def _walks_its_path(self) -> Recipe:
        if not self.optimiser.learning_rate and self.path != PathSection():
            raise ValueError("optimiser.learning_rate is 0, and the path is not walked; leave path or the 0 out")
        return self

    @model_validator(mode="after")
    def _uses_its_budget(self) -> Recipe:
        if self.budget.given and self.finish.early:
            raise ValueError("finish.early ends an attack before its budget is spent; leave finish.early or budget out")
        return self

    @model_validator(mode="after")
    def _ends_while_it_runs(self) -> Recipe:
        after, iterations = self.finish.after, self.optimiser.iterations
        if after > iterations:
            raise ValueError(f"finish.after is {after} and cannot exceed optimiser.iterations, which is {iterations}")
        return self

    @property
    def updates(self) -> int:
        """Number of updates that the attack carries out at most."""
        return self.finish.after or self.optimiser.iterations

    def ended_after(self, updates: int) -> Recipe:
        """The same attack, ended after so many ``updates``."""
        return self.model_copy(update={"finish": self.finish.model_copy(update={"after": updates})})

    @model_validator(mode="after")
    def _moves_pixels_where_gradients_are(self) -> Recipe:
        if self.pixels.learning_rate and self.classification.space == "latent":
            raise ValueError(
                "pixels.learning_rate needs gradients at the image; leave it out, or classification.space = 'latent'"
            )
        return self

    @model_validator(mode="after")
    def _moves_something(self) -> Recipe:
        if not (self.optimiser.learning_rate or self.pixels.learning_rate):
            raise ValueError("nothing moves: give optimiser.learning_rate or pixels.learning_rate more than 0")
        if not self.optimiser.learning_rate and any(term.weight for term in self.terms.values()):
            raise ValueError(
                "optimiser.learning_rate is 0, and what terms read stays as it is; leave terms or the 0 out"
            )
        return self


class BaselineSection(OpenSection):
    attack: str
    """Name of a baseline; its options stand beside this key."""


class BaselineRecipe(Section):
    """Complete description of a baseline:
    ``baseline.attack`` is a name in ``BASELINES``."""

    name: str
    """Name under which runs, tables and reports show the recipe."""
    summary: str = ""
    """One line about the recipe, for people."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of everything that is drawn."""
    tuned_on: tuple[str, ...] = ()
    """Classifiers that chose its numbers; they cannot judge it."""
    baseline: BaselineSection
    budget: BudgetSection = BudgetSection()

    @property
    def uses_pipeline(self) -> bool:
        """False for an attack on pixels."""
        return needs_diffusion(self.baseline.attack)

    @property
    def generates(self) -> bool:
        """True where images are made of noise, and twins stand in the place of clean images."""
        return generates(self.baseline.attack, self.baseline.options)


def _kind(recipe: Any) -> str:
    is_baseline = "baseline" in recipe if isinstance(recipe, Mapping) else isinstance(recipe, BaselineRecipe)
    return "baseline" if is_baseline else "latent"


AnyRecipe = Annotated[
    Annotated[Recipe, Tag("latent")] | Annotated[BaselineRecipe, Tag("baseline")], Discriminator(_kind)
]
