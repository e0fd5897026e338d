"""ViTok: from a sample to a code and back, read top to bottom.

    x  (B, 3, T, H, W) in [-1, 1]
       tubelet embedding, encoder tower, projection to the moments -> posterior: mean, logvar
    z  (B, L, c): mean + noise * std in training, the mean in evaluation
       projection from c, decoder tower, transposed convolution -> x_hat, same shape as x

A 1-D code of l tokens (Latent ViTok): the encoder reads [l fixed vectors, tubelets] and keeps the
first l outputs; the decoder reads [z, one learned token for every tubelet] and keeps the rest.
A code with lengths (Masked ViTok): before decoding, tokens from a length on are replaced by a
learned token of c values.

Encoder and decoder have widths of their own. There is no output activation. Images may come
without the time axis, (B, 3, H, W); reconstructions then have none either.

Shape suffixes: see `vitok_core.layers`; here C of `BLC` is the c of the code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.artefacts import read_artefact, write_artefact
from vitok_core.errors import SpecError, WeightsError
from vitok_core.layers import Tower, TubeletEmbed, TubeletOutput, XavierLinear
from vitok_core.spec import IMAGE_CHANNELS, SIZES, TokenizerSpec

LOGVAR_RANGE = (-30.0, 20.0)
METADATA_KEY = "vitok_tokenizer"

RANGE = 1.0 + 1e-2
"""Largest size of a value of a sample: half precision rounds, and nothing else may pass 1."""

Mode = Literal["none", "scalar", "per-channel"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior:
    """The distribution over codes that the encoder returns.

    Attributes:
        mean: (B, L, c) float32.
        logvar: (B, L, c) float32, logarithm of the variance, learned ones within [-30, 20]; None
            for a code without randomness.
    """

    mean: Tensor
    logvar: Tensor | None

    def sample(self, noise_BLC: Tensor) -> Tensor:
        """Codes (B, L, c) from standard normal noise of the same shape."""
        if self.logvar is None:
            return self.mean
        return self.mean + noise_BLC * torch.exp(0.5 * self.logvar)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal of every value of the code, (B, L, c), in nats.

        Zeros for a code without randomness, which has none.
        """
        if self.logvar is None:
            return torch.zeros_like(self.mean)
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalisation:
    """How codes reach the range a generator wants; measured once, kept with the tokenizer.

    Attributes:
        mode: "none" leaves codes alone, "scalar" divides by `std`, "per-channel" subtracts `mean_C`
            and divides by `std_C`.
        mean_C: (c,) float32, mean of every channel.
        std_C: (c,) float32, standard deviation of every channel.
        mean: mean of all values.
        std: standard deviation of all values.
        samples: number of samples that were measured.
    """

    mode: Mode
    mean_C: Tensor
    std_C: Tensor
    mean: float
    std: float
    samples: int

    def check(self, spec: TokenizerSpec) -> Normalisation:
        """Return the normalisation itself if it fits the spec and can be undone.

        Raises:
            SpecError: unknown mode, statistics of another number of channels, values that are not
                finite, or a deviation of zero that the mode would divide by.
        """
        if self.mode not in get_args(Mode):
            modes = ", ".join(get_args(Mode))
            raise SpecError("normalisation", f"normalisation {self.mode!r}: choose one of {modes}")
        for vector in (self.mean_C, self.std_C):
            if vector.shape != (spec.c,):
                raise SpecError(
                    "normalisation",
                    f"statistics of shape {tuple(vector.shape)} do not fit a code of c = {spec.c}; "
                    "measure them with this tokenizer",
                )
        numbers = [*self.mean_C.tolist(), *self.std_C.tolist(), self.mean, self.std]
        if not all(map(math.isfinite, numbers)):
            raise SpecError("normalisation", "the statistics of the code are not all finite")
        divisors = {"none": [1.0], "scalar": [self.std], "per-channel": self.std_C.tolist()}
        if min(divisors[self.mode]) <= 0:
            raise SpecError(
                "normalisation",
                f"normalisation {self.mode} would divide by a standard deviation of 0: the code, "
                "or a channel of it, is constant; choose another normalisation",
            )
        return self

    def to(self, device: str | torch.device) -> Normalisation:
        """The same with its statistics on a device: their use then sends nothing there."""
        return dataclasses.replace(self, mean_C=self.mean_C.to(device), std_C=self.std_C.to(device))

    def normalise(self, z_BLC: Tensor) -> Tensor:
        """Codes as a generator sees them."""
        if self.mode == "per-channel":
            return (z_BLC - self.mean_C.to(z_BLC.device)) / self.std_C.to(z_BLC.device)
        return z_BLC / self.std if self.mode == "scalar" else z_BLC

    def denormalise(self, z_BLC: Tensor) -> Tensor:
        """Codes as a decoder wants them; the inverse of `normalise`."""
        if self.mode == "per-channel":
            return z_BLC * self.std_C.to(z_BLC.device) + self.mean_C.to(z_BLC.device)
        return z_BLC * self.std if self.mode == "scalar" else z_BLC


