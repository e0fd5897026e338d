"""How arguments are parsed and help is laid out, where typer does it otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer.core

from sweepctl.cli._options import GLOBAL
from sweepctl.errors import UsageError

MOVED = {
    "why": "sweepctl show TASK",
}
"""Former command -> what does its work now."""


class Command(typer.core.TyperCommand):
    """A command whose help groups options by their panels, as plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (line := param.get_help_record(ctx)) is not None:
                title = getattr(param, "rich_help_panel", None)
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                panels.setdefault(title or usual, []).append(line)
        for title, lines in panels.items():
            with formatter.section(title):
                formatter.write_dl(lines)


class Commands(typer.core.TyperGroup):
    """The commands; options of every command may follow the command as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, global_first(args))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in MOVED:
            raise UsageError(f"there is no command {cmd_name!r}", hint=MOVED[cmd_name])
        return super().get_command(ctx, cmd_name)


def global_first(args: Sequence[str]) -> list[str]:
    """Arguments with the options of every command moved before the command.

    Raises:
        UsageError: one of these options is the last word.
    """
    first: list[str] = []
    rest: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            rest += [word, *words]
            break
        if word in GLOBAL:
            if not words:
                raise UsageError(f"{word} needs a value")
            first += [word, words.pop(0)]
        elif word.partition("=")[0] in GLOBAL:
            first.append(word)
        else:
            rest.append(word)
    return first + rest
