"""Server of the studio: it loads the networks, renders images of the lab, and shows the page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnshift.errors import UserError
from attnshift.lab.export import export_images
from attnshift.studio.networks import Networks, StudioOptions

if TYPE_CHECKING:
    import gradio

__all__ = ["UPLOAD", "make_studio", "serve"]

UPLOAD = "12mb"
"""Largest file that can be uploaded."""
_EXAMPLES = 8


def make_studio(options: StudioOptions) -> tuple[gradio.Blocks, dict[str, Any]]:
    """The page of a studio whose networks are loaded, and how to launch it.

    A ``UserError`` where gradio is not installed, or a network cannot be loaded.
    """
    # Said before gradio is imported: a page on one's own machine tells nobody that it is there.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise UserError("the studio needs gradio, which is not installed: pip install 'attnshift[studio]'") from None
    from attnshift.studio.page import build_page

    networks = Networks(options.completed())
    networks.ask(networks.load)
    theme = gradio.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    page = build_page(networks, _examples(options) if options.of_lab else ())
    # In the head, since gradio lets a style sheet of its own reach no further than the components.
    style = f"<style>{Path(__file__).with_name('style.css').read_text(encoding='utf-8')}</style>"
    look = {"theme": theme, "head": style}
    return page, look | {"footer_links": [], "max_file_size": UPLOAD, "quiet": True, "ssr_mode": False}


def serve(options: StudioOptions, ready: Callable[[str], None], wait: bool = True) -> gradio.Blocks:
    """Serve a studio and call ``ready`` with its address; ``wait`` until it is stopped.

    A ``UserError`` where the port is taken.
    """
    page, launch = make_studio(options)
    page.queue(max_size=32)
    try:
        _, address, _ = page.launch(
            **launch,
            server_name=options.host,
            server_port=options.port or None,
            inbrowser=options.browser,
            share=False,
            prevent_thread_lock=True,
        )
    except OSError:
        raise UserError(f"`port` {options.port} of {options.host} is taken; choose another, or 0 for any") from None
    ready(address)
    if wait:
        page.block_thread()
    return page


def _examples(options: StudioOptions) -> list[Path]:
    """Held-out images of the lab, rendered once into the studio's folder."""
    folder = options.out / "lab"
    export_images(folder, seed=0, split="test", count=_EXAMPLES)
    return sorted(folder.glob("*.png"))
