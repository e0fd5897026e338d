"""What does a GPU make of it? PYTHONPATH=. python bench/gpu.py [--out bench/gpu.json]

At most 8 minutes on one GPU. Needs torch, numpy, scipy, pillow, safetensors and this repository on
the path; nothing is installed or downloaded. Perceptual networks whose files are missing get random
weights (bench/stand_ins.py), which is said in the table: they cost what the real ones cost.

Part A runs every check of bench/gpu_checks.py. Part B measures, each a row as soon as it is known:

    peaks         matrix products in bf16, tf32 and fp32, copies to the device
    S-B/16 ...    stage 1, stage 2 and DiT-L steps at 256 px: time, images/s, MFU against the data
                  sheet and against the measured peaks, memory against the closed form, calls that
                  make the CPU wait; each setting that buys time switched on after the other, and a
                  plain PyTorch loop of standard blocks (timm's where it is installed)
    checkpoints   what they take from the steps
    samples, evaluation

Each part runs in a process forked from one that has imported everything and never touched the GPU,
as attempts do, and is killed when its time is up: what it printed before stays, in the table and in
the file. Without a GPU, or with --toy, the same parts run at toy size on the CPU, as a test of this
script: those figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_checks
import gpu_figures
import gpu_trainings
import stand_ins
import torch
from gpu_figures import Place, Tell

LIMIT_S = 470.0
"""Of the whole script, ten seconds short of the eight minutes."""


def checks(place: Place, tell: Tell) -> None:
    """Part A: every check, until the time is up."""
    for name, check in gpu_checks.CHECKS.items():
        if check.gpu_only and place.device != "cuda":
            tell("check", name=name, state="left out", said="needs a GPU")
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                state, said = "passed", check.run(Path(folder), place.device)
            except Exception as error:  # noqa: BLE001  # whatever it is, the others are checked
                state, said = "FAILED", f"{type(error).__name__}: {error}"
                traceback.print_exc()
        tell("check", name=name, state=state, said=said, seconds=time.monotonic() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part.

    Attributes:
        name: for people and --only.
        share_s: seconds that it may take; what earlier parts left is added.
        run: measures and tells.
    """

    name: str
    share_s: float
    run: Callable[[Place, Tell], None]


PARTS = (
    Part(name="peaks", share_s=25, run=gpu_figures.peaks),
    Part(name="checks", share_s=125, run=checks),
    Part(name="S-B/16", share_s=100, run=lambda place, tell: gpu_figures.stage1(16, place, tell)),
    Part(name="DiT-L", share_s=60, run=gpu_figures.dit),
    Part(name="stage 2", share_s=50, run=gpu_figures.stage2),
    Part(name="S-B/8", share_s=50, run=lambda place, tell: gpu_figures.stage1(8, place, tell)),
    Part(name="checkpoints", share_s=25, run=gpu_figures.checkpoints),
    Part(name="samples", share_s=20, run=gpu_figures.sampling),
    Part(name="evaluation", share_s=15, run=gpu_figures.evaluation),
)
"""The most important first: time that a part leaves goes to those behind it."""


# --- processes and the table --------------------------------------------------------------------


class Findings:
    """What was found so far: printed as it comes, and written whole to a file each time."""

    def __init__(self, out: Path | None, about: Mapping[str, Any]) -> None:
        self.out, self.found = out, {"about": dict(about), "findings": []}
        self.failed = False

    def add(self, finding: Mapping[str, Any]) -> None:
        """Keep one finding and print its line."""
        self.found["findings"].append(finding)
        self.failed = self.failed or finding.get("state") == "FAILED" or "error" in finding
        print(line_of(finding), flush=True)
        self.write()

    def write(self) -> None:
        """The file, replaced in one step, so that a kill leaves the one before."""
        if self.out is not None:
            unfinished = self.out.with_name(f".{self.out.name}.tmp")
            unfinished.write_text(json.dumps(self.found, indent=1) + "\n")
            unfinished.replace(self.out)

    @property
    def peaks(self) -> dict[str, float]:
        """Measured FLOP/s by precision."""
        rows = [one for one in self.found["findings"] if one["kind"] == "peak"]
        return {one["precision"]: one["flops_per_s"] for one in rows}


HEADER = (
    f"  {'':40} {'batch':>5} {'ms/step':>9} {'images/s':>9} {'MFU':>6} {'of meas.':>8} "
    f"{'GiB':>6} {'closed':>6} {'waits':>5} {'1st step':>9}"
)


