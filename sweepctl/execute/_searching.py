"""How does a search go on while tasks run? Trials that ended are told, new ones asked and recorded.

A search of a study stands in each cell of its grid of axes. Its trials are cells like all others:
the driver runs their tasks and knows nothing of searches beyond the plans that come from here. A
trial is recorded, with its cell and tasks, in one transaction before anything of it runs. A driver
that dies before has asked nothing; one that dies after finds it again.

Where a search prunes, a trial is let go to the first rung, an early step of its training, and waits
there. Before a new one is asked, one that waits and is good enough goes on. When all are asked and
nobody has come to the end, the best of those that wait does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweepctl.errors import StudyError, UsageError
from sweepctl.execute._identity import of_stand_ins, said, search_records
from sweepctl.execute._settings import Extend
from sweepctl.kinds import final_measurements
from sweepctl.ledger import Ledger, SearchRecord, TrialRecord
from sweepctl.plan import (
    MOST_COUNTED,
    Cell,
    Plan,
    Trial,
    measuring_stage,
    rung_stage,
    rung_steps,
    up_to,
)
from sweepctl.search import (
    Asker,
    Ended,
    Past,
    TrialProgress,
    best_waiting,
    chosen_by,
    ended,
    most_trials,
    promoted,
    since_improved,
)
from sweepctl.study import Search, short_name, value_at


@dataclass(slots=True, kw_only=True)
class _TrialRungs:
    """How far a cell of a search that prunes is let go: to the first `let` of its steps.

    `values` are those of the objective at the rungs that it was measured at, in their order.
    """

    steps: tuple[int, ...]
    let: int = 1
    values: list[float] = field(default_factory=list)

    @property
    def reached(self) -> tuple[int, ...]:
        return self.steps[: self.let]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Of those, the ones before the end."""
        return self.reached[: len(self.steps) - 1]

    @property
    def is_whole(self) -> bool:
        return self.let == len(self.steps)

    @property
    def waits(self) -> bool:
        return not self.is_whole and len(self.values) == self.let


@dataclass(slots=True, kw_only=True)
class _One:
    """One search: its record, what it searches, its trials, what they came to, why it is over."""

    record: SearchRecord
    search: Search
    trials: list[TrialRecord] = field(default_factory=list)
    came_to: dict[int, Ended] = field(default_factory=dict)
    asker: Asker | None = None
    over: str = ""
    is_spent: bool = False
    possible: tuple[tuple[str, Mapping[str, Any]], ...] | None = None

    @property
    def counted(self) -> list[TrialRecord]:
        """Its trials that are the first with their cell: others cost nothing and do not count."""
        first = {trial.cell: trial for trial in reversed(self.trials) if trial.cell}
        return [trial for trial in self.trials if first.get(trial.cell) is trial]

    @property
    def in_vain(self) -> int:
        """How many of the last points in a row were not possible, or tried before."""
        last = self.counted[-1].number + 1 if self.counted else 0
        return len(self.trials) - last

    @property
    def start(self) -> list[dict[str, Any]]:
        """The points that it starts with."""
        return [self.search.searched_part(point) for point in self.record.start]

    @property
    def was_in_vain(self) -> bool:
        """Whether so many were not in a row at any time."""
        numbers = [-1, *(trial.number for trial in self.counted), len(self.trials)]
        return max(b - a - 1 for a, b in itertools.pairwise(numbers)) >= MOST_IN_VAIN


MOST_IN_VAIN = 5
"""Points in a row that make no new cell, after which a finite search takes one that does."""

MOST_WITHOUT_CELL = 500
"""Points in a row that make no new cell, after which a search ends."""

