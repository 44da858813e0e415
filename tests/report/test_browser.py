"""The page in a real browser: no console message, no request, no sideways scrolling on a phone."""

from __future__ import annotations

import json
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from attnshift.report.curve_page import write_comparison
from attnshift.report.page import write_report
from attnshift.report.rating_page import write_rating_page
from attnshift.report.rating_plan import chosen_images, draw_order
from attnshift.results.ratings import read_ratings
from report.made_up import made_up_run
from report.made_up_comparison import made_up_comparison
from tables import write_records
from tiers import fast_first

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium; `apt-get install chromium` provides it")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--v=0",
)
_OWN_HOSTS = re.compile(r"google|gstatic|gvt1|chromium\.org")
"""Where the browser itself may call in spite of all flags; no page of ours can name such a host unnoticed."""


class Proxy(socketserver.ThreadingTCPServer):
    """Everything that the browser asks the network for ends here, and is written down."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refuse)
        self.asked: list[str] = []


class _Refuse(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        line = self.rfile.readline().decode("latin-1").strip()
        if line and not _OWN_HOSTS.search(line):
            self.server.asked.append(line)
        self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@dataclass(frozen=True)
class Visit:
    console: list[str]
    requests: list[str]
    screenshot: Path


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def browse(proxy: Proxy, url: str, folder: Path, width: int = 1280, *flags: str) -> tuple[str, str]:
    """Output and log of a browser that opens ``url`` with a fresh profile."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--proxy-server=127.0.0.1:{proxy.server_address[1]}",
        # Without this the browser never asks a proxy for the loopback address.
        "--proxy-bypass-list=<-loopback>",
        f"--window-size={width},1600",
        *flags,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def visit(proxy: Proxy, page: Path, folder: Path, width: int = 1280) -> Visit:
    screenshot = folder / f"{page.stem}-{width}.png"
    _, log = browse(proxy, page.as_uri(), folder, width, f"--screenshot={screenshot}")
    return Visit([line for line in log.splitlines() if ":CONSOLE" in line], list(proxy.asked), screenshot)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """One that also says what could not be measured, and why, with a path that has no place to break."""
    store = made_up_run(tmp_path / "run", hostile=True)
    reason = f"needs weights, and /{'/'.join(['folder'] * 20)} is missing"
    write_records(store, "unavailable", [{"metric": "lpips-alex", "reason": reason}])
    row = {"arm": "attack", "features": "lab:resnet", "usual": False, "images": 200, "low": 0.5, "high": 2.0}
    kid, fid = {"metric": "kid", "value": 1.0, "reason": ""}, {"metric": "fid", "value": None, "reason": reason}
    write_records(store, "sets", [row | kid, row | fid])
    return write_report(store)


def test_a_report_opens_without_messages_and_requests(proxy: Proxy, report: Path, tmp_path: Path) -> None:
    seen = visit(proxy, report, tmp_path)
    assert seen.console == []
    assert seen.requests == []
    with Image.open(seen.screenshot) as picture:
        assert picture.width == 1280
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 100, "more than an empty page"


@pytest.mark.heavy
def test_an_unjudged_report_too(proxy: Proxy, tmp_path: Path) -> None:
    seen = visit(proxy, write_report(made_up_run(tmp_path / "run", judged=False)), tmp_path)
    assert (seen.console, seen.requests) == ([], [])


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    return write_comparison(tmp_path, made_up_comparison(tmp_path))


def test_a_comparison_too(proxy: Proxy, comparison: Path, tmp_path: Path) -> None:
    seen = visit(proxy, comparison, tmp_path)
    assert (seen.console, seen.requests) == ([], [])


POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'">"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{POLICY}<img src='http://example.invalid/x.png'>", "Content Security Policy"),
        (f"{POLICY}<script>alert(1)</script>", "Content Security Policy"),
        ("<script>nowhere.defined()</script>", "nowhere is not defined"),
        ("<script>console.error('seen')</script>", "seen"),
    ],
    ids=["blocked image", "blocked script", "script error", "console.error"],
)
def test_what_is_wrong_with_a_page_is_noticed(proxy: Proxy, tmp_path: Path, body: str, message: str) -> None:
    page = tmp_path / "bad.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{body}")
    assert any(message in line for line in visit(proxy, page, tmp_path).console)


