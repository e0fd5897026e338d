"""How many processes does each task of a run get, and is there a worker that has room for them?"""

from __future__ import annotations

from collections.abc import Callable, Collection

from sweepctl.cluster import Pool
from sweepctl.errors import StudyError
from sweepctl.execute._placement import Waiting
from sweepctl.execute._settings import Settings
from sweepctl.plan import Calibration, Plan, Task, check_room, gpus_of


class Ranks:
    """Ranks of tasks, by what the study needs and the workers have.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._one_gpu = settings.device.startswith("cuda:")
        self._known: dict[str, int] = {}
        self._most: int | None = None
        self._told = False

    def of(self, task: Task, calibration: Calibration) -> int:
        """Ranks of a task; settled when first asked for, so that it is placed as such."""
        if task.fingerprint not in self._known:
            needs = self._settings.needs
            self._known[task.fingerprint] = gpus_of(task, needs, calibration, self._most)
        return self._known[task.fingerprint]

    def waiting(self, task: Task, calibration: Calibration) -> Waiting:
        """A task with its ranks and how long it will run on so many."""
        expected, ranks = calibration.expect(task.kind, task.cost_left), self.of(task, calibration)
        seconds = None if expected is None else expected.seconds / ranks
        return Waiting(name=task.fingerprint, ranks=ranks, seconds=seconds)

    def of_the_rest(
        self, plan: Plan, done: Collection[str], calibration: Calibration
    ) -> dict[str, int]:
        """Fingerprint -> ranks of the tasks that are not done and get several."""
        if not self._settings.needs:
            return {}
        open_tasks = {name: task for name, task in plan.tasks.items() if name not in done}
        found = {name: self.of(task, calibration) for name, task in open_tasks.items()}
        return {name: ranks for name, ranks in found.items() if ranks > 1}

    def check_room(
        self,
        pool: Pool,
        plan: Plan,
        done: Collection[str],
        calibration: Calibration,
        notice: Callable[[str], None],
    ) -> None:
        """Refuse what no worker has slots for; where workers may still join, say so once instead.

        Raises:
            StudyError: naming all such tasks.
        """
        nodes = pool.room()
        if not nodes:
            return
        most = 1 if self._one_gpu else max(node.most for node in nodes)
        if most != self._most:
            self._most = most
            self._known.clear()
        try:
            needed = self.of_the_rest(plan, done, calibration)
            check_room([plan], needed, most, self._in_words(most), "GPUs or slots")
        except StudyError as error:
            if not pool.grows or self._one_gpu:
                raise
            if not self._told:
                self._told = True
                for problem in error.problems:
                    notice(f"waiting for a larger worker: {problem.message}")

    def _in_words(self, most: int) -> str:
        where = self._settings.where
        if self._one_gpu:
            return f"{self._settings.device} is one: take --device cuda"
        if where == "inline":
            return "an attempt in this process has one: take --cluster local"
        more = ": give more --workers, or fewer gpus" if where == "local" else ""
        return f"the largest worker has {most}{more}"
