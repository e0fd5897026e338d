"""The DiT, a generator of codes, read top to bottom.

    x  (B, L, c): a noisy code, one token a latent, no patches
       Linear to the width, plus a learned table of positions
       blocks whose norms are shifted, scaled and gated by the time and the class (adaLN-Zero)
       modulated norm, Linear to c, or to 2c where the variance is predicted

The blocks are those of the tokenizer (unbiased qkv, SwiGLU of 8/3, rotary positions) with norms
that have no weights of their own: shift and scale come from the conditioning. Every gate and the
output start at zero, so an untrained network is the zero function (Peebles & Xie 2023).

Shape suffixes: B samples, L tokens, D width, C channels of the code, O outputs a token (C or 2C),
F features of the time, P pairs of features a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vitok_core.artefacts import read_artefact, write_artefact
from vitok_core.errors import SpecError, WeightsError
from vitok_core.layers import Attention, SwiGLU, XavierLinear, rope_table, rope_table_1d
from vitok_core.spec import DIT_SIZES, TIME_FEATURES, DiTSpec, Size

NORM_EPS = 1e-6
LONGEST_PERIOD = 10_000.0
METADATA_KEY = "vitok_dit"


def time_features(time_B: Tensor) -> Tensor:
    """Cosines and sines of the time at 128 rates, geometric from 1 to 1/10,000: (B, F) float32."""
    half = TIME_FEATURES // 2
    exponent_H = torch.arange(half, dtype=torch.float32, device=time_B.device) / half
    angles_BH = time_B.float().unsqueeze(1) * torch.exp(-math.log(LONGEST_PERIOD) * exponent_H)
    return torch.cat([angles_BH.cos(), angles_BH.sin()], dim=1)


def modulated(x_BLD: Tensor, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
    """LayerNorm without weights, then the conditioning's scale (as 1 + scale) and shift."""
    normed_BLD = functional.layer_norm(x_BLD, x_BLD.shape[-1:], eps=NORM_EPS)
    return normed_BLD * (1.0 + scale_BD.unsqueeze(1)) + shift_BD.unsqueeze(1)


class TimeEmbedding(nn.Module):
    """Times (B,) on the scale from 0 to 1000 to conditioning (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(TIME_FEATURES, width)
        self.second = nn.Linear(width, width)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, time_B: Tensor) -> Tensor:
        """Embed every time alone."""
        embedded_BD: Tensor = self.second(functional.silu(self.first(time_features(time_B))))
        return embedded_BD


class DiTBlock(nn.Module):
    """Transformer block under adaLN-Zero: (B, L, D) to (B, L, D); the identity at the start."""

    def __init__(self, size: Size, qk_norm: bool) -> None:
        super().__init__()
        self.modulation = XavierLinear(size.width, 6 * size.width)
        self.attention = Attention(size, "rmsnorm" if qk_norm else None)
        self.mlp = SwiGLU(size)

    def forward(self, x_BLD: Tensor, condition_BD: Tensor, table_LP2: Tensor) -> Tensor:
        """Mix over tokens, then over features; the conditioning has passed its SiLU already."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(condition_BD).chunk(
            6, dim=1
        )
        mixed_BLD = self.attention(modulated(x_BLD, shift_1, scale_1), table_LP2)
        x_BLD = x_BLD + gate_1.unsqueeze(1) * mixed_BLD
        mixed_BLD = self.mlp(modulated(x_BLD, shift_2, scale_2))
        out_BLD: Tensor = x_BLD + gate_2.unsqueeze(1) * mixed_BLD
        return out_BLD