def line_of(one: Mapping[str, Any]) -> str:
    """A finding as a line of the table."""
    kind = one["kind"]
    if kind == "row" and "error" not in one:
        peak, closed = one.get("peak_bytes"), one.get("closed_form_bytes")
        return (
            f"  {one['case'][:16]:16} {one['row'][:23]:23} {one['batch']:>5} "
            f"{1e3 * one['step_s']:>9.1f} {one['images_per_s']:>9.1f} "
            f"{_percent(one.get('mfu_sheet')):>6} {_percent(one.get('mfu_measured')):>8} "
            f"{_gib(peak):>6} {_gib(closed):>6} {_plain(one.get('blocking_per_step')):>5} "
            f"{one['first_step_s']:>7.1f} s"
        )
    if kind == "row":
        return f"  {one['case']}, {one['row']}: {one['error']}"
    if kind == "peak":
        return f"  {one['precision']}: {one['flops_per_s'] / 1e12:.1f} TFLOP/s"
    if kind == "copy":
        return f"  {one['what']}: {one['bytes_per_s'] / 1e9:.1f} GB/s"
    if kind == "check":
        took = f"{one['seconds']:.1f} s" if "seconds" in one else ""
        return f"  {one['state']:8} {one['name']:32} {took:>8}  {one['said']}"
    if kind == "checkpoint":
        every = (
            "none" if one["every_s"] == gpu_figures.NO_CHECKPOINT else f"every {one['every_s']:g} s"
        )
        return (
            f"  {every:14} {one['size_bytes'] / 1e9:6.2f} GB, steps of "
            f"{1e3 * one['median_step_s']:.1f} ms, longest {1e3 * one['longest_step_s']:.1f} ms, "
            f"{one['lost_share']:.2%} of the time lost"
        )
    return f"  {one['text']}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _gib(value: int | None) -> str:
    return "" if value is None else f"{value / 2**30:.1f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def in_a_child(work: Callable[[Tell], None], ends: float) -> Iterator[dict[str, Any]]:
    """What some work tells, in a child that is killed with all its own when the time is up."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _work(work, reading, writing)
    os.setpgid(pid, pid)  # in both, whoever comes first
    os.close(writing)
    rest, timed_out = b"", False
    try:
        while True:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                timed_out = True
                break
            block = os.read(reading, 1 << 16)
            if not block:
                break
            *lines, rest = (rest + block).split(b"\n")
            yield from map(json.loads, lines)
    finally:
        # Also what it has started, such as processes that compile.
        if timed_out or sys.exc_info()[0] is not None:
            os.killpg(pid, signal.SIGKILL)
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if timed_out:
        yield {"kind": "note", "text": "its time was up: the rest of this part is missing"}
    elif code:
        yield {"kind": "row", "case": "the part", "row": "", "error": f"ended with code {code}"}


def _work(work: Callable[[Tell], None], reading: int, writing: int) -> None:
    """The child's side; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.close(reading)

        def tell(kind: str, **fields: Any) -> None:
            os.write(writing, json.dumps({"kind": kind, **fields}).encode() + b"\n")

        gpu_trainings.repeat(False)
        work(tell)
        code = 0
    except BaseException:  # noqa: BLE001  # said, and told by the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def look(tell: Tell) -> None:
    """What there is; in a child, so that this process stays fit to fork."""
    about: dict[str, Any] = {"torch": torch.__version__, "device": "cpu", "cuda": None}
    if torch.cuda.is_available():
        one = torch.cuda.get_device_properties(0)
        about |= {
            "device": one.name,
            "cuda": torch.version.cuda or torch.version.hip,
            "memory_bytes": one.total_memory,
            "capability": f"{one.major}.{one.minor}",
            "devices": torch.cuda.device_count(),
        }
    tell("about", **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gpu.json")
    parser.add_argument("--toy", action="store_true", help="toy size on the CPU, a GPU or not")
    parser.add_argument("--compile", action="store_true", help="compile at toy size, too")
    parser.add_argument(
        "--only", action="append", choices=[part.name for part in PARTS], help="parts to run"
    )
    given = parser.parse_args()
    began = time.monotonic()
    # Read by cuBLAS in the children, where determinism is asked for.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    stand_ins.quiet()
    stand_ins.stand_in_networks()
    about = next(in_a_child(look, began + 60), {"device": "cpu", "cuda": None})
    about.pop("kind", None)
    toy = given.toy or about["cuda"] is None
    # No parallel region before this: its threads would be missing in the children.
    torch.set_num_threads(1 if toy else min(os.cpu_count() or 1, 8))
    findings = Findings(given.out, {**about, "toy": toy, "stand_ins": stand_ins.ABSENT})
    print(", ".join(f"{name} {value}" for name, value in about.items() if value is not None))
    if toy:
        print("TOY SIZE ON THE CPU: a test of this script; its figures mean nothing.")
    for absent in stand_ins.ABSENT:
        print(absent)
    findings.write()
    due = began
    for part in PARTS:
        due += part.share_s
        if given.only and part.name not in given.only:
            continue
        ends = min(due if not toy else began + LIMIT_S, began + LIMIT_S)
        place = Place(
            device="cpu" if toy else "cuda",
            toy=toy,
            compiles=not toy or given.compile,
            peaks=findings.peaks,
            ends=ends,
        )
        if place.left() < 1:
            findings.add({"part": part.name, "kind": "note", "text": f"no time for {part.name}"})
            continue
        print(part.name, flush=True)
        if part.name not in ("peaks", "checks", "checkpoints"):
            print(HEADER)
        for finding in in_a_child(lambda tell, part=part, place=place: part.run(place, tell), ends):  # type: ignore[misc]
            findings.add({"part": part.name, **finding})
    print(f"{time.monotonic() - began:.0f} s; all of it is in {given.out}")
    if findings.failed:
        sys.exit("something failed, see above")


if __name__ == "__main__":
    main()
