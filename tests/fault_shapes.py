"""Which mistakes keep the shape of a study? A seeded corpus of mutations of trees, and its judge.

`fault_mutants` slips in the text of one file. Here the file is read, its tree is changed (values of
another type, keys of another place, aliases, tags, numbers nobody expects) and written out again;
changed are the shipped studies, the files they are based on, values of `--set`, and a site file.

    python tests/fault_shapes.py --count 10000 [--seed N]

prints the figures and every mutant that ends in a crash, in an error without a place, or too late.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from typer.main import get_command

from sweepctl import cli
from sweepctl.columns import DERIVED
from sweepctl.study import Site, Study, Workers
from vitok_core.protocols import METRICS

STUDIES = Path(__file__).parent.parent / "studies"
LIMIT_S = 5.0
"""CPU seconds for one check or plan; the largest shipped study needs a tenth of it."""

SITE = """\
database: results.db
runs: /data/runs
datasets:
  faces: {folder: /data/faces, crop: centre, labels: false, broken: 0.02}
  street: {videos: "/data/street", labels: true}
  shards: {webdataset: "/data/shards-{000..127}.tar"}
  hub: {huggingface: owner/name, revision: "0123456789abcdef0123456789abcdef01234567", split: train}
workers: {where: local, count: 2, threads: 4, device: auto, grace_s: 30.0}
"""


# --- a tree that can be wrong -------------------------------------------------------------------


@dataclass
class Node:
    """A node of a YAML file: a scalar as it is written, a list, or pairs of key and value."""

    text: str = ""
    items: list[Node] | None = None
    pairs: list[tuple[str, Node]] | None = None
    lead: str = ""  # an anchor or a tag

    def below(self) -> list[Node]:
        return [node for _, node in self.pairs] if self.pairs is not None else self.items or []

    def everything(self) -> Iterator[Node]:
        yield self
        for node in self.below():
            yield from node.everything()

    def become(self, other: Node) -> None:
        self.text, self.items, self.pairs, self.lead = (
            *(other.text, other.items, other.pairs),
            other.lead,
        )

    def flow(self) -> str:
        if self.pairs is not None:
            inner = ", ".join(f"{key}: {node.flow()}" for key, node in self.pairs)
            return f"{self.lead}{{{inner}}}"
        if self.items is not None:
            return f"{self.lead}[{', '.join(node.flow() for node in self.items)}]"
        return f"{self.lead}{self.text}"


def tree(data: Any) -> Node:
    """Plain data as a tree."""
    if isinstance(data, dict):
        return Node(pairs=[(_word(key), tree(value)) for key, value in data.items()])
    if isinstance(data, list):
        return Node(items=[tree(value) for value in data])
    return Node(text=_word(data))


def _word(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.-]*(?: [\w.-]+)*", value)
    if plain and value.lower() not in ("null", "true", "false"):
        return str(value)
    return json.dumps(value)


def written(root: Node) -> str:
    """A tree as a file, one line per key of the first two levels."""
    if root.pairs is None or root.lead:
        return root.flow() + "\n"
    lines = []
    for key, node in root.pairs:
        if node.pairs and not node.lead:
            lines.append(f"{key}:")
            lines += [f"  {name}: {below.flow()}" for name, below in node.pairs]
        else:
            lines.append(f"{key}: {node.flow()}")
    return "\n".join(lines) + "\n"


# --- what is done to it -------------------------------------------------------------------------

_NUMBERS = (
    *("0", "-1", "-0.0", "1", "2", "3", "1.5", "0.1", "1e308", "-1e308", "1e-320", "1e400", ".inf"),
    *("-.inf", ".nan", ".NaN", str(10**39), str(10**400), f"-{10**39}", str(2**31), str(2**63)),
    *("0o17", "0x10", "0b11", "017", "1_000", "+4", "1e3", "12:30:45", "1000000", "1000000000000"),
)
_WORDS = (
    *(
        "null",
        "~",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "''",
        '" "',
        "2024-01-01",
        "2024-01-01T00:00",
    ),
    *('"\\0"', '"\\e[31m"', '"\\u2028"', '"\\N"', '"\\ud800"', '"a\\nb"', '"\\u202e"', '"\\ufeff"'),
    *("\u540d\u524d", "\U0001f600", "e\u0301", "\u0664", "\u00b2", "'" + "x" * 5000 + "'", "../x"),
    *(
        "'>= 1'",
        "'> 1e999'",
        "'< 0'",
        "10%",
        "'1e400%'",
        "100k",
        "4M",
        "0k",
        "1.5k",
        "999999999999M",
    ),
    *("huber:1e-3", "huber:1e400", "psnr", "PSNR", "rfid", "gfid", "photos-train", "clips-eval"),
    *("stage1", "stage2", "dit", "E", "kl", "B", "quickstart.yaml", "/", "positive", "median"),
)
_SHAPES = (
    *("[]", "{}", "[null]", "[[]]", "{a: 1}", "[[1, 2], [3]]", "{[1]: 2}", "{? [a] : b}", "{? a}"),
    *("[[psnr], 7]", "[1, a, null, {}]", "{'': 1}", "{null: 1}", "{1: 2}", "{true: 1}"),
    *("[" * 40 + "]" * 40, "[" * 3000 + "]" * 3000, "{a: " * 40 + "1" + "}" * 40, "&z [*z]"),
    *(
        "&z {a: *z}",
        "{<<: {p: 8}}",
        "{'<<': 1}",
        "*nothing",
        "{low: 1, high: 2}",
        "{if: {}, set: {}}",
    ),
    *(
        "{choice: [1, 2]}",
        "{low: 1e-9, high: 1e9, log: true}",
        "{study: quickstart}",
        "{only: [x]}",
    ),
)
_TAGS = (
    *("!!int", "!!str", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!!set", "!!omap"),
    *(
        "!!binary",
        "!!timestamp",
        "!!merge",
        "!mine",
        "!",
        "!!python/name:os.system",
        "!<tag:x,1:y>",
    ),
)


def _named_by(model: Any) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield info.alias or name
        if isinstance(info.annotation, type) and hasattr(info.annotation, "model_fields"):
            yield from _named_by(info.annotation)


_KEYS = tuple(
    dict.fromkeys(
        (
            *("L", *DERIVED, *_named_by(Study), *_named_by(Site), *_named_by(Workers)),
            *(
                "p",
                "lr",
                "loss.kl",
                "dit.steps",
                "stages.stage1",
                "[key]",
                "<<",
                "if",
                "set",
                "low",
            ),
            *(
                "on",
                "metric",
                "form",
                "x",
                "where",
                "slope",
                "against",
                "factor",
                "given",
                "margin",
            ),
            *(
                "stage1",
                "stage2",
                "dit",
                "reconstruct",
                "null",
                "''",
                "1",
                "a.b",
                '"\\0"',
                "\u540d",
            ),
            *list(METRICS)[:4],
        )
    )
)


def _some(draw: random.Random, root: Node) -> Node:
    nodes = list(root.everything())
    return draw.choice(nodes[1:] or nodes)


def _with_pairs(draw: random.Random, root: Node) -> list[tuple[str, Node]] | None:
    found = [node.pairs for node in root.everything() if node.pairs]
    return draw.choice(found) if found else None


def _value(draw: random.Random, root: Node) -> Node:
    kind = draw.random()
    if kind < 0.35:
        return Node(text=draw.choice(_NUMBERS))
    if kind < 0.65:
        return Node(text=draw.choice(_WORDS))
    if kind < 0.85:
        return Node(text=draw.choice(_SHAPES))
    return copy.deepcopy(_some(draw, root))


def _replace(draw: random.Random, root: Node) -> None:
    _some(draw, root).become(_value(draw, root))


def _retype(draw: random.Random, root: Node) -> None:
    node = _some(draw, root)
    inner = copy.deepcopy(node)
    ways = [
        Node(items=[inner]),
        Node(items=[inner, copy.deepcopy(inner)]),
        Node(pairs=[(draw.choice(_KEYS), inner)]),
        Node(text="null"),
        Node(text=json.dumps(node.flow())),
    ]
    if node.pairs is not None:
        ways.append(Node(items=[Node(pairs=[(key, below)]) for key, below in inner.pairs or ()]))
        ways.append(Node(items=[Node(text=key) for key, _ in node.pairs]))
    if node.items is not None:
        ways.append(Node(pairs=[(str(n), below) for n, below in enumerate(inner.items or ())]))
    if inner.below():
        ways += [draw.choice(inner.below())] * 3
    node.become(draw.choice(ways))


def _rename(draw: random.Random, root: Node) -> None:
    if (pairs := _with_pairs(draw, root)) is not None:
        at = draw.randrange(len(pairs))
        pairs[at] = (draw.choice(_KEYS), pairs[at][1])


def _add(draw: random.Random, root: Node) -> None:
    if (pairs := _with_pairs(draw, root)) is not None:
        pairs.insert(draw.randrange(len(pairs) + 1), (draw.choice(_KEYS), _value(draw, root)))


def _drop(draw: random.Random, root: Node) -> None:
    node = draw.choice([node for node in root.everything() if node.below()] or [root])
    for entries in (node.pairs, node.items):
        if entries:
            del entries[draw.randrange(len(entries))]


def _double(draw: random.Random, root: Node) -> None:
    node = draw.choice([node for node in root.everything() if node.below()] or [root])
    if node.pairs:
        node.pairs.append(copy.deepcopy(draw.choice(node.pairs)))
    elif node.items:
        node.items.append(copy.deepcopy(draw.choice(node.items)))


def _swap(draw: random.Random, root: Node) -> None:
    one, other = copy.deepcopy(_some(draw, root)), copy.deepcopy(_some(draw, root))
    _some(draw, root).become(one)
    _some(draw, root).become(other)


def _alias(draw: random.Random, root: Node) -> None:
    nodes = list(root.everything())
    if len(nodes) > 2:
        first, second = sorted(draw.sample(range(1, len(nodes)), 2))
        nodes[first].lead = "&a "
        nodes[second].become(Node(text="*a"))


def _tag(draw: random.Random, root: Node) -> None:
    _some(draw, root).lead = f"{draw.choice(_TAGS)} "


def _scale(draw: random.Random, root: Node) -> None:
    numbers = [node for node in root.everything() if re.fullmatch(r"-?\d[\d.e-]*", node.text)]
    if numbers:
        node = draw.choice(numbers)
        ways = (f"-{node.text}", f"{node.text}000000", f'"{node.text}"', f"{node.text}.5", "0", "1")
        node.text = draw.choice((*ways, *_NUMBERS))


_WAYS: tuple[Callable[[random.Random, Node], None], ...] = (
    *(_replace, _replace, _retype, _retype, _rename, _rename, _add, _add),
    *(_drop, _double, _swap, _alias, _tag, _scale, _scale),
)


def changed(draw: random.Random, root: Node) -> Node:
    """A copy of a tree with one to three mistakes."""
    made = copy.deepcopy(root)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3))):
        draw.choice(_WAYS)(draw, made)
    return made


# --- the corpus ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One call: which file of the copied studies has which text, and what is called."""

    what: str
    study: str
    file: str = ""
    text: str = ""
    sets: tuple[str, ...] = ()
    site: str = ""


