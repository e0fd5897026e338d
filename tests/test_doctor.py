"""Is what a study needs looked at on every worker, before anything is started?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import distributed
import pytest
from own_files import picture_folder

from studies import SMALL, plan_of, write
from sweepctl.cluster import HERE, Answer, Pool, open_pool
from sweepctl.execute import Check, Settings, checks
from sweepctl.execute._ready import look
from sweepctl.tasks import versions


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


Call = Callable[..., tuple[int, str, str]]
H100 = "NVIDIA H100 80GB HBM3"
GPUS = [f"GPU-{number}0000000-0000-1111-2222-333333333333" for number in range(7)]


def states(found: list[Check], name: str) -> list[tuple[str, str]]:
    return [(one.state, one.said) for one in found if one.name == name]


def driver_has_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int = 81000, takers: str = ""
) -> None:
    """A real program nvidia-smi with seven GPUs first on PATH."""
    rows = "\n".join(f"{uuid}, {H100}, 81559, {free}, Disabled" for uuid in GPUS)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\ncase $1 in --query-compute*) echo '{takers}' ;;\n"
        f"*) cat <<'END'\n{rows}\nEND\n;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("sweepctl.cluster._devices.torch_build", lambda: "cuda")


class Elsewhere:
    """A pool whose workers answer as this machine does, but for what is given."""

    def __init__(self, **workers: Mapping[str, Any]) -> None:
        self.workers = workers

    def ask(self, function: str, argument: Mapping[str, Any]) -> list[Answer]:
        return [
            Answer(worker=name, value=look(argument) | dict(other))
            for name, other in self.workers.items()
        ]


def asked(pool: Any, tmp_path: Path, **how: Any) -> list[Check]:
    settings = Settings(folder=tmp_path / "runs", where="tcp://host:1", **how)
    return checks(pool, settings, plan_of(tmp_path))


def test_all_is_well(call: Call, tmp_path: Path) -> None:
    file = str(write(tmp_path, SMALL))
    code, out, err = call("doctor", file, "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["well"] is True
    names = [one["name"] for one in said["checks"]]
    assert names == [
        *("database", "software", "run folder", "cores", "GPUs", "weights", "data sets")
    ]
    assert {one["where"] for one in said["checks"]} == {"driver", HERE}
    assert {one["state"] for one in said["checks"]} == {"ok", "note"}
    assert list((tmp_path / "runs").iterdir()) == []  # nothing of it stays
    code, out, err = call("doctor")
    assert code == 0
    assert "not looked at: no study was named" in out
    assert err.endswith("all is well\n")


def test_a_missing_file_of_weights(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path / "weights"))
    file = str(write(tmp_path, SMALL.replace("rfd_lite0]", "rfid], protocol: adm")))
    code, out, err = call("doctor", file)
    assert code == 1
    assert "sweepctl weights fetch inception-fid" in out
    assert "things to look at" in err


def test_own_data_that_changed_since_its_scan(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    pictures = picture_folder(tmp_path / "pictures", {"a": 40, "b": 40})
    write(tmp_path, f"datasets: {{mine: {{folder: {pictures}}}}}\n", "sweepctl.site.yaml")
    assert call("data", "scan", "mine")[0] == 0
    file = str(write(tmp_path, SMALL.replace("train: photos-train", "train: mine")))
    code, out, _ = call("doctor", file)
    assert (code, "mine" in out) == (0, True)
    for picture in pictures.rglob("*.png"):
        picture.write_bytes(b"another one")
    code, out, _ = call("doctor", file)
    assert code == 1
    assert "is not the file that was scanned" in out


def test_a_study_that_is_wrong_and_a_database_that_is_broken(call: Call, tmp_path: Path) -> None:
    file = str(write(tmp_path, SMALL.replace("nano, decoder", "huge, decoder")))
    assert call("doctor", file)[0] == 3
    (tmp_path / "results.db").write_bytes(b"no database at all, and long enough to be one")
    code, out, _ = call("doctor")
    assert code == 1
    assert "database\tdriver\twrong" in out
    code, out, _ = call("--db", "postgresql://127.0.0.1:1/none", "doctor")
    assert code == 5


def test_a_scheduler_that_does_not_answer(call: Call, tmp_path: Path) -> None:
    write(tmp_path, "workers: {where: 'tcp://127.0.0.1:1'}\n", "sweepctl.site.yaml")
    code, out, _ = call("doctor")
    assert code == 5
    assert "workers\tdriver\twrong\tno Dask scheduler answers" in out


def test_a_site_that_says_eight_and_a_node_that_has_seven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver_has_gpus(tmp_path, monkeypatch)
    settings = Settings(folder=tmp_path / "runs", workers=8)
    found = states(checks(Elsewhere(a={}), settings), "GPUs")  # type: ignore[arg-type]
    few = "8 workers are asked for and 7 GPUs can be used: some would share one"
    assert ("warning", few) in found
    for uuid in GPUS:
        assert ("ok", f"{uuid}, {H100}, 79.6 GiB, 79.1 free") in found


@pytest.mark.slow
def test_the_doctor_asks_torch(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver_has_gpus(tmp_path, monkeypatch)
    write(tmp_path, "workers: {count: 8}\n", "sweepctl.site.yaml")
    code, out, _ = call("doctor")
    assert code == 1
    assert "8 workers are asked for and 7 GPUs can be used: some would share one" in out
    # No driver is here: what torch says of them decides.
    assert "torch cannot use them: " in out


def test_memory_that_another_process_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver_has_gpus(tmp_path, monkeypatch, 41000, f"{GPUS[2]}, 4242, /usr/bin/python3, 40000")
    found = dict(enumerate(states(asked(Elsewhere(a={}), tmp_path), "GPUs")))
    assert found[2][0] == "warning"
    assert found[2][1].endswith("79.6 GiB, 40.0 free: the rest is taken by python3 4242: 39.1 GiB")
    assert found[3][1].endswith("40.0 free: the rest is taken by another process")


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pool = Elsewhere(a={})
    assert states(asked(pool, tmp_path), "GPUs") == [("note", "none: everything runs on the CPU")]
    wrong = asked(pool, tmp_path, device="cuda")
    assert states(wrong, "GPUs") == [("wrong", "the device is cuda, and no GPU can be used here")]
    one = {"id": "0", "name": H100, "memory_bytes": None, "free_bytes": None}
    wrong = asked(Elsewhere(a={"gpus": [one]}), tmp_path, device="cuda:3")
    assert ("wrong", "the device is cuda:3, and there are 1, from 0") in states(wrong, "GPUs")


def test_workers_that_differ_from_the_driver(tmp_path: Path) -> None:
    other = dict(versions()) | {"torch": "2.6.0"}
    pool = Elsewhere(
        a={"host": "north"},
        b={"host": "north"},
        c={"host": "south", "versions": other, "code": "0123456789abcdef"},
        d={"host": "south", "folder": {"problem": "No such file or directory"}},
    )
    found = asked(pool, tmp_path)
    software = {(one.where, one.state): one.said for one in found if one.name == "software"}
    assert software.keys() == {
        ("a and 1 more on north", "ok"),
        ("c on south", "wrong"),
        ("c on south", "warning"),
        ("d on south", "ok"),
    }
    assert "other code than the driver's" in software["c on south", "wrong"]
    assert "torch 2.6.0 (driver: " in software["c on south", "warning"]
    [lost] = [one for one in found if one.where == "d on south" and one.name == "run folder"]
    assert lost.state == "wrong"
    assert "No such file or directory; workers need the same files at the same path" in lost.said


def test_a_disk_that_is_too_small_and_threads_that_are_too_many(tmp_path: Path) -> None:
    small = {"folder": {"problem": "", "free_bytes": 1000}, "cores": 4}
    found = asked(Elsewhere(a=small), tmp_path, threads=8)
    assert states(found, "run folder")[0][0] == "warning"
    assert "all of the study takes " in states(found, "run folder")[0][1]
    assert states(found, "cores")[0][0] == "warning"
    assert states(found, "cores")[0][1].endswith("8 threads would share them")


def test_a_worker_that_cannot_answer(tmp_path: Path) -> None:
    class Broken:
        def ask(self, function: str, argument: Mapping[str, Any]) -> list[Answer]:
            return [Answer(worker="a", problem="ModuleNotFoundError: sweepctl")]

    assert states(asked(Broken(), tmp_path), "worker") == [
        ("wrong", "it cannot be asked: ModuleNotFoundError: sweepctl")
    ]


def test_run_starts_nothing_on_workers_that_cannot(call: Call, tmp_path: Path) -> None:
    file = str(write(tmp_path, SMALL))
    code, _, err = call("run", file, "--device", "cuda", "--cluster", "inline")
    assert code == 1
    assert "nothing was started: this machine: GPUs: the device is cuda, and no GPU" in err
    assert "`sweepctl doctor` with the study's file" in err
    code, out, _ = call("query", "-f", "json", "select distinct state from v_task")
    assert json.loads(out) == [{"state": "pending"}]


def test_workers_of_a_scheduler_are_asked_each(call: Call, tmp_path: Path) -> None:
    file = str(write(tmp_path, SMALL))
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        where = cluster.scheduler_address
        write(tmp_path, f"workers: {{where: '{where}'}}\n", "sweepctl.site.yaml")
        code, out, _ = call("doctor", file, "--json")
        said = json.loads(out)
        assert code == 0
        assert {one["where"].split(" on ")[0] for one in said["checks"]} == {
            "driver",
            "local-0 and 1 more",
        }
        with open_pool(where, entry="cluster_entries:run") as pool:
            [first, second] = pool.ask("builtins:int", {})
            assert first.value is None
            assert first.problem.startswith("TypeError: int() argument must be")
            assert first.worker != second.worker


def test_the_check_of_a_run_is_fast(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    settings = Settings(folder=tmp_path / "runs")
    pool: Pool
    with open_pool("inline", entry="cluster_entries:run") as pool:
        checks(pool, settings, plan)
        started = time.perf_counter()
        checks(pool, settings, plan)
        assert time.perf_counter() - started < 2.0  # a tenth of a second alone; here others work
