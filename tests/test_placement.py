"""Does every task start, on a worker that has room, and no large one wait behind small ones?"""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweepctl.cluster import Node
from sweepctl.cluster._slots import Devices, GpusTaken
from sweepctl.execute._placement import Busy, Waiting, next_start


def simulate(
    slots: list[int], tasks: list[tuple[int, float]], *, known: bool
) -> tuple[list[float], list[float]]:
    """Start and end of each task, all ready at 0, in their order.

    Args:
        slots: of each worker.
        tasks: ranks and seconds of each.
        known: whether the seconds are known beforehand.
    """
    now = 0.0
    starts, ends = [math.nan] * len(tasks), [math.inf] * len(tasks)
    waiting = list(range(len(tasks)))
    running: dict[int, int] = {}  # task -> worker
    while waiting or running:
        while True:
            used: dict[int, int] = defaultdict(int)
            busy: dict[str, list[Busy]] = defaultdict(list)
            for task, node in running.items():
                used[node] += tasks[task][0]
                rest = ends[task] - now if known else None
                busy[str(node)].append(Busy(ranks=tasks[task][0], rest_s=rest))
            nodes = [
                Node(name=str(n), slots=count, free=count - used[n], most=count)
                for n, count in enumerate(slots)
            ]
            assert all(node.free >= 0 for node in nodes), "oversubscribed"
            queue = [
                Waiting(name=str(t), ranks=tasks[t][0], seconds=tasks[t][1] if known else None)
                for t in waiting
            ]
            start = next_start(queue, nodes, busy)
            if start is None:
                break
            task, node = map(int, start)
            assert tasks[task][0] <= nodes[node].free
            waiting.remove(task)
            running[task] = node
            starts[task], ends[task] = now, now + tasks[task][1]
        if not running:
            break
        now = min(ends[task] for task in running)
        running = {task: node for task, node in running.items() if ends[task] > now}
    return starts, ends


WORKERS = st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3)
TASKS = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, 2, 4, 8]), st.integers(1, 9).map(float)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=50, deadline=None)
@given(slots=WORKERS, tasks=TASKS, known=st.booleans())
def test_what_can_be_placed_ends(
    slots: list[int], tasks: list[tuple[int, float]], known: bool
) -> None:
    starts, _ = simulate(slots, tasks, known=known)
    for (ranks, _), start in zip(tasks, starts, strict=True):
        assert math.isnan(start) == (ranks > max(slots))


@settings(max_examples=50, deadline=None)
@given(slots=WORKERS, tasks=TASKS, known=st.booleans())
def test_the_first_in_order_waits_for_no_task_behind_it(
    slots: list[int], tasks: list[tuple[int, float]], known: bool
) -> None:
    """Without those behind it, the first task that waits would not have started earlier."""
    starts, _ = simulate(slots, tasks, known=known)
    first = next((n for n, start in enumerate(starts) if start > 0), None)
    if first is None or (not known and len(slots) > 1):
        return  # several workers, and no time known: the one that is kept may not be the soonest
    alone, _ = simulate(slots, tasks[: first + 1], known=known)
    assert starts[first] <= alone[first]


def test_small_tasks_never_keep_a_large_one_waiting() -> None:
    small = [(1, 2.0 + n % 3) for n in range(200)]
    for known in (True, False):
        starts, _ = simulate([4], [(1, 3.0), (4, 5.0), *small], known=known)
        assert starts[1] == 3.0


def test_small_tasks_fill_what_a_large_one_leaves() -> None:
    # The large one needs all four at 9; three slots are free until then.
    starts, _ = simulate([4], [(1, 9.0), (4, 1.0), (1, 9.0), (1, 9.5), (2, 4.0)], known=True)
    assert starts == [0.0, 9.0, 0.0, 10.0, 0.0]
    # It needs two of four, so one more may take any time.
    starts, _ = simulate([4], [(1, 2.0), (2, 9.0), (1, 99.0), (2, 1.0)], known=True)
    assert starts[:3] == [0.0, 0.0, 0.0]


def test_whole_workers_are_left_to_large_tasks() -> None:
    starts, _ = simulate([4, 2], [(2, 9.0), (4, 1.0)], known=False)
    assert starts == [0.0, 0.0]


def test_gpus_are_given_to_one_attempt_at_a_time() -> None:
    gpus = Devices(("a", "b", "c"), 3)
    with gpus.taken(2, lambda: False) as two, gpus.taken(1, lambda: False) as one:
        assert {*two, *one} == {"a", "b", "c"}
        with pytest.raises(GpusTaken, match="stopped"), gpus.taken(1, lambda: True):
            pass
    with pytest.raises(GpusTaken, match="4 GPUs are needed, and the worker has 3: a, b, c"):
        gpus.taken(4, lambda: False).__enter__()
    with gpus.taken(3, lambda: False) as three:
        assert set(three) == {"a", "b", "c"}
    shared = Devices(("a", "b"), 4)  # more slots than GPUs: two attempts on each
    with shared.taken(1, lambda: False) as one, shared.taken(1, lambda: False) as other:
        assert {*one, *other} == {"a", "b"}
        with shared.taken(2, lambda: False) as two:
            assert set(two) == {"a", "b"}
    with Devices((), 4).taken(4, lambda: False) as none:
        assert none == ()
