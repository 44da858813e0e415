"""Pages from templates. Text of a user stays text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attnshift._version import __version__
from attnshift.report.figures import chance, decimal, number, percent
from attnshift.report.glossary import GLOSSARY
from attnshift.terminal import plural

__all__ = ["render_page"]


@dataclass(frozen=True)
class _Script:
    """A script of ours as it stands in a page. ``digest`` is the source expression that lets a
    content security policy run this script and no other."""

    text: Markup
    digest: str


def render_page(template: str, scripts: Sequence[str] = ("page.js",), /, **values: object) -> bytes:
    """The page that ``template`` makes of ``values``, with the ``scripts`` in it; a missing value
    is an error, not a blank."""
    page = _environment().get_template(template)
    return page.render(version=__version__, scripts=[_script(name) for name in scripts], **values).encode()


@cache
def _script(name: str) -> _Script:
    text = files("attnshift.report").joinpath("templates", name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Script(Markup(text), f"sha256-{digest}")


@cache
def _environment() -> Environment:
    """Templates and their filters; a template is compiled once."""
    environment = Environment(
        loader=PackageLoader("attnshift.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "decimal": decimal, "chance": chance}
    environment.filters |= {"plural": plural}
    environment.globals["glossary"] = GLOSSARY
    return environment