class ViTok(nn.Module):
    """The tokenizer of one spec; weights start Xavier-uniform from torch's global generator.

    Args:
        spec: what to build.

    Attributes:
        normalisation: statistics of its codes, once they have been measured.

    Raises:
        SpecError: the spec cannot be built.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.spec = spec.check()
        self.normalisation: Normalisation | None = None
        encoder, decoder = SIZES[spec.encoder], SIZES[spec.decoder]
        self.embed = TubeletEmbed(encoder.width, spec.q, spec.p)
        self.encoder = Tower(encoder, spec)
        self.to_moments = XavierLinear(encoder.width, spec.moments)

        self.cut_token_C = nn.Parameter(torch.zeros(spec.c)) if spec.lengths else None
        self.from_code = XavierLinear(spec.c, decoder.width)
        is_1d = spec.latent_tokens is not None
        self.patch_token_D = nn.Parameter(torch.zeros(decoder.width)) if is_1d else None
        self.decoder = Tower(decoder, spec, blank=is_1d)
        self.output = TubeletOutput(decoder.width, spec.grid, spec.q, spec.p)

    def encode(self, x: Tensor) -> Posterior:
        """The posterior over codes of samples (B, 3, T, H, W) or images (B, 3, H, W) in [-1, 1].

        Nothing is converted: samples have the type and the device of the weights (under autocast
        any float of at most 32 bits), and `from_uint8` makes them of bytes.

        Raises:
            SpecError: samples of another shape, type, device or range; also samples that look like
                [0, 1]: none of their values is below 0, and they are not what `from_uint8` makes
                of bytes.
        """
        self._check_given(x, "samples")
        self._check_shape(x)
        if _has_numbers(x):
            _check_range(x)
        return self._encode(x)

    def _check_given(self, values: object, what: str) -> None:
        """Whether samples or codes are tensors of the type and on the device of the weights."""
        weight = self.from_code.weight
        type_ = str(weight.dtype).removeprefix("torch.")
        field = "resolution" if what == "samples" else "c"
        if not isinstance(values, Tensor):
            given = f"{type(values).__module__}.{type(values).__qualname__}"
            raise SpecError(
                field, f"{what} are a tensor of {type_}, not {given}: torch.from_numpy makes one"
            )
        narrow = values.is_floating_point() and values.dtype != torch.float64
        if values.dtype != weight.dtype and not (
            narrow and torch.is_autocast_enabled(values.device.type)
        ):
            given = str(values.dtype).removeprefix("torch.")
            step = f"give x.to({weight.dtype})"
            if what == "samples" and not narrow and values.dtype != torch.float64:
                step = "from_uint8 of vitok_core.tokenizer makes samples of bytes in 0 to 255"
            raise SpecError(field, f"{what} of {given} do not go with weights of {type_}: {step}")
        if values.device != weight.device:
            raise SpecError(
                field,
                f"{what} on {values.device} do not go with weights on {weight.device}: give "
                f"x.to({str(weight.device)!r})",
            )

    def _check_shape(self, x: Tensor) -> None:
        spec, given = self.spec, tuple(x.shape)
        sides = (spec.resolution, spec.resolution)
        expected = (IMAGE_CHANNELS, spec.frames, *sides)
        if given and not given[0]:
            raise SpecError("resolution", f"samples of shape {given}: the batch is empty")
        if given[1:] == expected or (spec.frames == 1 and given[1:] == (IMAGE_CHANNELS, *sides)):
            return
        near = {
            (*sides, IMAGE_CHANNELS): "channels come first: x.permute(0, 3, 1, 2)",
            (spec.frames, *sides, IMAGE_CHANNELS): "channels come first: x.permute(0, 4, 1, 2, 3)",
            (spec.frames, IMAGE_CHANNELS, *sides): "channels come before time: x.transpose(1, 2)",
        }
        step = near.get(given[1:], "")
        if given in (expected, (IMAGE_CHANNELS, *sides)):
            step = "one sample is a batch of one: x.unsqueeze(0)"
        raise SpecError(
            "resolution",
            f"samples of shape {given} do not fit {spec.variant}, which takes "
            f"(batch, {', '.join(map(str, expected))}), or without the time axis for images"
            + (f"; {step}" if step else ""),
        )

    def _encode(self, x: Tensor) -> Posterior:
        x_BCTHW, spec = x.unsqueeze(2) if x.ndim == 4 else x, self.spec
        tokens_BLD = self.embed(x_BCTHW)
        if spec.latent_tokens is not None:
            # Zeros: the tower adds the fixed vectors of the code's tokens.
            tokens_BLD = functional.pad(tokens_BLD, (0, 0, spec.latent_tokens, 0))
        return self._posterior(self.to_moments(self.encoder(tokens_BLD)[:, : spec.tokens]).float())

    def _posterior(self, moments_BLX: Tensor) -> Posterior:
        spec = self.spec
        if spec.bottleneck == "kl":
            mean_BLC, logvar_BLC = moments_BLX.chunk(2, dim=-1)
            return Posterior(mean=mean_BLC, logvar=logvar_BLC.clamp(*LOGVAR_RANGE))
        if spec.bottleneck == "layernorm":
            code_BLC = functional.layer_norm(moments_BLX, (spec.c,), eps=1e-6)
            return Posterior(mean=code_BLC, logvar=None)
        if spec.noise_std is not None:
            logvar_BLC = torch.full_like(moments_BLX, 2 * math.log(spec.noise_std))
            return Posterior(mean=moments_BLX, logvar=logvar_BLC)
        return Posterior(mean=moments_BLX, logvar=None)

    def decode(self, z_BLC: Tensor, keep: int | Tensor | None = None) -> Tensor:
        """Reconstructions of codes: (B, 3, T, H, W), or (B, 3, H, W) for image tokenizers.

        Args:
            z_BLC: codes, not normalised.
            keep: how many tokens of the code are used, the later ones being cut: one number within
                1 to L, or one a sample as (B,) int64; None for all. Only for specs with lengths.

        Raises:
            SpecError: codes of another shape than the spec's, of another type or on another device
                than the weights, or that are not finite; `keep` for a spec without lengths, out of
                range or of another shape.
        """
        self._check_given(z_BLC, "codes")
        if z_BLC.ndim == 3 and _has_numbers(z_BLC):
            _check_finite(z_BLC, "codes", "c")
        return self._decode(z_BLC, keep)

    def _decode(self, z_BLC: Tensor, keep: int | Tensor | None) -> Tensor:
        spec = self.spec
        turned = tuple(z_BLC.shape[1:]) == (spec.c, spec.tokens)
        if z_BLC.ndim != 3 or z_BLC.shape[1:] != (spec.tokens, spec.c):
            raise SpecError(
                "c",
                f"codes of shape {tuple(z_BLC.shape)} do not fit {spec.variant}, which takes "
                f"(batch, {spec.tokens}, {spec.c})"
                + ("; channels come last: z.transpose(1, 2)" if turned else ""),
            )
        if keep is not None:
            z_BLC = self._cut(z_BLC, keep)
        tokens_BLD = self.from_code(z_BLC)
        if self.patch_token_D is not None:
            patches = self.patch_token_D.to(tokens_BLD.dtype).expand(len(z_BLC), spec.patches, -1)
            tokens_BLD = torch.cat([tokens_BLD, patches], dim=1)
        x_BCTHW: Tensor = self.output(self.decoder(tokens_BLD)[:, -spec.patches :])
        return x_BCTHW.squeeze(2) if spec.frames == 1 else x_BCTHW

    def _cut(self, z_BLC: Tensor, keep: int | Tensor) -> Tensor:
        if self.cut_token_C is None:
            raise SpecError(
                "keep", f"{self.spec.variant} has no lengths: its code is decoded whole, keep=None"
            )
        if isinstance(keep, int):
            self.spec.check_length(keep)
        elif keep.shape != z_BLC.shape[:1] or keep.is_floating_point():
            raise SpecError(
                "keep",
                f"keep of shape {tuple(keep.shape)} and {keep.dtype}: give one whole number, or "
                f"one for each of the {len(z_BLC)} samples",
            )
        else:
            keep = keep.to(z_BLC.device).reshape(-1, 1, 1)
        index_L1 = torch.arange(z_BLC.shape[1], device=z_BLC.device).unsqueeze(1)
        return torch.where(index_L1 < keep, z_BLC, self.cut_token_C)

    def forward(
        self, x: Tensor, noise_BLC: Tensor | None = None, keep: int | Tensor | None = None
    ) -> tuple[Tensor, Posterior]:
        """Reconstruct samples by codes drawn with the noise, by the mean where there is none.

        Args:
            x: as for `encode`.
            noise_BLC: standard normal (B, L, c), or None.
            keep: as for `decode`; the posterior is that of all tokens.

        Raises:
            SpecError: as `encode` and `decode`. In training values are not looked at, because that
                would wait for the device at every step.
        """
        if self.training:
            self._check_given(x, "samples")
            self._check_shape(x)
        posterior = self._encode(x) if self.training else self.encode(x)
        z_BLC = posterior.mean if noise_BLC is None else posterior.sample(noise_BLC)
        x_hat = self._decode(z_BLC, keep)
        return x_hat.unsqueeze(2) if x.ndim == 5 and x_hat.ndim == 4 else x_hat, posterior

    def recompute_activations(self, on: bool) -> None:
        """Trade time for memory in training: keep what goes into blocks, compute them again."""
        self.encoder.recompute = self.decoder.recompute = on

    def normalise(self, z_BLC: Tensor) -> Tensor:
        """Codes as a generator sees them.

        Raises:
            SpecError: the statistics have not been measured yet.
        """
        return self._measured().normalise(z_BLC)

    def denormalise(self, z_BLC: Tensor) -> Tensor:
        """Codes as `decode` wants them; the inverse of `normalise`.

        Raises:
            SpecError: the statistics have not been measured yet.
        """
        return self._measured().denormalise(z_BLC)

    def _measured(self) -> Normalisation:
        if self.normalisation is None:
            raise SpecError(
                "normalisation",
                "this tokenizer carries no statistics of its codes; run compute_latents of "
                "vitok_core.latents and load the weights.safetensors that it writes",
            )
        return self.normalisation


def save_tokenizer(tokenizer: ViTok, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write weights, spec and normalisation as safetensors: whole or not at all.

    The same model and the same `about` give the same bytes.

    Args:
        tokenizer: what to write.
        path: where; replaced if it exists.
        about: plain data about how the weights came about, such as config, study, task, metrics.

    Raises:
        SpecError: the tokenizer's normalisation does not fit its spec.
    """
    norm = tokenizer.normalisation
    record = {
        "spec": tokenizer.spec.plain(),
        "normalisation": None if norm is None else _plain(norm.check(tokenizer.spec)),
        "about": dict(about or {}),
    }
    write_artefact(path, METADATA_KEY, tokenizer.state_dict(), record)


