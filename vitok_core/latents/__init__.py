"""The codes that a generator learns from: the posteriors of a data set, computed once, on disk.

Encoding a sample costs as much as a training step of a small generator, and a tokenizer does not
change any more; so the posterior of every sample is computed once and mapped into memory. Stored
are its parameters, mean and log-variance, not a draw from it: every epoch draws again.
With mirroring, the mirrored samples are encoded too and follow the others.

    mean.npy             float32, or the bits of bfloat16, (N or 2N, L, c)
    logvar.npy           the same; absent for tokenizers whose code is not random
    labels.npy           int64 (N,)
    weights.safetensors  the tokenizer, with the statistics of exactly these codes inside

Generators are trained on normalised codes. The statistics that normalise them are those of DRAWN
codes, not of means: the variance of a channel is var(mean) + mean(posterior variance), over samples
and tokens, in float64, of what is stored. They live inside the tokenizer's file, where decoding
finds them: codes that are normalised for training and decoded as they are give noise.

Writing needs memory for one batch only, whatever the number of samples. On request an interrupted
computation can be resumed: what was written stays under a hidden name, with the statistics so far,
and the same batches follow, so that the files are the same byte for byte.

    _compute     encode everything, once
    _posteriors  the files, written batch by batch in order
    _statistics  mean and variance of drawn codes
    _stored      float32 or bfloat16 on disk
    _part        files that are whole, or can be resumed
    _read        what a generator is trained on
"""

from __future__ import annotations

from vitok_core.latents._compute import LatentsInfo, compute_latents
from vitok_core.latents._part import PROGRESS_FILE
from vitok_core.latents._read import Latents, LatentSet, open_latents

__all__ = [
    "PROGRESS_FILE",
    "LatentSet",
    "Latents",
    "LatentsInfo",
    "compute_latents",
    "open_latents",
]
