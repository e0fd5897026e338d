"""The anchor of bench/gpu.py: the same sizes as plain PyTorch loops, as people write them.

Standard pre-norm blocks (LayerNorm, one linear layer for queries, keys and values,
`scaled_dot_product_attention`, an MLP with GELU), timm's own where timm is installed; bf16
autocast, fused AdamW, clipping, LPIPS in bf16 and channels_last; nothing is read from the device.
The MLP is 3/2 as wide as a SwiGLU of the same size, so that both have the same operations. Samples
are random numbers that lie on the device.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.losses import loss_networks
from vitok_core.settings import Loss
from vitok_core.spec import DIT_SIZES, SIZES, DiTSpec, TokenizerSpec
from vitok_core.spec._sizes import Size

BLOCKS = "timm" if importlib.util.find_spec("timm") else "own blocks"
"""Whose blocks these are."""


class Block(nn.Module):
    """A pre-norm block as timm's, without its options: (B, L, D) to (B, L, D)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def attn(self, x: Tensor) -> Tensor:
        """Attention of normalised tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def mlp(self, x: Tensor) -> Tensor:
        """The MLP of normalised tokens."""
        made: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return made

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def block(size: Size) -> nn.Module:
    """One block, timm's where it is installed."""
    hidden = 3 * size.hidden // 2
    if BLOCKS == "timm":
        from timm.models.vision_transformer import Block as TimmBlock

        made: nn.Module = TimmBlock(
            size.width, size.heads, mlp_ratio=(hidden + 0.5) / size.width, qkv_bias=True
        )
        return made
    return Block(size.width, size.heads, hidden)


class PlainTokenizer(nn.Module):
    """Encoder, Gaussian code and decoder: (B, 3, S, S) to the same, and the moments."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        encoder, decoder, p = SIZES[spec.encoder], SIZES[spec.decoder], spec.p
        self.side = spec.resolution // p
        self.embed = nn.Conv2d(3, encoder.width, p, stride=p)
        self.places = nn.Parameter(torch.zeros(1, self.side**2, encoder.width))
        self.encoder = nn.Sequential(*(block(encoder) for _ in range(encoder.depth)))
        self.to_moments = nn.Linear(encoder.width, 2 * spec.c)
        self.from_code = nn.Linear(spec.c, decoder.width)
        self.places_out = nn.Parameter(torch.zeros(1, self.side**2, decoder.width))
        self.decoder = nn.Sequential(*(block(decoder) for _ in range(decoder.depth)))
        self.output = nn.ConvTranspose2d(decoder.width, 3, p, stride=p)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.places
        mean, logvar = self.to_moments(self.encoder(tokens)).float().chunk(2, dim=-1)
        code = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        drawn = self.decoder(self.from_code(code) + self.places_out)
        return self.output(drawn.transpose(1, 2).unflatten(2, (self.side, -1))), mean, logvar


class PlainDiT(nn.Module):
    """DiT with adaLN: noisy codes (B, L, C), times (B,), labels (B,) to predictions."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        size = DIT_SIZES[spec.size]
        self.embed = nn.Linear(spec.c, size.width)
        self.places = nn.Parameter(torch.zeros(1, spec.tokens, size.width))
        self.time = nn.Sequential(
            nn.Linear(1, size.width), nn.SiLU(), nn.Linear(size.width, size.width)
        )
        self.labels = nn.Embedding(spec.classes + 1, size.width)
        self.blocks = nn.ModuleList(block(size) for _ in range(size.depth))
        self.turns = nn.ModuleList(nn.Linear(size.width, 6 * size.width) for _ in range(size.depth))
        self.output = nn.Linear(size.width, spec.outputs)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        tokens = self.embed(x) + self.places
        condition = functional.silu(self.time(time[:, None]) + self.labels(labels))
        for one, turn in zip(self.blocks, self.turns, strict=True):
            shift, scale, gate, shift2, scale2, gate2 = turn(condition)[:, None].chunk(6, dim=-1)
            tokens = tokens + gate * one.attn(one.norm1(tokens) * (1 + scale) + shift)
            tokens = tokens + gate2 * one.mlp(one.norm2(tokens) * (1 + scale2) + shift2)
        made: Tensor = self.output(tokens)
        return made


class Training(Protocol):
    """What `loop` trains.

    Attributes:
        model: with parameters on its device.
        decay: of a moving average of the weights; None for none.
    """

    model: nn.Module
    decay: float | None

    def compile(self) -> None:
        """Compile everything that computes."""

    def loss(self) -> Tensor:
        """Of the next batch."""


class Tokenizing:
    """A tokenizer by l2, KL and LPIPS."""

    decay: float | None = None

    def __init__(self, spec: TokenizerSpec, batch: int, device: str) -> None:
        self.device = device
        self.model: nn.Module = PlainTokenizer(spec).to(device)
        loss = Loss()
        self.kl, self.lpips = loss.kl, loss.lpips
        network = loss_networks(loss, device)["lpips"]
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shape = (batch, 3, spec.resolution, spec.resolution)
        self.pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def compile(self) -> None:
        """Compile model and perceptual network."""
        self.model = torch.compile(self.model, dynamic=False)  # type: ignore[assignment]
        self.network = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]

    def loss(self) -> Tensor:
        """Of the one batch that there is."""
        x = self.pixels.float() / 127.5 - 1.0
        with torch.autocast(self.device, torch.bfloat16):
            x_hat, mean, logvar = self.model(x)
            distance = self.network(x_hat, x).float().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        total: Tensor = functional.mse_loss(x_hat.float(), x) + self.kl * kl
        return total + self.lpips * distance


class Generating:
    """A DiT that predicts noise."""

    decay: float | None = 0.9999

    def __init__(self, spec: DiTSpec, batch: int, device: str) -> None:
        self.device, self.spec = device, spec
        self.model: nn.Module = PlainDiT(spec).to(device)
        self.codes = torch.randn(batch, spec.tokens, spec.c, device=device)
        self.labels = torch.randint(0, max(spec.classes, 1), (batch,), device=device)

    def compile(self) -> None:
        """Compile the model."""
        self.model = torch.compile(self.model, dynamic=False)  # type: ignore[assignment]

    def loss(self) -> Tensor:
        """Of the one batch that there is, at random times."""
        time = torch.rand(len(self.codes), device=self.device)
        noise = torch.randn_like(self.codes)
        keep = torch.cos(0.5 * torch.pi * time)[:, None, None]
        noisy = keep * self.codes + (1 - keep.square()).sqrt() * noise
        with torch.autocast(self.device, torch.bfloat16):
            predicted = self.model(noisy, time, self.labels)
        return functional.mse_loss(predicted[..., : self.spec.c].float(), noise)


def loop(training: Training, should_stop: Callable[[], bool], *, compiles: bool) -> None:
    """Train until `should_stop` says so or raises; it is asked before every step."""
    parameters = list(training.model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    average = None if training.decay is None else [one.detach().clone() for one in parameters]
    if compiles:
        training.compile()
    while not should_stop():
        optimiser.zero_grad(set_to_none=True)
        training.loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if average is not None and training.decay is not None:
            torch._foreach_lerp_(average, [one.detach() for one in parameters], 1 - training.decay)