@functools.cache
def _read(studies: Path) -> dict[str, Any]:
    files = sorted(studies.glob("**/*.yaml"))
    reader = YAML(typ="safe", pure=True)
    return {str(file.relative_to(studies)): reader.load(file) for file in files}


def mutants(count: int, seed: int, studies: Path = STUDIES) -> Iterator[Mutant]:
    """`count` different mutants of all studies; the same seed gives the same ones."""
    draw, plain = random.Random(seed), _read(studies)
    trees = {name: tree(data) for name, data in plain.items()}
    whole = [name for name in plain if "study" in plain[name]]
    bases = {name: below for name in whole if (below := sorted(set(_bases(name, plain))))}
    site = tree(YAML(typ="safe", pure=True).load(SITE))
    for _ in range(count):
        study, kind = draw.choice(whole), draw.random()
        if kind < 0.6:
            text = written(changed(draw, trees[study]))
            yield Mutant("study", study, file=study, text=text)
        elif kind < 0.75:
            study = draw.choice(sorted(bases))
            base = draw.choice(bases[study])
            yield Mutant("base", study, file=base, text=written(changed(draw, trees[base])))
        elif kind < 0.88:
            yield Mutant("--set", study, sets=tuple(_sets(draw, trees[study])))
        else:
            yield Mutant("site", study, site=written(changed(draw, site)))


