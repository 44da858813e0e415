"""Loader of the lab's trained flow, which is part of the package."""

from __future__ import annotations

from attnshift.diffusion import Precision
from attnshift.diffusion.backbone import Loader
from attnshift.diffusion.names import split_options
from attnshift.diffusion.sd3 import StableDiffusion3, load_sd3
from attnshift.errors import ModelError
from attnshift.lab.weights import flow_folder

__all__ = ["LAB_FLOW", "load_lab_flow"]


def load_lab_flow(source: str = "", precision: Precision = "float32") -> StableDiffusion3:
    """Pipeline ``lab-flow``, with the options ``source`` behind its name. Raises ``ModelError`` if
    ``source`` names another."""
    if split_options(source)[0]:
        raise ModelError(f"pipeline 'lab-flow:{source}': the lab has one flow, called lab-flow")
    return load_sd3(f"{flow_folder()}{source}", precision, f"lab-flow{source}")


LAB_FLOW = Loader((), load_lab_flow, flow=True)
