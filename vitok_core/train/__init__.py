"""Training: one flat loop per stage, resumable to the byte, in any number of processes.

Everything random is a function of (seed, step): which samples, which are mirrored, the noise. A
checkpoint is therefore weights, optimisers, averages, history and one integer, and a training that
was stopped or killed at any step ends with the same bytes of weights as one that was not (same
machine, same thread and process count, deterministic kernels chosen by the caller).

    _stage1         a tokenizer by pixel, KL and perceptual losses
    _stage2         its decoder against a discriminator
    _discriminator  the discriminator's side of that, and when it has collapsed
    _dit            a generator of codes, over latents that were computed before
    _loop           what these loops share: resume, stop, checkpoints, progress, the result
    _optimise       AdamW, schedule, guard against what is not finite, average, random streams
    _batches        the samples of a step, read ahead
    _parallel       several processes and micro-batches, the same global batch
    _room           how many samples are in memory together
    _guard          what is not finite changes nothing, and nobody waits for the device
    _checkpoints    exact resume, written while training continues; damaged files are set aside
    _history        the terms of every step and their file, loss spikes
    _progress       records of progress and result
    _speed          share of the peak, memory
    _grids          sample grids during training, as PNG

Settings of the whole process (threads, deterministic algorithms, TF32) are the caller's.
"""

from vitok_core.ranks import distributed, world
from vitok_core.train._checkpoints import discard_checkpoints, link_checkpoint
from vitok_core.train._dit import DiTResult, train_dit
from vitok_core.train._loop import SKIPPED
from vitok_core.train._progress import Event, TrainingProgress, TrainingResult
from vitok_core.train._stage1 import Stage1Result, train_stage1
from vitok_core.train._stage2 import Stage2Result, train_stage2

__all__ = [
    "SKIPPED",
    "DiTResult",
    "Event",
    "Stage1Result",
    "Stage2Result",
    "TrainingProgress",
    "TrainingResult",
    "discard_checkpoints",
    "distributed",
    "link_checkpoint",
    "train_dit",
    "train_stage1",
    "train_stage2",
    "world",
]
