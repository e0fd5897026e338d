"""Where does a PostgreSQL for tests come from? A private cluster, if its programs are installed.

It lives in a temporary folder, listens on a socket in that folder only, trusts everybody who can
reach it, does not sync to disk, and is removed at the end. PostgreSQL refuses to run as root, so
root hands it to the user `postgres`.

    python tests/postgres.py        starts one, prints its URL and keeps it until Ctrl-C
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


class NoPostgres(Exception):
    """PostgreSQL cannot be started here; the message says why."""


def binaries() -> Path:
    """The newest folder with PostgreSQL's programs."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path and shutil.which("pg_ctl"):
        folders.append(Path(on_path).parent)
    if not folders:
        raise NoPostgres("PostgreSQL is not installed (apt-get install postgresql)")
    return max(
        folders, key=lambda folder: [int(n) for n in folder.parent.name.split(".") if n.isdigit()]
    )


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """A running cluster; yields the URL of its database `postgres`."""
    programs = binaries()
    with tempfile.TemporaryDirectory(prefix="sweepctl-pg-", ignore_cleanup_errors=True) as folder:
        prefix = _as_postgres(folder)
        data = f"{folder}/data"
        _call([*prefix, f"{programs}/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N"])
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        start = [f"{programs}/pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w"]
        _call([*prefix, *start, "start"])
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            _call([*prefix, f"{programs}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])


def _as_postgres(folder: str) -> list[str]:
    if os.getuid() != 0:
        return []
    if shutil.which("runuser") is None:
        raise NoPostgres("PostgreSQL does not run as root and there is no runuser")
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise NoPostgres("PostgreSQL does not run as root and there is no user postgres") from None
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["runuser", "-u", "postgres", "--"]


def _call(command: list[str]) -> None:
    # Output goes to a file of its own: a server would keep a pipe open for ever.
    with tempfile.TemporaryFile() as said:
        ended = subprocess.run(command, stdout=said, stderr=said, cwd="/", check=False)
        if ended.returncode != 0:
            said.seek(0)
            raise NoPostgres(f"{' '.join(command)} failed: {said.read().decode()[-400:]}")


if __name__ == "__main__":
    with cluster() as running:
        print(running, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