class DiT(nn.Module):
    """The generator of one spec; weights start from torch's global generator.

    With `recompute` set, training keeps only the blocks' inputs and computes the rest again in the
    backward pass: less memory for a third more time.

    Args:
        spec: what to build.

    Raises:
        SpecError: the spec cannot be built.
    """

    table_LP2: Tensor

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.spec = spec.check()
        self.recompute = False
        size = DIT_SIZES[spec.size]
        self.embed = XavierLinear(spec.c, size.width)
        self.positions_LD = nn.Parameter(torch.empty(spec.tokens, size.width))
        self.time = TimeEmbedding(size.width)
        # One row more than classes: the last means that no class is given.
        self.classes = nn.Embedding(spec.classes + 1, size.width) if spec.classes else None
        self.blocks = nn.ModuleList(DiTBlock(size, spec.qk_norm) for _ in range(size.depth))
        self.modulation = XavierLinear(size.width, 2 * size.width)
        self.output = XavierLinear(size.width, spec.outputs)
        # Not a weight: it follows from the spec, so files of weights do not carry it.
        self.register_buffer("table_LP2", torch.empty(0), persistent=False)
        self.rebuild_tables()
        self._start()

    def rebuild_tables(self) -> None:
        """Compute what is not a weight on the CPU; for models that were built without memory."""
        head_width = DIT_SIZES[self.spec.size].head_width
        self.table_LP2 = (
            rope_table_1d(self.spec.tokens, head_width)
            if self.spec.positions == "1d"
            else rope_table(self.spec.grid, head_width)
        )

    def _start(self) -> None:
        nn.init.normal_(self.positions_LD, std=math.sqrt(1.0 / self.spec.tokens))
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=0.02)
        zeroed = [self.modulation, self.output]
        for block in self.blocks:
            assert isinstance(block, DiTBlock)
            zeroed.append(block.modulation)
        for layer in zeroed:
            nn.init.zeros_(layer.weight)

    @property
    def null(self) -> int:
        """The label that means no class, for class dropout and for guidance."""
        return self.spec.classes

    def forward(self, x_BLC: Tensor, time_B: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Predict the target of noisy codes.

        Args:
            x_BLC: noisy codes, (B, L, c).
            time_B: on the scale from 0 (clean) to 1000 (noise), see `vitok_core.diffusion`.
            labels_B: int64, 0 to `classes`, the last meaning none; None for none at all.

        Returns:
            (B, L, c), or (B, L, 2c) with the variance's part last.

        Raises:
            SpecError: codes of another shape, or labels for an unconditional generator.
        """
        spec = self.spec
        if x_BLC.ndim != 3 or tuple(x_BLC.shape[1:]) != (spec.tokens, spec.c):
            raise SpecError(
                "grid",
                f"codes of shape {tuple(x_BLC.shape)} do not fit this DiT, which takes (batch, "
                f"{spec.tokens}, {spec.c})",
            )
        condition_BD = functional.silu(self._condition(time_B, labels_B))
        x_BLD = self.embed(x_BLC) + self.positions_LD
        for block in self.blocks:
            if self.recompute and self.training:
                x_BLD = checkpoint(block, x_BLD, condition_BD, self.table_LP2, use_reentrant=False)
            else:
                x_BLD = block(x_BLD, condition_BD, self.table_LP2)
        shift_BD, scale_BD = self.modulation(condition_BD).chunk(2, dim=1)
        predicted_BLO: Tensor = self.output(modulated(x_BLD, shift_BD, scale_BD))
        return predicted_BLO

    def _condition(self, time_B: Tensor, labels_B: Tensor | None) -> Tensor:
        time_BD: Tensor = self.time(time_B)
        if self.classes is None:
            if labels_B is not None:
                raise SpecError("classes", "labels were given to a DiT that was built without any")
            return time_BD
        if labels_B is None:
            labels_B = torch.full(time_B.shape, self.null, dtype=torch.long, device=time_B.device)
        class_BD: Tensor = self.classes(labels_B)
        return time_BD + class_BD


def save_dit(dit: DiT, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write weights and spec as safetensors: whole or not at all, same model same bytes.

    Args:
        dit: whose weights are written.
        path: of the file; its folder exists.
        about: plain data of whoever trained it (config, study, task, metrics), for people and
            tools; see `read_dit_about`.
    """
    record = {"spec": dit.spec.plain(), "about": dict(about or {})}
    write_artefact(path, METADATA_KEY, dit.state_dict(), record)


def load_dit(path: Path, device: str | torch.device = "cpu") -> DiT:
    """Read a generator written by `save_dit`, ready for sampling: no dropout, no gradients.

    Raises:
        WeightsError: the file is missing, is not of a DiT, or does not fit its own spec.
    """
    try:
        record, tensors = _read(path, with_tensors=True)
        with torch.device("meta"):
            dit = DiT(DiTSpec.from_plain(record["spec"]))
        # Built without memory or random numbers, then given the file's tensors and fresh tables.
        dit.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, RuntimeError, SpecError) as error:
        raise WeightsError(f"{path} is not a readable DiT: {error}") from error
    dit.rebuild_tables()
    return dit.to(device).eval().requires_grad_(False)


def read_dit_about(path: Path) -> dict[str, Any]:
    """What `save_dit` recorded about the weights, as plain data; {} for nothing.

    Raises:
        WeightsError: the file is missing or is not of a DiT.
    """
    about: dict[str, Any] = _read(path, with_tensors=False)[0]["about"]
    return about


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read_artefact(
        path, METADATA_KEY, what="DiT", needs=("spec", "about"), with_tensors=with_tensors
    )
