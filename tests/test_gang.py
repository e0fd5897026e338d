"""Do several processes at one task make the same weights, and share one fate? Through a study."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

STUDY = """\
format: 1
study: gang
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 12, batch: 8, precision: fp32, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [photos-eval], images: 16, metrics: [psnr]}
"""

Call = Callable[..., tuple[int, str, str]]
PATIENCE_S = 240.0


def study(folder: Path, gpus: object, steps: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = STUDY.replace("steps: 12", f"steps: {steps}")
    file = folder / "study.yaml"
    file.write_text(f"{text}run: {{needs: {{stage1: {{gpus: {gpus}}}}}}}\n")
    return file


def run(call: Call, folder: Path, gpus: int, steps: int = 12) -> tuple[int, str]:
    """Run the study with its own folder and database; exit code and what was said."""
    file = study(folder, gpus, steps)
    os.chdir(folder)
    # As many slots as it needs: each of those that nothing uses would import torch.
    where = ("--cluster", "local", "--workers", str(gpus), "--threads", "1", "--device", "cpu")
    code, _, err = call("run", str(file), *where)
    return code, err


def training(folder: Path) -> Path:
    (found,) = (folder / "runs").glob("stage1-*")
    return found


def result(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((training(folder) / "result.json").read_text())
    return read


def difference(left: Path, right: Path) -> float:
    """Norm of the difference of all weights, relative to the norm of the weights."""
    a, b = (load_file(training(one) / "weights.safetensors") for one in (left, right))
    assert a.keys() == b.keys()
    apart = sum(float((a[name] - b[name]).double().square().sum()) for name in a)
    whole = sum(float(a[name].double().square().sum()) for name in a)
    return math.sqrt(apart / whole)


def ranks_of(folder: Path) -> dict[int, int]:
    """Rank -> process, of those that run now; they are known by where they write."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            log = path.readlink()
        except OSError:
            continue
        if log.is_relative_to(folder) and log.name.startswith("log-"):
            found[int(log.stem.partition("-")[2])] = int(path.parts[2])
    return found


def once_it_trains(folder: Path, act: Callable[[], None]) -> threading.Thread:
    """Do something as soon as the first attempt of the training has made a step."""

    def wait() -> None:
        until = time.monotonic() + PATIENCE_S
        while not list((folder / "runs").glob("stage1-*/attempts/1/events.jsonl")):
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def processes_left(folder: Path) -> list[str]:
    """What still runs with an open file in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if path.readlink().is_relative_to(folder) and int(path.parts[2]) != os.getpid():
                found.append(str(path))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_several_processes_make_the_same_weights(call: Call, tmp_path: Path) -> None:
    for gpus in (1, 2, 4):
        code, said = run(call, tmp_path / str(gpus), gpus)
        assert code == 0, said
    one, two, four = (result(tmp_path / str(gpus)) for gpus in (1, 2, 4))
    assert one["fingerprint"] == two["fingerprint"] == four["fingerprint"]
    assert difference(tmp_path / "1", tmp_path / "2") < 1e-6
    assert difference(tmp_path / "1", tmp_path / "4") < 1e-6
    for gpus, made in ((1, one), (2, two), (4, four)):
        assert made["provenance"]["ranks"] == made["values"]["ranks"] == gpus
        assert made["values"]["loss"] == pytest.approx(one["values"]["loss"], rel=1e-5)
    # The memory of all of them, and a log of each.
    assert four["peak_memory_bytes"] > 2.5 * one["peak_memory_bytes"]
    assert {path.name for path in training(tmp_path / "4").glob("attempts/1/log*")} == {
        "log.txt",
        *(f"log-{rank}.txt" for rank in (1, 2, 3)),
    }
    assert (
        "process 3 of 4, the first is 0"
        in (training(tmp_path / "4") / "attempts/1/log-3.txt").read_text()
    )
    # Device-seconds calibrate, so that four processes do not look like a faster device.
    code, out, _ = call("plan", str(tmp_path / "4/study.yaml"), "--json")
    assert code == 0
    assert json.loads(out)["gpus"] == {"stage1": {"4": 1}}


@pytest.mark.slow
def test_one_that_is_killed_names_itself_and_the_others_end(call: Call, tmp_path: Path) -> None:
    def kill() -> None:
        os.kill(ranks_of(tmp_path)[1], signal.SIGKILL)

    killer = once_it_trains(tmp_path, kill)
    code, said = run(call, tmp_path, 2, 150)
    killer.join()
    assert code == 0, said
    first, second = (
        json.loads((training(tmp_path) / f"attempts/{n}/outcome.json").read_text()) for n in (1, 2)
    )
    assert (first["state"], first["failure"]) == ("failed", "killed")
    assert first["message"] == "process 1 of 2 (the first is 0) was killed by signal 9 (SIGKILL)"
    assert second["state"] == "done"
    assert processes_left(tmp_path / "runs") == []


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(4, 1)])
def test_what_so_many_began_any_number_ends(
    call: Call, tmp_path: Path, before: int, after: int
) -> None:
    interrupter = once_it_trains(tmp_path / "cut", lambda: os.kill(os.getpid(), signal.SIGINT))
    code, said = run(call, tmp_path / "cut", before, 100)
    interrupter.join()
    assert code == 130, said
    stopped = json.loads((training(tmp_path / "cut") / "attempts/1/outcome.json").read_text())
    assert stopped["state"] == "stopped" and "a checkpoint is written" in stopped["message"]
    assert processes_left(tmp_path / "cut/runs") == []
    code, said = run(call, tmp_path / "cut", after, 100)
    assert code == 0, said
    code, said = run(call, tmp_path / "whole", 1, 100)
    assert code == 0, said
    ended = result(tmp_path / "cut")
    assert ended["values"]["resumed_from"] > 0 and ended["provenance"]["ranks"] == after
    assert ended["fingerprint"] == result(tmp_path / "whole")["fingerprint"]
    assert difference(tmp_path / "cut", tmp_path / "whole") < 1e-5


WHOLE = """\
format: 1
study: whole
data: {train: photos-train, resolution: 32, images: 40}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 4, batch: 8, precision: fp32, loss: {lpips: 0}}
  dit: {size: nano, steps: 4, batch: 8, precision: fp32}
