"""Is everything there that a study needs, on every machine that would run it?

`look` runs on each worker and says what it sees; `checks` compares that with what is needed and
with what the driver has. `sweepctl doctor` shows all of it, and `run` makes the same checks before
anything starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweepctl.cluster import HERE, Answer, Gpu, Pool, child_variables, find_gpus, memory_takers
from sweepctl.errors import RunFolderError, SweepctlError
from sweepctl.execute._settings import Settings
from sweepctl.plain import many
from sweepctl.plan import Plan, Task

State = Literal["ok", "note", "warning", "wrong"]
"""How a check ended; a warning does not stop a run, and what is wrong does."""

TAKEN = 0.1
"""With more of a GPU's memory than this share taken, somebody else works on it."""

_TORCH_S = 120.0
_ASK_TORCH = """
import json, torch
try:
    torch.cuda.init()
    print(json.dumps([torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]))
except (RuntimeError, AssertionError) as error:
    print(json.dumps(str(error).split(chr(10))[0]))
"""


SPARE_DISK_BYTES = 256 * 1024**2
"""What must stay free on the disk beside a task's own files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it was.
        where: the worker, or "driver".
        state: how it ended.
        said: what was found, and if it is wrong what to do, in plain words.
    """

    name: str
    where: str
    state: State
    said: str


# -- on a worker -----------------------------------------------------------------------------------


