"""Layers of the towers: attention, SwiGLU, norms and positions on a 3-D grid of tubelets.

Blocks are Llama-style as in the paper: pre-norm, bias-free qkv, SwiGLU of 8/3 the width, full
self-attention. Norm, norm of queries and keys, positions and attention that is causal in time are
options of the spec; what is not asked for costs nothing.

Positions are fixed, never learned. 3-D axial rotary ones split the features of a head into a part
for time, one for height and one for width, and turn each part by its own coordinate.

Shape suffixes: B samples, L tokens, D width, N heads, K features a head, F values of a tubelet,
P pairs of features (K / 2), X anything. `T, H, W` are frames and pixels, `t, h, w` the grid of
tubelets, `C` colour channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vitok_core.spec import IMAGE_CHANNELS, Norm, Size, TokenizerSpec

THETA = 10_000.0


class XavierLinear(nn.Linear):
    """A Linear that starts with Xavier-uniform weights and zero bias, as every one in the paper."""

    def reset_parameters(self) -> None:
        """Initialise from torch's global generator; whoever builds a model seeds it."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class RMSNorm(nn.RMSNorm):
    """Division by the root mean square, with a scale (Zhang and Sennrich 2019).

    Computed in float32 whatever the input, because torch has no mixed-precision kernel for it.
    """

    def forward(self, x_XD: Tensor) -> Tensor:
        """Normalise over the last axis."""
        return super().forward(x_XD.float()).to(x_XD.dtype)


def make_norm(norm: Norm, width: int, *, bias: bool = True) -> nn.Module:
    """A norm over the last axis: LayerNorm with eps 1e-5, or RMSNorm with eps 1e-6.

    Args:
        norm: which one.
        width: length of the last axis.
        bias: whether a LayerNorm shifts after it scaled; an RMSNorm never does.
    """
    if norm == "layernorm":
        return nn.LayerNorm(width, bias=bias)
    return RMSNorm(width, eps=1e-6)


