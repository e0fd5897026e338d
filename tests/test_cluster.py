from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_entries import KINDS

from sweepctl.cluster import Pool, open_pool
from sweepctl.cluster._attempt import claim, kernel_oom_kills, make_ready, settle
from sweepctl.cluster._isolated import ForkServer, run_isolated
from sweepctl.errors import UnreachableError, UsageError
from sweepctl.runs import AttemptOutcome, AttemptRequest, attempt_folder

ENTRY = "cluster_entries:run"
PATIENCE_S = 120.0


def request(
    folder: Path, kind: str, number: int = 1, timeout_s: float | None = None
) -> AttemptRequest:
    assert kind in KINDS
    task = f"{kind}-{number}"
    return AttemptRequest(
        task_id=task, kind=kind, folder=str(folder / task), attempt=1, timeout_s=timeout_s
    )


def files(asked: AttemptRequest) -> Path:
    return attempt_folder(Path(asked.folder), asked.attempt)


def one(pool: Pool) -> AttemptOutcome:
    outcomes = pool.completed(PATIENCE_S)
    assert len(outcomes) == 1
    return outcomes[0]


def run_one(pool: Pool, asked: AttemptRequest) -> AttemptOutcome:
    pool.submit(asked)
    return one(pool)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def busy_pid(asked: AttemptRequest) -> int:
    wait_until(lambda: (files(asked) / "busy").exists())
    wait_until(lambda: (files(asked) / "busy").read_text() != "")
    return int((files(asked) / "busy").read_text())


def workers() -> set[int]:
    """The worker processes of local pools of this process: those of its children with a server."""
    import psutil

    return {
        child.pid
        for child in psutil.Process().children()
        if any("sweepctl.cluster._fork_server" in below.cmdline() for below in child.children())
    }


def worker_of(attempt: int) -> int:
    """The worker of an attempt's process, which is the parent of its fork server."""
    import psutil

    _, worker, *_ = psutil.Process(attempt).parents()
    return int(worker.pid)