FEW_POINTS = 100
"""Most points of a space that are worked out before it is needed."""


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
            record.key: _One(record=record, search=search.at(record.axes))
            for record in search_records(shown, search)
        }
        self.cells: dict[str, Cell] = {}
        self.trial_rungs: dict[str, _TrialRungs] = {}
        trials = ledger.searches.trials(self.study, list(self.searches))
        self.notice = "" if trials else of_stand_ins(shown, search, ledger)
        asked = [
            Trial(axes=self.searches[trial.search].record.axes, values=trial.point)
            for trial in trials
        ]
        self.plan = extend(asked)
        if search.prune is not None:
            self.plan = self._on_their_ways(self.plan, trials)
        for trial, placed in zip(trials, self.plan.placed, strict=True):
            now = replace(trial, cell=placed.key, why_not=placed.why_not)
            self.searches[trial.search].trials.append(now)
        self._note_cells(self.plan)

    def begin(self) -> None:
        """Record the searches, once their study is recorded, and settle what they start with."""
        records = [one.record for one in self.searches.values()]
        start: tuple[Mapping[str, Any], ...] = ()
        if self.searches.keys() - {one.key for one in self.ledger.searches.of(self.study)}:
            start = self._start()
        starts = self.ledger.searches.begin(
            self.study, [replace(record, start=start) for record in records]
        )
        for key, one in self.searches.items():
            one.record = replace(one.record, start=starts[key])

    def _start(self) -> tuple[Mapping[str, Any], ...]:
        """The points to start with: those of the file, then those of finished cells."""
        points = [dict(point) for point in self.search.start]
        for name in self.search.start_studies:
            if name not in self.ledger.studies.names():
                raise UsageError(
                    f"the search starts with the study {name!r}, which {self.ledger.shown} does "
                    "not know",
                    hint="run that study first, or take it out of start_with",
                )
            for cell in self.ledger.cells.of(name):
                if cell.state != "done":
                    continue
                config = self.ledger.cells.config(name, cell.key)
                values = {one.path: value_at(config, one.path) for one in self.search.space}
                inside = (one.search.narrowed(values) for one in self.searches.values())
                point = next((one for one in inside if one is not None), None)
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
        if self.notice:
            tell(self.notice)
            self.notice = ""
        for one in self.searches.values():
            self._settle(one, done, hopeless)
            while len(self._open(one)) < self.search.at_once:
                plan = self._next(one, tell)
                if plan is None:
                    break
                yield plan
                self._settle(one, done, hopeless)

    def _open(self, one: _One) -> list[TrialRecord]:
        """Trials with something to run."""
        return [
            trial
            for trial in one.trials
            if trial.number not in one.came_to and not self._waits(trial)
        ]

    def _waits(self, trial: TrialRecord) -> bool:
        """Whether a trial waits at a rung to be let go on."""
        return trial.cell in self.trial_rungs and self.trial_rungs[trial.cell].waits

    def _next(self, one: _One, tell: Callable[[str], None]) -> Plan | None:
        """What one more open trial is to run: one that goes on, or a new one; None for none."""
        is_over = self._is_over(one, tell)
        trial = self._goes_on(one)
        if trial is not None:
            tell(self._said(one, trial, "goes on: "))
            return self._let_go_on(one, trial)
        if is_over:
            return None
        plan, trial = self._ask(one)
        tell(self._said(one, trial))
        return plan

    def _settle(self, one: _One, done: Collection[str], hopeless: Callable[[str], bool]) -> None:
        """Take note of what has come of open trials, and tell the sampler."""
        for trial in self._open(one):
            tasks = self.cells[trial.cell].tasks if trial.cell else {}
            if not trial.cell or any(hopeless(name) for name in tasks.values()):
                came = Ended(values=None)
            elif not all(name in done for name in tasks.values()):
                continue
            elif not self._measured_at_rungs(trial, tasks):
                came = Ended(values=None)
            elif self._waits(trial):
                continue
            else:
                came = ended(self.search, self._measured(tasks))
            one.came_to[trial.number] = came
            if one.asker is not None and self.search.prune is None:
                one.asker.tell(trial.number, came)

    def _measured(self, tasks: Mapping[str, str]) -> dict[tuple[str, str], float]:
        return {
            (value.name, value.dataset): value.value
            for name in final_measurements(tasks).values()
            for value in self.ledger.tasks.metrics(name)
        }

    def _ask(self, one: _One) -> tuple[Plan, TrialRecord]:
        if one.asker is None or self.search.prune is not None:
            # Made anew where trials may wait: to Optuna these are over, and none goes on again.
            one.asker = self._asker(one)
        asked = one.asker.ask(self._untried(one))
        trial = Trial(axes=one.record.axes, values=asked.point)
        plan = self.extend((trial,), first=len(self.cells) + 1)
        shown = plan.cells[0].axes if plan.cells else plan.dropped[0].axes
        if plan.absent:
            raise StudyError(list(plan.absent))
        placed = plan.placed[0]
        if placed.key in self.cells:  # another trial, or another search, has that cell
            plan = replace(plan, cells=(), tasks={})
        elif self.search.prune is not None and not self._is_done(plan):
            plan = self._to_first_rung(plan)
        record = TrialRecord(
            search=one.record.key,
            number=asked.number,
            point=self._whole_point(asked.point, shown),
            cell=placed.key,
            why_not=placed.why_not,
            sampler=asked.sampler,
        )
        self.ledger.searches.add_trial(plan, record)
        one.trials.append(record)
        self._note_cells(plan)
        return plan, record

    def _untried(self, one: _One) -> Mapping[str, Any] | None:
        """A possible point for a sampler that comes back to others; None while it need not."""
        possible = self._possible(one)
        if possible is None or one.in_vain < MOST_IN_VAIN or self.search.sampler == "grid":
            return None
        tried = {trial.cell for trial in one.trials}
        left = [point for key, point in possible if key not in tried]
        return left[chosen_by(one.search, len(one.trials), len(left))] if left else None

    def _possible(self, one: _One) -> tuple[tuple[str, Mapping[str, Any]], ...] | None:
        """Key of a cell and first point of it, of all that a search can make; None if uncounted.

        All points are worked out when some may run out: at the beginning where they are few, later
        when the sampler comes back to points in vain.
        """
        if one.possible is None and one.search.is_finite:
            points = list(itertools.islice(one.search.points(), MOST_COUNTED + 1))
            few = len(points) <= max(FEW_POINTS, len(one.trials))
            if few or (one.was_in_vain and len(points) <= MOST_COUNTED):
                axes = one.record.axes
                plan = self.extend([Trial(axes=axes, values=point) for point in points])
                found: dict[str, Mapping[str, Any]] = {}
                for point, placed in zip(points, plan.placed, strict=True):
                    if placed.key:
                        found.setdefault(placed.key, point)
                one.possible = tuple(found.items())
        return one.possible

    def _whole_point(self, point: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
        """A point with the values that its cell has of what is not searched there."""
        every = [dimension.path for dimension in self.search.space]
        return {path: point.get(path, shown[short_name(path)]) for path in every}

    # -- rungs ---------------------------------------------------------------------------------

    def _on_their_ways(self, plan: Plan, trials: Sequence[TrialRecord]) -> Plan:
        """The plan of trials as far as the ledger says that they were let go."""
        cells = {cell.key: cell for cell in plan.cells}
        for trial, placed in zip(trials, plan.placed, strict=True):
            steps = rung_steps(self.search, cells[placed.key]) if placed.key else ()
            # A cell that another search of this study has used may have rungs of that one.
            let = sum(1 for step in trial.rungs if step in steps[:-1])
            if trial.until is None and let > 0:
                self.trial_rungs[placed.key] = _TrialRungs(steps=steps, let=len(steps))
            elif trial.until is not None and steps:
                self.trial_rungs[placed.key] = _TrialRungs(steps=steps, let=max(1, let))
        return self._up_to(plan)

    def _up_to(self, plan: Plan) -> Plan:
        return up_to(plan, self.search, {key: way.reached for key, way in self.trial_rungs.items()})

    def _is_done(self, plan: Plan) -> bool:
        """Whether every task of a plan is, through other studies: then there is nothing to cut."""
        states = self.ledger.tasks.states(list(plan.tasks))
        return all(name in states and states[name].state == "done" for name in plan.tasks)

    def _to_first_rung(self, plan: Plan) -> Plan:
        for cell in plan.cells:
            steps = rung_steps(self.search, cell)
            if steps:
                self.trial_rungs[cell.key] = _TrialRungs(steps=steps)
        return self._up_to(plan)

    def _measured_at_rungs(self, trial: TrialRecord, tasks: Mapping[str, str]) -> bool:
        """Take note of the objective at the rungs of a trial; False when one is not finite."""
        way = self.trial_rungs.get(trial.cell)
        if way is None:
            return True
        (objective,) = self.search.objectives
        for step in way.rungs[len(way.values) :]:
            name = tasks[rung_stage(measuring_stage(self.search), step)]
            values = {one.name: one.value for one in self.ledger.tasks.metrics(name, step)}
            value = values.get(objective.metric, math.nan)
            if not math.isfinite(value):
                return False
            way.values.append(value)
        return True

    def _goes_on(self, one: _One) -> TrialRecord | None:
        """The trial that waits and may go on now."""
        if self.search.prune is None:
            return None
        failed = {number for number, came in one.came_to.items() if came.values is None}
        sign = 1.0 if self.search.objectives[0].minimise else -1.0
        progress = [
            TrialProgress(
                number=trial.number,
                costs=tuple(sign * value for value in self.trial_rungs[trial.cell].values),
                asked=self.trial_rungs[trial.cell].let,
            )
            for trial in one.counted
            if trial.cell in self.trial_rungs and trial.number not in failed
        ]
        number = None if one.is_spent else promoted(self.search.prune, progress)
        nobody = one.came_to.keys() <= failed
        if number is None and one.over and nobody and not self._open(one):
            number = best_waiting(progress)
        return None if number is None else one.trials[number]

    def _let_go_on(self, one: _One, trial: TrialRecord) -> Plan:
        """Record that a trial goes on to its next rung, or to its end; the plan of that."""
        self.trial_rungs[trial.cell].let += 1
        asked = Trial(axes=one.record.axes, values=trial.point)
        plan = self._up_to(self.extend((asked,), first=self.cells[trial.cell].index))
        self.ledger.searches.promote(plan)
        self._note_cells(plan)
        return plan

    # -- what is asked next --------------------------------------------------------------------

    def _asker(self, one: _One) -> Asker:
        """The sampler with its history; made when the first trial is asked."""
        return Asker(
            one.search,
            one.start,
            [
                Past(
                    point=one.search.searched_part(trial.point),
                    sampler=trial.sampler,
                    ended=one.came_to.get(trial.number),
                    rungs=self._rungs(trial),
                    waits=self._waits(trial),
                )
                for trial in one.trials
            ],
        )

    def _rungs(self, trial: TrialRecord) -> dict[int, float]:
        way = self.trial_rungs.get(trial.cell)
        return {} if way is None else dict(zip(way.steps, way.values, strict=False))

    def _is_over(self, one: _One, tell: Callable[[str], None]) -> bool:
        """Whether nothing more is to be asked; says why when that is not the number of trials."""
        why = ""
        hours = self.search.hours
        if hours is not None and not one.is_spent and self._seconds(one) >= hours * 3600:
            one.is_spent = True  # nothing goes on either
            why = f"its tasks have taken {hours:g} hours"
        there = [number for number, came in one.came_to.items() if came.reaches(self.search)]
        if there and not one.is_spent:
            one.is_spent = True
            why = f"trial {min(there)} reached the value to stop at, {self.search.value:g}"
        if one.over:
            return True
        trials = one.counted
        if len(trials) >= self.search.trials:
            one.over = "all its trials are made"
            return True
        if one.in_vain >= MOST_WITHOUT_CELL:
            why = f"the last {one.in_vain} points were not possible, or tried before"
        most = most_trials(one.search, one.start)
        if most is not None and len(one.trials) >= most:
            why = "every point of the grid was tried"
        possible = self._possible(one)
        if possible is not None and {key for key, _ in possible} <= {one.cell for one in trials}:
            why = f"the space has {_many(len(possible), 'possible point')}, and each was tried"
        flat = self.search.flat
        if flat is not None:
            in_order = [
                came.costs(self.search) if (came := one.came_to.get(trial.number)) else None
                for trial in trials
                if trial.number in one.came_to or self._waits(trial)
            ]
            if len(in_order) >= flat and since_improved(in_order) >= flat:
                why = f"{flat} trials in a row have improved nothing"
        if why:
            one.over = why
            tell(f"the search{self._where(one)} ends after {_many(len(trials), 'trial')}: {why}")
        return bool(why)

    def _seconds(self, one: _One) -> float:
        """Workers' time that the tasks of a search have taken."""
        cells = (self.cells[trial.cell] for trial in one.trials if trial.cell)
        return self.ledger.attempts.seconds(
            {name for cell in cells for name in cell.tasks.values()}
        )

    def _note_cells(self, plan: Plan) -> None:
        self.cells.update({cell.key: cell for cell in plan.cells})

    def _where(self, one: _One) -> str:
        axes = ", ".join(f"{short_name(path)} {value}" for path, value in one.record.axes.items())
        return f" at {axes}" if axes else ""

    def _said(self, one: _One, trial: TrialRecord, what: str = "") -> str:
        point = ", ".join(f"{short_name(path)} {said(v)}" for path, v in trial.point.items())
        refused = f": no cell, {trial.why_not}" if trial.why_not else ""
        first = next(other.number for other in one.trials if other.cell == trial.cell)
        if trial.cell and first != trial.number:
            refused = f": the same cell as trial {first}"
        return f"trial {trial.number}{self._where(one)}: {what}{point}{refused}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
