"""Does the dashboard work in a real browser, on finished results and beside a running driver?

The quickstart with hardly any work is run by the real command, then a second study is started and
left running; `sweepctl ui` serves both, and Debian's Chromium looks.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_docs import write_small_quickstart

from sweepctl.ledger import open_ledger

pytestmark = pytest.mark.slow

SWEEPCTL = [sys.executable, "-c", "from sweepctl.cli import main; main()"]
RUNNING = """\
format: 1
study: running
question: Is it still running?
axes: {p: [8, 16], c: [4, 16]}
data: {train: photos-train, resolution: 32, images: 16}
tokenizer: {encoder: nano, decoder: nano}
stages: {stage1: {steps: 200000, batch: 4, precision: fp32, loss: {lpips: 0}}}
evaluate: {reconstruction: {on: [photos-eval], images: 16, metrics: [psnr]}}
"""


@dataclass
class Seen:
    """What a page did that it must not do."""

    host: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        def heard(message: Any) -> None:
            if message.type in ("error", "warning"):
                self.errors.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((self.host, "data:", "blob:")):
                self.strangers.append(request.url)

        page.on("console", heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", asked)


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPCTL_")}
    return {**kept, "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*SWEEPCTL, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished quickstart."""
    folder = tmp_path_factory.mktemp("browser")
    write_small_quickstart(folder / "quickstart.yaml")
    done = subprocess.run(
        [*SWEEPCTL, "run", "quickstart.yaml", "--cluster", "inline", "--device", "cpu"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    """The address of a dashboard over the quickstart and a study that is running."""
    (folder / "running.yaml").write_text(RUNNING)
    run = ("run", "running.yaml", "--workers", "1", "--device", "cpu", "--quiet")
    with started(folder, *run), started(folder, "ui", "--port", "0") as server:
        assert server.stdout is not None
        with open_ledger(str(folder / "results.db"), create=False, read_only=True) as ledger:
            told = "SELECT 1 FROM v_task WHERE state = 'running' AND kind = 'stage1' AND step > 0"
            until = time.monotonic() + 120
            while not ledger.query(told).rows:
                assert time.monotonic() < until, "the second study does not train"
                time.sleep(0.2)
        yield server.stdout.readline().strip().rstrip("/")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((p for name in ("chromium", "chromium-browser") if (p := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # As root in a container Chromium cannot build its own sandbox; it only sees this host.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def seen(host: str) -> Iterator[Seen]:
    seen = Seen(host)
    yield seen
    assert seen.errors == []
    assert seen.strangers == []


@pytest.fixture
def page(chromium: Any, seen: Seen) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    page = context.new_page()
    seen.watch(page)
    yield page
    context.close()


def becomes(page: Any, script: str, wanted: Any) -> None:
    """Wait until a script gives a value; Playwright's own way needs what the policy forbids."""
    until = time.monotonic() + 20
    while (found := page.evaluate(script)) != wanted:
        assert time.monotonic() < until, f"{script} is {found}, not {wanted}"
        page.wait_for_timeout(100)


def drawn(page: Any, selector: str = "#main-figure") -> None:
    page.wait_for_selector(f"{selector} .plot-container .scatterlayer .point")


def test_from_the_first_page_to_a_points_lineage_and_back(page: Any, host: str) -> None:
    page.goto(f"{host}/")
    assert page.locator(".card").count() == 2
    page.click("text=quickstart")
    drawn(page)
    # A click on a point of the scatter opens its cell.
    places = page.evaluate(
        """() => { const e = document.getElementById("main-figure");
        const t = e.data.findIndex(trace => trace.customdata && trace.customdata.length);
        const box = e.querySelectorAll(".scatterlayer .trace .point");
        const at = box[0].getBoundingClientRect();
        return [at.x + at.width / 2, at.y + at.height / 2]; }"""
    )
    page.mouse.move(*places)
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.click(*places)
    page.wait_for_url(re.compile(r"/study/quickstart/point/\d+$"))
    point = page.url
    becomes(page, "document.querySelector('.pairs img').naturalWidth", 32)
    page.wait_for_selector(".curves .figure .scatterlayer .js-line")
    page.click("a:has(code:text-matches('^reconstruct-'))")
    page.wait_for_url(re.compile(r"/task/reconstruct-"))
    page.click("#lineage a[href*='/task/stage1-']")
    page.wait_for_url(re.compile(r"/task/stage1-"))
    page.click("#lineage a[href*='/task/reconstruct-']")
    page.wait_for_url(re.compile(r"/task/reconstruct-"))
    page.click(".chips a")
    page.wait_for_url(point)


def test_every_page_opens_at_both_widths_light_and_dark(
    chromium: Any, host: str, seen: Seen
) -> None:
    paths = (
        *("/", "/study/quickstart", "/study/quickstart/fits", "/study/quickstart/point/5"),
        *("/study/quickstart/compare?cell=1&cell=2&cell=9", "/study/running", "/cluster"),
    )
    for width, scheme in ((1280, "light"), (400, "dark")):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page = context.new_page()
        seen.watch(page)
        for path in paths:
            page.goto(host + path)
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.locator("h1").count() == 1
        context.close()


def test_a_zoom_is_kept_while_a_running_study_is_polled(page: Any, host: str) -> None:
    page.goto(f"{host}/study/quickstart")
    drawn(page)
    page.evaluate(
        """() => Plotly.relayout("main-figure", {"xaxis.range[0]": 2, "xaxis.range[1]": 3,
        "yaxis.range[0]": 5, "yaxis.range[1]": 25})"""
    )
    polls = []
    page.on("response", lambda answer: polls.append(answer.status) if "/live" in answer.url else 0)
    until = time.monotonic() + 30
    while len(polls) < 3 and time.monotonic() < until:
        page.wait_for_timeout(200)
    assert len(polls) >= 3 and set(polls) <= {200, 304} and 200 in polls
    kept = page.evaluate("document.getElementById('main-figure').layout.xaxis.range")
    assert kept == [2, 3]


def test_a_running_study_moves_by_itself(page: Any, host: str) -> None:
    page.goto(f"{host}/study/running")
    page.wait_for_selector(".sq.s-running")
    assert page.locator(".b-running").count() >= 1
    page.goto(f"{host}/cluster")
    page.wait_for_selector("progress")
    value = "Number(document.querySelector('progress').getAttribute('value'))"
    before = page.evaluate(value)
    becomes(page, f"{value} > {before}", True)


def test_the_table_is_filtered_and_two_points_are_compared(page: Any, host: str) -> None:
    page.goto(f"{host}/study/quickstart")
    page.wait_for_selector("#filter select")
    assert page.locator("#cells tbody tr").count() == 9
    page.select_option("select[name='axis.p']", "8")
    becomes(page, "document.querySelectorAll('#cells tbody tr').length", 3)
    page.keyboard.press("Tab")
    page.fill("input[name=where]", "c >= 16")
    page.press("input[name=where]", "Enter")
    becomes(page, "document.querySelectorAll('#cells tbody tr').length", 2)
    assert "where=c" in page.url and "axis.p=8" in page.url
    page.click("#cells th a:text('psnr')")
    page.wait_for_selector("#cells th[aria-sort]")
    page.reload()  # the address holds it all
    page.wait_for_selector("#filter select")
    assert page.locator("#cells tbody tr").count() == 2
    assert page.input_value("input[name=where]") == "c >= 16"
    for box in page.locator("#cells input[type=checkbox]").all():
        box.check()
    page.wait_for_timeout(2500)  # a poll in between leaves the choice alone
    page.click("#compare")
    page.wait_for_url(re.compile(r"/compare\?cell=\d+&cell=\d+$"))
    page.wait_for_selector("#slider-right")
    becomes(page, "document.querySelector('#slider-left').naturalWidth", 32)
    page.locator("#split").fill("20")
    split = page.evaluate("document.getElementById('slider').style.getPropertyValue('--split')")
    assert split == "20%"


def test_it_works_from_the_keyboard(page: Any, host: str) -> None:
    page.goto(f"{host}/study/quickstart/point/2")
    page.keyboard.press("]")
    page.wait_for_url(re.compile(r"/point/3$"))
    page.keyboard.press("[")
    page.wait_for_url(re.compile(r"/point/2$"))
    page.goto(f"{host}/study/quickstart")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.wait_for_selector("input[name=where]")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "where"


def test_copy_buttons_copy(chromium: Any, host: str, seen: Seen, folder: Path) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    seen.watch(page)
    page.goto(f"{host}/study/quickstart/point/1")
    page.click("button[aria-label='Copy the path of the checkpoint']")
    page.wait_for_selector("text=Copied")
    copied = Path(page.evaluate("navigator.clipboard.readText()"))
    assert copied.is_file() and copied.is_relative_to(folder.resolve())
    context.close()


def test_nothing_offers_to_upload_a_chart(page: Any, host: str) -> None:
    page.goto(f"{host}/study/quickstart")
    drawn(page)
    page.hover("#main-figure")
    titles = page.locator(".modebar-btn").evaluate_all(
        "buttons => buttons.map(button => button.getAttribute('data-title') || '')"
    )
    assert titles
    assert not [one for one in titles if re.search("cloud|share|studio|edit", one, re.I)]


def test_a_server_that_is_gone_is_said_and_the_page_stays(chromium: Any, folder: Path) -> None:
    with started(folder, "ui", "--port", "0") as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        page = chromium.new_page()
        page.goto(f"{address}study/quickstart")
        page.wait_for_selector("#cells")
        assert page.locator("#stale").is_hidden()
        os.killpg(server.pid, signal.SIGKILL)
        page.wait_for_selector("#stale:not([hidden])", timeout=20_000)
        assert page.locator("#cells tbody tr").count() == 9
        page.close()


def test_the_report_opens_with_the_network_off(chromium: Any, folder: Path) -> None:
    done = subprocess.run(
        [*SWEEPCTL, "report", "quickstart", "-o", "quickstart.html"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file = folder / "quickstart.html"
    assert file.stat().st_size < 5 * 2**20
    context = chromium.new_context(offline=True)
    page = context.new_page()
    seen = Seen(file.as_uri())
    seen.watch(page)
    page.goto(file.as_uri())
    drawn(page, "#figure-1")
    becomes(page, "document.querySelector('.crops img').naturalWidth", 32)
    assert seen.errors == [] and seen.strangers == []
    context.close()
