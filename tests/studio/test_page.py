"""The page in a browser: the way through it, at the widths of a desk and of a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "a photo of a mug <img src=x onerror='window.markup = 1'>"
PATIENCE = 240_000
"""Milliseconds that a busy machine may take for a step."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio that the command serves."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    out = tmp_path_factory.mktemp("studio")
    served = [sys.executable, "-m", "attnshift", "studio", "--out", str(out), "--port", "0"]
    served += ["--surrogate", "lab:resnet", "--judge", "lab:coatnet"]
    with subprocess.Popen(
        served, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stderr is not None
        lines: list[str] = []
        try:
            for line in server.stderr:
                lines.append(line)
                if found := re.search(r"the studio is at (http://\S+)", line):
                    yield found[1]
                    break
            else:
                pytest.fail("".join(lines))
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A page with all that went wrong on it."""

    def __init__(self, browser: Any, address: str, width: int, scheme: str):
        self.complaints: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: self._asked(asked.url, address))
        self.page.goto(address)
        self.says("Pick an image")

    def _asked(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.complaints.append(f"asks for {url}")

    def says(self, text: str) -> None:
        """Wait until the state of the page is ``text``."""
        self.page.locator("#status", has_text=text).wait_for()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def sideways(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_the_way_through_the_page(browser: Any, address: str, width: int, scheme: str) -> None:
    visit = Visit(browser, address, width, scheme)
    page = visit.page
    page.locator("#examples button").nth(3).click()
    visit.says("Ready")
    assert "mug" in page.locator("#found").inner_text()
    page.get_by_label("Prompt").fill(EVIL)
    page.get_by_label("Prompt").press("Enter")
    visit.tab("Attention")
    page.locator("#words label", has_text="onerror").click()
    page.get_by_text("goes to “onerror”").wait_for()
    visit.tab("Result")
    page.get_by_text("Terms, iterations and seed").click()
    page.get_by_label("number input for Iterations").fill("3")
    page.get_by_label("number input for Iterations").press("Enter")
    page.locator("#go").click()
    visit.says("fooled.")
    assert page.locator("#verdicts .chip").count() == 2
    if width == 1400:
        visit.tab("Save")
        assert "attnshift attack" in page.locator("#command").inner_text()
        with page.expect_download() as download:
            page.get_by_role("button", name="Recipe (TOML)").click()
        assert "window.markup" in Path(download.value.path()).read_text(encoding="utf-8")
    assert visit.sideways() <= 0
    assert page.evaluate("window.markup === undefined")
    assert visit.complaints == []


@pytest.mark.parametrize("width", [1400, 390])
def test_what_is_set_is_what_is_done_and_saved(browser: Any, address: str, width: int) -> None:
    """Preset, budget, a term and a painted mask; then curves, and the files."""
    from PIL import Image

    visit = Visit(browser, address, width, "light")
    page = visit.page
    page.locator("#examples button").nth(3).click()
    visit.says("Ready")
    page.get_by_label("Preset").click()
    page.get_by_role("option", name="attention").click()
    page.get_by_text("Terms, iterations and seed").click()
    for name, value in {"Limit": "0.9", "Iterations": "2", "entropy": "1.5"}.items():
        page.get_by_label(f"number input for {name}").fill(value)
        page.get_by_label(f"number input for {name}").press("Enter")
    page.get_by_text("Mask: change only what you paint").click()
    canvas = page.locator("#mask canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()
    page.locator("#go").click()
    visit.says("fooled.")
    visit.tab("Curves")
    page.get_by_role("img", name="by iteration").first.wait_for()
    visit.tab("Save")
    assert "--masks" in page.locator("#command").inner_text()
    files = {}
    for button in ("Image (PNG)", "Recipe (TOML)", "Everything (ZIP)"):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        files[button] = Path(download.value.path())
    with Image.open(files["Image (PNG)"]) as saved:
        assert saved.size == (64, 64)
    recipe = tomllib.loads(files["Recipe (TOML)"].read_text(encoding="utf-8"))
    assert (recipe["budget"]["limit"], recipe["optimiser"]["iterations"]) == (0.9, 2)
    assert (recipe["terms"]["entropy"]["weight"], recipe["mask"]["source"]) == (1.5, "given")
    with zipfile.ZipFile(files["Everything (ZIP)"]) as packed:
        assert any(name.endswith(".toml") for name in packed.namelist())
    assert visit.sideways() <= 0
    assert visit.complaints == []


def test_an_uploaded_file_is_stopped_and_kept_and_a_wrong_one_is_told(
    browser: Any, address: str, tmp_path: Path
) -> None:
    from PIL import Image

    visit = Visit(browser, address, 1400, "light")
    page = visit.page
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "photo.jpg")
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "photo.jpg"))
    visit.says("Ready")
    page.locator("#go").click()
    visit.says("Iteration")
    page.locator("#stop").click()
    visit.says("Stopped after")
    page.get_by_label("Prompt").fill("nothing of the kind")
    page.get_by_label("Prompt").press("Enter")
    visit.says("Ready")
    page.locator("#go").click()
    visit.says("the prompt does not name the class")
    assert visit.complaints == []
