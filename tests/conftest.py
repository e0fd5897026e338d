"""What does every test get? A folder of its own, a clean environment, and databases to test on."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import NoPostgres, cluster

from sweepctl import cli


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEPCTL_DB", "SWEEPCTL_SITE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line as `main` does; gives exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return run


@pytest.fixture
def call_joined(call: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """The same; gives the exit code and everything that was printed."""

    def run(*words: str) -> tuple[int, str]:
        code, out, err = call(*words)
        return code, out + err

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL cluster of this test session; skips where there is none."""
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(cluster())
        except NoPostgres as error:
            pytest.skip(str(error))
        yield url


_numbers = itertools.count()


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """URL of an empty schema of its own; far cheaper than a database."""
    import psycopg

    schema = f"test_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{postgres}&options=-csearch_path%3D{schema}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Path or URL of an empty database of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "results.db")
    url: str = request.getfixturevalue("postgres_url")
    return url
