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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from own_files import picture_folder
from paper_studies import table_of_studies
from ruamel.yaml import YAML

from sweepctl import runs
from sweepctl.analyse import WarningCode
from sweepctl.datasets import data_identities
from sweepctl.errors import SweepctlError
from sweepctl.ledger import VIEWS
from sweepctl.plan import make_plan
from sweepctl.study import Config, OwnSet, Site, Study, Workers, load_site, load_study
from vitok_core.data import PICTURES
from vitok_core.data._sources import SHOTS, VIDEOS
from vitok_core.protocols import (
    FILES,
    METRICS,
    PROTOCOLS,
    Download,
    Packaged,
    Unpinned,
    explained,
    not_under,
)
from vitok_core.sources import SOURCES as SOURCE_KINDS
from vitok_core.spec import SIZES, DiTSpec, TokenizerSpec, parse_variant

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STUDIES = sorted(
    file
    for file in (ROOT / "studies").rglob("*.yaml")
    if re.search(r"^study:", file.read_text(), re.M)  # not bases, not the site file
)
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
            inner = part(named(given)) if named(given) else given
            if "properties" in inner:
                walk(inner, f"{lead}{name}.")
                continue
            needed = name in model.get("required", ())
            about = given.get("description", "Name of the claim, as in its verdict.")
            rows.append((f"`{lead}{name}`", allowed(given), default(given, needed), about))
            for below, entry in entries(given):
                walk(part(below), f"{lead}{name}{entry}.")

    def named(given: dict[str, Any]) -> dict[str, Any]:
        """The model that a key holds, if it holds one, or may."""
        kinds = [one for one in given.get("anyOf", [given]) if one.get("type") != "null"]
        return kinds[0] if len(kinds) == 1 and "$ref" in kinds[0] else {}

    def entries(given: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        items = given.get("items", {})
        for below in [items, *items.get("oneOf", ())]:
            if "$ref" in below:
                yield below, "[]"
        for below in given.get("patternProperties", {}).values():
            yield below, ".NAME"
        others = given.get("additionalProperties")
        if isinstance(others, dict) and "$ref" in others:
            yield others, ".NAME"

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
        kinds = [
            "a rule" if "$ref" in one else allowed(one)
            for one in given["anyOf"]
            if one.get("type") != "null"
        ]
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
        plural = {"string": "texts", "object": "mappings", "integer": "whole numbers"}.get(
            of or "", "entries"
        )
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
    for model, lead in ((Site, ""), (Workers, "workers."), (OwnSet, "datasets.NAME.")):
        if model is OwnSet:
            rows += [
                (f"`{lead}{name}`", "none", f"{one.about}.") for name, one in SOURCE_KINDS.items()
            ]
        attributes = (model.__doc__ or "").partition("Attributes:")[2]
        for name, about in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.M):
            if name in ("workers", "datasets"):
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


def videos() -> str:
    """The videos of the clips data set, and their shots."""
    files = [
        (
            one.name,
            f"`{one.install.split()[-1]}`",
            f"{one.width} x {one.height}",
            f"{one.frames}",
            f"{float(one.rate):.4g} fps",
            one.licence,
            one.author,
            f"`{one.sha256[:16]}`",
        )
        for one in VIDEOS
    ]
    shots = [
        (
            str(label),
            VIDEOS[shot.video].name,
            *(f"{start} to {stop - 1}" for start, stop in parts),
            str(shot.longest_clip),
        )
        for label, shot in enumerate(SHOTS)
        for parts in [(shot.part("train"), shot.part("eval"))]
    ]
    names = ("Video", "pip package", "Pixels", "Frames", "Rate", "Licence", "Author", "SHA-256")
    head = ("Label", "Video", "Training frames", "Evaluation frames", "Longest clip in frames")
    return f"{table(names, files)}\n\n{table(head, shots)}"


