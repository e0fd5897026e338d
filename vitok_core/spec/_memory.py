"""How much memory does a training take on a GPU? What is kept for the backward pass, closed form.

Two kinds of bytes. Fixed ones stand for the whole training: weights, their gradients, the two
moments of AdamW, the average of the weights, frozen networks, and with bf16 a copy of every matrix
for the time of a step. The others grow with the samples that are in memory together: what autograd
keeps of every operation until its backward pass. Those are counted here operation by operation, as
PyTorch keeps them without compilation; tests hold the counts against the tensors that autograd
really saves. Attention keeps its inputs, its output and one number per row and head: no L x L
matrix, because every kernel in use is a fused one.

Under autocast matrix products keep inputs in bfloat16, while norms of CUDA compute in float32 and
keep a float32 copy of their input. Losses keep float32; LPIPS, DINOv2 and the discriminator do,
too, unless they compute in bfloat16.

With recomputation a tower keeps what goes into each block, and the insides of one block at a time.

What no closed form knows is left to one allowance: gradients of activations on their way back,
workspaces of cuDNN and cuBLAS, the CUDA context, and fragments. It was never measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from vitok_core.spec._dit import DiTSpec
from vitok_core.spec._networks import (
    DINO_PATCH,
    DINO_POSITIONS,
    DINO_S14,
    DISCRIMINATOR_LAST,
    LPIPS_LAYERS,
    LpipsTrunk,
    dino_side,
    discriminator_channels,
    discriminator_parameters,
)
from vitok_core.spec._sizes import DIT_SIZES, SIZES, Norm, Size
from vitok_core.spec._tokenizer import IMAGE_CHANNELS, TokenizerSpec
from vitok_core.spec._training import NetworkPrecision, Precision

FLOAT = 4
"""Bytes of a float32 number."""

INDEX = 8
"""Bytes of an index, an int64."""

ALLOWANCE = 0.10
"""Share of the counted bytes that is added for what is not counted."""

FEW_SAMPLES = 8
"""With fewer samples in a micro-batch than this, recomputing activations is the lesser cost."""

RESERVED_BYTES = 1 << 30
"""CUDA context, cuBLAS and cuDNN workspaces of one process: an estimate, never measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of device memory of one process in training.

    Attributes:
        fixed: what does not depend on the batch.
        per_row: of every sample of the process's share of the batch.
        per_sample: of every sample of a micro-batch.
    """

    fixed: int
    per_row: int = 0
    per_sample: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            fixed=self.fixed + other.fixed,
            per_row=self.per_row + other.per_row,
            per_sample=self.per_sample + other.per_sample,
        )

    def bytes(self, rows: int, micro_batch: int) -> int:
        """Bytes at the peak of a step, the allowance and the reserve included.

        Args:
            rows: samples of the process in a step, at least 1.
            micro_batch: of them, those whose gradients are computed together; at most `rows`.
        """
        counted = self.fixed + rows * self.per_row + min(micro_batch, rows) * self.per_sample
        return RESERVED_BYTES + int((1 + ALLOWANCE) * counted)

    def largest_micro_batch(self, rows: int, available_bytes: int) -> int | None:
        """The largest micro-batch that fits, of those that cut `rows` into equal parts.

        Equal parts take the fewest passes for the memory they need, and are compiled once.

        Args:
            rows: samples of the process in a step, at least 1.
            available_bytes: memory of the device that is free before the training begins.

        Returns:
            From 1 to `rows`; None when not even one sample fits.
        """
        for parts in range(1, rows + 1):
            micro_batch = -(-rows // parts)
            if self.bytes(rows, micro_batch) <= available_bytes:
                return micro_batch
        return None


def chosen(
    memory: Callable[[bool], Memory],
    rows: int,
    available_bytes: int,
    *,
    micro_batch: int | None = None,
    recompute: bool | None = None,
) -> tuple[int | None, bool]:
    """What fits a device: samples in memory together, and whether activations are recomputed.

    Args:
        memory: of the training, with and without recomputed activations.
        rows: samples of the process in a step, at least 1.
        available_bytes: memory of the device that is free before the training begins.
        micro_batch: where it is given; None to choose the largest that fits.
        recompute: where it is given; None to recompute where fewer than eight samples fit without.

    Returns:
        The micro-batch, None when not even one sample fits (or not those that are given), and
        whether to recompute.
    """
    wanted = rows if micro_batch is None else min(micro_batch, rows)
    if recompute is None:
        fits = memory(False).largest_micro_batch(wanted, available_bytes) or 0
        recompute = fits < min(FEW_SAMPLES, wanted)
    if micro_batch is None:
        return memory(recompute).largest_micro_batch(rows, available_bytes), recompute
    fits_given = memory(recompute).bytes(rows, wanted) <= available_bytes
    return (wanted if fits_given else None), recompute


def tokenizer_memory(
    spec: TokenizerSpec,
    precision: Precision,
    *,
    averaged: bool,
    recompute: bool = False,
    trains_encoder: bool = True,
) -> Memory:
    """Memory of a tokenizer in training, without its losses.

    Args:
        spec: the tokenizer.
        precision: of its forward and backward pass.
        averaged: whether there is a moving average of its weights.
        recompute: whether blocks are computed again in the backward pass.
        trains_encoder: whether the encoder gets gradients; a frozen one keeps nothing.
    """
    number = _bytes_of(precision)
    pixels = IMAGE_CHANNELS * spec.frames * spec.resolution**2
    sequence = spec.patches + (spec.latent_tokens or 0)
    decoder = SIZES[spec.decoder]
    # What a block takes in is in the products' precision: every sum before it is of such numbers.
    kept = _code_bytes(spec) if trains_encoder else 0
    kept += spec.tokens * spec.c * number
    towers = [(decoder, spec.patches)]
    if trains_encoder:
        kept += spec.patches * spec.tubelet * number
        towers.append((SIZES[spec.encoder], spec.tokens))
    insides = []
    for size, read in towers:
        block = _block_bytes(spec, size, sequence, number)
        insides.append(block)
        kept += size.depth * (sequence * size.width * number if recompute else block)
        # The final norm, and what the projection behind it reads.
        kept += _norm_bytes(spec.norm, size.width, sequence)
        kept += read * size.width * number
    if recompute:
        kept += max(insides)
    trained = spec.parameters if trains_encoder else spec.decoder_parameters
    return Memory(
        fixed=_weights_bytes(spec.parameters, trained, precision, averaged=averaged),
        # Pixels as they come, and the noise of the code.
        per_row=pixels + spec.E * FLOAT,
        # Originals and reconstructions in float32, and their differences.
        per_sample=kept + 3 * pixels * FLOAT,
    )


def dit_memory(
    spec: DiTSpec, precision: Precision, *, averaged: bool, recompute: bool = False
) -> Memory:
    """Memory of a generator of codes in training, its loss included.

    Args:
        spec: the generator.
        precision: of its forward and backward pass.
        averaged: whether there is a moving average of its weights.
        recompute: whether blocks are computed again in the backward pass.
    """
    number = _bytes_of(precision)
    size, tokens = DIT_SIZES[spec.size], spec.tokens
    width = size.width
    # The stream between blocks is float32: the table of positions is added in it.
    block = _attention_bytes(size, tokens, number, "rmsnorm" if spec.qk_norm else None, True)
    block += _mlp_bytes(size, tokens, number)
    # Both halves: the norm's input, what it gives, what the products read, what the gate scales.
    block += tokens * (2 * 2 * FLOAT * width + 2 * 2 * width * number + 4 * FLOAT)
    block += 10 * width * number  # shifts, scales and gates, one each for all tokens
    stream = tokens * width * FLOAT
    kept = size.depth * stream + block if recompute else size.depth * block
    kept += tokens * (2 * FLOAT + number) * width + tokens * (spec.c * number + 2 * FLOAT)
    code = tokens * spec.c * FLOAT
    return Memory(
        fixed=_weights_bytes(spec.parameters, spec.parameters, precision, averaged=averaged),
        per_row=2 * code,
        # Noise, noisy code, target and prediction of the loss.
        per_sample=kept + 4 * code + tokens * spec.outputs * FLOAT,
    )


FRAMES_AT_ONCE = 64
"""Images, or frames of whole clips, that are in memory together where nothing is trained."""


def encoding_memory(spec: TokenizerSpec) -> Memory:
    """Memory of a tokenizer that encodes, in float32 and without gradients.

    The most is there in the MLP of a block: the stream, what goes into the block, its norms, gate
    and up, silu(gate) and the product. Of 1-D codes the tubelets are in the sequence too.
    """
    pixels = IMAGE_CHANNELS * spec.frames * spec.resolution**2
    # Pixels as bytes and as float32.
    per_sample = pixels + FLOAT * (pixels + _tower_numbers(SIZES[spec.encoder], _sequence(spec)))
    return Memory(fixed=FLOAT * spec.parameters, per_sample=per_sample)


def decoding_memory(spec: TokenizerSpec) -> Memory:
    """Memory of a tokenizer that decodes codes, in float32 and without gradients."""
    numbers = spec.E + _tower_numbers(SIZES[spec.decoder], _sequence(spec))
    return Memory(fixed=FLOAT * spec.parameters, per_sample=FLOAT * numbers)


def reconstruction_memory(spec: TokenizerSpec) -> Memory:
    """Memory of a tokenizer that encodes and decodes, without the networks that judge.

    While it decodes, the originals and the moments and draws of the code are there.
    """
    pixels = IMAGE_CHANNELS * spec.frames * spec.resolution**2
    held = pixels + FLOAT * (pixels + 2 * spec.E)
    return Memory(
        fixed=FLOAT * spec.parameters,
        per_sample=max(encoding_memory(spec).per_sample, held + decoding_memory(spec).per_sample),
    )


def sampling_memory(dit: DiTSpec, precision: Precision, *, guided: bool) -> Memory:
    """Memory of a generator that draws codes, without the tokenizer that decodes them.

    Args:
        dit: the generator.
        precision: of its forward passes.
        guided: whether each sample is computed with and without its label, together.
    """
    number, size = _bytes_of(precision), DIT_SIZES[dit.size]
    # The stream stays float32 under autocast, and then the block keeps one tensor less of it.
    stream = FLOAT * size.width * (4 if number == FLOAT else 3)
    block = dit.tokens * (stream + 4 * size.hidden * number) + 12 * size.width * number
    code = FLOAT * dit.tokens * dit.c
    copies = FLOAT if number == FLOAT else FLOAT + number
    return Memory(
        fixed=copies * dit.parameters,
        # The code on its way, its noise, and what is made of the prediction.
        per_sample=(2 if guided else 1) * block + 6 * code,
    )


def _sequence(spec: TokenizerSpec) -> int:
    return spec.patches + (spec.latent_tokens or 0)


def _tower_numbers(size: Size, tokens: int) -> int:
    """The most numbers that a tower holds at once for a sample, without gradients."""
    return tokens * (4 * size.width + 4 * size.hidden)


def discriminator_memory(
    resolution: int, width: float, *, r1: bool, precision: NetworkPrecision = "tf32"
) -> Memory:
    """Memory of the discriminator in training, for samples of one frame.

    Its graphs over the reconstruction and over the real frame are there together.

    Args:
        resolution: side of the frames in pixels.
        width: factor of its channels.
        r1: whether the gradient at the real frame is penalised, and so has a graph of its own.
        precision: of its passes; its weights stay float32.
    """
    parameters = discriminator_parameters(resolution, width)
    kept, gradient = _discriminator_kept(resolution, width)
    numbers = 2 * kept + (gradient if r1 else 0)
    passes: Precision = "bf16" if precision == "bf16" else "fp32"
    return Memory(
        fixed=_weights_bytes(parameters, parameters, passes, averaged=False),
        per_sample=_bytes_of(precision) * numbers,
    )


@lru_cache(maxsize=256)
def lpips_memory(net: LpipsTrunk, side: int, precision: NetworkPrecision = "tf32") -> Memory:
    """Memory of LPIPS for one pair of frames, with the gradient of the first."""
    numbers, channels, parameters, indices = IMAGE_CHANNELS * side**2, IMAGE_CHANNELS, 0, 0
    for layer in LPIPS_LAYERS[net]:
        if not layer:
            parameters += channels
            # Compared: the features divided by their length, and their difference; both lengths.
            numbers += 2 * channels * side**2 + 2 * side**2
        elif len(layer) == 2:
            kernel, stride = layer
            side = (side - kernel) // stride + 1
            numbers += channels * side**2  # the largest of each window, and where
            indices += channels * side**2
        else:
            kernel, stride, padding, outputs = layer
            side = (side + 2 * padding - kernel) // stride + 1
            parameters += (kernel**2 * channels + 1) * outputs
            numbers += outputs * side**2
            channels = outputs
    number = _bytes_of(precision)
    return Memory(fixed=number * parameters, per_sample=number * numbers + INDEX * indices)


def ssim_memory(side: int, window: int) -> Memory:
    """Memory of 1 - SSIM for one pair of frames: images, their moments, five filtered ones.

    Args:
        side: of the frames in pixels.
        window: side of the Gaussian window in pixels.
    """
    padded = side + window - 1
    numbers = IMAGE_CHANNELS * (14 * side**2 + 7 * padded**2)
    return Memory(fixed=0, per_sample=FLOAT * numbers)


@lru_cache(maxsize=256)
def dino_memory(side: int, precision: NetworkPrecision = "tf32") -> Memory:
    """Memory of DINOv2 ViT-S/14 for one frame and its original, with the gradient of the frame.

    Its weights are frozen, so products keep nothing; norms, attention, GELU and the scales of the
    residual branches do.
    """
    width, depth = DINO_S14
    tokens = (dino_side(side) // DINO_PATCH) ** 2 + 1
    hidden = 4 * width
    block = 2 * width + 4 * width + hidden
    numbers = tokens * (depth * block + 3 * width)
    parameters = depth * (12 * width + 15) * width
    parameters += (IMAGE_CHANNELS * DINO_PATCH**2 + DINO_POSITIONS + 4) * width
    number = _bytes_of(precision)
    return Memory(fixed=number * parameters, per_sample=number * numbers)


@lru_cache(maxsize=256)
def _discriminator_kept(resolution: int, width: float) -> tuple[int, int]:
    """Numbers that one pass over one frame keeps, and that the graph of its gradient keeps."""
    channels, side = discriminator_channels(resolution, width), resolution
    numbers, gradient = 2 * channels * side**2, channels * side**2
    while side > DISCRIMINATOR_LAST:
        half = side // 2
        out = discriminator_channels(half, width)
        behind = (3 * out + channels) * half**2
        numbers, gradient = numbers + 2 * out * side**2 + behind, gradient + out * side**2 + behind
        channels, side = out, half
    hidden = discriminator_channels(DISCRIMINATOR_LAST, width)
    return numbers + 2 * channels * side**2 + 2 * hidden, gradient


def _bytes_of(precision: NetworkPrecision) -> int:
    return 2 if precision == "bf16" else FLOAT


def _weights_bytes(parameters: int, trained: int, precision: Precision, *, averaged: bool) -> int:
    """Weights, gradients, two moments, the average, copies in bf16."""
    numbers = parameters + 3 * trained + (parameters if averaged else 0)
    return FLOAT * numbers + (_bytes_of(precision) * parameters if precision == "bf16" else 0)


def _code_bytes(spec: TokenizerSpec) -> int:
    """Between the towers: moments, the drawn code, the terms of the KL."""
    drawn = 8 if spec.bottleneck == "kl" else 2
    return FLOAT * drawn * spec.E


def _block_bytes(spec: TokenizerSpec, size: Size, tokens: int, number: int) -> int:
    norm = spec.norm if spec.qk_norm else None
    rotated = spec.positions in ("axial", "1d")
    kept = 2 * _norm_bytes(spec.norm, size.width, tokens) + 2 * tokens * size.width * number
    kept += _attention_bytes(size, tokens, number, norm, rotated)
    return kept + _mlp_bytes(size, tokens, number)


def _norm_bytes(norm: Norm, width: int, tokens: int) -> int:
    """A norm keeps its input in float32 and its statistics."""
    return tokens * FLOAT * (width + (2 if norm == "layernorm" else 1))


def _attention_bytes(
    size: Size, tokens: int, number: int, qk_norm: Norm | None, rotated: bool
) -> int:
    """Queries, keys and values as they come, the first two as they are used, and the output."""
    width = size.width
    kept = tokens * (4 * width * number + FLOAT * size.heads)
    if rotated or qk_norm is not None:
        kept += tokens * 2 * width * number
    if qk_norm is not None:
        # The norms read float32: a copy of bfloat16 queries and keys, else these themselves.
        copied = 2 * width if number < FLOAT else 0
        kept += tokens * FLOAT * (copied + 2 * size.heads * (2 if qk_norm == "layernorm" else 1))
    return kept


def _mlp_bytes(size: Size, tokens: int, number: int) -> int:
    """Gate and up, silu(gate), and the product that goes into the last layer."""
    return tokens * 4 * size.hidden * number
