"""Run notebooks and keep their outputs: python examples/pages/notebooks.py docs/notebooks/*.ipynb"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

TIMEOUT = 600
"""Seconds for a cell."""


def executed(path: Path, folder: Path) -> NotebookNode:
    """The notebook at ``path`` with fresh outputs; what it writes goes into ``folder``."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, timeout=TIMEOUT)
    client.record_timing, client.coalesce_streams = False, True
    client.extra_arguments = ["--log-level=ERROR"]  # it warns that other users of this machine could listen
    client.execute()
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [kept(output) for output in cell.outputs if not is_bar(output)]
    return notebook


def is_bar(output: NotebookNode) -> bool:
    """True for what a bar leaves: a widget that is gone, or nothing to be seen."""
    data = output.get("data", {})
    return "application/vnd.jupyter.widget-view+json" in data or data.get("text/plain") == ""


def kept(output: NotebookNode) -> NotebookNode:
    """``output`` with lines that end as those of files, and the smallest of its pictures."""
    if output.output_type == "stream":
        output.text = output.text.replace("\r\n", "\n")
        return output
    pictures = sorted((len(data), kind) for kind, data in output.get("data", {}).items() if kind.startswith("image/"))
    for _, kind in pictures[1:]:
        del output.data[kind]
    return output


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with TemporaryDirectory() as folder:
            notebook = executed(Path(name), Path(folder))
        Path(name).write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