@pytest.mark.parametrize("source", fast_first(["http://example.invalid/x.png", "http://127.0.0.1:48123/y.png"]))
def test_a_request_is_noticed(proxy: Proxy, tmp_path: Path, source: str) -> None:
    page = tmp_path / "bad.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><img src='{source}'>")
    assert any(source in line for line in visit(proxy, page, tmp_path).requests)


def overflow(proxy: Proxy, report: Path, folder: Path, width: int) -> int:
    """Pixels by which the page is wider than a frame of ``width``: headless windows are never as narrow as a phone."""
    html = report.read_text(encoding="utf-8")
    assert "Content-Security-Policy" in html
    measure = "<script>parent.postMessage(document.documentElement.scrollWidth - innerWidth, '*')</script>"
    framed = folder / "framed.html"
    framed.write_text(html.replace("Content-Security-Policy", "x-none") + measure, encoding="utf-8")
    outer = folder / "outer.html"
    outer.write_text(
        "<!doctype html><title>measure</title><script>onmessage = e => document.title = 'by ' + e.data</script>"
        f"<iframe width={width} height=800 style='border: 0' src='{framed.as_uri()}'></iframe>"
    )
    dom, _ = browse(proxy, outer.as_uri(), folder, 1280, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"<title>by (-?\d+)</title>", dom)
    assert found, dom[:500]
    return int(found[1])


@pytest.mark.parametrize("width", fast_first([390, 1200]))
def test_the_page_does_not_scroll_sideways(proxy: Proxy, report: Path, tmp_path: Path, width: int) -> None:
    assert overflow(proxy, report, tmp_path, width) <= 0


@pytest.mark.parametrize("width", fast_first([390, 1200]))
def test_a_comparison_does_not_scroll_sideways(proxy: Proxy, comparison: Path, tmp_path: Path, width: int) -> None:
    assert overflow(proxy, comparison, tmp_path, width) <= 0


@pytest.mark.parametrize("width", fast_first([390, 1200]))
def test_no_text_of_the_figure_is_cut_or_small(proxy: Proxy, comparison: Path, tmp_path: Path, width: int) -> None:
    """What the browser measures: how far text reaches beyond the frame, names upon each other, and its least height."""
    measure = """<script>
const boxes = [...document.querySelectorAll('.plot text')].map(each => each.getBoundingClientRect())
const names = [...document.querySelectorAll('.plot .name')].map(each => each.getBoundingClientRect())
const upon = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
const out = Math.max(...boxes.map(each => Math.max(-each.left, each.right - document.documentElement.clientWidth)))
const pairs = names.flatMap((a, at) => names.slice(at + 1).filter(b => upon(a, b))).length
const height = Math.min(...boxes.map(each => each.height))
document.title = `out ${Math.ceil(out)} pairs ${pairs} height ${Math.floor(height)}`
</script>"""
    html = comparison.read_text(encoding="utf-8").replace("Content-Security-Policy", "x-none")
    told = "<script>onmessage = e => document.title = e.data</script>"
    (tmp_path / "framed.html").write_text(html + measure + "<script>parent.postMessage(document.title, '*')</script>")
    source = (tmp_path / "framed.html").as_uri()
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!doctype html><title>measure</title>{told}<iframe width={width} height=800 src='{source}'>")
    dom, _ = browse(proxy, outer.as_uri(), tmp_path, 1280, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"<title>out (-?\d+) pairs (\d+) height (\d+)</title>", dom)
    assert found, dom[:500]
    out, pairs, height = map(int, found.groups())
    assert out <= 0
    assert pairs == 0
    assert height >= 13, "text of about 11 px"


def test_sideways_scrolling_is_noticed(proxy: Proxy, report: Path, tmp_path: Path) -> None:
    html = report.read_text(encoding="utf-8")
    report.write_text(html.replace("<h1>", "<div style='width: 900px'>x</div><h1>"), encoding="utf-8")
    assert overflow(proxy, report, tmp_path, 390) > 400


GRID = """<script>
const until = async done => { while (!done()) await new Promise(next => setTimeout(next, 20)) }
addEventListener("load", async () => {
  const tiles = () => document.querySelectorAll("#grid .tile").length
  const seen = { all: [tiles()], count: at("count").textContent }
  at("later").click()
  seen.all.push(tiles())
  at("outcome").value = "all"
  choose()
  seen.fooled = [tiles(), at("count").textContent]
  document.querySelector("#grid .tile").click()
  await until(() => at("detail-body").querySelector(".slider"))
  seen.text = at("detail").textContent
  seen.pictures = [...at("detail").querySelectorAll("img")].map(each => each.getAttribute("src"))
  seen.rows = at("detail").querySelectorAll("table tbody tr").length
  document.querySelector("[data-filter=class]").click()
  seen.class = at("count").textContent
  document.body.replaceChildren(JSON.stringify(seen))
})
</script>"""
"""Looks through the grid as a reader does."""