def _bases(name: str, plain: dict[str, Any]) -> Iterator[str]:
    given = plain[name].get("base") or []
    for base in given if isinstance(given, list) else [given]:
        found = os.path.normpath(Path(name).parent / base)
        yield found
        yield from _bases(found, plain)


def _sets(draw: random.Random, root: Node) -> Iterator[str]:
    for _ in range(draw.choice((1, 1, 2))):
        path = draw.choice(_KEYS)
        if draw.random() < 0.6:
            here, keys = root, list[str]()
            while here.pairs and (not keys or draw.random() < 0.8):
                key, here = draw.choice(here.pairs)
                keys.append(key.strip('"'))
            path = ".".join(keys)
        if draw.random() < 0.15:
            path += draw.choice((".", ".0", ".x", "..", " ", "[0]"))
        yield f"{path}={_value(draw, root).flow()}"


# --- its judge ----------------------------------------------------------------------------------


@dataclass
class Finding:
    """A mutant that is not answered as it should be."""

    why: str
    verb: str
    mutant: Mutant
    said: str


@dataclass
class Figures:
    """How mutants ended."""

    codes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest_s: float = 0.0


class TooLong(BaseException):
    """A check that needs more than `LIMIT_S` of CPU time."""


def judge(corpus: Iterator[Mutant], folder: Path, studies: Path = STUDIES) -> Figures:
    """Check and plan every mutant as the command line does; `folder` is empty and becomes cwd."""
    figures, app = Figures(), cli.app
    cli.app = get_command(app)  # type: ignore[assignment]  # built once, not for each call
    try:
        shutil.copytree(studies, folder / "studies")
        for one in corpus:
            _judge_one(one, folder, figures)
    finally:
        cli.app = app
    return figures