def weights() -> str:
    """The pretrained files."""
    shipped = [
        (f"`{name}`", f"`{one.install}`", f"`{one.file}`", one.licence, f"`{one.sha256}`")
        for name, one in FILES.items()
        if isinstance(one, Packaged)
    ]
    published = [
        (
            f"`{name}`",
            f"<{one.url}>",
            f"{one.size_bytes / 1e6:,.0f} MB",
            one.licence,
            f"`{one.sha256}`",
        )
        for name, one in FILES.items()
        if isinstance(one, Download)
    ]
    by_hand = [
        (f"`{name}`", f"<{one.url}>", one.licence)
        for name, one in FILES.items()
        if isinstance(one, Unpinned)
    ]
    return "\n\n".join(
        [
            table(("Name", "pip package", "File", "Licence", "SHA-256"), shipped),
            table(("Name", "Publisher's address", "Size", "Licence", "SHA-256"), published),
            table(("Name", "Publisher's address", "Licence"), by_hand),
        ]
    )


def metrics() -> str:
    """The metrics a study can ask for."""
    rows = [
        (
            f"`{name}`",
            one.unit or "none",
            f"{one.better} is better",
            one.scale,
            one.range,
            str(one.needs),
            ", ".join(rules for rules in PROTOCOLS if not_under(name, rules) is None)
            if any(not_under(name, rules) for rules in PROTOCOLS)
            else "all",
            one.about,
        )
        for name, one in METRICS.items()
    ]
    head = (
        "Metric",
        "Unit",
        "Direction",
        "Scale of fits",
        "Range",
        "Least images",
        "Protocols",
        "About",
    )
    return table(head, rows)


def protocols() -> str:
    """The protocols: what each is, their rules next to each other, and their networks."""
    about = [(f"`{name}`", one.about, one.differs) for name, one in PROTOCOLS.items()]
    values: dict[str, dict[str, str]] = {}
    meanings: dict[str, dict[str, None]] = {}
    seen: dict[tuple[str, str, str], list[str]] = {}
    for name in PROTOCOLS:
        for rule, value, meaning, network in explained(name):
            if network:
                seen.setdefault((rule, value, meaning), []).append(f"`{name}`")
            else:
                values.setdefault(rule, {})[name] = value
                meanings.setdefault(rule, {})[meaning] = None
    rules = [
        (f"`{rule}`", *(f"`{of[name]}`" for name in PROTOCOLS), "; ".join(meanings[rule]))
        for rule, of in values.items()
    ]
    networks = [
        (f"`{features}`", f"`{network}`", ", ".join(names), meaning)
        for (features, network, meaning), names in seen.items()
    ]
    return "\n\n".join(
        [
            table(("Protocol", "About", "Differs from its namesake"), about),
            table(("Rule", *(f"`{name}`" for name in PROTOCOLS), "Meaning"), rules),
            table(("Features", "Network", "Protocols", "About"), networks),
        ]
    )


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


PAPER: list[tuple[str, str | None, dict[str, int], float, float]] = [
    # Tables 1 to 4: what, variant, shape, millions of parameters, "GFLOPs" as printed.
    ("S tower", "S", {"resolution": 256}, 43.3, 11.6),
    ("B tower", "B", {"resolution": 256}, 85.8, 23.1),
    ("L tower", "L", {"resolution": 256}, 383.7, 101.8),
    ("S-B/16, 256 px", "S-B/16", {"resolution": 256}, 129.0, 34.8),
    ("S-L/16, 256 px", "S-L/16", {"resolution": 256}, 426.8, 113.4),
    ("S-B/16, 512 px", "S-B/16", {"resolution": 512}, 129.0, 160.8),
    ("S-B/4x8, 16 x 128 px", "S-B/4x8", {"resolution": 128, "frames": 16}, 129.0, 160.8),
]
PUBLISHED_DITS = {"L": 457.8, "XL": 674.8}
"""Millions of parameters of DiT-L/2 and DiT-XL/2 (Peebles & Xie 2023, table 4)."""


