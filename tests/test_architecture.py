"""Does the house stand as it is drawn? Contracts, light imports, docstrings, sizes, the maps."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from ledger_plans import make_plan, submission

from sweepctl.ledger import open_ledger

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sweepctl", "vitok_core")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {contract["name"]: contract for contract in LINTER["contracts"]}

MOST_LINES = 600
LONGER: dict[str, int] = {}
"""Files that are longer today and may only shrink; split them before they grow."""


# --- contracts ----------------------------------------------------------------------------------


def test_all_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


BREACHES = {
    "sweepctl reads top to bottom": ("sweepctl/plan/_expand.py", "import sweepctl.tasks"),
    "vitok_core reads top to bottom": (
        "vitok_core/metrics/__init__.py",
        "import vitok_core.losses",
    ),
    "vitok_core does not know sweepctl": ("vitok_core/losses.py", "import sweepctl.runs"),
    "The driver's side does not know vitok_core": (
        "sweepctl/ledger/_tasks.py",
        "import vitok_core.spec",
    ),
    "Only tasks touches the models": ("sweepctl/plan/_tasks.py", "import vitok_core.data"),
    "Dask only in cluster": ("sweepctl/execute/_driver.py", "import distributed"),
    "The database only in ledger": ("sweepctl/cli/_query.py", "import sqlite3"),
    "Statistics only in analyse, claims and design": (
        "sweepctl/report/_text.py",
        "import scipy.stats",
    ),
    "Optuna only in search": ("sweepctl/execute/_searching.py", "import optuna"),
    "Drawing only in figures": ("sweepctl/analyse/_laws.py", "import matplotlib.figure"),
    "Pages only in ui": ("sweepctl/report/_text.py", "import jinja2"),
    "Trackers only in trackers": ("sweepctl/execute/_driver.py", "import tensorboard"),
    "The command line only in cli": ("sweepctl/tasks/_measure.py", "import typer"),
    "Study files are read only in study": ("sweepctl/runs.py", "import pydantic"),
    "torch only in vitok_core and tasks, not in what plans read": (
        "vitok_core/weights.py",
        "def later():\n    import torch",
    ),
    "Plans, analyses and sizes are pure": ("sweepctl/plan/__init__.py", "import time"),
}
"""Contract -> a line that must break it, and where."""


def test_every_contract_has_a_breach_that_is_tried() -> None:
    assert BREACHES.keys() == CONTRACTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BREACHES, "a file without a place"])
def test_a_breach_is_caught(name: str, tmp_path: Path) -> None:
    house = tmp_path / "house"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, house / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", house)
    broken = name
    if name in BREACHES:
        file, line = BREACHES[name]
        with (house / file).open("a") as source:
            source.write(f"\n{line}\n")
    else:
        (house / "sweepctl" / "utils.py").write_text('"""What is left over?"""\n')
        broken = "sweepctl reads top to bottom"
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports as lint; exit(lint())"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
    )
    assert f"{broken} BROKEN" in done.stdout, done.stdout + done.stderr
    assert done.returncode != 0


def test_every_module_of_vitok_core_is_light_or_protected() -> None:
    protected = set(CONTRACTS["Only tasks touches the models"]["protected_modules"])
    names = ("spec", "settings", "protocols", "sources", "weights", "files", "errors")
    light = {f"vitok_core.{name}" for name in names}
    assert protected | light == {f"vitok_core.{name}" for name in modules("vitok_core")}


# --- maps ---------------------------------------------------------------------------------------


def modules(package: str) -> set[str]:
    """Public modules and packages directly below a package."""
    return {
        entry.stem
        for entry in (ROOT / package).iterdir()
        if (entry.suffix == ".py" or (entry / "__init__.py").exists())
        and not entry.stem.startswith("_")
    }


def layers(package: str) -> list[list[str]]:
    """The layers of the contract, highest first."""
    rows = CONTRACTS[f"{package} reads top to bottom"]["layers"]
    return [row.split(" | ") for row in rows]


def drawn(text: str, package: str) -> list[list[str]]:
    """Rows "a | b" of a picture that begins with a line naming the package."""
    block = re.search(rf"^```text\n{package}\n(.*?)^```", text, re.M | re.S)
    assert block, f"no picture of {package} in docs/architecture.md"
    rows = [line.split("  ")[0].strip() for line in block[1].splitlines() if line.strip()]
    return [re.split(r"\s*\|\s*", row) for row in rows]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_stands_in_one_layer(package: str) -> None:
    placed = [name for row in layers(package) for name in row]
    assert sorted(placed) == sorted(modules(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_picture_in_the_docs_shows_the_contracts(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert [sorted(row) for row in drawn(text, package)] == [sorted(row) for row in layers(package)]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docs_name_every_module(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    missing = [name for name in modules(package) if f"`{package}.{name}`" not in text]
    assert not missing


def test_the_map_names_every_module_once_and_in_the_order_of_the_flow() -> None:
    lines = docstring(ROOT / "sweepctl" / "__init__.py").splitlines()
    named = [line.split()[0] for line in lines if line.startswith("    ")]
    assert len(named) == len(set(named)) and set(named) == modules("sweepctl")
    depth = {name: index for index, row in enumerate(reversed(layers("sweepctl"))) for name in row}
    # The ground floor stands at the end of the map; execute is told before ledger and analyse,
    # because that is the order in which a study flows.
    ground = layers("sweepctl")[-1]
    assert named[-len(ground) :] == ground
    above = [name for name in named if name not in (*ground, "execute")]
    assert [depth[name] for name in above] == sorted(depth[name] for name in above)
    assert named.index("cluster") < named.index("execute") < named.index("ledger")


# --- files --------------------------------------------------------------------------------------


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_for(path: Path) -> None:
    first = docstring(path).partition("\n")[0]
    assert len(first.split()) >= 3 and re.search(r"[.?:]", first), f"{path}: {first!r}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_too_long(path: Path) -> None:
    count = len(path.read_text().splitlines())
    assert count <= LONGER.get(str(path.relative_to(ROOT)), MOST_LINES)


MOST_FUNCTION_LINES = 80
LONGER_FUNCTIONS: dict[str, int] = {
    "sweepctl/ledger/migrations/versions/r0001.py:upgrade": 245,
}
"""Functions that are longer today and may only shrink."""


def function_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file and its lines without the docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1
            yield (
                f"{path.relative_to(ROOT)}:{node.name}",
                lines - (doc.count("\n") + 1 if doc else 0),
            )


def test_no_function_is_too_long() -> None:
    longer = {
        name: lines
        for path in SOURCES
        for name, lines in function_lines(path)
        if lines > LONGER_FUNCTIONS.get(name, MOST_FUNCTION_LINES)
    }
    assert longer == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = re.compile(r"^_?(utils?|helpers?|common|misc|managers?|registry|service|dto|base)$")
    assert [str(path) for path in SOURCES if empty.match(path.stem)] == []


def test_no_sql_leaves_the_ledger() -> None:
    statement = re.compile(r"\b(select|insert|update|delete|with)\b.*\b(from|into|set|as)\b", re.S)
    for path in (ROOT / "sweepctl").rglob("*.py"):
        if path.is_relative_to(ROOT / "sweepctl" / "ledger"):
            continue
        tree = ast.parse(path.read_text())
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        # What people are shown as an example is in quotes, and lower case.
        asked = [
            text for text in texts if re.match(r"\s*SELECT\s", text) and statement.search(text)
        ]
        assert not asked, f"{path}: {asked}"
        private = re.search(r"sweepctl\.ledger(\._| import _)", path.read_text())
        assert private is None, f"{path} imports what is private to the ledger"
        if path.is_relative_to(ROOT / "sweepctl" / "ui"):
            queries = [
                node.lineno
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr == "query"
            ]
            assert not queries, f"{path}: lines {queries} ask the ledger in SQL"


def test_only_the_command_line_writes_to_the_terminal() -> None:
    # ruff's T20 finds print; this finds the streams.
    writers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(r"\bsys\.(stdout|stderr)\.write\(", path.read_text())
    }
    assert {path for path in writers if not path.startswith("sweepctl/cli/")} <= {
        "sweepctl/start.py",  # where the command line begins
        "sweepctl/cluster/_fork_server.py",  # a process of its own, whose stderr is a log file
        "sweepctl/tasks/_work.py",  # in a child, whose stdout is the attempt's log
    }


# --- what a command loads -----------------------------------------------------------------------

MODELS = {"torch", "torchvision", "lpips", "torchmetrics", "torch_fidelity", "skimage", "sklearn"}
HEAVY = MODELS | {"statsmodels", "scipy", "matplotlib", "pandas", "dask", "distributed", "optuna"}
DATABASE = {"sqlalchemy", "alembic", "psycopg"}
REST = {"numpy", "pydantic", "ruamel", "rich", "PIL"}
TYPERS_OWN = {"pydantic", "rich"}
"""What typer itself loads to complete a word."""

LOADED = """
import json, os, sys
commands = json.loads(sys.argv[1])
from sweepctl.cli import main
for command in commands:
    sys.argv = ["sweepctl", *command]
    try:
        main()
    except SystemExit as end:
        if end.code not in (0, None):
            raise
