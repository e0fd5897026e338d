"""What attempts do in the tests of sweepctl.cluster; importable by fork servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sweepctl.runs import AttemptOutcome, AttemptRequest, attempt_folder, write_json


def _folder(request: AttemptRequest) -> Path:
    return attempt_folder(Path(request.folder), request.attempt)


def _tell(request: AttemptRequest, **words: object) -> None:
    told = {"state": "done", **words}
    outcome = AttemptOutcome(task_id=request.task_id, attempt=request.attempt, **told)
    write_json(_folder(request) / "outcome.json", outcome)


def preload_torch() -> None:
    import torch  # noqa: F401


def preload_missing() -> None:
    import a_module_that_is_not_there  # noqa: F401


def run(request: AttemptRequest) -> None:
    """Do what the request's kind says."""
    KINDS[request.kind](request)


def done(request: AttemptRequest) -> None:
    _tell(request)


def gpu(request: AttemptRequest) -> None:
    wait_for_both = Path(request.folder).parent
    (_folder(request) / "here").touch()
    while len(list(wait_for_both.glob("gpu-*/attempts/1/here"))) < 2:
        time.sleep(0.01)  # so that one worker cannot do both
    _tell(request, message=os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


def slots(request: AttemptRequest) -> None:
    _tell(request, message=str(request.slots))


def crash(request: AttemptRequest) -> None:
    raise ValueError("the loss is made of cheese")


def classified(request: AttemptRequest) -> None:
    _tell(request, state="failed", failure="non_finite", message="loss is nan at step 3")
    raise SystemExit(1)


def leave(request: AttemptRequest) -> None:
    _tell(request)
    raise SystemExit(0)


def leave_with_words(request: AttemptRequest) -> None:
    raise SystemExit("no such file")


def forget(request: AttemptRequest) -> None:
    """Return without an outcome."""


def garble(request: AttemptRequest) -> None:
    (_folder(request) / "outcome.json").write_text('{"task_id"')


def chatter(request: AttemptRequest) -> None:
    for _ in range(2000):
        print("x" * 999)
    _tell(request)


def kill_self(request: AttemptRequest) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def obedient(request: AttemptRequest) -> None:
    """Work until asked to stop, by SIGTERM or by the stop file, then write a checkpoint."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    (_folder(request) / "busy").write_text(str(os.getpid()))
    until = time.monotonic() + 60
    while not asked and not (_folder(request) / "stop").exists() and time.monotonic() < until:
        time.sleep(0.01)
    (Path(request.folder) / "checkpoint").write_text("step 7")
    _tell(request, state="stopped", message="stopped at step 7")


def sleepy(request: AttemptRequest) -> None:
    (_folder(request) / "busy").write_text(str(os.getpid()))
    time.sleep(60)


def deaf(request: AttemptRequest) -> None:
    """Work on whatever is asked, with a subprocess of its own that does the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (_folder(request) / "helper").write_text(str(helper.pid))
    (_folder(request) / "busy").write_text(str(os.getpid()))
    helper.wait()


def leave_a_child_behind(request: AttemptRequest) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (_folder(request) / "left").write_text(str(left.pid))
    left.returncode = 0  # or its destructor would complain
    _tell(request)


def describe(request: AttemptRequest) -> None:
    """Write down what a child can see of where it runs."""
    limits = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED")}
    files = []
    for number in range(256):
        try:
            files.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        except FileNotFoundError:
            continue
    write_json(
        _folder(request) / "seen.json",
        {
            "environment": limits,
            "database": os.environ.get("SWEEPCTL_DB"),
            "files": files,
            "session": os.getsid(0) == os.getpid(),
            "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
            "sigterm_default": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            "blocked": sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        },
    )
    _tell(request)


KINDS = {
    "gpu": gpu,
    "done": done,
    "slots": slots,
    "crash": crash,
    "classified": classified,
    "leave": leave,
    "leave_with_words": leave_with_words,
    "forget": forget,
    "garble": garble,
    "chatter": chatter,
    "kill_self": kill_self,
    "obedient": obedient,
    "sleepy": sleepy,
    "deaf": deaf,
    "leave_a_child_behind": leave_a_child_behind,
    "describe": describe,
}