def marked(mark: str) -> set[int]:
    """Every process whose environment holds the mark."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def local() -> Iterator[Pool]:
    with open_pool("local", workers=2, entry=ENTRY, grace_s=0.3) as pool:
        yield pool


@pytest.fixture(params=["inline", pytest.param("local", marks=pytest.mark.slow)])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if request.param == "local":
        shared: Pool = request.getfixturevalue("local")
        # A worker that an earlier test has killed comes back.
        wait_until(lambda: shared.slots == 2)
        yield shared
    else:
        with open_pool("inline", entry=ENTRY) as inline:
            yield inline


# What every pool keeps


def test_a_request_says_how_many_slots_share_the_machine(pool: Pool, tmp_path: Path) -> None:
    assert run_one(pool, request(tmp_path, "slots")).message == str(pool.slots)


def test_done(pool: Pool, tmp_path: Path) -> None:
    outcome = run_one(pool, request(tmp_path, "done"))
    assert (outcome.task_id, outcome.attempt, outcome.state) == ("done-1", 1, "done")
    assert outcome.failure is None
    assert outcome.exit_code == 0
    assert outcome.seconds > 0
    assert outcome.host
    assert outcome.worker in ("inline", "local-0", "local-1")


def test_traceback_goes_to_the_log_and_its_last_line_to_the_message(
    pool: Pool, tmp_path: Path
) -> None:
    asked = request(tmp_path, "crash")
    outcome = run_one(pool, asked)
    assert (outcome.state, outcome.failure, outcome.exit_code) == ("failed", "error", 1)
    assert "ValueError: the loss is made of cheese" in outcome.message
    assert "\n" not in outcome.message
    assert "Traceback (most recent call last)" in (files(asked) / "log.txt").read_text()


@pytest.mark.parametrize(
    ("kind", "state", "failure", "message"),
    [
        ("leave", "done", None, ""),
        ("leave_with_words", "failed", "error", "no such file"),
        ("classified", "failed", "non_finite", "loss is nan at step 3"),
        ("forget", "failed", "error", "without an outcome.json"),
        ("garble", "failed", "error", "damaged"),
    ],
)
def test_every_way_to_leave(
    pool: Pool, tmp_path: Path, kind: str, state: str, failure: str | None, message: str
) -> None:
    outcome = run_one(pool, request(tmp_path, kind))
    assert (outcome.state, outcome.failure) == (state, failure)
    assert message in outcome.message


def test_big_output_goes_to_the_log(
    pool: Pool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = request(tmp_path, "chatter")
    assert run_one(pool, asked).state == "done"
    assert (files(asked) / "log.txt").stat().st_size == 2000 * 1000
    assert "xxx" not in "".join(capfd.readouterr())


def test_time_limit(pool: Pool, tmp_path: Path) -> None:
    outcome = run_one(pool, request(tmp_path, "sleepy", timeout_s=0.2))
    assert (outcome.state, outcome.failure) == ("failed", "timeout")
    assert "0.2 s" in outcome.message


def test_stop_writes_a_checkpoint(pool: Pool, tmp_path: Path) -> None:
    asked = request(tmp_path, "obedient")
    pool.submit(asked)
    stopper = threading.Thread(target=lambda: (busy_pid(asked), pool.stop()))
    stopper.start()
    outcome = one(pool)
    stopper.join()
    assert (outcome.state, outcome.failure) == ("stopped", None)
    assert (Path(asked.folder) / "checkpoint").read_text() == "step 7"


def test_every_attempt_is_reported_once(pool: Pool, tmp_path: Path) -> None:
    waiting = [request(tmp_path, "done", number) for number in range(20)]
    expected = {asked.task_id for asked in waiting}
    reported: list[str] = []
    under_way = 0
    while waiting or under_way:
        while waiting and under_way < pool.slots:
            pool.submit(waiting.pop())
            under_way += 1
        outcomes = pool.completed(PATIENCE_S)
        assert outcomes
        under_way -= len(outcomes)
        reported += [outcome.task_id for outcome in outcomes]
    assert len(reported) == 20
    assert set(reported) == expected
    assert pool.completed(0.01) == []


def test_leftovers_of_an_earlier_life_do_not_count(pool: Pool, tmp_path: Path) -> None:
    asked = request(tmp_path, "forget")
    make_ready(asked)
    told = {"task_id": asked.task_id, "attempt": 1, "state": "done"}
    (files(asked) / "outcome.json").write_text(json.dumps(told))
    (files(asked) / "stop").touch()
    (files(asked) / "started").touch()
    assert run_one(pool, asked).failure == "error"


# What only this process has


def test_interrupt_reaches_an_inline_entry(tmp_path: Path) -> None:
    asked = request(tmp_path, "obedient")
    with open_pool("inline", entry=ENTRY) as pool:
        pool.submit(asked)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            busy_pid(asked)
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                pool.completed(PATIENCE_S)
        finally:
            signal.signal(signal.SIGINT, before)
        thread.join()


def test_hard_stop_of_an_inline_attempt_from_a_signal_handler(tmp_path: Path) -> None:
    asked = request(tmp_path, "sleepy")
    main = threading.main_thread().ident
    assert main is not None
    with open_pool("inline", entry=ENTRY) as pool:
        pool.submit(asked)
        before = signal.signal(signal.SIGUSR1, lambda number, frame: pool.stop(hard=True))
        thread = threading.Thread(
            target=lambda: (busy_pid(asked), signal.pthread_kill(main, signal.SIGUSR1))
        )
        thread.start()
        try:
            outcome = one(pool)
        finally:
            signal.signal(signal.SIGUSR1, before)
        thread.join()
    assert (outcome.state, outcome.failure) == ("stopped", None)


def test_inline_gives_the_alarm_clock_back(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    left, _ = signal.setitimer(signal.ITIMER_REAL, 100.0)
    try:
        with open_pool("inline", entry=ENTRY) as pool:
            run_one(pool, request(tmp_path, "sleepy", timeout_s=0.05))
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        assert 90.0 < signal.getitimer(signal.ITIMER_REAL)[0] < 100.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


# What a child process gives


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(entry=ENTRY, preload=None, threads=3)
    yield server
    server.close()


def isolated(
    server: ForkServer, asked: AttemptRequest, *, grace_s: float = 30.0, unwanted: bool = False
) -> AttemptOutcome:
    make_ready(asked)
    return run_isolated(
        server, asked, host="here", worker="w", grace_s=grace_s, unwanted=lambda: unwanted
    )


def later(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_child_stands_on_its_own(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    monkeypatch.setenv("PYTHONHASHSEED", "6640")
    monkeypatch.setenv("SWEEPCTL_DB", "postgresql://me:secret@host/db")
    asked = request(tmp_path, "describe")
    outcome = isolated(server, asked)
    assert outcome.state == "done"
    assert outcome.peak_memory_bytes > 2**20
    log = str(files(asked) / "log.txt")
    assert json.loads((files(asked) / "seen.json").read_text()) == {
        "environment": {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": None},
        "database": None,
        "files": ["/dev/null", log, log],
        "session": True,
        "oom_score": 500,
        "sigterm_default": True,
        "blocked": [],
    }


def test_child_that_kills_itself(server: ForkServer, tmp_path: Path) -> None:
    outcome = isolated(server, request(tmp_path, "kill_self"))
    assert (outcome.failure, outcome.exit_code) == ("killed", -signal.SIGKILL)
    assert "SIGKILL" in outcome.message


def test_kernel_that_kills_for_memory_is_believed(tmp_path: Path) -> None:
    assert kernel_oom_kills() >= 0
    asked = request(tmp_path, "kill_self")
    make_ready(asked)
    peak = 3 * 2**30
    outcome = settle(asked, code=-9, out_of_memory=True, peak_memory_bytes=peak)
    assert outcome.failure == "out_of_memory"
    assert "3.0 GiB" in outcome.message
    assert settle(asked, code=-9).failure == "killed"
    # We killed it, so whatever else the kernel did meanwhile is not the reason.
    assert settle(asked, code=-9, asked="stop", out_of_memory=True).state == "stopped"


def test_an_attempt_is_started_once(tmp_path: Path) -> None:
    asked = request(tmp_path, "done")
    make_ready(asked)
    assert claim(asked, "first")
    assert not claim(asked, "second")
    make_ready(asked)
    assert claim(asked, "third")


def test_nothing_a_child_started_outlives_it(server: ForkServer, tmp_path: Path) -> None:
    asked = request(tmp_path, "leave_a_child_behind")
    assert isolated(server, asked).state == "done"
    left = int((files(asked) / "left").read_text())
    wait_until(lambda: not alive(left))


def test_soft_stop_insists_after_the_grace_period(server: ForkServer, tmp_path: Path) -> None:
    asked = request(tmp_path, "deaf")
    thread = later(lambda: (busy_pid(asked), (files(asked) / "stop").touch()))
    outcome = isolated(server, asked, grace_s=0.2)
    thread.join()
    assert (outcome.state, outcome.exit_code) == ("stopped", -signal.SIGKILL)
    helper = int((files(asked) / "helper").read_text())
    wait_until(lambda: not alive(helper))


def test_hard_stop_does_not_wait_for_grace(server: ForkServer, tmp_path: Path) -> None:
    asked = request(tmp_path, "deaf")
    thread = later(lambda: (busy_pid(asked), (files(asked) / "stop").write_text("hard\n")))
    outcome = isolated(server, asked, grace_s=1e6)
    thread.join()
    assert (outcome.state, outcome.exit_code) == ("stopped", -signal.SIGKILL)


def test_an_attempt_nobody_waits_for_is_stopped(server: ForkServer, tmp_path: Path) -> None:
    asked = request(tmp_path, "obedient")
    outcome = isolated(server, asked, unwanted=True)
    assert outcome.state == "stopped"
    assert (Path(asked.folder) / "checkpoint").exists()


def test_server_that_cannot_import_says_what(tmp_path: Path) -> None:
    server = ForkServer(entry=ENTRY, preload="cluster_entries:preload_missing", threads=1)
    outcome = isolated(server, request(tmp_path, "done"))
    server.close()
    assert outcome.failure == "error"
    assert "No module named 'a_module_that_is_not_there'" in outcome.message


def test_killed_server_costs_one_attempt_and_leaves_nothing(
    server: ForkServer, tmp_path: Path
) -> None:
    asked = request(tmp_path, "deaf")
    children: list[int] = []

    def kill_server() -> None:
        children.append(busy_pid(asked))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)

    thread = later(kill_server)
    outcome = isolated(server, asked)
    thread.join()
    assert (outcome.state, outcome.failure) == ("failed", "killed")
    assert "signal 9" in outcome.message
    children.append(int((files(asked) / "helper").read_text()))
    wait_until(lambda: not any(alive(pid) for pid in children))
    assert isolated(server, request(tmp_path, "done")).state == "done"


def test_idle_server_leaves() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serve = (
        "import socket; from sweepctl.cluster._fork_server import serve; "
        f"serve(socket.socket(fileno={theirs.fileno()}), {ENTRY!r}, None, idle_s=0.05)"
    )
    with ours, theirs:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        left = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", serve],
            pass_fds=(theirs.fileno(),),
            env=environment,
            timeout=PATIENCE_S,
            check=False,
        )
    assert left.returncode == 0


# What may go wrong before anything runs


@pytest.mark.parametrize(
    "options",
    [
        {"where": "the-moon"},
        {"where": "inline", "workers": 2},
        {"where": "inline", "threads": 0},
        {"where": "local", "workers": 0},
        {"where": "inline", "entry": "cluster_entries"},
        {"where": "inline", "entry": "cluster_entries:walk"},
        {"where": "inline", "entry": "no_such_module:run"},
        {"where": "tcp://127.0.0.1"},
        {"where": "tls://127.0.0.1:8786"},
    ],
)
def test_nonsense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        open_pool(**{"entry": ENTRY, **options})  # type: ignore[arg-type]  # that is the test


def test_no_scheduler() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=str(port)):
        open_pool(f"tcp://127.0.0.1:{port}", entry=ENTRY)


def test_every_setting_exists() -> None:
    import dask.config
    import distributed  # noqa: F401

    from sweepctl.cluster._dask import SETTINGS

    defaults = dask.config.merge(*dask.config.defaults)
    missing = object()
    unknown = [k for k in SETTINGS if dask.config.get(k, missing, config=defaults) is missing]
    assert unknown == []


def test_importing_the_package_loads_no_dask() -> None:
    code = "import sys, sweepctl.cluster; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert not {"dask", "distributed", "torch", "numpy"} & set(loaded.split())


# What worker processes survive


@pytest.mark.slow
def test_killed_worker_costs_one_attempt(local: Pool, tmp_path: Path) -> None:
    wait_until(lambda: local.slots == 2)
    asked = request(tmp_path, "deaf")
    local.submit(asked)
    pids = [busy_pid(asked), int((files(asked) / "helper").read_text())]
    os.kill(worker_of(pids[0]), signal.SIGKILL)
    outcome = one(local)
    assert (outcome.state, outcome.failure) == ("failed", "worker_lost")
    wait_until(lambda: not any(alive(pid) for pid in pids))
    wait_until(lambda: local.slots == 2)
    for number in range(4):
        assert run_one(local, request(tmp_path, "done", number)).state == "done"


@pytest.mark.slow
def test_worker_killed_again_while_it_starts_comes_back(tmp_path: Path) -> None:
    import psutil

    def processes() -> set[int]:
        children = psutil.Process().children()
        return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}

    others = workers()
    with open_pool("local", workers=1, entry=ENTRY) as pool:
        before = processes()
        (worker,) = workers() - others
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: processes() - before != set())
        for pid in processes() - before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pool.slots == 0)
        wait_until(lambda: pool.slots == 1)
        assert run_one(pool, request(tmp_path, "done")).state == "done"


@pytest.mark.slow
def test_result_of_a_killed_worker_is_found_on_disk(local: Pool, tmp_path: Path) -> None:
    wait_until(lambda: local.slots == 2)
    asked = request(tmp_path, "sleepy")
    local.submit(asked)
    worker = worker_of(busy_pid(asked))
    told = {"task_id": asked.task_id, "attempt": 1, "state": "done"}
    (files(asked) / "outcome.json").write_text(json.dumps(told))
    os.kill(worker, signal.SIGKILL)
    assert one(local).state == "done"


@pytest.mark.slow
def test_interrupt_does_not_reach_workers(local: Pool, tmp_path: Path) -> None:
    """Neither the first ones nor one that its nanny has restarted."""
    wait_until(lambda: local.slots == 2)
    os.kill(min(workers()), signal.SIGKILL)
    wait_until(lambda: local.slots == 1)
    wait_until(lambda: local.slots == 2)
    wait_until(lambda: len(workers()) == 2)
    before = workers()
    for worker in before:
        os.kill(worker, signal.SIGINT)
    assert run_one(local, request(tmp_path, "done")).state == "done"
    assert workers() == before


@pytest.mark.slow
def test_local_pool_is_reachable_from_this_machine_only(local: Pool) -> None:
    import psutil

    here = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


THEIR_DASK = {
    "encryption": "distributed: {comm: {require-encryption: true}}",
    "others": """
        distributed:
          scheduler: {idle-timeout: 1s, worker-ttl: 1s, allowed-failures: 7}
          comm: {default-scheme: ucx, timeouts: {connect: 1ms}}
          worker: {lifetime: {duration: 1s}, memory: {terminate: 0.01}, resources: {GPU: 1}}
    """,
}
"""Files that somebody has for clusters of his own; each would stop private workers."""

WITH_THEIR_DASK = """
import sys, time
from pathlib import Path
from sweepctl.cluster import open_pool
from test_cluster import ENTRY, one, request
with open_pool("local", workers=1, entry=ENTRY, grace_s=0.3) as pool:
    time.sleep(3)
    pool.submit(request(Path(sys.argv[1]), "done"))
    assert one(pool).state == "done"
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", THEIR_DASK)
def test_configuration_of_dask_never_reaches_private_workers(kind: str, tmp_path: Path) -> None:
    (tmp_path / "dask.yaml").write_text(THEIR_DASK[kind])
    subprocess.run(
        [sys.executable, "-c", WITH_THEIR_DASK, str(tmp_path)],
        env={
            **os.environ,
            "DASK_CONFIG": str(tmp_path / "dask.yaml"),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "7",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        check=True,
        timeout=120,
    )


DRIVER = """
import sys, time
from pathlib import Path
from sweepctl.cluster import open_pool
from sweepctl.runs import AttemptRequest

if __name__ == "__main__":
    where, folder, *kinds = sys.argv[1:]
    with open_pool(where, workers=2, entry="cluster_entries:run", grace_s=1.0) as pool:
        for kind in kinds:
            task = f"{folder}/{kind}"
            pool.submit(AttemptRequest(task_id=kind, kind=kind, folder=task, attempt=1))
        while True:
            pool.completed(1.0)
"""


def start(tmp_path: Path, script: str, *arguments: str, mark: str = "") -> subprocess.Popen[str]:
    path = tmp_path / f"script-{uuid.uuid4().hex}.py"
    path.write_text(script)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SWEEPCTL_TEST_MARK": mark,
    }
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_nothing_outlives_a_killed_driver(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    driver = start(tmp_path, DRIVER, "local", str(tmp_path), "deaf", "sleepy", mark=mark)
    try:
        for kind in ("deaf", "sleepy"):
            asked = AttemptRequest(task_id=kind, kind=kind, folder=str(tmp_path / kind), attempt=1)
            busy_pid(asked)
        # driver, two workers, two fork servers, two children, one helper, Dask's resource tracker
        assert len(marked(mark)) >= 8
    finally:
        end(driver)
    wait_until(lambda: not marked(mark))


CLUSTER = """
import sys
import distributed

if __name__ == "__main__":
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.mark.slow
def test_scheduler_of_the_user(tmp_path: Path) -> None:
    cluster = start(tmp_path, CLUSTER)
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    try:
        # A driver that dies leaves its attempt to stop by itself, with a checkpoint.
        driver = start(tmp_path, DRIVER, address, str(tmp_path), "obedient")
        folder = tmp_path / "obedient"
        asked = AttemptRequest(task_id="", kind="obedient", folder=str(folder), attempt=1)
        child = busy_pid(asked)
        end(driver)
        wait_until(lambda: not alive(child))
        assert (folder / "checkpoint").exists()

        with open_pool(address, entry=ENTRY) as pool:
            assert pool.notices == ()
            assert pool.slots == 2
            both = [request(tmp_path, "obedient", number) for number in (1, 2)]
            for asked in both:
                pool.submit(asked)
            for asked in both:  # one worker, two at the same time
                busy_pid(asked)
            pool.stop()
            outcomes = pool.completed(PATIENCE_S)
            while len(outcomes) < 2:
                outcomes += pool.completed(PATIENCE_S)
            assert {outcome.state for outcome in outcomes} == {"stopped"}
            end(cluster)
            with pytest.raises(UnreachableError, match="gone"):
                for _ in range(int(PATIENCE_S)):
                    pool.completed(1.0)
    finally:
        end(cluster)


@pytest.mark.slow
def test_each_local_worker_takes_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with open_pool("local", entry=ENTRY, gpus=True) as pool:
        assert pool.slots == 2  # as many workers as GPUs, however many cores there are
        for number in (1, 2):
            pool.submit(request(tmp_path, "gpu", number))
        outcomes: list[AttemptOutcome] = []
        while len(outcomes) < 2:
            outcomes += pool.completed(PATIENCE_S)
    assert {outcome.message for outcome in outcomes} == {"4", "7"}
