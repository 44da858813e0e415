"""Pages from templates. Text of a user stays text."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from attnshift._version import __version__
from attnshift.report.figures import chance, curve, decimal, number, percent
from attnshift.terminal import plural

__all__ = ["render_page"]


def render_page(template: str, **values: object) -> bytes:
    """The page that ``template`` makes of ``values``; a missing value is an error, not a blank."""
    return _environment().get_template(template).render(version=__version__, **values).encode()


@cache
def _environment() -> Environment:
    """Templates and their filters; a template is compiled once."""
    environment = Environment(
        loader=PackageLoader("attnshift.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    figures = {"percent": percent, "number": number, "decimal": decimal, "curve": curve, "chance": chance}
    environment.filters |= figures | {"plural": plural}
    return environment
