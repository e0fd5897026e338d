"""The driver's loop: sync with the ledger, submit what is ready, record what ended, repeat."""

from __future__ import annotations

import bisect
import heapq
import json
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from sweepctl import runs
from sweepctl.cluster import Pool, open_pool
from sweepctl.errors import RunFolderError
from sweepctl.execute._placement import Busy, next_start, order
from sweepctl.execute._ranks import Ranks
from sweepctl.execute._ready import check_disk, require_ready
from sweepctl.execute._searching import Searching
from sweepctl.execute._settings import RunSummary, Settings, Watcher
from sweepctl.ledger import AttemptProgress, Ledger
from sweepctl.plan import Calibration, Open, Plan, Task, configuration, time_left
from sweepctl.runs import FAILURES, NOT_ITS_FAULT, AttemptOutcome, AttemptRequest, TaskResult
from vitok_core.files import remove_unfinished

FAST_FAILURE_S = 10.0
FAST_FAILURES_STOP = 5
"""So many failures in a row, each faster than this, stop the study: it is not the tasks."""

PROGRESS_S = 2.0
"""Seconds between looks at the event files of running attempts."""

EXPECT_S = 10.0
"""Seconds between two estimates of the time that is left."""

SWEPT_WHOLE = 2_000
"""Entries of a run folder up to which all of it is searched for temporary files at the start."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """An attempt in flight: its task, its number, where it runs and what was last heard of it."""

    task: Task
    attempt: int
    events: Path
    node: str
    ranks: int
    ends_at: float | None
    seen: dict[str, Any] | None = field(default=None)

    def rest_s(self, now: float) -> float | None:
        """Seconds until it ends, as it says itself, else as was expected; None for unknown."""
        if self.seen is not None and self.seen.get("eta_s") is not None:
            return float(self.seen["eta_s"])
        return None if self.ends_at is None else max(0.0, self.ends_at - now)


class Driver:
    """One run of one plan."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        settings: Settings,
        watcher: Watcher,
        provenance: Mapping[str, Any],
        searching: Searching | None = None,
    ) -> None:
        self.plan = plan
        self.searching = searching
        self.news = True
        self.ledger = ledger
        self.settings = settings
        self.watcher = watcher
        self.provenance = provenance
        self.done: set[str] = set()
        self.failed: dict[str, tuple[str, str, str, str]] = {}
        self.finished = 0
        self.adopted = 0
        self.tries: dict[str, int] = defaultdict(int)
        self.unmet: dict[str, int] = {}
        self.children: dict[str, list[str]] = defaultdict(list)
        self.ready: list[tuple[int, int, str]] = []  # sorted; the first goes first
        self.ranks = Ranks(settings)
        self.later: list[tuple[float, str]] = []
        self.running: dict[str, _Running] = {}
        self.fast_failures = 0
        self.signals: list[int] = []
        self.told = 0
        self.closing = False
        self.calibration = Calibration()
        self.calibrate_from_s = 0.0
        self.calibrated_with = -1
        self.expected_at_s = -EXPECT_S

    # -- before the loop -----------------------------------------------------------------------

    def run(self) -> RunSummary:
        started = time.monotonic()
        self._sync_with_ledger(self.plan.tasks, at_start=True)
        done_before = len(self.done)
        self.watcher.started(len(self.plan.tasks), done_before)
        self._search_on()
        if self.ready:
            self._work()
        blocked = sum(
            1
            for name in self.plan.tasks
            if name not in self.done and name not in self.failed and self._waits_for_failed(name)
        )
        return RunSummary(
            study=self.plan.study_name,
            tasks=len(self.plan.tasks),
            done_before=done_before,
            adopted=self.adopted,
            finished=self.finished,
            failed=tuple(self.failed.values()),
            blocked=blocked,
            stopped_by=self.signals[0] if self.signals else None,
            seconds=time.monotonic() - started,
        )

    def _sync_with_ledger(self, tasks: Mapping[str, Task], *, at_start: bool = False) -> None:
        """Find out what is done of some tasks of the plan, adopt results, and what can start."""
        states = self.ledger.tasks.states(list(tasks))
        open_tasks = [
            task
            for name, task in tasks.items()
            if name not in states or states[name].state != "done"
        ]
        self.done |= tasks.keys() - {task.fingerprint for task in open_tasks}
        there = _names_in(self.settings.folder) if open_tasks else set()
        if at_start:
            self._remove_unfinished(task.id for task in open_tasks if task.id in there)
        adopted = 0
        for task in open_tasks:
            if task.id not in there:
                continue
            result = runs.read_result(self._folder(task), task.fingerprint)
            if result is not None and self.ledger.attempts.adopt(task.fingerprint, result):
                adopted += 1
                self.done.add(task.fingerprint)
        if adopted:
            self.adopted += adopted
            self.watcher.notice(f"reusing {adopted} results found in the run folder")
        if at_start:
            lost = self.ledger.attempts.lose_running(logs_under=self.settings.folder.resolve())
            if lost:
                said = f"{len(lost)} interrupted attempts will be resumed"
                self.watcher.notice(said)
        again = [
            name
            for name, state in states.items()
            if state.state == "failed" and name not in self.done and state.failure in NOT_ITS_FAULT
        ]
        if again:
            self.ledger.tasks.reset(again)
        for name, state in states.items():
            if state.state == "failed" and name not in self.done and name not in again:
                self._note_failure(
                    self.plan.tasks[name], state.attempts, state.failure or "error", state.message
                )
        self._find_ready([*self._restore_missing_parents(list(tasks)), *tasks])

    def _remove_unfinished(self, open_tasks: Iterable[str]) -> None:
        """Remove temporary files that killed processes have left in the run folder."""
        folder = self.settings.folder
        if len(_names_in(folder)) <= SWEPT_WHOLE:
            remove_unfinished(folder)
        else:  # to look everywhere would be felt, and what is done has left nothing
            for name in open_tasks:
                remove_unfinished(folder / name)

    def _restore_missing_parents(self, names: list[str]) -> list[str]:
        """Run a done task again when one of these that needs its files would not find them.

        Returns:
            Those to run again that are none of the names.
        """
        mine, whole = set(names), set[str]()
        again: list[str] = []
        todo = list(names)  # the last first: children before parents
        while todo:
            name = todo.pop()
            if name in self.done:
                continue
            for _, parent in self.plan.tasks[name].parents:
                if parent not in self.done or parent in whole:
                    continue
                whole.add(parent)
                task = self.plan.tasks[parent]
                if runs.read_result(self._folder(task), parent) is None:
                    self.done.discard(parent)
                    self.ledger.tasks.reset([parent], done=True)
                    self.watcher.notice(f"{task.id} is recorded as done but its files are gone")
                    if parent not in mine:
                        again.append(parent)
                        todo.append(parent)
        return again

    def _find_ready(self, names: Iterable[str]) -> None:
        for name in names:
            task = self.plan.tasks[name]
            if name in self.done:
                continue
            unmet = 0
            for _, parent in task.parents:
                if parent not in self.done:
                    unmet += 1
                    self.children[parent].append(name)
            self.unmet[name] = unmet
            if unmet == 0 and name not in self.failed:
                self._make_ready(task)

    def _make_ready(self, task: Task) -> None:
        """Queue a task; among equals the longest first, so that no slot waits for it at the end."""
        bisect.insort(self.ready, order(task))

    def _search_on(self) -> None:
        """Let a search ask what it may, now that something has ended."""
        if self.searching is None or self.closing or not self.news:
            return
        self.news = False
        for plan in self.searching.more(self.done, self._is_hopeless, self.watcher.notice):
            tasks = {name: task for name, task in plan.tasks.items() if name not in self.plan.tasks}
            self.plan = replace(
                self.plan,
                cells=tuple({cell.key: cell for cell in (*self.plan.cells, *plan.cells)}.values()),
                tasks={**self.plan.tasks, **tasks},
            )
            self._sync_with_ledger(tasks)
            self.watcher.grown(len(self.plan.tasks), len(self.done))

    def _is_hopeless(self, name: str) -> bool:
        """Whether a task has failed for good, or waits for one that has."""
        return name in self.failed or (name not in self.done and self._waits_for_failed(name))

    # -- the loop ------------------------------------------------------------------------------

    def _work(self) -> None:
        settings = self.settings
        needed = self.ranks.of_the_rest(self.plan, self.done, self._calibration())
        pool = open_pool(
            settings.where,
            workers=settings.workers,
            threads=settings.threads,
            entry=settings.entry,
            preload=settings.preload,
            grace_s=settings.grace_s,
            # A device with a number is taken as it is; otherwise each rank gets a GPU of its own.
            gpus=settings.device in ("auto", "cuda"),
            ranks=max(needed.values(), default=1),
        )
        # The pool is closed while signals are held: Ctrl-C must not end that halfway.
        with self._signals(pool), pool:
            for notice in pool.notices:
                self.watcher.notice(notice)
            self._check_room(pool)
            require_ready(pool, settings, self.plan, self.watcher.notice)
            self._loop(pool)

    def _loop(self, pool: Pool) -> None:
        looked = time.monotonic()
        while True:
            self._tell_of_signals()
            self._wake_retries()
            self._search_on()
            while self.ready and not self.closing and (start := self._next_start(pool)):
                self._submit(pool, *start)
            if not self.running and (self.closing or not (self.ready or self.later)):
                return
            if not self.running and self.ready:
                self._check_room(pool)
            for outcome in pool.completed(timeout_s=self._patience()):
                self._tell_of_signals()  # before what they have brought about
                self._record(outcome)
            if time.monotonic() - looked >= PROGRESS_S:
                looked = time.monotonic()
                self._look_at_progress()
                self._estimate(pool.slots)

    # -- placement -----------------------------------------------------------------------------

    def _check_room(self, pool: Pool) -> None:
        calibration = self._calibration()
        self.ranks.check_room(pool, self.plan, self.done, calibration, self.watcher.notice)

    def _next_start(self, pool: Pool) -> tuple[str, str] | None:
        """The task to start next and the worker to start it on, None where nothing can."""
        nodes = pool.room()
        if all(node.free == 0 for node in nodes):
            return None
        calibration, now = self._calibration(), time.monotonic()
        running: dict[str, list[Busy]] = defaultdict(list)
        for flight in self.running.values():
            running[flight.node].append(Busy(ranks=flight.ranks, rest_s=flight.rest_s(now)))

        tasks = (self.plan.tasks[name] for *_, name in self.ready)
        waiting = (self.ranks.waiting(task, calibration) for task in tasks)
        return next_start(waiting, nodes, running)

    def _patience(self) -> float:
        """Seconds until something has to be looked at even if no attempt ends."""
        if not self.later:
            return 1.0
        return min(1.0, max(0.01, self.later[0][0] - time.monotonic()))

    def _wake_retries(self) -> None:
        while self.later and self.later[0][0] <= time.monotonic():
            _, name = heapq.heappop(self.later)
            self._make_ready(self.plan.tasks[name])

    def _submit(self, pool: Pool, name: str, node: str) -> None:
        task = self.plan.tasks[name]
        del self.ready[bisect.bisect_left(self.ready, order(task))]
        folder = self._folder(task)
        check_disk(self.settings.folder, task)
        self._freeze(task, folder)
        start = self.ranks.waiting(task, self._calibration())
        attempt = self.ledger.attempts.start(
            name,
            host=socket.gethostname(),
            predicted_s=start.seconds,
            folder=folder,
            provenance={**self.provenance, "ranks": start.ranks},
        )
        if attempt is None:
            # Another driver with a run folder of its own has it in the same database.
            self.watcher.notice(f"{task.id} is being run by another driver; run again later")
            return
        log = runs.attempt_folder(folder, attempt)
        log.mkdir(parents=True, exist_ok=True)
        self.running[task.id] = _Running(
            task=task,
            attempt=attempt,
            events=log / "events.jsonl",
            node=node,
            ranks=start.ranks,
            ends_at=None if start.seconds is None else time.monotonic() + start.seconds,
        )
        micro_batch, recompute = self.settings.memory.get(task.kind, ("auto", "auto"))
        pool.submit(
            AttemptRequest(
                task_id=task.id,
                kind=task.kind,
                folder=str(folder),
                attempt=attempt,
                threads=self.settings.threads,
                checkpoint_s=self.settings.checkpoint_s,
                skip_non_finite=self.settings.skip_non_finite,
                timeout_s=self.settings.timeout_s,
                micro_batch=micro_batch,
                recompute=recompute,
                deterministic=self.settings.deterministic,
                device=self.settings.device,
                fitted=self._fitted(task),
                decoders=self.settings.decoders,
                ranks=start.ranks,
            ),
            node,
        )
        self.watcher.submitted(task, attempt)

    def _fitted(self, task: Task) -> tuple[dict[str, Any], ...]:
        """What is known of how trainings like this one fitted devices, as plain data."""
        key = configuration(task)
        if key is None:
            return ()
        return tuple(asdict(one) for one in self.ledger.fitted.of([key]).get(key, ()))

    def _keep_fitted(self, task: Task) -> None:
        """Keep what a training, finished or not, has found out about memory."""
        key = configuration(task)
        found = None if key is None else runs.read_fitted(self._folder(task))
        if key is not None and found is not None:
            self.ledger.fitted.keep(task.fingerprint, key, found)

    def _freeze(self, task: Task, folder: Path) -> None:
        """Write task.json once; what a task is never changes after its first submission.

        What it resumes from is not part of that, and may.
        """
        path = folder / "task.json"
        continues = {"continues": [name for name, _ in task.continues]} if task.continues else {}
        if path.exists():
            try:
                known = runs.read_json(path)
                same = known.get("continues", []) == continues.get("continues", [])
                if known.get("fingerprint") == task.fingerprint and same:
                    return
            except (RunFolderError, AttributeError):
                pass  # damaged: the plan knows what belongs there
        parents = {role: self.plan.tasks[parent].id for role, parent in task.parents}
        runs.write_json(
            path,
            {
                "fingerprint": task.fingerprint,
                "kind": task.kind,
                "label": task.label,
                "study": self.plan.study_name,
                "identity": json.loads(task.identity),
                "parents": parents,
                "cost": {"flops": task.cost.flops},
                **continues,
            },
        )

    def _record(self, outcome: AttemptOutcome) -> None:
        """Write down how an attempt ended and decide what follows from it."""
        flight = self.running.pop(outcome.task_id)
        self.news = True
        task, name = flight.task, flight.task.fingerprint
        result: TaskResult | None = None
        if outcome.state == "done":
            result = runs.read_result(self._folder(task), name)
            if result is None:
                outcome = replace(
                    outcome,
                    state="failed",
                    failure="error",
                    message="the attempt said it was done but left no whole result.json",
                )
        pause = self._retry_pause(name, outcome)
        retry = pause is not None or outcome.state == "stopped"
        self.ledger.attempts.finish(outcome, result, retry=retry)
        self._keep_fitted(task)
        if outcome.state == "done":
            self.finished += 1
            self.fast_failures = 0
            self.done.add(name)
            for child in self.children[name]:
                self.unmet[child] -= 1
                if self.unmet[child] == 0 and child not in self.failed:
                    self._make_ready(self.plan.tasks[child])
        elif outcome.state == "failed":
            self._count_failure(task, outcome, pause)
        elif not self.closing:
            # Stopped by somebody else, a signal to its process perhaps: no failure, so it resumes.
            again_at = time.monotonic() + self.settings.backoff_s
            heapq.heappush(self.later, (again_at, name))
        self.watcher.ended(task, outcome, retry_in_s=pause)

    def _retry_pause(self, name: str, outcome: AttemptOutcome) -> float | None:
        """Seconds until the next attempt, or None when there is to be none."""
        if outcome.failure is None or not FAILURES[outcome.failure].is_retried or self.closing:
            return None
        self.tries[name] += 1
        if self.tries[name] > self.settings.retries:
            return None
        return float(min(60.0, self.settings.backoff_s * 2 ** (self.tries[name] - 1)))

    def _count_failure(self, task: Task, outcome: AttemptOutcome, pause: float | None) -> None:
        if pause is not None:
            heapq.heappush(self.later, (time.monotonic() + pause, task.fingerprint))
        else:
            self._note_failure(task, outcome.attempt, outcome.failure or "error", outcome.message)
            if self.settings.fail_fast and not self.closing:
                self.closing = True
                self.watcher.notice("a task failed and --fail-fast was given: nothing new starts")
        fast = outcome.seconds < FAST_FAILURE_S
        self.fast_failures = self.fast_failures + 1 if fast else 0
        if self.fast_failures >= FAST_FAILURES_STOP and not self.closing:
            self.closing = True
            self.watcher.notice(
                f"{self.fast_failures} attempts in a row failed within {FAST_FAILURE_S:.0f} s: "
                "the study is stopped"
            )

    def _note_failure(self, task: Task, attempt: int, failure: str, message: str) -> None:
        log = runs.attempt_folder(self._folder(task), max(1, attempt)) / "log.txt"
        self.failed[task.fingerprint] = (task.id, failure, message, str(log))

    def _waits_for_failed(self, name: str) -> bool:
        todo, seen = [name], set()
        while todo:
            for _, parent in self.plan.tasks[todo.pop()].parents:
                if parent in self.failed:
                    return True
                if parent not in self.done and parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        return False

    def _look_at_progress(self) -> None:
        """Pass on the newest event of each running attempt."""
        fresh = []
        for flight in self.running.values():
            event = runs.last_event(flight.events)
            if event is not None and event != flight.seen:
                flight.seen = event
                fresh.append(
                    AttemptProgress(
                        fingerprint=flight.task.fingerprint,
                        attempt=flight.attempt,
                        step=int(event.get("step", 0)),
                        steps=int(event.get("steps", 0)),
                        loss=event.get("loss"),
                    )
                )
                self.watcher.progress(flight.task, event)
        if fresh:
            self.ledger.attempts.progress(fresh)
        if self.running:
            self.watcher.alive()

    def _calibration(self) -> Calibration:
        """Speeds of finished tasks, read again when some have ended and it costs little."""
        now = time.monotonic()
        if self.calibrated_with == self.finished or now < self.calibrate_from_s:
            return self.calibration
        self.calibration = Calibration(self.ledger.tasks.speeds())
        self.calibrated_with = self.finished
        ended = time.monotonic()
        # Never more than a twentieth of the driver's time.
        self.calibrate_from_s = ended + 20 * (ended - now)
        return self.calibration

    def _estimate(self, slots: int) -> None:
        """Tell how long it will take, by what has ended so far."""
        if time.monotonic() - self.expected_at_s < EXPECT_S:
            return
        self.expected_at_s = time.monotonic()
        flights = {flight.task.fingerprint: flight for flight in self.running.values()}
        rest: dict[str, Open] = {}
        blocked: set[str] = set()
        for name, task in self.plan.tasks.items():  # parents come first
            if name in self.done:
                continue
            if name in self.failed or any(parent in blocked for _, parent in task.parents):
                blocked.add(name)
                continue
            flight = flights.get(name)
            event = (flight.seen if flight else None) or {}
            rest[name] = Open(
                kind=task.kind,
                cost=task.cost_left,
                parents=tuple(parent for _, parent in task.parents),
                running=flight is not None,
                fraction=event["step"] / event["steps"] if event.get("steps") else 0.0,
                rest_s=event.get("eta_s"),
                gpus=flight.ranks if flight else self.ranks.of(task, self._calibration()),
            )
        self.watcher.left(time_left(rest, self._calibration(), slots))

    # -- signals -------------------------------------------------------------------------------

    @contextmanager
    def _signals(self, pool: Pool) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a stop of the pool instead of dying by them.

        The pool is stopped by the handler itself, because an inline pool runs its attempt in this
        very thread; what there is to say about it is said by the loop.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            self.signals.append(number)
            self.closing = True
            pool.stop(hard=len(self.signals) > 1)

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, stop)
        except ValueError:
            pass  # not the main thread: whoever runs us there handles signals
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tell_of_signals(self) -> None:
        for count in range(self.told + 1, len(self.signals) + 1):
            attempts = f"{len(self.running)} attempt{'' if len(self.running) == 1 else 's'}"
            self.watcher.notice(
                f"stopping: {attempts} told to write a checkpoint and end; once more kills"
                if count == 1
                else "killing what still runs"
            )
        self.told = len(self.signals)

    def _folder(self, task: Task) -> Path:
        return self.settings.folder.resolve() / task.id


def _names_in(folder: Path) -> set[str]:
    """Names of the task folders that exist; one listing instead of a stat for every task."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise RunFolderError(f"cannot read {folder}: {error.strerror}") from error
