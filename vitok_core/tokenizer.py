"""How does a sample become a code and a sample again? ViTok, read top to bottom.

    x  (B, 3, T, H, W) in [-1, 1]
       tubelet embedding, encoder tower, projection to 2c -> posterior: mean, logvar (B, L, c)
    z  (B, L, c): mean + noise * std in training, the mean in evaluation
       projection from c, decoder tower, transposed convolution -> x_hat, same shape as x

Encoder and decoder have widths of their own. There is no output activation. Images may come
without the time axis, (B, 3, H, W); reconstructions then have none either.

Shape suffixes: see `vitok_core.layers`; here C of `BLC` is the c of the code.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vitok_core.errors import SpecError, WeightsError
from vitok_core.layers import Tower, TubeletEmbed, TubeletOutput, XavierLinear, rope_table
from vitok_core.spec import IMAGE_CHANNELS, SIZES, TokenizerSpec

LOGVAR_RANGE = (-30.0, 20.0)
SPEC_KEY = "vitok_spec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """The Gaussian over codes that the encoder returns.

    Attributes:
        mean: (B, L, c) float32.
        logvar: (B, L, c) float32, logarithm of the variance, within [-30, 20].
    """

    mean: Tensor
    logvar: Tensor

    def sample(self, noise_BLC: Tensor) -> Tensor:
        """Codes (B, L, c) from standard normal noise of the same shape."""
        return self.mean + noise_BLC * torch.exp(0.5 * self.logvar)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal of every value of the code, (B, L, c), in nats."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar)


class ViTok(nn.Module):
    """The tokenizer of one spec; weights start Xavier-uniform from torch's global generator.

    Args:
        spec: what to build.

    Raises:
        SpecError: the spec cannot be built.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.spec = spec.check()
        encoder, decoder = SIZES[spec.encoder], SIZES[spec.decoder]
        self.embed = TubeletEmbed(encoder.width, spec.q, spec.p)
        self.encoder = Tower(encoder, spec.grid)
        self.to_moments = XavierLinear(encoder.width, 2 * spec.c)
        self.from_code = XavierLinear(spec.c, decoder.width)
        self.decoder = Tower(decoder, spec.grid)
        self.output = TubeletOutput(decoder.width, spec.grid, spec.q, spec.p)

    def encode(self, x: Tensor) -> Posterior:
        """The posterior over codes of samples (B, 3, T, H, W) or images (B, 3, H, W) in [-1, 1].

        Raises:
            SpecError: the samples have another shape than the spec's.
        """
        x_BCTHW = x.unsqueeze(2) if x.ndim == 4 else x
        spec = self.spec
        expected = (IMAGE_CHANNELS, spec.frames, spec.resolution, spec.resolution)
        if x_BCTHW.ndim != 5 or tuple(x_BCTHW.shape[1:]) != expected:
            raise SpecError(
                "resolution",
                f"samples of shape {tuple(x.shape)} do not fit {spec.variant}, which takes "
                f"(batch, {', '.join(map(str, expected))}), or without the time axis for images",
            )
        moments = self.to_moments(self.encoder(self.embed(x_BCTHW))).float()
        mean_BLC, logvar_BLC = moments.chunk(2, dim=-1)
        return Posterior(mean=mean_BLC, logvar=logvar_BLC.clamp(*LOGVAR_RANGE))

    def decode(self, z_BLC: Tensor) -> Tensor:
        """Reconstructions of codes: (B, 3, T, H, W), or (B, 3, H, W) for image tokenizers."""
        x_BCTHW: Tensor = self.output(self.decoder(self.from_code(z_BLC)))
        return x_BCTHW.squeeze(2) if self.spec.frames == 1 else x_BCTHW

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Reconstruct samples: by sampled codes when a generator is given, else by the mean."""
        posterior = self.encode(x)
        if generator is None:
            return self._like(x, self.decode(posterior.mean))
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        return self._like(x, self.decode(posterior.sample(noise.to(posterior.mean.device))))

    @staticmethod
    def _like(x: Tensor, x_hat: Tensor) -> Tensor:
        return x_hat.unsqueeze(2) if x.ndim == 5 and x_hat.ndim == 4 else x_hat


def save_tokenizer(tokenizer: ViTok, path: Path) -> None:
    """Write weights and spec as safetensors: whole or not at all, same model same bytes."""
    from safetensors.torch import save_file

    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in tokenizer.state_dict().items()
    }
    # One metadata key only: the library writes several in no fixed order.
    metadata = {SPEC_KEY: json.dumps(dataclasses.asdict(tokenizer.spec), sort_keys=True)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata=metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_tokenizer(path: Path, device: str | torch.device = "cpu") -> ViTok:
    """Read a tokenizer written by `save_tokenizer`, ready for evaluation.

    Raises:
        WeightsError: the file is missing, is not of a tokenizer, or does not fit its own spec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(SPEC_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if text is None:
            raise WeightsError(f"{path} holds no tokenizer: its metadata has no {SPEC_KEY!r}")
        with torch.device("meta"):
            tokenizer = ViTok(TokenizerSpec(**json.loads(text)))
        # Built without memory or random numbers, then given the file's tensors and fresh tables.
        tokenizer.load_state_dict(tensors, assign=True)
        for tower, name in (
            (tokenizer.encoder, tokenizer.spec.encoder),
            (tokenizer.decoder, tokenizer.spec.decoder),
        ):
            tower.table_LP2 = rope_table(tokenizer.spec.grid, SIZES[name].head_width)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist; train the tokenizer first") from error
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, SpecError) as error:
        raise WeightsError(f"{path} is no readable tokenizer: {error}") from error
    return tokenizer.to(device).eval().requires_grad_(False)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8: clamped, then rounded to the nearest."""
    return ((x.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
