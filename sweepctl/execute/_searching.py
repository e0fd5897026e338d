"""How does a search go on while tasks run? Trials that ended are told, new ones asked and recorded.

A search of a study stands in each cell of its grid of axes. Its trials are cells like all others:
the driver runs their tasks and knows nothing of searches beyond the plans that come from here. A
trial is recorded, with its cell and tasks, in one transaction before anything of it runs. A driver
that dies before has asked nothing; one that dies after finds it again.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweepctl.errors import StudyError, UsageError
from sweepctl.execute._settings import Extend
from sweepctl.ledger import Ledger, SearchRecord, TrialRecord
from sweepctl.plan import Plan, Trial, canonical, fingerprint, lasting
from sweepctl.search import Asker, Ended, Past, ended, most_trials, since_improved
from sweepctl.study import Search, short_name


@dataclass(slots=True, kw_only=True)
class _One:
    """One search: its record, its trials, what they came to, and which of them are open."""

    record: SearchRecord
    trials: list[TrialRecord] = field(default_factory=list)
    came_to: dict[int, Ended] = field(default_factory=dict)
    asker: Asker | None = None
    over: str = ""

    @property
    def waiting(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.number not in self.came_to]


class Searching:
    """The searches of one run of a study.

    Args:
        shown: the study's plan, in which each search is shown by one point.
        ledger: an open ledger.
        extend: makes the plan of some trials.
    """

    def __init__(self, shown: Plan, ledger: Ledger, extend: Extend) -> None:
        search = shown.study.search
        assert search is not None
        self.search: Search = search
        self.ledger = ledger
        self.extend = extend
        self.study = shown.study_name
        self.searches = {
            record.key: _One(record=record) for record in search_records(shown, search)
        }
        self.tasks_of: dict[str, Mapping[str, str]] = {}
        trials = ledger.trials(self.study, list(self.searches))
        asked = [
            Trial(axes=self.searches[trial.search].record.axes, values=trial.point)
            for trial in trials
        ]
        self.plan = extend(asked)
        for trial, placed in zip(trials, self.plan.placed, strict=True):
            now = replace(trial, cell=placed.key, why_not=placed.why_not)
            self.searches[trial.search].trials.append(now)
        self._note_cells(self.plan)

    def begin(self) -> None:
        """Record the searches, once their study is recorded, and settle what they start with."""
        records = [one.record for one in self.searches.values()]
        start: tuple[Mapping[str, Any], ...] = ()
        if self.searches.keys() - {one.key for one in self.ledger.searches(self.study)}:
            start = self._start()
        starts = self.ledger.begin_searches(
            self.study, [replace(record, start=start) for record in records]
        )
        for key, one in self.searches.items():
            one.record = replace(one.record, start=starts[key])

    def _start(self) -> tuple[Mapping[str, Any], ...]:
        """The points to start with: those of the file, then those of finished cells."""
        points = [dict(point) for point in self.search.start]
        for name in self.search.start_studies:
            if name not in self.ledger.study_names():
                raise UsageError(
                    f"the search starts with the study {name!r}, which {self.ledger.shown} does "
                    "not know",
                    hint="run that study first, or take it out of start_with",
                )
            for cell in self.ledger.cells(name):
                if cell.state != "done":
                    continue
                config = self.ledger.cell_config(name, cell.key)
                values = {one.path: _at(config, one.path) for one in self.search.space}
                point = self.search.narrowed(values)
                if point is not None and point not in points:
                    points.append(point)
        return tuple(points)

    # -- while tasks run -----------------------------------------------------------------------

    def more(
        self,
        done: Collection[str],
        hopeless: Callable[[str], bool],
        tell: Callable[[str], None],
    ) -> Iterator[Plan]:
        """Ask as many trials as may be open; gives the plan of each before it asks on.

        Args:
            done: the tasks that are done; the driver adds to it while this goes on.
            hopeless: whether a task, by its fingerprint, has failed or waits for one that has.
            tell: is told about each trial, in a line.
        """
        for one in self.searches.values():
            self._settle(one, done, hopeless)
            while not one.over and len(one.waiting) < self.search.at_once:
                if self._is_over(one, tell):
                    break
                plan, trial = self._ask(one)
                tell(self._said(one, trial))
                yield plan
                self._settle(one, done, hopeless)

    def _settle(self, one: _One, done: Collection[str], hopeless: Callable[[str], bool]) -> None:
        """Tell the sampler what has come of open trials."""
        for trial in one.waiting:
            tasks = self.tasks_of.get(trial.cell, {})
            if not trial.cell or any(hopeless(name) for name in tasks.values()):
                came = Ended(values=None)
            elif all(name in done for name in tasks.values()):
                came = ended(self.search, self._measured(tasks))
            else:
                continue
            one.came_to[trial.number] = came
            if one.asker is not None:
                one.asker.tell(trial.number, came)

    def _measured(self, tasks: Mapping[str, str]) -> dict[tuple[str, str], float]:
        return {
            (value.name, value.dataset): value.value
            for stage, name in tasks.items()
            if stage.partition(":")[0] in ("reconstruct", "generate")
            for value in self.ledger.metrics(name)
        }

    def _ask(self, one: _One) -> tuple[Plan, TrialRecord]:
        if one.asker is None:
            one.asker = self._asker(one)
        asked = one.asker.ask()
        trial = Trial(axes=one.record.axes, values=asked.point)
        plan = self.extend((trial,), first=len(self.tasks_of) + 1)
        if plan.absent:
            raise StudyError(list(plan.absent))
        placed = plan.placed[0]
        if placed.key in self.tasks_of:  # another trial, or another search, has that cell
            plan = replace(plan, cells=(), tasks={})
        record = TrialRecord(
            search=one.record.key,
            number=asked.number,
            point=asked.point,
            cell=placed.key,
            why_not=placed.why_not,
            sampler=asked.sampler,
        )
        self.ledger.add_trial(plan, record)
        one.trials.append(record)
        self._note_cells(plan)
        return plan, record

    def _asker(self, one: _One) -> Asker:
        """The sampler with its history; made when the first trial is asked."""
        return Asker(
            self.search,
            one.record.start,
            [
                Past(
                    point=trial.point,
                    sampler=trial.sampler,
                    ended=one.came_to.get(trial.number),
                )
                for trial in one.trials
            ],
        )

    def _is_over(self, one: _One, tell: Callable[[str], None]) -> bool:
        """Whether nothing more is to be asked; says why when that is not the number of trials."""
        if len(one.trials) >= self.search.trials:
            one.over = "all its trials are made"
            return True
        why = ""
        if len(one.trials) >= most_trials(self.search, one.record.start):
            why = "every point of the grid was tried"
        flat = self.search.flat
        if flat is not None and len(one.came_to) >= flat:
            in_order = [one.came_to[number] for number in sorted(one.came_to)]
            if since_improved([came.costs(self.search) for came in in_order]) >= flat:
                why = f"{flat} trials in a row have improved nothing"
        if self.search.hours is not None:
            tasks = {
                name for trial in one.trials for name in self.tasks_of.get(trial.cell, {}).values()
            }
            if self.ledger.seconds_spent(tasks) >= self.search.hours * 3600:
                why = f"its tasks have taken {self.search.hours:g} hours"
        if why:
            one.over = why
            tell(f"the search{self._where(one)} ends after {len(one.trials)} trials: {why}")
        return bool(why)

    def _note_cells(self, plan: Plan) -> None:
        self.tasks_of.update({cell.key: cell.tasks for cell in plan.cells})

    def _where(self, one: _One) -> str:
        axes = ", ".join(f"{short_name(path)} {value}" for path, value in one.record.axes.items())
        return f" at {axes}" if axes else ""

    def _said(self, one: _One, trial: TrialRecord) -> str:
        point = ", ".join(f"{short_name(path)} {_word(v)}" for path, v in trial.point.items())
        refused = f": no cell, {trial.why_not}" if trial.why_not else ""
        return f"trial {trial.number}{self._where(one)}: {point}{refused}"


def search_records(shown: Plan, search: Search) -> list[SearchRecord]:
    """The searches of a study: one a cell of its grid of axes that can be run.

    The key of a search is a hash of what decides which trials it asks: what its cells have in
    common, the space, the objectives, the sampler and its seed, the points it starts with. More
    trials, more of them at once or another reason to stop go on with the same search.

    Args:
        shown: the study's plan, in which each search is shown by one point.
        search: what is searched.
    """
    study = shown.study
    gridded = [path for factor in study.grid.factors for path in factor.paths]
    configs = {cell.key: cell.config for cell in shown.cells}
    block = study.study.model_dump(mode="json", by_alias=True)
    asked = {
        key: value
        for key, value in block["search"].items()
        if key not in ("trials", "at_once", "stop")
    }
    rules = {key: block[key] for key in ("fixed", "when", "exclude", "only")}
    records: dict[str, SearchRecord] = {}
    combinations = itertools.product(*(factor.rows for factor in study.grid.factors))
    for rows, placed in zip(combinations, shown.placed, strict=True):
        if not placed.key:
            continue  # this cell of the grid is left out
        axes = dict(zip(gridded, itertools.chain(*rows), strict=True))
        common = copy.deepcopy(lasting(dict(configs[placed.key])))
        for dimension in search.space:
            _remove(common, dimension.path)
        identity = {"search": asked, "axes": axes, "common": common, "rules": rules}
        key = fingerprint(canonical(identity))
        record = SearchRecord(key=key, position=len(records), axes=axes)
        records.setdefault(key, record)
    return list(records.values())


def _at(config: Mapping[str, Any], path: str) -> Any:
    here: Any = config
    for part in path.split("."):
        here = here[part]
    return here


def _remove(config: Any, path: str) -> None:
    lead, _, last = path.rpartition(".")
    here = config
    for part in lead.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    if isinstance(here, dict):
        here.pop(last, None)


def _word(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
