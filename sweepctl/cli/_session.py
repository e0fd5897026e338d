"""Where does a command work? Options, environment and site file settled into places, in that order.

Also how it speaks: data on stdout, everything else on stderr, laid out for people on a terminal and
tab-separated in a pipe.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import UsageError

if TYPE_CHECKING:
    from sweepctl.execute import Extend
    from sweepctl.ledger import Ledger
    from sweepctl.plan import Plan, Trial
    from sweepctl.study import Site, Study, StudyFile


def site_file() -> Path | None:
    """The site file that applies: $SWEEPCTL_SITE, ./sweepctl.site.yaml, the platform's folder."""
    import platformdirs

    if named := os.environ.get("SWEEPCTL_SITE"):
        return Path(named)
    here = Path("sweepctl.site.yaml")
    there = Path(platformdirs.user_config_dir("sweepctl")) / "site.yaml"
    return next((file for file in (here, there) if file.is_file()), None)


def site() -> Site:
    """What the site file says, or the defaults without one."""
    from sweepctl.study import Site, load_site

    file = site_file()
    return Site() if file is None else load_site(file)


def database(given: str | None) -> str | None:
    """The ledger's place: the option, SWEEPCTL_DB, the site file, or None for results.db here."""
    if given or "SWEEPCTL_DB" in os.environ:
        return given or os.environ["SWEEPCTL_DB"]
    # Most users have no site file, and should not wait for the reader of one.
    return site().database if site_file() else None


def run_folder(given: Path | None) -> Path:
    """The run folder: the option, the site file, or runs/ here."""
    if given is not None:
        return given
    named = site().runs if site_file() else None
    return Path(named).expanduser() if named else Path("runs")


def open_for_reading(given: str | None) -> Ledger:
    """The ledger, which must exist, opened so that nothing can be written."""
    from sweepctl.ledger import open_ledger

    return open_ledger(database(given), create=False, read_only=True)


def plan_file(file: Path, overrides: Sequence[str], *, to_run: bool = False) -> Plan:
    """Load and expand a study file; to be run, its data and pretrained files must be here.

    Raises:
        StudyError: the study is wrong, or needs what this machine does not have and is to be run.
    """
    from sweepctl import pretrained
    from sweepctl.datasets import data_identities
    from sweepctl.errors import StudyError
    from sweepctl.plan import make_plan
    from sweepctl.study import load_study

    # Most users have no site file, and should not wait for the reader of one.
    data = data_identities(site().datasets if site_file() else None)
    study = load_study(file, overrides=overrides, datasets=data)
    made = make_plan(study, data=data, missing=functools.cache(pretrained.missing))
    if to_run and made.absent:
        raise StudyError(list(made.absent))
    return made


def planner(study: StudyFile) -> Extend:
    """How trials of a loaded study become cells, with the data sets and files that are here."""
    from sweepctl import pretrained
    from sweepctl.datasets import data_identities
    from sweepctl.plan import make_plan

    data = data_identities(site().datasets if site_file() else None)
    missing = functools.cache(pretrained.missing)

    def extend(trials: Sequence[Trial], first: int = 1) -> Plan:
        return make_plan(study, data=data, missing=missing, trials=trials, first=first)

    return extend


def looks_like_file(study: str) -> bool:
    """Whether a STUDY argument names a file rather than a recorded study."""
    return study.endswith((".yaml", ".yml")) or os.sep in study


def study_of(study: str, ledger: Ledger) -> Study:
    """The study a STUDY argument means: a file as it is now, or the newest recorded submission."""
    from sweepctl.study import Study

    if looks_like_file(study):
        return plan_file(Path(study), ()).study.study
    return Study.model_validate(ledger.resolved_study(study))


def say(text: str) -> None:
    """Tell people something; never data."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def notices(*plans: Plan) -> None:
    """Tell what plans want people to know; what several of them miss is said once."""
    absent = {problem.message: problem for made in plans for problem in made.absent}
    for problem in absent.values():
        say(f"cannot be run here: {problem.place}: {problem.path}: {problem.message}")
    for made in plans:
        _notices(made)


def _notices(made: Plan) -> None:
    for notice in made.notices:
        say(f"note: {notice}")
    for dropped in made.dropped[:5]:
        values = ", ".join(
            f"{name} {'-' if value is None else value}" for name, value in dropped.axes.items()
        )
        say(f"note: no cell for {values}: {dropped.reason}")
    if len(made.dropped) > 5:
        say(f"note: {len(made.dropped) - 5} more combinations are no cells")


def many(count: int, what: str) -> str:
    """A count with its noun: "1 cell", "2,000 cells"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(value: object) -> str:
    """A value of a config as it is printed: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def give(text: str) -> None:
    """Write data to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def give_json(value: object) -> None:
    """Write one JSON document to stdout; dataclasses become mappings, times ISO texts."""
    give(json.dumps(value, indent=1, allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"not plain data: {type(value).__name__}")


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data for strict JSON: what is not a finite number is null."""
    import math

    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def check_alone(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that would say nothing beside another one.

    Args:
        option: the option that was given.
        others: options that have no effect beside it -> what was given for them, None for nothing.

    Raises:
        UsageError: one of them was given.
    """
    given = ", ".join(name for name, value in others.items() if value is not None)
    if given:
        raise UsageError(f"{option} and {given} do not go together", hint="leave one of them out")


def to_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def unicode() -> bool:
    """Whether stdout can show more than ASCII."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    return "utf" in encoding


def give_table(columns: Sequence[str], rows: Sequence[Sequence[object]], form: str) -> None:
    """Write a table as "table", "csv" or "json"."""
    if form == "json":
        give_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif form == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        from sweepctl.report import results_text

        give(results_text(columns, rows, terminal=to_terminal(), width=width(), unicode=unicode()))


def check_format(form: str) -> str:
    """One of the three formats.

    Raises:
        UsageError: another word was given.
    """
    if form not in ("table", "csv", "json"):
        raise UsageError(f"there is no format {form!r}", hint="table, csv or json")
    return form
