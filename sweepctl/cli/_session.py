"""Where a command works: options, environment and site file, in that order."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweepctl.errors import UsageError
from vitok_core.files import user_folder

if TYPE_CHECKING:
    from sweepctl.execute import Extend, Settings
    from sweepctl.ledger import Ledger
    from sweepctl.plan import Plan, Trial
    from sweepctl.study import Site, Study, StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The values of --db and --runs; None where they were not given."""

    db: str | None = None
    runs: Path | None = None


_given = Places()


def settle(places: Places) -> None:
    """Keep the places that the command line names, for the command that follows."""
    global _given
    _given = places


def stated_database() -> str | None:
    """The value of --db, or None."""
    return _given.db


def site_file() -> Path | None:
    """The site file that applies: $SWEEPCTL_SITE, ./sweepctl.site.yaml, the platform's folder."""
    if named := os.environ.get("SWEEPCTL_SITE"):
        return Path(named)
    here = Path("sweepctl.site.yaml")
    if here.is_file():
        return here
    folder = user_folder("config", "sweepctl")
    there = None if folder is None else folder / "site.yaml"
    return there if there is not None and there.is_file() else None


def site() -> Site:
    """The site file's settings, or the defaults without one."""
    from sweepctl.study import Site, load_site

    file = site_file()
    return Site() if file is None else load_site(file)


def database() -> str | None:
    """The ledger's place: --db, SWEEPCTL_DB, the site file, or None for results.db here."""
    if _given.db or "SWEEPCTL_DB" in os.environ:
        return _given.db or os.environ["SWEEPCTL_DB"]
    # Most users have no site file, and should not wait for the reader of one.
    return site().database if site_file() else None


def run_folder() -> Path:
    """The run folder: --runs, the site file, or runs/ here."""
    if _given.runs is not None:
        return _given.runs
    named = site().runs if site_file() else None
    if not named:
        return Path("runs")
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise UsageError(
            f"the site file's run folder {named} cannot be found: this user has no home folder",
            hint="set HOME, or write the path in full",
        ) from None


def pool_settings(
    cluster: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Settings:
    """Where and by how many attempts run: options, then the site file.

    Raises:
        UsageError: there is no such device.
    """
    from sweepctl.execute import Settings
    from sweepctl.study import DEVICE

    if device is not None and not re.match(DEVICE, device):
        raise UsageError(f"there is no device {device!r}", hint="auto, cpu, cuda or cuda:N")
    here = site().workers
    return Settings(
        folder=run_folder(),
        where=cluster or here.where,
        workers=workers or here.count,
        threads=threads or here.threads,
        decoders=here.decoders,
        device=device or here.device,
        grace_s=here.grace_s,
    )


def open_for_reading() -> Ledger:
    """The ledger, which must exist, opened so that nothing can be written."""
    from sweepctl.ledger import open_ledger

    return open_ledger(database(), create=False, read_only=True)


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
    return Study.model_validate(ledger.studies.submission(study).resolved)


def check_alone(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that have no effect together with another one.

    Args:
        option: the option that was given.
        others: options that have no effect together with it -> their values, None for not given.

    Raises:
        UsageError: one of them was given.
    """
    given = ", ".join(name for name, value in others.items() if value is not None)
    if given:
        raise UsageError(f"{option} and {given} do not go together", hint="leave one of them out")