def against_the_paper() -> list[tuple[str, float, float, float, float | None]]:
    """(what, parameters in millions and published, GMACs and published)."""
    rows: list[tuple[str, float, float, float, float | None]] = []
    for what, name, shape, parameters, macs in PAPER:
        if name in SIZES:
            # A tower is the tubelet embedding and the blocks, without norm and projection.
            spec = TokenizerSpec(encoder=name, decoder="S", p=16, c=16, **shape)
            width = SIZES[name].width
            ours = spec.encoder_parameters - (width + 1) * spec.moments - 2 * width
            costs = spec.encoder_macs - spec.tokens * width * spec.moments
        else:
            variant = parse_variant(name)
            spec = TokenizerSpec(**asdict(variant), c=16, **shape).check()
            ours, costs = spec.parameters, spec.macs
        rows.append((what, ours / 1e6, parameters, costs / 1e9, macs))
    for size, parameters in PUBLISHED_DITS.items():
        dit = DiTSpec(size=size, grid=(1, 16, 16), c=16, classes=1000)
        rows.append((f"DiT-{size}", dit.parameters / 1e6, parameters, dit.macs / 1e9, None))
    return rows


def paper_tables() -> str:
    """Closed forms beside the published numbers."""
    return table(
        ("Model (c = 16)", "Parameters, M", "published", "", "GMACs", "published", ""),
        [
            (
                what,
                f"{ours:.2f}",
                f"{theirs:.1f}",
                f"{ours / theirs - 1:+.2%}",
                f"{costs:.2f}",
                "" if printed is None else f"{printed:.1f}",
                "" if printed is None else f"{costs / printed - 1:+.2%}",
            )
            for what, ours, theirs, costs, printed in against_the_paper()
        ],
    )


def failures() -> str:
    """What follows from each class of failure."""
    return table(
        ("Class", "When", "Tried again in the same run", "Tried again by the next `run`"),
        [
            (
                f"`{name}`",
                one.when,
                "yes" if one.is_retried else "no",
                "by itself" if one.is_reset else "after `retry`",
            )
            for name, one in runs.FAILURES.items()
        ],
    )


