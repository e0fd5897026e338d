"""The shape of the command line: files, options, help, and options that go with every command."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sweepctl.cli import COMMANDS, GROUPS, app
from sweepctl.cli._parsing import global_first
from sweepctl.errors import UsageError

MOST_OPTIONS = 120
SCREEN_LINES = 25

OVERRIDDEN = {
    "--set": {"spec"},  # settings of one tokenizer, without a study
    "--out": {"report", "export"},  # a file instead of the folder of figures
    "--noise": {"plan", "suggest"},  # of each metric; of the one law that is narrowed
    "--threads": {"run", "data scan"},  # of an attempt; of a scan
}
"""Option -> commands in which it means something of their own."""


def leaves(group: Any = None, lead: str = "") -> Iterator[tuple[str, Any]]:
    """(words of the command, its command object) of every command."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{lead}{name} ")
        else:
            yield f"{lead}{name}", command


LEAVES = dict(leaves())


def options(command: Any) -> list[Any]:
    return [
        param
        for param in command.params
        if param.param_type_name == "option" and "--help" not in param.opts
    ]


def test_each_command_is_in_the_file_of_its_name() -> None:
    for command in COMMANDS:
        assert Path(inspect.getfile(command)).stem == f"_{command.__name__}"
    for name, (_, commands) in GROUPS.items():
        for command in commands.values():
            assert Path(inspect.getfile(command)).stem == f"_{name}"
    single = {command.__name__.replace("_", "-") for command in COMMANDS}
    assert {name.partition(" ")[0] for name in LEAVES} == single | GROUPS.keys()


def test_an_option_is_the_same_in_every_command() -> None:
    meant: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for name, command in LEAVES.items():
        for option in options(command):
            for word in option.opts:
                if word.startswith("--") and name not in OVERRIDDEN.get(word, ()):
                    panel = getattr(option, "rich_help_panel", None)
                    meant[word].add((*option.opts, option.help, option.metavar, panel))
    assert {word: found for word, found in meant.items() if len(found) > 1} == {}


def test_every_exception_is_one() -> None:
    for word, commands in OVERRIDDEN.items():
        assert all(
            any(word in option.opts for option in options(LEAVES[name])) for name in commands
        )


@pytest.mark.parametrize("name", LEAVES)
def test_the_help_fits_a_screen_or_has_panels(name: str) -> None:
    command = LEAVES[name]
    text = command.get_help(command.make_context(name, [], resilient_parsing=True))
    panels = {panel for one in options(command) if (panel := one.rich_help_panel)}
    assert all(f"\n{panel}:\n" in text for panel in panels)
    assert panels or len(text.splitlines()) <= SCREEN_LINES


def test_options_are_few() -> None:
    root = [one for one in options(typer.main.get_command(app)) if "completion" not in one.opts[0]]
    count = len(root) + sum(len(options(command)) for command in LEAVES.values())
    assert count <= MOST_OPTIONS


def test_options_of_every_command_may_follow_it() -> None:
    assert global_first(["status", "a", "--db", "x.db", "--json", "--runs=r"]) == [
        *("--db", "x.db", "--runs=r"),
        *("status", "a", "--json"),
    ]
    assert global_first(["--runs", "r", "db", "views"]) == ["--runs", "r", "db", "views"]
    assert global_first(["check", "--", "--db", "x"]) == ["check", "--", "--db", "x"]
    with pytest.raises(UsageError, match="--db needs a value"):
        global_first(["status", "--db"])


@pytest.mark.parametrize("words", [("--db", "x.db", "status"), ("status", "--db", "x.db")])
def test_a_database_is_named_before_or_after_the_command(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sweepctl.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPCTL_DB", raising=False)
    for given in (words, ("status",)):
        monkeypatch.setattr("sys.argv", ["sweepctl", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 1 and ("x.db" in said) == (given == words)
