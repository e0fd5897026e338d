"""How large is the house, and what is written in it twice? One table, for one or two revisions.

    python bench/house.py                 # this working tree
    python bench/house.py --before REV    # next to an earlier revision, read from git
    python bench/house.py --json

Counted are the Python files of sweepctl and vitok_core, without tests and benchmarks:

    functions    lines without the docstring, of every function and method
    exported     names in the __all__ of a package, and those that no file outside the package
                 imports or reads as an attribute of it
    options      of every command, as the command line itself lists them, without --help
    duplicates   pairs of files that share a run of 8 lines, blank lines, comments and imports left
                 out; docstrings count
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sweepctl", "vitok_core")
DUPLICATE_LINES = 8
LONG_FUNCTION_LINES = 80

COMMANDS = """
import json, typer
from sweepctl.cli import app
def options(command, name, found):
    if hasattr(command, "list_commands"):
        context = command.make_context(name, [], resilient_parsing=True)
        for below in command.list_commands(context):
            options(command.get_command(context, below), f"{name} {below}".strip(), found)
    else:
        found[name] = sum(
            type(p).__name__.endswith("Option") and "--help" not in p.opts for p in command.params
        )
    return found
print(json.dumps(options(typer.main.get_command(app), "", {})))
"""


def spread(values: Iterable[int]) -> str:
    """Median, 90th percentile and largest, as "10 / 32 / 171"."""
    ordered = sorted(values)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return f"{statistics.median(ordered):.0f} / {p90} / {ordered[-1]}"


def function_lines(tree: ast.Module) -> list[int]:
    """Lines of every function of a file, without its docstring."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            found.append(lines - (doc.count("\n") + 1 if doc else 0))
    return found


def exported(path: Path, tree: ast.Module) -> list[str]:
    """The names in `__all__` of a package's __init__ or of a public module."""
    if path.stem.startswith("_") and path.stem != "__init__":
        return []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def read_names(tree: ast.Module) -> set[tuple[str, str]]:
    """(module, name) of every import from a package and every attribute of an imported module."""
    found, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found.add((node.module, alias.name))
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = ast.unparse(node.value)
            found.add((modules.get(owner, owner), node.attr))
    return found


def duplicate_pairs(files: dict[Path, str]) -> int:
    """Pairs of files, a file with itself included, that share a run of `DUPLICATE_LINES` lines."""
    places: dict[tuple[str, ...], set[tuple[Path, int]]] = defaultdict(set)
    for path, text in files.items():
        lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
        kept = [
            line
            for line in lines
            if re.search(r"\w", line) and not re.match(r"#|from |import |\w+,$", line)
        ]
        for start in range(len(kept) - DUPLICATE_LINES + 1):
            places[tuple(kept[start : start + DUPLICATE_LINES])].add((path, start))
    pairs = set()
    for found in places.values():
        for (one, at), (other, there) in combinations(sorted(found), 2):
            if one != other or abs(at - there) >= DUPLICATE_LINES:
                pairs.add((one, other))
    return len(pairs)


def measured(root: Path) -> dict[str, Any]:
    """Every figure of one checkout, by row of the table."""
    rows: dict[str, Any] = {}
    texts = {
        path: path.read_text()
        for package in (*PACKAGES, "tests", "bench")
        for path in sorted((root / package).rglob("*.py"))
    }
    trees = {path: ast.parse(text) for path, text in texts.items()}
    reads = {path: read_names(tree) for path, tree in trees.items()}
    for package in PACKAGES:
        own = {path: text for path, text in texts.items() if path.is_relative_to(root / package)}
        lines = {path: len(text.splitlines()) for path, text in own.items()}
        functions = [count for path in own for count in function_lines(trees[path])]
        names, unused = 0, 0
        for path in own:
            house = path.parent if path.stem == "__init__" else path
            module = ".".join(house.relative_to(root).with_suffix("").parts)
            for name in exported(path, trees[path]):
                names += 1
                unused += not any(
                    (module, name) in found
                    for other, found in reads.items()
                    if other.is_relative_to(root) and not other.is_relative_to(house)
                    if other.relative_to(root).parts[0] in PACKAGES
                )
        rows[f"{package}: files"] = len(own)
        rows[f"{package}: lines"] = sum(lines.values())
        rows[f"{package}: lines per file, median / p90 / max"] = spread(lines.values())
        rows[f"{package}: functions"] = len(functions)
        rows[f"{package}: lines per function, median / p90 / max"] = spread(functions)
        rows[f"{package}: functions above {LONG_FUNCTION_LINES} lines"] = sum(
            count > LONG_FUNCTION_LINES for count in functions
        )
        rows[f"{package}: files under 120 lines"] = sum(count < 120 for count in lines.values())
        rows[f"{package}: private modules"] = sum(
            path.stem.startswith("_") and path.stem != "__init__" for path in own
        )
        rows[f"{package}: exported names"] = names
        rows[f"{package}: exported, not imported by other code"] = unused
        rows[f"{package}: pairs of files sharing {DUPLICATE_LINES} lines"] = duplicate_pairs(own)
    listed = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    options = json.loads(listed.stdout)
    rows["commands"] = len(options)
    rows["options"] = sum(options.values())
    rows["options per command, median / p90 / max"] = spread(options.values())
    rooms: dict[str, list[Path]] = defaultdict(list)
    for path in texts:
        package, room, *_ = path.relative_to(root).parts
        if package in PACKAGES:
            rooms[f"{package}/{room}"].append(path)
    for room, inside in sorted(rooms.items()):
        lines = sum(len(texts[path].splitlines()) for path in inside)
        rows[f"{room}: files, lines"] = f"{len(inside)}, {lines}"
    return rows


def checkout(revision: str, folder: Path) -> Path:
    """The files of a revision, written into a folder."""
    packed = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", metavar="REV", help="an earlier revision to compare with")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    columns = {}
    if arguments.before:
        with tempfile.TemporaryDirectory() as scratch:
            columns[arguments.before] = measured(checkout(arguments.before, Path(scratch)))
    columns["now"] = measured(ROOT)
    if arguments.json:
        print(json.dumps(columns, indent=1))
        return
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    print(f"| | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for row in rows:
        print(f"| {row} | {' | '.join(str(column.get(row, '')) for column in columns.values())} |")


if __name__ == "__main__":
    main()
