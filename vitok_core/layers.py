"""What are the towers made of? Attention, SwiGLU, norms and rotary positions on a 3-D token grid.

Blocks are Llama-style as in the paper: pre-norm (LayerNorm), bias-free qkv, SwiGLU of 8/3 the
width, full self-attention. Positions are 3-D axial: the features of a head are split into a part
for time, one for height and one for width, and each part is rotated by its own coordinate.

Shape suffixes: B samples, L tokens, D width, N heads, K features a head, F values of a tubelet,
P pairs of features (K / 2). `T, H, W` are the grid of tokens, `C` colour channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.spec import IMAGE_CHANNELS, Size

ROPE_THETA = 10_000.0


class XavierLinear(nn.Linear):
    """A Linear that starts with Xavier-uniform weights and zero bias, as every one in the paper."""

    def reset_parameters(self) -> None:
        """Initialise from torch's global generator; whoever builds a model seeds it."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def rope_split(head_width: int) -> tuple[int, int, int]:
    """How many features of a head turn with time, height and width: (16, 24, 24) for 64.

    A third each where that is even (24, 24, 24 for the 72 of size L); otherwise 3/8 of the head for
    each spatial axis, rounded down to an even number, and the rest for time.
    """
    if head_width % 6 == 0:
        return head_width // 3, head_width // 3, head_width // 3
    space = 2 * (3 * head_width // 16)
    return head_width - 2 * space, space, space


def rope_table(grid: tuple[int, int, int], head_width: int) -> Tensor:
    """Rotations of every token: (L, P, 2) float32, cosine and sine; tokens in (t, h, w) order.

    The angle of pair i of an axis with k features is coordinate * theta^(-2i / k), theta 10,000
    (Su et al. 2021). With one frame the time part is the identity.
    """
    coordinates = torch.meshgrid(
        *(torch.arange(length, dtype=torch.float64) for length in grid), indexing="ij"
    )
    angles = []
    for coordinate, width in zip(coordinates, rope_split(head_width), strict=True):
        exponent = torch.arange(0, width, 2, dtype=torch.float64) / max(width, 1)
        angles.append(coordinate.reshape(-1, 1) * ROPE_THETA**-exponent)
    angles_LP = torch.cat(angles, dim=1)
    return torch.stack([angles_LP.cos(), angles_LP.sin()], dim=-1).float()


def rotate(x_BLXK: Tensor, table_LP2: Tensor) -> Tensor:
    """Turn neighbouring pairs of features, (B, L, any, K), by the angles of their token.

    Complex multiplication in float32 whatever the input: on CPUs it is the quickest form, and
    bfloat16 angles would blur neighbouring positions.
    """
    pairs = torch.view_as_complex(x_BLXK.float().reshape(*x_BLXK.shape[:-1], -1, 2))
    turned = pairs * torch.view_as_complex(table_LP2).unsqueeze(1)
    return torch.view_as_real(turned).flatten(-2).to(x_BLXK.dtype)


class Attention(nn.Module):
    """Full multi-head self-attention with rotary positions: (B, L, D) to (B, L, D)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, self.head_width = size.heads, size.head_width
        self.qkv = XavierLinear(size.width, 3 * size.width, bias=False)
        self.out = XavierLinear(size.width, size.width)

    def forward(self, x_BLD: Tensor, table_LP2: Tensor) -> Tensor:
        """Attend over all tokens."""
        samples, tokens, _ = x_BLD.shape
        qkv_BLXK = self.qkv(x_BLD).view(samples, tokens, 3 * self.heads, self.head_width)
        turned = rotate(qkv_BLXK[:, :, : 2 * self.heads], table_LP2)
        q_BNLK, k_BNLK = turned.transpose(1, 2).chunk(2, dim=1)
        v_BNLK = qkv_BLXK[:, :, 2 * self.heads :].transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(q_BNLK, k_BNLK, v_BNLK)
        mixed_BLD: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return mixed_BLD


class SwiGLU(nn.Module):
    """Gated MLP, out(silu(gate(x)) * up(x)) (Shazeer 2020): (B, L, D) to (B, L, D)."""

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

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.mlp_norm = nn.LayerNorm(size.width)
        self.mlp = SwiGLU(size)

    def forward(self, x_BLD: Tensor, table_LP2: Tensor) -> Tensor:
        """Mix over tokens, then over features."""
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), table_LP2)
        mixed_BLD: Tensor = x_BLD + self.mlp(self.mlp_norm(x_BLD))
        return mixed_BLD


class Tower(nn.Module):
    """Blocks and a final LayerNorm over one fixed grid of tokens: (B, L, D) to (B, L, D)."""

    table_LP2: Tensor

    def __init__(self, size: Size, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        # Not a weight: it follows from the spec, so files of weights do not carry it.
        self.register_buffer("table_LP2", rope_table(grid, size.head_width), persistent=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Run all blocks."""
        for block in self.blocks:
            x_BLD = block(x_BLD, self.table_LP2)
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
