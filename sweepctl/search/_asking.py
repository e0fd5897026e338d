"""Which point comes next? Optuna's samplers, asked so that the answer depends on the past alone.

Optuna keeps nothing: its study lives in memory and is made again from what the ledger holds. Three
things make the next point a function of the search, its seed and its history. The sampler is made
anew for every trial, seeded by (seed, number of the trial). What a sampler has written beside a
trial (a generation, the state of an evolution strategy, the index in a sequence) is given out with
the trial and taken back with the history. And points that are given, or of a grid, go through the
sampler like its own.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sweepctl.search._front import Costs, is_finite
from sweepctl.study import Dimension, Search

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a trial came to.

    Attributes:
        values: of the objectives in their order; None when it failed or one is not finite.
        violations: of the conditions in their order, 0 or less where they are met.
    """

    values: tuple[float, ...] | None
    violations: tuple[float, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether it has values and meets every condition."""
        return self.values is not None and all(by <= 0 for by in self.violations)

    def reaches(self, search: Search) -> bool:
        """Whether it is as good as the value that the search stops at."""
        costs = self.costs(search)
        if search.value is None or costs is None:
            return False
        return costs[0] <= (search.value if search.objectives[0].minimise else -search.value)

    def costs(self, search: Search) -> Costs | None:
        """Its values, all to be made small; None when it is not kept."""
        if self.values is None or not self.is_kept:
            return None
        signs = (1.0 if one.minimise else -1.0 for one in search.objectives)
        return tuple(sign * value for sign, value in zip(signs, self.values, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A trial that was asked before.

    Attributes:
        point: config path -> value.
        sampler: what was given out with it.
        ended: what it came to, None while it is open.
        rungs: step -> value of the objective there, of a search that prunes.
        waits: whether it waits at the last of these rungs, and may never go on.
    """

    point: Mapping[str, Any]
    sampler: Mapping[str, Any] = field(default_factory=dict)
    ended: Ended | None = None
    rungs: Mapping[int, float] = field(default_factory=dict)
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The next trial: its number from 0, its point, and what the sampler has to find again."""

    number: int
    point: dict[str, Any]
    sampler: dict[str, Any]


class Asker:
    """One search, held in memory between two questions.

    Args:
        search: what is searched.
        start: points to try first.
        history: the trials that were asked, in their order.
    """

    def __init__(
        self,
        search: Search,
        start: Sequence[Mapping[str, Any]] = (),
        history: Sequence[Past] = (),
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search = search
        self._given = _given(search, start)
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage, directions=directions(search), study_name="search"
        )
        self._id = self._storage.get_study_id_from_name("search")
        self.asked = 0
        for trial in history:
            self._put_back(trial)

    def ask(self, point: Mapping[str, Any] | None = None) -> Asked:
        """The next point; it stays open until its result is reported.

        Args:
            point: it, when the sampler is not to choose.
        """
        number = self.asked
        before = dict(self._storage.get_study_system_attrs(self._id))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, and meant for people at a notebook
            self._study.sampler = _sampler(self.search, number)
            given = self._given[number] if number < len(self._given) else point
            if given is not None:
                self._study.enqueue_trial({path: _category(value) for path, value in given.items()})
            trial = self._study.ask()
            asked: dict[str, Any] = {}
            for dimension in self.search.space:
                if dimension.is_on(asked):
                    asked[dimension.path] = self._suggested(trial, number, dimension)
        self.asked += 1
        after = self._storage.get_study_system_attrs(self._id)
        beside = self._storage.get_trial_system_attrs(self._trial_id(number))
        changed = {key: value for key, value in after.items() if before.get(key) != value}
        return Asked(number=number, point=asked, sampler={"trial": dict(beside), "study": changed})

    def _suggested(self, trial: optuna.Trial, number: int, dimension: Dimension) -> Any:
        value = _suggested(trial, dimension)
        if not (dimension.log and dimension.step is not None):
            return value
        # Optuna has no steps on a logarithmic scale. It sees what is tried, not what it drew, as it
        # does after a restart.
        near, drawn = dimension.nearest(value), _distribution(dimension)
        inside = drawn.to_internal_repr(near)
        self._storage.set_trial_param(self._trial_id(number), dimension.path, inside, drawn)
        return near

    def tell(self, number: int, ended: Ended) -> None:
        """Say what an open trial came to."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if ended.values is None:
                self._study.tell(number, state=optuna.trial.TrialState.FAIL)
                return
            # Optuna's own way needs the object that `ask` gave, which a restart does not keep.
            limits = optuna.create_trial(
                state=optuna.trial.TrialState.RUNNING, constraints=_constraints(ended)
            )
            for key, value in limits.system_attrs.items():
                self._storage.set_trial_system_attr(self._trial_id(number), key, value)
            self._study.tell(number, list(ended.values))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _put_back(self, trial: Past) -> None:
        """Add a trial of the history as it was."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.add_trial(frozen(self.search, trial))
        for key, value in dict(trial.sampler.get("study", {})).items():
            self._storage.set_study_system_attr(self._id, key, value)
        self.asked += 1


def directions(search: Search) -> list[Literal["minimize", "maximize"]]:
    """What Optuna is to do with each objective."""
    return ["minimize" if one.minimise else "maximize" for one in search.objectives]


def frozen(search: Search, trial: Past) -> optuna.trial.FrozenTrial:
    """A trial as Optuna keeps it."""
    import optuna

    states = optuna.trial.TrialState
    ended = trial.ended
    state = states.RUNNING
    if ended is not None:
        state = states.FAIL if ended.values is None else states.COMPLETE
    elif trial.waits:
        state = states.PRUNED
    spaces = {one.path: one for one in search.space if one.path in trial.point}
    return optuna.create_trial(
        state=state,
        values=None if ended is None or ended.values is None else list(ended.values),
        params={path: _category(trial.point[path]) for path in spaces},
        distributions={path: _distribution(one) for path, one in spaces.items()},
        intermediate_values=dict(trial.rungs),
        system_attrs=dict(trial.sampler.get("trial", {})),
        constraints=None if ended is None else _constraints(ended) or None,
    )


def _constraints(ended: Ended) -> dict[str, float]:
    return {f"keep {index}": by for index, by in enumerate(ended.violations)}


def ended(search: Search, measured: Mapping[tuple[str, str], float]) -> Ended:
    """What a trial came to, by its measured numbers: (metric, data set) -> value."""
    wanted = [(one.metric, one.dataset) for one in search.objectives]
    limits = [(one.metric, one.dataset) for one in search.keep_if]
    if any(key not in measured for key in (*wanted, *limits)):
        return Ended(values=None)
    values = tuple(measured[key] for key in wanted)
    bounded = tuple(measured[key] for key in limits)
    if not is_finite(values) or not is_finite(bounded):
        return Ended(values=None)
    by = zip(search.keep_if, bounded, strict=True)
    return Ended(values=values, violations=tuple(keep.violation(value) for keep, value in by))


def most_trials(search: Search, start: Sequence[Mapping[str, Any]]) -> int | None:
    """How many points can be asked: a grid that has been seen whole has no more; None for any."""
    return len(_given(search, start)) if search.sampler == "grid" else None


def _given(search: Search, start: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points that are known beforehand: those to start with, then those of a grid."""
    given = [dict(point) for point in start]
    if search.sampler == "grid":
        known = {_plain(point) for point in given}
        given += [point for point in grid(search) if _plain(point) not in known]
    return given


def grid(search: Search) -> list[dict[str, Any]]:
    """All points of a finite space, the first setting slowest."""
    return list(search.points())


# --- Optuna's words ---------------------------------------------------------------------------


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial; it knows nothing but the study it is given."""
    from optuna import samplers

    seed = _seed(search.seed, number)
    if search.sampler == "tpe":
        conditional = any(one.given for one in search.space)
        return samplers.TPESampler(seed=seed, multivariate=True, group=conditional)
    if search.sampler == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if search.sampler == "nsga2":
        return samplers.NSGAIISampler(seed=seed)
    if search.sampler == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if search.sampler == "qmc":
        # The sequence is one for all trials; what is not in it is drawn by the trial's own seed.
        return samplers.QMCSampler(
            scramble=True,
            seed=search.seed,
            independent_sampler=samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )
    return samplers.RandomSampler(seed=seed)


def chosen_by(search: Search, number: int, count: int) -> int:
    """One of `count` things, by the seed of the search and the number of the trial."""
    return _seed(search.seed, number) % count


def _seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if dimension.kind == "choice":
        return distributions.CategoricalDistribution([_category(one) for one in dimension.choices])
    step = None if dimension.log else dimension.step
    if dimension.kind == "int":
        return distributions.IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log, step=int(step or 1)
        )
    return distributions.FloatDistribution(
        dimension.low, dimension.high, log=dimension.log, step=step
    )


def _suggested(trial: optuna.Trial, dimension: Dimension) -> Any:
    name = dimension.path
    if dimension.kind == "choice":
        chosen = trial.suggest_categorical(name, [_category(one) for one in dimension.choices])
        return next(one for one in dimension.choices if _category(one) == chosen)
    step = None if dimension.log else dimension.step
    if dimension.kind == "int":
        low, high = int(dimension.low), int(dimension.high)
        return trial.suggest_int(name, low, high, step=int(step or 1), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, step=step, log=dimension.log)


def _category(value: Any) -> Any:
    """A value as Optuna takes it: a list, which it does not take, as its JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _plain(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(point), sort_keys=True)