def rope_split(head_width: int) -> tuple[int, int, int]:
    """How many features of a head turn with time, height and width: (16, 24, 24) for 64.

    A third each where that is even (24, 24, 24 for the 72 of size L); otherwise 3/8 of the head for
    each spatial axis, rounded down to an even number, and the rest for time.
    """
    if head_width % 6 == 0:
        return head_width // 3, head_width // 3, head_width // 3
    space = 2 * (3 * head_width // 16)
    return head_width - 2 * space, space, space


def coordinates(grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Time, height and width of every token, three times (L,) float64, in (t, h, w) order."""
    axes = (torch.arange(length, dtype=torch.float64) for length in grid)
    return tuple(axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))


def angles(coordinate_L: Tensor, width: int) -> Tensor:
    """Angles of `width` features in pairs, (L, width / 2) float64.

    Pair i turns by coordinate * theta^(-2i / width), theta 10,000 (Vaswani et al. 2017).
    """
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / max(width, 1)
    return coordinate_L.unsqueeze(1) * THETA**-exponent


def rope_table(grid: tuple[int, int, int], head_width: int) -> Tensor:
    """3-D axial rotations of every token: (L, P, 2) float32, cosine and sine.

    Each axis has the pairs that `rope_split` gives it (Su et al. 2021 for one axis). With one
    frame the time part is the identity.
    """
    parts = zip(coordinates(grid), rope_split(head_width), strict=True)
    return _turns(torch.cat([angles(axis_L, width) for axis_L, width in parts], dim=1))


def rope_table_1d(tokens: int, head_width: int) -> Tensor:
    """Rotations by the index in the sequence: (L, P, 2) float32, cosine and sine."""
    return _turns(angles(torch.arange(tokens, dtype=torch.float64), head_width))


def sincos_table(grid: tuple[int, int, int], width: int) -> Tensor:
    """Fixed vectors for every token of a grid: (L, D) float32, sines then cosines of each axis.

    One frame: half of the width for height, half for width. More: the split of `rope_split`.
    """
    half = 2 * (width // 4)
    split = (0, half, width - half) if grid[0] == 1 else rope_split(width)
    parts = zip(coordinates(grid), split, strict=True)
    return torch.cat([_waves(axis_L, part) for axis_L, part in parts], dim=1).float()


def sincos_table_1d(tokens: int, width: int) -> Tensor:
    """Fixed vectors for every token of a sequence: (L, D) float32, sines then cosines."""
    return _waves(torch.arange(tokens, dtype=torch.float64), width).float()


def _turns(angles_LP: Tensor) -> Tensor:
    return torch.stack([angles_LP.cos(), angles_LP.sin()], dim=-1).float()


def _waves(coordinate_L: Tensor, width: int) -> Tensor:
    angles_LP = angles(coordinate_L, width)
    return torch.cat([angles_LP.sin(), angles_LP.cos()], dim=1)


def causal_mask(grid: tuple[int, int, int]) -> Tensor:
    """Who may attend to whom, (L, L) bool: a token to its own step in time and to earlier ones."""
    time_L = coordinates(grid)[0]
    return time_L.unsqueeze(1) >= time_L.unsqueeze(0)


def rotate(x_BLXK: Tensor, table_LP2: Tensor) -> Tensor:
    """Turn neighbouring pairs of features, (B, L, any, K), by the angles of their token.

    Computed in float32 whatever the input, because bfloat16 angles would blur neighbouring
    positions. Complex multiplication is the quickest form where every operation runs by itself;
    compilers fuse only the real form, so they get that one.
    """
    pairs = x_BLXK.float().reshape(*x_BLXK.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():
        (a, b), (cos, sin) = pairs.unbind(-1), table_LP2.unsqueeze(1).unbind(-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    else:
        table_L1P = torch.view_as_complex(table_LP2).unsqueeze(1)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * table_L1P)
    return turned.flatten(-2).to(x_BLXK.dtype)


class Attention(nn.Module):
    """Multi-head self-attention: (B, L, D) to (B, L, D).

    Args:
        size: anything with width, heads and head_width.
        qk_norm: norm over the features of each head of queries and keys, before rotation; it has a
            scale for q and one for k that all heads share.
    """

    def __init__(self, size: Size, qk_norm: Norm | None = None) -> None:
        super().__init__()
        self.heads, self.head_width = size.heads, size.head_width
        self.qkv = XavierLinear(size.width, 3 * size.width, bias=False)
        self.q_norm, self.k_norm = None, None
        if qk_norm is not None:
            # Without a shift: one that all keys share drops out of the softmax.
            self.q_norm = make_norm(qk_norm, size.head_width, bias=False)
            self.k_norm = make_norm(qk_norm, size.head_width, bias=False)
        self.out = XavierLinear(size.width, size.width)

    def forward(
        self, x_BLD: Tensor, table_LP2: Tensor | None, mask_LL: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x_BLD: the tokens.
            table_LP2: rotations as `rope_table` gives them, None for none.
            mask_LL: bool, true where row attends to column; None where all attend to all.
        """
        samples, tokens, _ = x_BLD.shape
        qkv_BLXK = self.qkv(x_BLD).view(samples, tokens, 3 * self.heads, self.head_width)
        qk_BLXK, v_BLNK = qkv_BLXK.split((2 * self.heads, self.heads), dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BLNK, k_BLNK = qk_BLXK.chunk(2, dim=2)
            qk_BLXK = torch.cat([self.q_norm(q_BLNK), self.k_norm(k_BLNK)], dim=2)
        if table_LP2 is not None:
            qk_BLXK = rotate(qk_BLXK, table_LP2)
        # Norms may leave float32 behind where values are bfloat16.
        q_BNLK, k_BNLK = qk_BLXK.to(v_BLNK.dtype).transpose(1, 2).chunk(2, dim=1)
        mixed_BNLK = functional.scaled_dot_product_attention(
            q_BNLK, k_BNLK, v_BLNK.transpose(1, 2), attn_mask=mask_LL
        )
        mixed_BLD: Tensor = self.out(mixed_BNLK.transpose(1, 2).flatten(2))
        return mixed_BLD


class SwiGLU(nn.Module):
    """Gated MLP, out(silu(gate(x)) * up(x)) (Shazeer 2020): (B, L, D) to (B, L, D).

    Args:
        size: anything with width and hidden.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_up = XavierLinear(size.width, 2 * size.hidden)
        self.out = XavierLinear(size.hidden, size.width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Apply to every token alone."""
        gate, up = self.gate_up(x_BLD).chunk(2, dim=-1)
        mixed_BLD: Tensor = self.out(functional.silu(gate) * up)
        return mixed_BLD


class Block(nn.Module):
    """Pre-norm transformer block: (B, L, D) to (B, L, D)."""

    def __init__(self, size: Size, norm: Norm = "layernorm", qk_norm: bool = False) -> None:
        super().__init__()
        self.attention_norm = make_norm(norm, size.width)
        self.attention = Attention(size, norm if qk_norm else None)
        self.mlp_norm = make_norm(norm, size.width)
        self.mlp = SwiGLU(size)

    def forward(
        self, x_BLD: Tensor, table_LP2: Tensor | None, mask_LL: Tensor | None = None
    ) -> Tensor:
        """Mix over tokens, then over features."""
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), table_LP2, mask_LL)
        mixed_BLD: Tensor = x_BLD + self.mlp(self.mlp_norm(x_BLD))
        return mixed_BLD


class Tower(nn.Module):
    """Blocks and a final norm over the sequence of one spec: (B, L, D) to (B, L, D).

    The sequence is the grid of tubelets; with a 1-D code its tokens come before the tubelets.
    They have no place on the grid: axial positions leave them unrotated, and fixed 1-D sin-cos
    vectors that are added to them tell them apart.

    Args:
        size: of this tower.
        spec: of the tokenizer it belongs to.
        blank: whether the tubelets come in all alike, as they do where a 1-D code is decoded; they
            then get a fixed vector each, whatever the positions.

    Attributes:
        recompute: whether training computes the insides of blocks again in the backward pass
            instead of keeping them (activation checkpointing).
        table_LP2: rotations, or None.
        vectors_LD: what is added to the sequence, or None.
        mask_LL: who attends to whom, or None for all to all.
    """

    table_LP2: Tensor | None
    vectors_LD: Tensor | None
    mask_LL: Tensor | None

    def __init__(self, size: Size, spec: TokenizerSpec, *, blank: bool = False) -> None:
        super().__init__()
        self.size, self.spec, self.blank, self.recompute = size, spec, blank, False
        self.blocks = nn.ModuleList(Block(size, spec.norm, spec.qk_norm) for _ in range(size.depth))
        self.norm = make_norm(spec.norm, size.width)
        self.rebuild_tables()

    def rebuild_tables(self) -> None:
        """Compute the tables again, on torch's default device.

        They are not weights, because they follow from the spec; files of weights lack them.
        """
        mask_LL = causal_mask(self.spec.grid) if self.spec.causal else None
        self.register_buffer("table_LP2", self._rotations(), persistent=False)
        self.register_buffer("vectors_LD", self._vectors(), persistent=False)
        self.register_buffer("mask_LL", mask_LL, persistent=False)

    def _rotations(self) -> Tensor | None:
        spec, head_width, code = self.spec, self.size.head_width, self.spec.latent_tokens or 0
        if spec.positions == "1d":
            return rope_table_1d(code + spec.patches, head_width)
        if spec.positions == "axial":
            unturned = _turns(torch.zeros(code, head_width // 2, dtype=torch.float64))
            return torch.cat([unturned, rope_table(spec.grid, head_width)])
        return None

    def _vectors(self) -> Tensor | None:
        spec, width, code = self.spec, self.size.width, self.spec.latent_tokens or 0
        marked = self.blank or spec.positions == "sincos"
        if not code and not marked:
            return None
        patches_LD = sincos_table(spec.grid, width) if marked else torch.zeros(spec.patches, width)
        return torch.cat([sincos_table_1d(code, width), patches_LD])

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Run all blocks."""
        if self.vectors_LD is not None:
            x_BLD = x_BLD + self.vectors_LD.to(x_BLD.dtype)
        again = self.recompute and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            if again:
                x_BLD = checkpoint(block, x_BLD, self.table_LP2, self.mask_LL, use_reentrant=False)
            else:
                x_BLD = block(x_BLD, self.table_LP2, self.mask_LL)
        normed_BLD: Tensor = self.norm(x_BLD)
        return normed_BLD


def unfold(x_BCTHW: Tensor, q: int, p: int) -> Tensor:
    """Cut samples (B, C, T, H, W) in pixels into tubelets (B, L, F), F in (C, q, p, p) order."""
    samples, channels, frames, height, width = x_BCTHW.shape
    cut = x_BCTHW.reshape(samples, channels, frames // q, q, height // p, p, width // p, p)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(samples, -1, channels * q * p * p)


def fold(x_BLF: Tensor, grid: tuple[int, int, int], q: int, p: int) -> Tensor:
    """Put tubelets (B, L, F) back to samples (B, C, T, H, W); the inverse of `unfold`."""
    t, h, w = grid
    cut = x_BLF.reshape(-1, t, h, w, IMAGE_CHANNELS, q, p, p).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return cut.reshape(-1, IMAGE_CHANNELS, t * q, h * p, w * p)


class TubeletEmbed(nn.Module):
    """Samples (B, C, T, H, W) to tokens (B, L, D): a Conv3d of kernel = stride = (q, p, p).

    Written as a matrix product over unfolded tubelets, which is what that convolution is; the
    weight of the Linear is the convolution's, flattened.
    """

    def __init__(self, width: int, q: int, p: int) -> None:
        super().__init__()
        self.q, self.p = q, p
        self.project = XavierLinear(IMAGE_CHANNELS * q * p * p, width)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Embed; tokens in (t, h, w) order."""
        tokens_BLD: Tensor = self.project(unfold(x_BCTHW, self.q, self.p))
        return tokens_BLD


class TubeletOutput(nn.Module):
    """Tokens (B, L, D) to samples (B, C, T, H, W): a transposed Conv3d.

    Kernel and stride are (q, p, p). Also a matrix product; as in the convolution there is one bias
    a colour channel.
    """

    def __init__(self, width: int, grid: tuple[int, int, int], q: int, p: int) -> None:
        super().__init__()
        self.grid, self.q, self.p = grid, q, p
        self.project = XavierLinear(width, IMAGE_CHANNELS * q * p * p, bias=False)
        self.bias = nn.Parameter(torch.zeros(IMAGE_CHANNELS))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Draw every token's tubelet."""
        samples = fold(self.project(x_BLD), self.grid, self.q, self.p)
        return samples + self.bias.reshape(1, -1, 1, 1, 1)