def test_the_grid_is_filtered_and_opens_an_image(proxy: Proxy, report: Path, tmp_path: Path) -> None:
    """Of a, b and c, a and b are known to a judge, and b alone fools all that know it. A page of the grid is cut to
    two images."""
    html = report.read_text(encoding="utf-8").replace("const PAGE = 48", "const PAGE = 2")
    tried = report.with_name("tried.html")
    tried.write_text(html.replace("Content-Security-Policy", "x-none").replace("</body>", f"{GRID}</body>"))
    dom, log = browse(proxy, tried.as_uri(), tmp_path, 1280, "--dump-dom", "--virtual-time-budget=20000")
    found = re.search(r"<body>({.*})</body>", dom, re.DOTALL)
    assert found, log[-2000:]
    seen = json.loads(unescape(found[1]))
    assert (seen["all"], seen["count"]) == ([2, 1], "3 images")
    assert seen["fooled"] == [1, "1 of 3 images"]
    assert "mug → <img src=http://example.invalid/x onerror=alert(1)>" in seen["text"], "a hostile name is text"
    assert set(seen["pictures"]) == {"images/b.clean.png", "images/b.attack.png"}
    assert seen["rows"] == 4, "one for each classifier"
    assert seen["class"] == "1 of 3 images"
    assert not [line for line in log.splitlines() if ":CONSOLE" in line]
    assert proxy.asked == []


@pytest.fixture
def rating_page(tmp_path: Path) -> Path:
    return write_rating_page(made_up_run(tmp_path / "run")).path


def test_a_rating_page_opens_without_messages_and_requests(proxy: Proxy, rating_page: Path, tmp_path: Path) -> None:
    seen = visit(proxy, rating_page, tmp_path)
    assert (seen.console, seen.requests) == ([], [])


RATE = """<script>
const at = id => document.getElementById(id), wait = () => new Promise(done => setTimeout(done, 50))
// Virtual time does not wait for pictures to be decoded.
HTMLImageElement.prototype.decode = () => Promise.resolve()
async function session(code) {
  at("rater").value = code
  at("begin").requestSubmit()
  for (let turn = 0; turn < 100 && at("end").hidden; turn++) {
    await wait()
    if (!at("between").hidden) at("next").click()
    else dispatchEvent(new KeyboardEvent("keydown", { key: turn % 2 ? "1" : "2" }))
  }
  const found = at("json").value
  at("start").hidden = false
  return found
}
addEventListener("load", async () => {
  const found = [await session("one"), await session("two"), await session("one")]
  document.body.replaceChildren(JSON.stringify(found))
})
</script>"""
"""Answers every question of two raters by keyboard, and comes back as the first one."""


def test_a_session_ends_in_a_file_that_is_read(proxy: Proxy, rating_page: Path, tmp_path: Path) -> None:
    html = rating_page.read_text(encoding="utf-8")
    rating_page.write_text(html.replace("Content-Security-Policy", "x-none").replace("</body>", f"{RATE}</body>"))
    dom, _ = browse(proxy, rating_page.as_uri(), tmp_path, 1280, "--dump-dom", "--virtual-time-budget=60000")
    found = re.search(r"<body>(\[.*\])</body>", dom, re.DOTALL)
    assert found, dom[-500:]
    one, two, again = json.loads(unescape(found[1]))
    assert one == again, "a finished session is still there"
    for name, text in (("one", one), ("two", two)):
        (tmp_path / f"{name}.json").write_text(text)
    first, second = read_ratings([tmp_path / "one.json", tmp_path / "two.json"])
    assert (len(first.answers), first.trials, first.rater) == (6, 6, "one")
    assert first.order != second.order
    assert [each.question for each in first.answers] == ["label"] * 3 + ["original"] * 3
    for file in (first, second):
        planned = draw_order(file.order, chosen_images(["a", "b", "c"], 0, 0), 0, True, False)
        ids = chosen_images(["a", "b", "c"], 0, 0)
        shown = [(ids[trial.place], trial.arm) for trial in (*planned.labels, *planned.pairs)]
        assert [(each.id, each.arm) for each in file.answers] == shown