evaluate:
  reconstruction: {on: [photos-eval], images: 24, metrics: [psnr, rfd_lite0]}
  generation: {on: [photos-eval], images: 24, metrics: [gfd_lite0], steps: 3}
"""


@pytest.mark.slow
def test_latents_and_samples_of_several_are_those_of_one(call: Call, tmp_path: Path) -> None:
    kinds = ("reference", "latents", "reconstruct", "generate")
    for gpus in (1, 2):
        folder = tmp_path / str(gpus)
        folder.mkdir()
        needs = ", ".join(f"{kind}: {{gpus: {gpus}}}" for kind in kinds)
        (folder / "study.yaml").write_text(f"{WHOLE}run: {{needs: {{{needs}}}}}\n")
        os.chdir(folder)
        words = ("--workers", "2", "--threads", "1", "--device", "cpu")
        code, _, err = call("run", "study.yaml", *words)
        assert code == 0, err
    compared = 0
    for kind in kinds:
        (one,), (two,) = (list((tmp_path / n / "runs").glob(f"{kind}-*")) for n in ("1", "2"))
        assert one.name == two.name
        read = [json.loads((task / "result.json").read_text()) for task in (one, two)]
        assert [made["provenance"]["ranks"] for made in read] == [1, 2]
        assert read[0]["files"] == read[1]["files"]  # names, sizes and hashes
        compared += len(read[0]["files"])
        for left, right in zip(read[0]["metrics"], read[1]["metrics"], strict=True):
            assert left["value"] == pytest.approx(right["value"], rel=1e-9)
    assert compared >= 6


@pytest.mark.slow
def test_an_error_of_one_is_told_once_and_names_it(tmp_path: Path) -> None:
    from sweepctl.cluster._attempt import make_ready
    from sweepctl.cluster._isolated import ForkServer, run_isolated
    from sweepctl.runs import AttemptRequest

    server = ForkServer(entry="gang_entries:run", preload="gang_entries:preload", threads=1)
    try:
        for kind, state, failure, message in (
            ("one fails", "failed", "error", "process 2 of 3 (the first is 0): no more cheese"),
            ("one leaves", "failed", "error", "process 1 of 3 (the first is 0) left with exit c"),
            ("all fail", "failed", "error", "no more cheese"),
            ("one dies", "failed", "killed", "process 2 of 3 (the first is 0) was killed by sig"),
            ("all stop", "stopped", None, "stopped at step 7"),
            ("all end", "done", None, ""),
        ):
            asked = AttemptRequest(
                task_id=kind, kind=kind, folder=str(tmp_path / kind), attempt=1, ranks=3
            )
            make_ready(asked)
            ended = run_isolated(
                server, asked, host="h", worker="w", grace_s=30.0, unwanted=lambda: False
            )
            assert (ended.state, ended.failure) == (state, failure), ended
            assert ended.message.startswith(message)
            if kind in ("all fail", "all stop", "all end"):
                assert ended.peak_memory_bytes >= 3
            assert processes_left(tmp_path) == []
    finally:
        server.close()


# What a study says


def plan(call: Call, folder: Path, gpus: object, *words: str) -> tuple[int, str]:
    code, out, err = call("plan", str(study(folder, gpus)), *words)
    return code, out + err


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        (8, "GPUs of stage1: 8 for 1 task"),
        ('{1: "parameters < 1e4", 4: otherwise}', "GPUs of stage1: 4 for 1 task"),
        ('{2: "batch >= 8", 4: otherwise}', "GPUs of stage1: 2 for 1 task"),
        ('{2: "tokens > 16", 8: otherwise}', "GPUs of stage1: 8 for 1 task"),
        ("{within: 30 s}", ""),
        # 3.5e9 FLOPs at 1 GFLOP/s take 3.5 s.
        ("{within: 2 s}", "GPUs of stage1: 2 for 1 task"),
        ("{within: 1 s}", "GPUs of stage1: 4 for 1 task"),
        ("{within: 0.01 s}", "GPUs of stage1: 8 for 1 task"),
    ],
)
def test_a_study_says_how_many_gpus_a_task_gets(
    call: Call, tmp_path: Path, gpus: object, said: str
) -> None:
    code, told = plan(call, tmp_path, gpus, "--on", "8 x 5 GFLOP/s")
    assert code == 0, told
    assert said in told and (said or "GPUs of" not in told)


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        (0, "a number of GPUs is a whole number from 1 to 1024, not 0"),
        ("two", "gpus is a number, a rule such as"),
        ('{1: otherwise, 2: "batch > 3"}', "the last line of a rule is `otherwise`"),
        ('{1: "batch > 3"}', "the last line of a rule is `otherwise`"),
        ('{1: "steps > 3", 2: otherwise}', "'steps > 3' of 1 GPUs is no condition"),
        ('{x: "batch > 3", 2: otherwise}', "a number of GPUs is a whole number"),
        ("{within: 12}", "within takes a time above 0 such as 12 h"),
        ("{within: 1 h, 2: otherwise}", "`within` stands alone, without 2"),
        (9, "is to use 9 GPUs and has a batch of 8"),
    ],
)
def test_a_wrong_number_of_gpus_is_refused_at_its_place(
    call: Call, tmp_path: Path, gpus: object, said: str
) -> None:
    code, told = plan(call, tmp_path, gpus)
    assert code == 3 and said in told
    assert "study.yaml:9:" in told and "run.needs.stage1.gpus" in told


@pytest.mark.parametrize(
    ("given", "place"), [("9", "run.micro_batch"), ("{stage1: 9}", "run.micro_batch.stage1")]
)
def test_a_micro_batch_above_the_batch_is_refused(
    call: Call, tmp_path: Path, given: str, place: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"{STUDY}run: {{micro_batch: {given}}}\n")
    code, _, err = call("plan", str(file))
    assert code == 3 and "study.yaml:9:" in err and f"{place}:" in err
    assert "is to take 9 samples at once and has a batch of 8: give at most 8" in err


def test_kinds_that_one_process_does_are_refused(call: Call, tmp_path: Path) -> None:
    file = study(tmp_path, 2)
    file.write_text(file.read_text().replace("{stage1: {gpus", "{prepare: {gpus"))
    code, _, err = call("plan", str(file))
    assert code == 3 and "study.yaml:9:" in err and "run.needs.prepare" in err


def test_what_no_worker_has_is_refused_before_anything_starts(call: Call, tmp_path: Path) -> None:
    code, told = plan(call, tmp_path, 8, "--on", "4xH100")
    assert code == 3 and "8 GPUs are needed together, and --on says 4 devices" in told
    code, _, err = call("run", str(study(tmp_path, 8)), "--cluster", "inline")
    assert code == 3 and "8 GPUs or slots are needed together" in err
    assert "take --cluster local" in err and "study.yaml:9:" in err
    assert not list(tmp_path.glob("runs/*/attempts"))


def test_gpus_are_hours_of_each_and_share_the_batch(call: Call, tmp_path: Path) -> None:
    def told(gpus: int) -> dict[str, Any]:
        code, out, _ = call("plan", str(study(tmp_path, gpus)), "--on", "8xH100", "--json")
        assert code == 0
        found: dict[str, Any] = json.loads(out)
        return found

    one, eight = told(1), told(8)
    assert eight["total"]["hours"] == one["total"]["hours"]  # of one device
    assert eight["wall_hours"] < one["wall_hours"]
    assert (one["memory"][0]["largest"]["batch"], eight["memory"][0]["largest"]["batch"]) == (8, 1)
    assert (one["gpus"], eight["gpus"]) == ({}, {"stage1": {"8": 1}})