loaded = {name.partition(".")[0] for name in sys.modules}
sys.stderr.write("\\nloaded " + json.dumps(sorted(loaded)))
"""


def loaded_by(*commands: str, folder: Path, **environment: str) -> set[str]:
    """Top-level modules in a fresh process after some commands, one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps([command.split() for command in commands])],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.rpartition("\nloaded ")[2]))


def test_help_loads_nothing_but_the_command_line(tmp_path: Path) -> None:
    loaded = loaded_by("--help", folder=tmp_path)
    assert "typer" in loaded
    assert not loaded & (HEAVY | DATABASE | REST)


def test_completion_loads_nothing_but_the_command_line(tmp_path: Path) -> None:
    loaded = loaded_by(
        "",
        folder=tmp_path,
        _SWEEPCTL_COMPLETE="complete_bash",
        COMP_WORDS="sweepctl st",
        COMP_CWORD="1",
    )
    assert not loaded & (HEAVY | DATABASE | REST - TYPERS_OWN)


def test_looking_at_results_loads_no_models_no_statistics_and_no_dask(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        ledger.studies.record(make_plan(), submission())
    loaded = loaded_by(
        "status",
        "status small",
        "query select/**/study,cell,E/**/from/**/v_cell",
        "results small",
        "show small --cell 1",
        "db views",
        folder=tmp_path,
    )
    assert "sqlalchemy" in loaded
    assert not loaded & (HEAVY | {"alembic"})


def test_planning_loads_no_models_no_statistics_and_no_dask(tmp_path: Path) -> None:
    study = str(ROOT / "studies" / "quickstart.yaml")
    loaded = loaded_by(
        *(f"check {study}", f"plan {study}", f"show {study} --cell 1", "schema"),
        "spec S-B/16 --dit XL",
        folder=tmp_path,
    )
    assert "ruamel" in loaded
    assert not loaded & HEAVY