def load_tokenizer(path: Path | str, device: str | torch.device = "cpu") -> ViTok:
    """Read a tokenizer written by `save_tokenizer`, ready for evaluation and frozen.

    Raises:
        WeightsError: the file is missing, is not of a tokenizer, or does not fit its own spec.
    """
    record, tensors = _read(Path(path), with_tensors=True)
    try:
        # Built without memory or random numbers, then given the file's tensors and fresh tables.
        with torch.device("meta"):
            tokenizer = ViTok(TokenizerSpec.from_plain(record["spec"]))
        tokenizer.load_state_dict(tensors, assign=True)
        for module in tokenizer.modules():
            if isinstance(module, Tower):
                module.rebuild_tables()
        if record["normalisation"] is not None:
            norm = _from_plain(record["normalisation"]).check(tokenizer.spec)
            tokenizer.normalisation = norm
    except (KeyError, ValueError, TypeError, RuntimeError, SpecError) as error:
        raise WeightsError(f"{path} is not a readable tokenizer: {error}") from error
    return tokenizer.to(device).eval().requires_grad_(False)


def read_about(path: Path | str) -> dict[str, Any]:
    """What `save_tokenizer` recorded about the weights; {} if nothing.

    Raises:
        WeightsError: the file is missing or is not of a tokenizer.
    """
    about: dict[str, Any] = _read(Path(path), with_tensors=False)[0]["about"]
    return about


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    needs = ("spec", "normalisation", "about")
    return read_artefact(
        path, METADATA_KEY, what="tokenizer", needs=needs, with_tensors=with_tensors
    )