GENERATED = {
    "failures": failures,
    "paper tables": paper_tables,
    "paper studies": table_of_studies,
    "quickstart study": quickstart,
    "study keys": study_keys,
    "site keys": site_keys,
    "sizes": sizes,
    "views": views,
    "pictures": pictures,
    "videos": videos,
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


@pytest.mark.parametrize("row", against_the_paper(), ids=lambda row: row[0])
def test_the_counts_are_those_of_the_paper(
    row: tuple[str, float, float, float, float | None],
) -> None:
    what, ours, theirs, costs, printed = row
    assert ours == pytest.approx(theirs, rel=0.01 if what.startswith("DiT") else 0.005)
    if printed is not None:
        # Printed with one decimal: 11.6 stands for 11.55 to 11.65.
        assert costs == pytest.approx(printed, rel=0.003)


@pytest.mark.slow
def test_the_python_of_the_pages_works(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    text = (ROOT / "docs" / "models.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(code) == 1
    (weights, *_) = sorted(finished.glob("runs/stage1-*/weights.safetensors"))
    monkeypatch.chdir(finished)
    names: dict[str, Any] = {"images": torch.zeros(2, 3, 32, 32)}
    exec(re.sub(r'"runs/[^"]+"', repr(str(weights)), code[0]), names)
    assert names["reconstructions"].shape == (2, 3, 32, 32)
    assert names["codes"].shape[0] == 2


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


def test_the_header_of_the_quickstart_says_what_its_plan_and_its_run_say() -> None:
    file = ROOT / "studies" / "quickstart.yaml"
    header = " ".join(
        line.lstrip("# ") for line in file.read_text().split("format:")[0].splitlines()
    )
    data = data_identities()
    plan = make_plan(load_study(file, datasets=data), data=data)
    flops = sum(task.cost.flops for task in plan.tasks.values())
    mantissa, exponent = f"{flops:.1e}".split("e")
    cost = f"{len(plan.cells)} cells, {len(plan.tasks)} tasks, {mantissa}e{int(exponent)} FLOPs"
    assert f"Cost: {cost};" in header
    # The run and the fit are those whose output the README shows.
    readme = (ROOT / "README.md").read_text()
    (seconds,) = re.findall(rf"^{len(plan.tasks)} tasks in (\d+) s$", readme, re.M)
    assert f"; {seconds} s on two CPU cores." in header
    (slope,) = set(re.findall(r"each doubling of E adds (\S+ \[.*?\]) dB to psnr", readme))
    (r2,) = re.findall(rf"slope {re.escape(slope)} .* R2 ([\d.]+) ", readme)
    assert f"Came out: {slope} dB per doubling of E, R2 {r2};" in header


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
NEEDS_A_FILE = "weights add"
GOES_ON = ("sweepctl ui", "--tracker")
"""Commands that do not end or that tell others; see test_ui_browser.py, test_trackers.py."""


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
            if any(word in command for word in GOES_ON):
                continue
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
    asked = study["evaluate"]["reconstruction"]["metrics"]
    metrics = [name for name in asked if METRICS[name].features is None]
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


def write_small_search(file: Path) -> None:
    """The search of losses with hardly any work: two trials, no metric that needs a network."""
    yaml = YAML(typ="safe")
    study = yaml.load(ROOT / "studies" / "mini" / "search-losses.yaml")
    study |= {"data": {"images": 16}, "claims": []}
    study["stages"]["stage1"] |= {"steps": 2, "batch": 4, "loss": {"lpips": 0}}
    study["evaluate"]["reconstruction"] |= {"images": 16, "metrics": ["psnr", "ssim"]}
    study["search"] |= {"trials": 2, "objectives": [{"metric": "psnr"}, {"metric": "ssim"}]}
    study["search"]["start_with"] = study["search"]["start_with"][:2]
    yaml.dump(study, file)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the reduced quickstart was run by the real command."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "studies", folder / "studies")
    write_small_quickstart(folder / "studies" / "quickstart.yaml")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("SWEEPCTL_DB", "SWEEPCTL_SITE")
    }
    command = [sys.executable, "-c", "from sweepctl.cli import main; main()"]
    write_small_search(folder / "studies" / "mini" / "search-losses.yaml")
    for study in ("quickstart.yaml", "mini/search-losses.yaml"):
        done = subprocess.run(
            [*command, "run", f"studies/{study}", "--cluster", "inline", "--device", "cpu"],
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
    table = [f"{p},{c},{1024 * c // p**2},{15 + p * c % 7}" for p in (4, 8, 16) for c in (4, 16)]
    (folder / "psnr.csv").write_text("\n".join(["p,c,E,psnr", *table]))
    monkeypatch.chdir(folder)
    # The examples of `data` speak of a data set of the user's.
    picture_folder(tmp_path / "pictures", {"n01440764": 2})
    site = f"datasets: {{imagenet-train: {{folder: {tmp_path / 'pictures'}}}}}\n"
    (folder / "sweepctl.site.yaml").write_text(site)
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
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


@pytest.mark.slow
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
        if words(command)[0] in ("query", "results", "plan", "spec") and shown:
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


@pytest.mark.slow
def test_the_examples_of_the_help_work(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    for text in help_texts().values():
        example = re.search(r"^Example: (sweepctl .*)$", text, re.M)
        assert example
        if NEEDS_A_SERVER in example[1] or NEEDS_A_FILE in example[1]:
            continue
        if example[1].startswith(GOES_ON):
            continue
        assert say(example[1], monkeypatch) == 0, example[1]
        tried += 1
    assert tried >= 14


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text()
        after = regenerated(before)
        if after != before:
            page.write_text(after)
            print(f"rewrote {page.relative_to(ROOT)}")
