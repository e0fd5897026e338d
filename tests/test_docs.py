"""Is the documentation true? Commands run, studies plan, tables, links and trees are in step.

`python tests/test_docs.py` rewrites the generated tables.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sweepctl import runs
from sweepctl.analyse import WarningCode
from sweepctl.errors import SweepctlError
from sweepctl.ledger import METRIC_COLUMNS, VIEWS
from sweepctl.plan import make_plan
from sweepctl.study import Config, Site, Study, Workers, load_site, load_study
from sweepctl.tasks import data_identities
from vitok_core.data import PICTURES
from vitok_core.protocols import METRICS, PROTOCOLS
from vitok_core.spec import SIZES, TokenizerSpec
from vitok_core.weights import WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


# --- generated parts ----------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in clean)


AFTERWARDS = (*Config.model_fields, "run")


def study_keys() -> str:
    """Every key of a study file, from the models' JSON Schema."""
    schema = Study.model_json_schema(by_alias=True)
    rows: list[tuple[str, ...]] = []

    def part(reference: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = schema["$defs"][reference["$ref"].rpartition("/")[2]]
        return found

    def walk(model: dict[str, Any], lead: str) -> None:
        # What stands around a cell's config comes first.
        keys = model["properties"].items()
        for name, given in sorted(keys, key=lambda item: not lead and item[0] in AFTERWARDS):
            inner = part(given) if "$ref" in given else given
            if "properties" in inner:
                walk(inner, f"{lead}{name}.")
                continue
            needed = name in model.get("required", ())
            about = given.get("description", "Name of the claim, as in its verdict.")
            rows.append((f"`{lead}{name}`", allowed(given), default(given, needed), about))
            for below, entry in entries(given):
                walk(part(below), f"{lead}{name}{entry}.")

    def entries(given: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        items = given.get("items", {})
        for below in [items, *items.get("oneOf", ())]:
            if "$ref" in below:
                yield below, "[]"
        for below in given.get("patternProperties", {}).values():
            yield below, ".NAME"

    walk(schema, "")
    return table(("Key", "Takes", "Default", "Meaning"), rows)


def default(given: dict[str, Any], needed: bool) -> str:
    if needed:
        return "needed"
    value = given.get("default")
    if value is None or value in ([], ""):
        return "none"
    return f"`{json.dumps(value)}`"


def allowed(given: dict[str, Any]) -> str:
    """What a JSON Schema allows, in words."""
    if "const" in given:
        return f"`{given['const']}`"
    if "enum" in given:
        return " or ".join(f"`{value}`" for value in given["enum"])
    if "anyOf" in given:
        kinds = [allowed(one) for one in given["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    pattern = given.get("pattern", "")
    kind = given.get("type", "anything")
    if kind in ("integer", "number"):
        word = "whole number" if kind == "integer" else "number"
        return " ".join([word, *bounds(given)])
    if kind == "string":
        for sign, words in (("kM", "`100k`, `4M`"), (">=", "`'>= 0.9'`"), ("%", "`'10%'`")):
            if sign in pattern:
                return words
        return "text"
    if kind == "array":
        of = given.get("items", {}).get("type")
        plural = {"string": "texts", "object": "mappings"}.get(of or "", "entries")
        return "two numbers" if "prefixItems" in given else f"list of {plural}"
    if kind == "object":
        names = given.get("propertyNames", {}).get("enum")
        return "mapping" + (f" of {', '.join(f'`{name}`' for name in names)}" if names else "")
    return {"boolean": "true or false"}.get(kind, kind)


def bounds(given: dict[str, Any]) -> list[str]:
    words = (
        ("minimum", "from {:,}"),
        ("exclusiveMinimum", "above {:,}"),
        ("maximum", "to {:,}"),
        ("exclusiveMaximum", "below {:,}"),
    )
    return [text.format(given[key]) for key, text in words if key in given]


def site_keys() -> str:
    """Keys of the site file, from the docstrings of its models."""
    rows = []
    for model, lead in ((Site, ""), (Workers, "workers.")):
        attributes = (model.__doc__ or "").partition("Attributes:")[2]
        for name, about in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.M):
            if name == "workers":
                continue
            value = model.model_fields[name].default
            shown = "none" if value is None else f"`{json.dumps(value)}`"
            rows.append((f"`{lead}{name}`", shown, " ".join(about.split())))
    return table(("Key", "Default", "Meaning"), rows)


def views() -> str:
    """The public views of the database, column by column."""
    parts = []
    for name, (about, columns) in VIEWS.items():
        rows = [(f"`{column}`", meaning) for column, meaning in columns.items()]
        parts.append(f"### {name}\n\n{about}\n\n{table(('Column', 'Meaning'), rows)}")
    return "\n\n".join(parts)


def pictures() -> str:
    """The photographs of the photos data set."""
    rows = [
        (
            f"{label} {one.name}",
            f"`{one.install}`",
            f"{one.width} x {one.height}",
            one.eval_side,
            one.licence,
            one.author,
            f"`{one.sha256[:16]}`",
        )
        for label, one in enumerate(PICTURES)
    ]
    head = ("Label", "pip package", "Pixels", "Evaluation side", "Licence", "Author", "SHA-256")
    return table(head, rows)


def weights() -> str:
    """The pretrained files."""
    rows = [
        (f"`{name}`", f"`{one.install}`", f"`{one.file}`", one.licence, f"`{one.sha256}`")
        for name, one in WEIGHTS.items()
    ]
    return table(("Name", "pip package", "File", "Licence", "SHA-256"), rows)


def metrics() -> str:
    """The metrics a study can ask for."""
    rows = [
        (
            f"`{name}`",
            one.unit or "none",
            f"{one.better} is better",
            one.scale,
            str(one.needs),
            one.about,
        )
        for name, one in METRICS.items()
    ]
    return table(("Metric", "Unit", "Direction", "Scale of fits", "Least images", "About"), rows)


def protocols() -> str:
    """The protocols, rule by rule."""
    parts = []
    for name, one in PROTOCOLS.items():
        rows = [(f"`{key}`", str(value)) for key, value in one.record().items() if key != "name"]
        parts.append(f"`{name}`: {one.about}\n\n{table(('Rule', 'Value'), rows)}")
    return "\n\n".join(parts)


def sizes() -> str:
    """Encoder and decoder sizes."""
    rows = []
    for name, one in SIZES.items():
        spec = TokenizerSpec(encoder=name, decoder=name, p=16, c=16, resolution=256)
        millions = f"{spec.encoder_parameters / 1e6:.2f} + {spec.decoder_parameters / 1e6:.2f} M"
        gmacs = f"{spec.encoder_macs / 1e9:.3g} + {spec.decoder_macs / 1e9:.3g}"
        rows.append((f"`{name}`", str(one.width), str(one.depth), str(one.heads), millions, gmacs))
    head = ("Size", "Width", "Blocks", "Heads", "Parameters", "GMACs")
    return table(head, rows)


def quickstart() -> str:
    """The study file that `make run` runs, without the comments it begins with."""
    text = (ROOT / "studies" / "quickstart.yaml").read_text()
    return "```yaml\n" + re.sub(r"\A(#.*\n)+", "", text) + "```"


GENERATED = {
    "quickstart study": quickstart,
    "study keys": study_keys,
    "site keys": site_keys,
    "sizes": sizes,
    "views": views,
    "pictures": pictures,
    "weights": weights,
    "metrics": metrics,
    "protocols": protocols,
}
PART = re.compile(r"(<!-- generated: ([a-z ]+) -->\n\n)(.*?)(<!-- end -->)", re.S)


def regenerated(text: str) -> str:
    """A page with every generated part as it should be."""
    return PART.sub(lambda part: f"{part[1]}{GENERATED[part[2]]()}\n\n{part[4]}", text)


@by_name
def test_generated_parts_are_in_step(page: Path) -> None:
    text = page.read_text()
    assert text == regenerated(text), f"run: python tests/test_docs.py (changes {page.name})"


def test_every_generated_part_is_used_once() -> None:
    used = [part[2] for page in PAGES for part in PART.finditer(page.read_text())]
    assert sorted(used) == sorted(GENERATED)


# --- names that the pages must hold -------------------------------------------------------------


def test_every_failure_class_is_explained() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert [name for name in typing.get_args(runs.Failure) if f"`{name}`" not in text] == []


def test_every_warning_of_a_fit_is_explained() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    assert [name for name in typing.get_args(WarningCode) if f"`{name}`" not in text] == []


def test_every_exit_code_is_explained() -> None:
    def below(error: type[SweepctlError]) -> Iterator[int]:
        yield error.exit_code
        for child in error.__subclasses__():
            yield from below(child)

    text = (ROOT / "docs" / "running.md").read_text()
    codes = {0, 130, *below(SweepctlError)}
    assert [code for code in sorted(codes) if not re.search(rf"^\| {code} \|", text, re.M)] == []


def test_the_make_targets_of_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^\$ |`)make (\w+)", page.read_text(), re.M)
    }
    assert {"run", "test"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.M)] == []


@by_name
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            names = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in names, f"{page.name}: {target}"


# --- the tree -----------------------------------------------------------------------------------


def drawn_tree() -> dict[str, str]:
    """Path -> comment of the tree in the README."""
    block = re.search(r"^```text\n(Makefile.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert block
    found: dict[str, str] = {}
    folder = ""
    for line in block[1].splitlines():
        name, _, comment = line.strip().partition("  ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            found[name] = comment.strip()
        else:
            found[folder + name] = comment.strip()
    return found


def real_tree() -> set[str]:
    """What stands in the project: public names, and below folders that the tree opens."""
    ignored = [
        line.rstrip("/")
        for line in (ROOT / ".gitignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def named(folder: Path) -> Iterator[tuple[str, Path]]:
        for entry in folder.iterdir():
            if entry.name.startswith((".", "_")) or any(
                fnmatch.fnmatch(entry.name, pattern) for pattern in ignored
            ):
                continue
            yield entry.name + ("/" if entry.is_dir() else ""), entry

    tree: set[str] = {".ci/run"}
    for name, entry in named(ROOT):
        tree.add(name)
        if name in OPENED:
            tree |= {name + below for below, _ in named(entry)}
    return tree


OPENED = ("sweepctl/", "vitok_core/", "studies/", "docs/")


def test_the_tree_in_the_readme_is_the_tree() -> None:
    drawn = drawn_tree()
    assert sorted(drawn) == sorted(real_tree())
    assert [name for name, comment in drawn.items() if len(comment) < 8] == []


# --- studies and other YAML ---------------------------------------------------------------------

EXAMPLE = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)


def planned_cells(file: Path) -> int:
    data = data_identities()
    plan = make_plan(load_study(file, datasets=data), data=data)
    assert plan.tasks
    return len(plan.cells)


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_every_study_plans(file: Path) -> None:
    assert planned_cells(file) > 0


@by_name
def test_every_yaml_example_loads_and_plans(page: Path, tmp_path: Path) -> None:
    """A first line "# name.yaml" names the file; "# 12 cells" is counted."""
    files: dict[Path, str] = {}
    for number, text in enumerate(EXAMPLE.findall(page.read_text())):
        name = re.match(r"# (\S+\.yaml)\n", text)
        files[tmp_path / (name[1] if name else f"example-{number}.yaml")] = text
    bases = set(re.findall(r"^base: (\S+)", "\n".join(files.values()), re.M))
    for file, text in files.items():
        file.write_text(text)
    for file, text in files.items():
        if file.name == "sweepctl.site.yaml":
            assert load_site(file) != Site()
        elif file.name not in bases:
            cells = planned_cells(file)
            for said in re.findall(r"#.*?(\d+) cells", text):
                assert int(said) == cells, f"{page.name}, {file.name}: {cells} cells"


# --- commands -----------------------------------------------------------------------------------

BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```", re.M | re.S)
TASK_ID = re.compile(r"\b(prepare|reference|stage1|reconstruct)-[0-9a-f]{4,16}\b")
NEEDS_A_SERVER = "postgresql://"


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, output lines) of every sweepctl command in the console and sh blocks of a page."""
    for kind, body in BLOCK.findall(text):
        lead = "$ " if kind == "console" else ""
        lines = body.splitlines()
        while lines:
            line = lines.pop(0)
            if not line.startswith(lead):
                continue
            command = line.removeprefix(lead)
            while lines and (command.endswith("\\") or command.count('"') % 2):
                command = command.removesuffix("\\") + "\n" + lines.pop(0)
            output = []
            while kind == "console" and lines and not lines[0].startswith(lead):
                output.append(lines.pop(0))
            if command.startswith("sweepctl ") and NEEDS_A_SERVER not in command:
                yield command, output


def words(command: str) -> list[str]:
    """The words of a command up to a pipe or a redirection, without "sweepctl"."""
    split = shlex.split(command, comments=True)
    stop = next((at for at, word in enumerate(split) if word in ("|", ">", "2>", "&&")), None)
    return split[1:stop]


def write_small_quickstart(file: Path) -> None:
    """The quickstart with hardly any work: the same cells, no metric that needs a network."""
    yaml = YAML(typ="safe")
    study = yaml.load(ROOT / "studies" / "quickstart.yaml")
    metrics = [name for name in METRICS if METRICS[name].features is None]
    study["data"]["images"] = study["evaluate"]["reconstruction"]["images"] = 16
    study["evaluate"]["reconstruction"]["metrics"] = metrics
    study["stages"]["stage1"] |= {"steps": 2, "batch": 4}
    study["fits"] = {name: fit for name, fit in study["fits"].items() if fit["metric"] in metrics}
    study["claims"] = [
        claim
        for claim in study["claims"]
        if claim.get("fit") in study["fits"] or claim.get("metric") in metrics
    ]
    assert study["fits"] and study["claims"]
    yaml.dump(study, file)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the reduced quickstart was run by the real command."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "studies").mkdir()
    write_small_quickstart(folder / "studies" / "quickstart.yaml")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("SWEEPCTL_DB", "SWEEPCTL_SITE")
    }
    command = [sys.executable, "-c", "from sweepctl.cli import main; main()"]
    done = subprocess.run(
        [*command, "run", "studies/quickstart.yaml", "--cluster", "inline", "--device", "cpu"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def at_work(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to stand in."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def say(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process; its exit code."""
    from sweepctl.cli import main

    folders = [path.name for path in Path("runs").iterdir()]

    def real(task: re.Match[str]) -> str:
        return next(name for name in sorted(folders) if name.startswith(f"{task[1]}-"))

    monkeypatch.setattr(sys, "argv", ["sweepctl", *words(TASK_ID.sub(real, command))])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@by_name
def test_the_commands_of_the_pages_work(
    page: Path,
    at_work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command, shown in commands(page.read_text()):
        capsys.readouterr()
        code = say(command, monkeypatch)
        out, err = capsys.readouterr()
        assert code == 0, f"{page.name}: {command}\n{err}"
        if words(command)[0] in ("query", "results", "plan") and shown:
            # A table in the page has the columns that the command gives today.
            head = out.partition("\n")[0].split("\t")
            assert any(line.split() == head for line in shown), f"{page.name}: {command}\n{out}"


def help_texts() -> dict[str, str]:
    """Command -> help, as typer knows them."""
    import typer

    from sweepctl.cli import app

    found: dict[str, str] = {}

    def walk(group: Any, lead: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{lead}{name} ")
            else:
                found[lead + name] = command.help or ""

    walk(typer.main.get_command(app), "")
    return found


def test_every_command_has_an_example_and_is_documented() -> None:
    texts = help_texts()
    assert len(texts) >= 15
    pages = "\n".join(page.read_text() for page in PAGES)
    for command, text in texts.items():
        assert f"Example: sweepctl {command}" in text, f"{command} has no example in its help"
        assert re.search(rf"sweepctl {command}\b", pages), f"{command} is in no page"


def test_the_examples_of_the_help_work(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    for text in help_texts().values():
        example = re.search(r"^Example: (sweepctl .*)$", text, re.M)
        assert example
        if NEEDS_A_SERVER in example[1]:
            continue
        assert say(example[1], monkeypatch) == 0, example[1]
        tried += 1
    assert tried >= 14


def test_the_columns_of_metrics_are_views_columns() -> None:
    assert set(METRIC_COLUMNS) == set(METRICS)


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text()
        after = regenerated(before)
        if after != before:
            page.write_text(after)
            print(f"rewrote {page.relative_to(ROOT)}")