def look(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker sees; called in its process.

    Args:
        asked: made by `_question`: the run folder and a file in it with a word that only the driver
            knows, names of pretrained files, identities of data sets, and whether to look closely,
            which takes seconds.
    """
    from sweepctl import datasets, pretrained
    from sweepctl.tasks import code_hash, versions

    closely = asked["closely"]
    found = find_gpus(os.environ)
    return {
        "host": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": _available_memory(),
        "gpus": [dataclasses.asdict(gpu) for gpu in found.gpus],
        "notices": list(found.notices),
        "takers": memory_takers(os.environ) if any(map(_is_shared, found.gpus)) else {},
        "torch": _torch_sees(found.gpus) if closely and found.gpus else None,
        "folder": _see_folder(Path(asked["folder"]), asked["file"], asked["word"]),
        "versions": dict(versions()),
        "code": code_hash(),
        "weights": {name: pretrained.missing(name) for name in asked["weights"]},
        "datasets": {
            name: datasets.unreadable(identity, closely=closely)
            for name, identity in asked["datasets"].items()
        },
    }


def _available_memory() -> int:
    """Memory of the machine, in bytes, that processes may still take without swapping."""
    said = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return 0 if said is None else int(said[1]) * 1024


def _is_shared(gpu: Gpu) -> bool:
    if gpu.memory_bytes is None or gpu.free_bytes is None:
        return False
    return gpu.free_bytes < (1 - TAKEN) * gpu.memory_bytes


def _torch_sees(gpus: Sequence[Gpu]) -> list[str] | str:
    """Names of these GPUs as torch sees them, in a process of its own; or what it says instead."""
    seen: list[str] = []
    # MIG instances are seen one at a time.
    alone = any(gpu.id.startswith("MIG-") for gpu in gpus)
    for group in [[gpu.id] for gpu in gpus] if alone else [[gpu.id for gpu in gpus]]:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _ASK_TORCH],
                env=child_variables(group, os.environ),
                capture_output=True,
                text=True,
                timeout=_TORCH_S,
                check=True,
            )
            said: list[str] | str = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return f"no answer within {_TORCH_S:.0f} s"
        except (subprocess.CalledProcessError, OSError, ValueError, IndexError) as error:
            return f"a process that asks torch ended badly: {error}"
        if isinstance(said, str):
            return said
        seen += said
    return seen


def _see_folder(folder: Path, file: str, word: str) -> dict[str, Any]:
    """Whether the driver's file is there, and a file of ours could be written."""
    mine = folder / f"{file}-{uuid.uuid4().hex[:8]}"
    try:
        if (folder / file).read_text() != word:
            return {"problem": "the file that the driver left there reads differently"}
        mine.write_text(word)
        mine.unlink()
        return {"problem": "", "free_bytes": shutil.disk_usage(folder).free}
    except OSError as error:
        return {"problem": error.strerror or str(error)}


# -- on the driver ---------------------------------------------------------------------------------


def check_disk(folder: Path, task: Task) -> None:
    """Refuse to start a task that the disk of the run folder has no room for.

    Raises:
        RunFolderError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < task.cost.disk_bytes + SPARE_DISK_BYTES:
        need = (task.cost.disk_bytes + SPARE_DISK_BYTES) / 1024**2
        raise RunFolderError(
            f"the disk under {folder} is nearly full: {free / 1024**2:.0f} MiB are free, "
            f"{task.id} needs {need:.0f} MiB",
            hint="free some space and run the same command again; nothing is lost",
        )


def require_ready(
    pool: Pool, settings: Settings, plan: Plan, notice: Callable[[str], None]
) -> None:
    """Look at what workers see before anything is submitted, and pass on warnings.

    Raises:
        SweepctlError: one of them cannot run the study.
    """
    found = checks(pool, settings, plan)
    for one in found:
        if one.state == "warning" and one.said not in pool.notices:
            notice(f"{one.where}: {one.name}: {one.said}")
    wrong = [f"{one.where}: {one.name}: {one.said}" for one in found if one.state == "wrong"]
    if wrong:
        raise SweepctlError(
            "nothing was started: " + "\n  ".join(wrong),
            hint="`sweepctl doctor` with the study's file shows what every worker sees",
        )


def checks(
    pool: Pool, settings: Settings, plan: Plan | None = None, *, closely: bool = False
) -> list[Check]:
    """Ask every connected worker what it sees, and compare.

    Args:
        pool: an open one.
        settings: how the study would run.
        plan: what would run; without one, pretrained files and data sets are not looked for.
        closely: also ask torch about GPUs, and read a sample of each data set; takes seconds.

    Raises:
        RunFolderError: the run folder cannot be written here.
        UnreachableError: the cluster is gone.
    """
    with _question(settings.folder, plan, closely=closely) as asked:
        answers = pool.ask("sweepctl.execute._ready:look", asked)
    if not answers:
        said = "no worker is connected yet, so none was looked at"
        return [Check(name="workers", where="driver", state="warning", said=said)]
    found: list[Check] = []
    for answer in answers:
        found += _of_worker(answer, settings, plan, asked)
    return _together(found, answers)


@contextlib.contextmanager
def _question(folder: Path, plan: Plan | None, *, closely: bool) -> Iterator[dict[str, Any]]:
    """What `look` is asked, while the driver's file is in the run folder."""
    word, name = uuid.uuid4().hex, f".doctor-{uuid.uuid4().hex[:8]}"
    folder = folder.absolute()
    file = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(word)
    except OSError as error:
        raise RunFolderError(
            f"the run folder {folder} cannot be written: {error.strerror}",
            hint="make it writable, or choose another one with --runs",
        ) from error
    try:
        yield {
            "folder": str(folder),
            "file": name,
            "word": word,
            "weights": list(plan.weights) if plan else [],
            "datasets": _datasets(plan) if plan else {},
            "closely": closely,
        }
    finally:
        file.unlink(missing_ok=True)


def _datasets(plan: Plan) -> dict[str, Any]:
    """Name -> identity of the user-defined data sets that tasks of a plan read."""
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for task in plan.tasks.values():
        said = re.search(r'"content":"([0-9a-f]+)"', task.identity)
        if said is None or said[1] in seen:
            continue
        seen.add(said[1])
        identity = json.loads(task.identity)
        config = identity["config"]
        named = config.get("dataset") or config.get("stream", {}).get("dataset") or said[1][:16]
        found[named] = identity["data"]
    return found


def _of_worker(
    answer: Answer, settings: Settings, plan: Plan | None, asked: Mapping[str, Any]
) -> Iterator[Check]:
    """The checks of one worker, always the same ones."""

    def check(name: str, state: State, said: str) -> Check:
        return Check(name=name, where=answer.worker, state=state, said=said)

    if answer.problem:
        yield check("worker", "wrong", f"it cannot be asked: {answer.problem}")
        return
    seen = answer.value
    for state, said in _software(seen):
        yield check("software", state, said)
    for state, said in _folder(seen, asked["folder"], plan):
        yield check("run folder", state, said)
    yield check("cores", *_cores(seen, settings))
    for state, said in _gpus(seen, settings):
        yield check("GPUs", state, said)
    for name, what in (("weights", "pretrained files"), ("datasets", "data sets of your own")):
        words = "data sets" if name == "datasets" else name
        if plan is None:
            yield check(words, "note", "not looked at: no study was named")
            continue
        bad = {one: why for one, why in seen[name].items() if why is not None}
        for one, why in bad.items():
            yield check(words, "wrong", why if one in why else f"{one}: {why}")
        if not bad:
            yield check(words, "ok", ", ".join(seen[name]) or f"the study needs no {what}")


def _software(seen: Mapping[str, Any]) -> Iterator[tuple[State, str]]:
    from sweepctl.tasks import code_hash, versions

    ours = versions()
    other = [
        f"{name} {seen['versions'].get(name, 'missing')} (driver: {ours.get(name, 'missing')})"
        for name in {**ours, **seen["versions"]}
        if seen["versions"].get(name) != ours.get(name)
    ]
    if seen["code"] != code_hash():
        yield (
            "wrong",
            "its sweepctl is other code than the driver's, and results would be recorded as the "
            "driver's: install the same one",
        )
    if other:
        yield "warning", f"not the driver's: {', '.join(other)}"
    if not other and seen["code"] == code_hash():
        shown = ", ".join(f"{name} {ours[name]}" for name in ("sweepctl", "torch") if name in ours)
        yield "ok", f"{shown} and others as the driver's"


def _folder(seen: Mapping[str, Any], folder: str, plan: Plan | None) -> Iterator[tuple[State, str]]:
    problem = seen["folder"]["problem"]
    if problem:
        yield (
            "wrong",
            f"{folder} is not the driver's there: {problem}; workers need the same files at the "
            "same path",
        )
        return
    free = seen["folder"]["free_bytes"]
    need = sum(task.cost.disk_bytes for task in plan.tasks.values()) if plan else 0
    there = f"{folder} is written and read, {free / 2**30:.1f} GiB are free"
    if need > free:
        # What is done takes nothing more, and a driver stops before a disk is full.
        yield "warning", f"{there}; all of the study takes {need / 2**30:.1f} GiB"
    else:
        yield "ok", there


def _cores(seen: Mapping[str, Any], settings: Settings) -> tuple[State, str]:
    cores, threads = seen["cores"], settings.threads
    together = threads * ((settings.workers or 1) if settings.where == "local" else 1)
    said = f"{many(cores, 'core')}, {many(threads, 'thread')} per attempt; "
    said += f"{seen['memory_bytes'] / 2**30:.1f} GiB of memory are available"
    if together > cores:
        return "warning", f"{said}: {together} threads would share them"
    return "ok", said


def _gpus(seen: Mapping[str, Any], settings: Settings) -> Iterator[tuple[State, str]]:
    gpus = [Gpu(**gpu) for gpu in seen["gpus"]]
    named = re.fullmatch(r"cuda(?::(\d+))?", settings.device)
    if settings.device == "cpu":
        yield "note", f"{many(len(gpus), 'GPU')}, and none is used: the device is cpu"
        return
    for notice in seen["notices"]:
        yield "warning", notice
    if not gpus:
        if named:
            yield "wrong", f"the device is {settings.device}, and no GPU can be used here"
        else:
            yield "note", "none: everything runs on the CPU"
        return
    if named and named[1] and int(named[1]) >= len(gpus):
        yield "wrong", f"the device is {settings.device}, and there are {len(gpus)}, from 0"
    if settings.where == "local" and settings.workers and settings.workers > len(gpus):
        yield (
            "warning",
            f"{settings.workers} workers are asked for and {many(len(gpus), 'GPU')} can be used: "
            "some would share one",
        )
    for gpu in gpus:
        yield _of_gpu(gpu, seen["takers"].get(gpu.id, []))
    told = seen["torch"]
    if isinstance(told, str):
        yield "wrong", f"torch cannot use them: {told}"
    elif told is not None and len(told) != len(gpus):
        yield "wrong", f"torch sees {len(told)} of {many(len(gpus), 'GPU')}: {', '.join(told)}"


def _of_gpu(gpu: Gpu, takers: Sequence[str]) -> tuple[State, str]:
    said = ", ".join(part for part in (gpu.id, gpu.name) if part)
    if gpu.memory_bytes is None:
        return "ok", f"{said}; its memory is not known"
    said += f", {gpu.memory_bytes / 2**30:.1f} GiB"
    if gpu.free_bytes is None:
        return "ok", f"{said}; how much is free is not known"
    said += f", {gpu.free_bytes / 2**30:.1f} free"
    if _is_shared(gpu):
        by = f" by {', '.join(takers)}" if takers else " by another process"
        return "warning", f"{said}: the rest is taken{by}"
    return "ok", said


def _together(found: Sequence[Check], answers: Sequence[Answer]) -> list[Check]:
    """The same, with one line for workers of a host that said the same."""
    hosts = {one.worker: one.value["host"] for one in answers if not one.problem}
    workers: dict[tuple[str, str, State, str], list[str]] = {}
    for one in found:
        key = (hosts.get(one.where, one.where), one.name, one.state, one.said)
        workers.setdefault(key, []).append(one.where)
    rows = []
    for (host, name, state, said), names in workers.items():
        who = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        where = who if who == HERE or host in who else f"{who} on {host}"
        rows.append(Check(name=name, where=where, state=state, said=said))
    return rows
