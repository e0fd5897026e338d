"""What does the dashboard look like? python bench/screenshots.py --folder RUN_FOLDER --out docs

Serves the results.db and runs/ of a folder with `sweepctl ui`, opens its pages in Chromium and
writes the pictures of the docs: the study in light and dark, a point, a comparison, the laws, the
study at 400 px. Look at them before they are kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image

SHOTS = {
    "looking-study": ("/study/{study}", 1280, 1010, "light"),
    "looking-study-dark": ("/study/{study}", 1280, 800, "dark"),
    "looking-point": ("/study/{study}/point/5", 1280, 1040, "light"),
    "looking-compare": ("/study/{study}/compare?cell=7&cell=5&cell=3", 1280, 1100, "light"),
    "looking-laws": ("/study/{study}/fits", 1280, 1180, "light"),
    "looking-narrow": ("/study/{study}", 400, 860, "light"),
}
"""Name of the picture -> address, width, height in pixels, scheme."""

SETTLED_MS = 1500


def shoot(host: str, study: str, out: Path) -> None:
    """Open every page and write its picture."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        sys.exit("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        warm = browser.new_page()
        warm.goto(f"{host}/study/{study}")
        warm.wait_for_selector(".claim, .laws", timeout=60_000)  # the laws are there
        for name, (address, width, height, scheme) in SHOTS.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()
            page.goto(host + address.format(study=study))
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(SETTLED_MS)
            file = out / f"{name}.png"
            page.screenshot(path=file)
            context.close()
            Image.open(file).convert("RGB").save(file, optimize=True)
            print(f"{file}  {file.stat().st_size / 1024:.0f} KiB")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="holds results.db and runs/")
    parser.add_argument("--study", default="quickstart")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-c", "from sweepctl.cli import main; main()", "ui", "--port", "0"],
        cwd=given.folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        shoot(server.stdout.readline().strip().rstrip("/"), given.study, given.out)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
