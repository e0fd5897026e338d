"""What does one task do? One function a kind; the only bridge to vitok_core.

A kind's function reads nothing but its task and its parents' files, so the numbers cannot depend on
who runs it, where, or how often it was interrupted.

    _prepare    prepare, reference, latents: what others begin from
    _train      stage1, stage2, dit: training, or going on with it
    _measure    reconstruct, generate: metrics
    _work       what goes into a kind's function and comes out of it
    _attempt    one attempt in a child process, by class of failure
    _device     the device of an attempt, which must be usable
    _gang       the same attempt in several processes
    _software   the code and versions that made the numbers

Nothing heavy is imported with this package.
"""

from __future__ import annotations

from sweepctl.tasks._attempt import TASKS, preload, run
from sweepctl.tasks._software import code_hash, software, versions
from sweepctl.tasks._work import Made, Work

__all__ = ["TASKS", "Made", "Work", "code_hash", "preload", "run", "software", "versions"]
