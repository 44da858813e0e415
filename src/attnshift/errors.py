"""What can go wrong, as a tree.

AttnshiftError
└── UserError             the input, a file or an option is wrong; the message says what, where and what to do
    ├── ImageError        an image cannot be used
    ├── LabelError        a label or a label file cannot be used
    ├── RecipeError       a recipe or a ``--set`` cannot be used
    ├── ModelError        a pipeline or a classifier cannot be loaded or does not fit
    ├── RunError          a run folder cannot be used or continued
    └── UnavailableError  a measure cannot be taken here: weights are not there, images are too small or too few
"""

from __future__ import annotations

__all__ = [
    "AttnshiftError",
    "ImageError",
    "LabelError",
    "ModelError",
    "RecipeError",
    "RunError",
    "UnavailableError",
    "UserError",
]


class AttnshiftError(Exception):
    """Root of everything that this package raises on purpose."""


class UserError(AttnshiftError):
    """Shown as one line; the command line exits with status 2."""


class ImageError(UserError):
    pass


class LabelError(UserError):
    pass


class RecipeError(UserError):
    pass


class ModelError(UserError):
    pass


class RunError(UserError):
    pass


class UnavailableError(UserError):
    """Caught where everything else can go on, which then shows ``NAME: unavailable: MESSAGE``."""
