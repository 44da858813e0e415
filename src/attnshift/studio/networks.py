"""Networks of a studio: loaded once, and used by one thread, since attention is read by exchanging
parts of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

from attnshift.attack.inputs import check_device
from attnshift.classifiers.classifier import Classifier, as_surrogates, vocabulary
from attnshift.defences.names import load_defended, load_surrogate
from attnshift.diffusion import Precision, as_precision, is_shipped, load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import ModelError, UserError
from attnshift.execution.checks import Loaders
from attnshift.judging.roles import check_judges

__all__ = ["LAB_JUDGES", "LAB_SURROGATES", "Networks", "StudioOptions"]

LAB_SURROGATES = ("lab:resnet", "lab:efficientnet", "lab:mobilevit")
LAB_JUDGES = ("lab:coatnet", "lab:byobnet", "lab:nfnet", "lab:robust")

Done = TypeVar("Done")


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Networks that a studio uses, and the folder ``out`` in which it keeps what it makes.

    Without surrogates and judges the lab has its own. ``size`` of 0 stands for the pipeline's.
    """

    out: Path
    pipeline: str = "lab"
    surrogates: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    size: int = 0
    device: str = "cpu"
    precision: str = "float32"
    accept_pipeline: bool = False
    host: str = "127.0.0.1"
    port: int = 7860
    browser: bool = False
    """Open the page in the browser of this machine."""

    @property
    def of_lab(self) -> bool:
        return is_shipped(self.pipeline)

    def completed(self) -> StudioOptions:
        """The same with the lab's classifiers where none are given; a ``UserError`` where another
        pipeline has no surrogate, or a judge is attacked."""
        surrogates, judges = self.surrogates, self.judges
        if not surrogates and not self.of_lab:
            raise UserError("`surrogates` is empty; name a classifier to attack, such as timm:resnet50")
        if not surrogates:
            surrogates, judges = LAB_SURROGATES, judges or LAB_JUDGES
        check_judges(judges, surrogates, UserError)
        return StudioOptions(**{**vars(self), "surrogates": surrogates, "judges": judges})


@dataclass(frozen=True)
class Networks:
    """The pipeline, the surrogates in one order of classes, and the judges."""

    options: StudioOptions
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "networks"))

    def submit(self, work: Callable[[], Done]) -> Future[Done]:
        """Let the thread of the networks do ``work``, after all that it was given before."""
        return self._thread.submit(work)

    def ask(self, work: Callable[[], Done]) -> Done:
        """Result of ``work``, done by the thread of the networks."""
        return self.submit(work).result()

    def load(self) -> None:
        """Load everything; a ``UserError`` says what cannot be loaded or used."""
        check_device(self.options.device)
        if not self.classes:
            raise ModelError(
                "the surrogates have no class names, and the page shows classes by name; "
                "put class_names.txt beside their weights"
            )
        self.backbone.check_size(self.size)
        _ = self.judges

    @cached_property
    def loaders(self) -> Loaders:
        """Loaders of an attack that give what is loaded here."""
        surrogates: dict[str, Classifier] = {}

        def surrogate(name: str, behind: Callable[[], Backbone]) -> Classifier:
            if name not in surrogates:
                surrogates[name] = load_surrogate(name, behind)
            return surrogates[name]

        return Loaders(cache(load_pipeline), surrogate)

    @cached_property
    def precision(self) -> Precision:
        return as_precision(self.options.precision)

    @cached_property
    def backbone(self) -> Backbone:
        return self.loaders.pipeline(self.options.pipeline, self.precision).to(self.options.device)

    @cached_property
    def surrogates(self) -> tuple[Classifier, ...]:
        import torch

        loaded = [
            self.loaders.surrogate(name, lambda: self.backbone).to(self.options.device)
            for name in self.options.surrogates
        ]
        return tuple(as_surrogates(loaded, getattr(torch, self.precision)))

    @cached_property
    def judges(self) -> tuple[Classifier, ...]:
        names = self.options.judges
        return tuple(load_defended(name, lambda: self.backbone).to(self.options.device) for name in names)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return vocabulary(self.surrogates)

    @property
    def size(self) -> int:
        """Side of the square images that are attacked, in pixels."""
        return self.options.size or self.backbone.suggested_size
