"""Exceptions of this package.

AttnshiftError
└── UserError             the input, a file or an option is wrong; says what, where and what to do
    ├── ImageError        an image cannot be used
    ├── LabelError        a label or a label file cannot be used
    ├── RecipeError       a recipe or a change to one of its options cannot be used
    ├── ModelError        a pipeline or a classifier cannot be loaded or does not fit
    ├── RunError          a run folder cannot be used or continued
    └── UnavailableError  a metric cannot be computed: no weights, or images too small or too few
        └── PluginError   a plug-in of an installed package cannot be used

A message names an option as Python does, in backticks: "`size` is 60; it must lie between 8 and
4096". The command line prints the option's flag in its place: "--size is 60; …". Nothing below
``cli/`` writes a flag.
"""

from __future__ import annotations

__all__ = [
    "AttnshiftError",
    "ImageError",
    "LabelError",
    "ModelError",
    "PluginError",
    "RecipeError",
    "RunError",
    "UnavailableError",
    "UserError",
]


class AttnshiftError(Exception):
    """Root of all exceptions that this package raises on purpose."""


class UserError(AttnshiftError):
    """Wrong input. The command line shows the message on one line and exits with status 2."""


class ImageError(UserError):
    """An image that cannot be used."""


class LabelError(UserError):
    """A label, a target or a source of images that cannot be used."""


class RecipeError(UserError):
    """A recipe that cannot be used."""


class ModelError(UserError):
    """A pipeline or a classifier that cannot be loaded or does not fit."""


class RunError(UserError):
    """A run folder that cannot be used or continued."""


class UnavailableError(UserError):
    """A metric that cannot be computed. Commands show ``NAME: unavailable: MESSAGE`` and go on."""


class PluginError(UnavailableError):
    """A plug-in that cannot be imported or does not fit. The message names its package."""
