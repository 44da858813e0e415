"""Hooks of the documentation site (mkdocs.yml): links out of docs/, and the list of decisions."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s]*)\)")
"""A link that leaves the folder of its page, with its text and its target."""


def on_config(config: Any) -> Any:
    """Replace a folder in the navigation, such as ``Decisions: decisions``, by its pages in order."""
    for section in config.nav:
        for title, place in section.items():
            if isinstance(place, str) and (folder := Path(config.docs_dir, place)).is_dir():
                section[title] = [f"{place}/{page.name}" for page in sorted(folder.glob("*.md"))]
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to files outside docs/ into addresses of the repository, or into their text if it has none."""
    return outward_links(markdown, page.file.src_uri, config.repo_url or "")


def outward_links(markdown: str, page: str, repository: str) -> str:
    """The text of ``page``, a path below docs/, whose links out of docs/ go to ``repository``.

    >>> outward_links("[a](../examples/plugin) [b](runs.md)", "extending.md", "https://host/us/it")
    '[a](https://host/us/it/blob/HEAD/examples/plugin) [b](runs.md)'
    >>> outward_links("[a](../../README.md) [b](../runs.md)", "decisions/0001.md", "")
    'a [b](../runs.md)'
    """

    def outward(link: re.Match[str]) -> str:
        text, target = link.groups()
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if place.startswith("docs/"):
            return link[0]
        return f"[{text}]({repository.rstrip('/')}/blob/HEAD/{place})" if repository else text

    return LINK.sub(outward, markdown)
