"""Is a kind of data set added through its record alone, from outside the two packages?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studies import write

TOY = '''
"""Pictures of one color each, from a text file of hexadecimal colors: what its author writes."""

import hashlib
import io
from pathlib import Path

from PIL import Image

from vitok_core.data import Entry, Indexed, Unit
from vitok_core.sources import SOURCES, SourceKind

SOURCES["colors"] = SourceKind(
    name="colors", opener="toy:Colors", about="a text file with a color per line"
)


class Colors:
    classes = ()

    def __init__(self, own):
        self.file = Path(own.place)

    def units(self):
        state = self.file.stat()
        yield Unit(
            name=self.file.name, size_bytes=state.st_size, mtime_ns=state.st_mtime_ns
        )

    def index(self, unit):
        entries = []
        for line, color in enumerate(self.file.read_text().split()):
            content = self.picture(color)
            entries.append(
                Entry(
                    name=f"{line}-{color}",
                    label=0,
                    offset=line,
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).digest(),
                )
            )
        return Indexed(entries=tuple(entries))

    def label(self, unit, found):
        return found

    def read(self, unit, offset, size_bytes):
        return self.picture(self.file.read_text().split()[offset])

    def path(self, unit):
        return self.file

    def close(self):
        pass

    def picture(self, color):
        target = io.BytesIO()
        Image.new("RGB", (40, 40), f"#{color}").save(target, format="PNG")
        return target.getvalue()
'''

RUN = """
import sys

import toy
from sweepctl.cli import main

sys.exit(main())
"""

SITE = "datasets: {paints: {colors: paints.txt}}\n"

STUDY = """\
format: 1
study: toys
data: {train: paints, resolution: 16, images: 8}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 2, batch: 4, precision: fp32, loss: {lpips: 0}}
evaluate:
  allow_overlap: true
  reconstruction: {on: [paints], images: 8, metrics: [psnr]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    for name, text in {"toy.py": TOY, "run.py": RUN, "sweepctl.site.yaml": SITE}.items():
        (tmp_path / name).write_text(text)
    colors = "\n".join(f"{17 * k:02x}{255 - 17 * k:02x}80" for k in range(12))
    (tmp_path / "paints.txt").write_text(colors)
    write(tmp_path, STUDY, "toys.yaml")
    return tmp_path


def sweepctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "run.py"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow  # trains, for two steps
def test_a_kind_of_data_set_from_outside_is_scanned_and_trained_on(folder: Path) -> None:
    scanned = sweepctl(folder, "data", "scan", "paints")
    assert scanned.returncode == 0, scanned.stderr
    run = sweepctl(folder, "run", "toys.yaml", "--cluster", "inline", "-q")
    assert run.returncode == 0, run.stderr
    identities = [
        json.loads(file.read_text())["identity"] for file in folder.glob("runs/prepare-*/task.json")
    ]
    assert {one["data"]["data"] for one in identities} == {"colors"}
    (samples,) = {one["data"]["samples"] for one in identities}
    assert samples == 12
    (done,) = folder.glob("runs/reconstruct-*/result.json")
    assert json.loads(done.read_text())["metrics"][0]["n"] == 8


@pytest.mark.slow  # a process
def test_its_key_is_known_to_the_site_file(folder: Path) -> None:
    (folder / "sweepctl.site.yaml").write_text("datasets: {paints: {colours: paints.txt}}\n")
    wrong = sweepctl(folder, "data", "list")
    assert wrong.returncode == 3
    assert "unknown key 'colours' (did you mean 'colors'?)" in wrong.stderr