def _plain(norm: Normalisation) -> dict[str, Any]:
    # float32 values survive JSON's decimal text exactly.
    vectors = {name: getattr(norm, name).tolist() for name in ("mean_C", "std_C")}
    return {**dataclasses.asdict(norm), **vectors}


def _from_plain(plain: Mapping[str, Any]) -> Normalisation:
    vectors = {name: torch.tensor(plain[name], dtype=torch.float32) for name in ("mean_C", "std_C")}
    return Normalisation(**{**plain, **vectors})


def _has_numbers(values: Tensor) -> bool:
    """Whether numbers can be looked at: not of a tensor without any, nor while compiling."""
    return not values.is_meta and not torch.compiler.is_compiling()


def _check_finite(values: Tensor, what: str, field: str) -> None:
    if bool(values.isfinite().all()):
        return
    bad = int((~values.flatten(1).isfinite().all(dim=1)).sum())
    raise SpecError(field, f"{bad} of {len(values)} {what} hold NaN or infinity")


def _check_range(x: Tensor) -> None:
    """Whether samples are in [-1, 1] by all that can be seen of them."""
    low, high = (float(end) for end in x.detach().aminmax())
    takes = "a tokenizer takes [-1, 1]"
    if not math.isfinite(low) or not math.isfinite(high):
        _check_finite(x, "samples", "resolution")
    if low < -RANGE or high > RANGE:
        step = "clamp them" if high <= 2 and low >= -2 else "scale them"
        if low >= 0 and high <= 255:
            step = "of 0 to 255 x / 127.5 - 1 makes them"
        raise SpecError("resolution", f"samples from {low:.4g} to {high:.4g}: {takes}; {step}")
    # In [-1, 1] no value below 0 is a batch brighter than middle gray throughout: rare, but bytes
    # from 128 on give it. In [0, 1] it is every picture.
    scaled = (x.detach().float() + 1.0) * 127.5
    if low >= 0 and high > 0 and bool(((scaled - scaled.round()).abs() > 1e-3).any()):
        raise SpecError(
            "resolution",
            f"samples from {low:.4g} to {high:.4g}, none below 0, look like [0, 1]: {takes}; "
            "2 * x - 1 makes them (bright pictures are taken as from_uint8 makes them of bytes)",
        )


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1].

    Raises:
        SpecError: images of another type, whose range is not known.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        given = getattr(images, "dtype", type(images).__name__)
        raise SpecError(
            "resolution", f"from_uint8 takes a tensor of uint8 in 0 to 255, not {given}"
        )
    return images.float() / 127.5 - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8: clamped, then rounded to the nearest."""
    return ((x.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