def _judge_one(one: Mutant, folder: Path, figures: Figures) -> None:
    good = None
    if one.file:
        good = (folder / "studies" / one.file).read_bytes()
        (folder / "studies" / one.file).write_text(one.text, "utf-8", "surrogatepass")
    if one.site:
        (folder / "site.yaml").write_text(one.site, "utf-8", "surrogatepass")
        os.environ["SWEEPCTL_SITE"] = "site.yaml"
    for verb in ("plan", "check"):  # what is no plan is no valid study either
        words = [verb, f"studies/{one.study}"]
        for override in one.sets:
            words += ["--set", override]
        if verb == "plan":
            words += ["--on", "8xH100"]
        started = time.process_time()
        code, said = _called(words)
        figures.slowest_s = max(figures.slowest_s, time.process_time() - started)
        figures.codes[f"{one.what} {code}"] += 1
        if why := _wrong(code, said):
            figures.findings.append(Finding(why, verb, one, said))
        if code != 0:
            break
    os.environ.pop("SWEEPCTL_SITE", None)
    if good is not None:
        (folder / "studies" / one.file).write_bytes(good)


def _called(words: list[str]) -> tuple[int | str, str]:
    """Exit code and standard error; of an exception its name and the end of its traceback."""

    def late(*_: object) -> None:
        raise TooLong

    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["sweepctl", *words]
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0, err.getvalue()
    except (Exception, TooLong) as error:  # noqa: BLE001  # whatever it is, it is a finding
        return type(error).__name__, "".join(traceback.format_exception(error))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.argv = before
    return 0, err.getvalue()


_PLACED = re.compile(r"(?:error: )?(?:(?:studies/|site\.yaml)[^\n]*?:\d+:\d+: |--set )")


def _wrong(code: int | str, said: str) -> str:
    """What is wrong with an answer; empty if it is valid or names a place."""
    if isinstance(code, str):
        return "hangs" if code == TooLong.__name__ else f"crash: {code}"
    if "Traceback" in said:
        return "traceback"
    if code == 0:
        return ""
    if code not in (2, 3):
        return f"exit code {code}"
    return "" if _PLACED.match(said) else "no place"


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and plan mutants of all studies.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        figures = judge(mutants(asked.count, asked.seed), Path(folder))
        os.chdir("/")
    for one in figures.findings:
        print(f"--- {one.why}: {one.verb} {one.mutant.what} {one.mutant.study} {one.mutant.sets}")
        print(one.mutant.text[:1500] + one.mutant.site[:1500])
        print(one.said[-1500:])
    print(f"{asked.count} mutants in {time.monotonic() - started:.0f} s, seed {asked.seed}")
    print("ended:", dict(sorted(figures.codes.items())))
    print(f"slowest: {figures.slowest_s:.2f} CPU seconds; findings: {len(figures.findings)}")


if __name__ == "__main__":
    main()
