"""Hooks of the documentation site (mkdocs.yml): links out of docs/, the list of decisions, notebooks, figures."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s]*)\)")
"""A link that leaves the folder of its page, with its text and its target."""
NOTEBOOK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:]+)\.ipynb\)")
"""A link to a notebook of these pages."""
FIGURE = re.compile(r"(`[^`]*`)|(?<=\d) (?=%)|(?<=[<>≤≥]) (?=\d)|(?<=\d,) (?=-?[\d.]+\])")
"""A space inside a share, a bound or an interval: 85 %, < 0.001, [81, 89]. Code is matched to be left alone."""


def on_config(config: Any) -> Any:
    """Replace a folder in the navigation, such as ``Decisions: decisions``, by its pages in order."""
    for section in config.nav:
        for title, place in section.items():
            if isinstance(place, str) and (folder := Path(config.docs_dir, place)).is_dir():
                section[title] = [f"{place}/{page.name}" for page in sorted(folder.glob("*.md"))]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, with its pictures."""
    from mkdocs.structure.files import File

    for path in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        folder = path.parent.relative_to(config.docs_dir).as_posix()
        for name, content in pages_of(path).items():
            files.append(File.generated(config, f"{folder}/{name}", content=content))
    return files


def pages_of(notebook: Path) -> dict[str, str | bytes]:
    """Files of the page of ``notebook`` by name: its text, and pictures in a folder of its own."""
    from nbconvert import MarkdownExporter

    places = {"unique_key": notebook.stem, "output_files_dir": notebook.stem}
    text, made = MarkdownExporter().from_filename(str(notebook), places)
    title, _, rest = text.lstrip().partition("\n")
    offer = f'<a href="{notebook.name}" download>The notebook as a file</a>'
    return {f"{notebook.stem}.md": f"{title}\n\n{offer}\n{rest}", **made["outputs"]}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Mend links out of docs/ and to notebooks, and figures in tables."""
    inward = NOTEBOOK.sub(r"[\1](\2.md)", markdown)
    return unbroken_figures(outward_links(inward, page.file.src_uri, config.repo_url or ""))


def outward_links(markdown: str, page: str, repository: str) -> str:
    """The text of ``page``, a path below docs/, whose links out of docs/ go to ``repository``.

    Without a repository only their texts stay.
    """

    def outward(link: re.Match[str]) -> str:
        text, target = link.groups()
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if place.startswith("docs/"):
            return link[0]
        return f"[{text}]({repository.rstrip('/')}/blob/HEAD/{place})" if repository else text

    return LINK.sub(outward, markdown)


def unbroken_figures(markdown: str) -> str:
    """Keep figures in the rows of tables on one line."""
    return "\n".join(
        FIGURE.sub(lambda found: found[1] or "\u00a0", line) if line.startswith("|") else line
        for line in markdown.split("\n")
    )
