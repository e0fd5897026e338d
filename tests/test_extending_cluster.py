"""A kind of cluster costs a record and a module: one is added here, from outside.

This file is its own toy: run as a script it adds the record and becomes the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from studies import SMALL, write
from sweepctl.cluster import Pool, PoolRequest
from sweepctl.clusters import CLUSTERS, ClusterKind

TOY = ClusterKind(
    name="toy",
    opener=f"{Path(__file__).stem}:open_toy",
    address="ROOM",
    about="another way to say inline",
)


def open_toy(asked: PoolRequest) -> Pool:
    from sweepctl.cluster._inline import InlinePool

    pool = InlinePool(asked.entry)
    pool.notices = (f"attempts run in {asked.where.partition('://')[2]}",)
    return pool


if __name__ == "__main__":
    CLUSTERS[TOY.name] = TOY
    from sweepctl.cli import main

    main()


def sweepctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here), str(here.parent)])
    return subprocess.run(
        [sys.executable, __file__, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_cluster_from_outside_runs_studies(tmp_path: Path) -> None:
    study = SMALL.replace("[4, 8]", "[8]").replace("c: [4, 16]", "c: [4]")
    file = write(tmp_path, study.replace("steps: 10", "steps: 1").replace(", rfd_lite0", ""))
    (tmp_path / "sweepctl.site.yaml").write_text("workers: {where: 'toy://kitchen'}\n")
    done = sweepctl(tmp_path, "run", file.name)
    assert done.returncode == 0, done.stderr
    assert "attempts run in kitchen" in done.stderr
    states = sweepctl(tmp_path, "query", "-f", "json", "select state from v_cell")
    assert json.loads(states.stdout) == [{"state": "done"}]


def test_a_wrong_name_lists_every_kind(tmp_path: Path) -> None:
    file = write(tmp_path, SMALL)
    for word in ("moon", "toy", "local://x", "tcp://"):
        done = sweepctl(tmp_path, "run", file.name, "--cluster", word)
        assert done.returncode == 2
        assert f"there is no cluster '{word}'" in done.stderr and "toy://ROOM" in done.stderr
    (tmp_path / "sweepctl.site.yaml").write_text("workers: {where: moon}\n")
    done = sweepctl(tmp_path, "run", file.name)
    assert done.returncode == 3 and "there is no cluster 'moon'" in done.stderr
    assert "sweepctl.site.yaml:1:" in done.stderr
