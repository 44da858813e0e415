"""Loaders of the lab's trained networks, which are part of the package."""

from __future__ import annotations

from dataclasses import replace

from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.timm_source import load_timm
from attnshift.diffusion import Precision
from attnshift.diffusion.backbone import Loader
from attnshift.diffusion.names import split_options
from attnshift.diffusion.stable_diffusion import StableDiffusion, load_stable_diffusion
from attnshift.errors import ModelError
from attnshift.lab.rerender import load_rerender
from attnshift.lab.weights import classifier_folder, pipeline_folder

__all__ = ["LAB", "load_lab_classifier", "load_lab_pipeline"]


def load_lab_classifier(name: str) -> Classifier:
    """Classifier ``name`` of the lab, or its re-render test. Raises ``ModelError`` for an unknown
    name."""
    if name == "rerender":
        return load_rerender()
    return replace(load_timm(str(classifier_folder(name))), name=f"lab:{name}")


def load_lab_pipeline(source: str = "", precision: Precision = "float32") -> StableDiffusion:
    """Pipeline ``lab``, the lab's only one, with the options ``source`` behind its name. Raises
    ``ModelError`` if ``source`` names another."""
    if split_options(source)[0]:
        raise ModelError(f"pipeline 'lab:{source}': the lab has one pipeline, called lab")
    return load_stable_diffusion(f"{pipeline_folder()}{source}", precision, f"lab{source}")


LAB = Loader((), load_lab_pipeline)
