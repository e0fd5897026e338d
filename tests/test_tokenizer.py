"""Is the model the ViTok of the paper, in every variant, and do its weights come back?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vitok_core
from vitok_core.errors import SpecError, WeightsError
from vitok_core.layers import Tower, rope_table, sincos_table, sincos_table_1d
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import (
    METADATA_KEY,
    Normalisation,
    Posterior,
    ViTok,
    from_uint8,
    load_tokenizer,
    read_about,
    save_tokenizer,
    to_uint8,
)

IMAGE = TokenizerSpec(encoder="nano", decoder="micro", p=4, c=8, resolution=16)
VIDEO = TokenizerSpec(encoder="nano", decoder="nano", q=2, p=4, c=8, resolution=8, frames=4)

VARIANTS: dict[str, dict[str, Any]] = {
    "simple": {},
    "latent": {"latent_tokens": 5},
    "latent, more tokens than tubelets": {"latent_tokens": 19, "positions": "1d"},
    "latent without positions": {"latent_tokens": 5, "positions": "none"},
    "latent with a table": {"latent_tokens": 5, "positions": "sincos"},
    "mask simple": {"lengths": (2, 8)},
    "mask latent": {"latent_tokens": 6, "lengths": (1, 6)},
    "rmsnorm": {"norm": "rmsnorm", "qk_norm": True},
    "qk_norm": {"qk_norm": True},
    "1d": {"positions": "1d"},
    "sincos": {"positions": "sincos"},
    "no positions": {"positions": "none"},
    "plain code": {"bottleneck": "none"},
    "normalised code": {"bottleneck": "layernorm"},
    "fixed noise": {"bottleneck": "noise", "noise_std": 0.5},
    "video": {"q": 2, "frames": 4},
    "video with a table": {"q": 2, "frames": 4, "positions": "sincos"},
    "latent video": {"q": 2, "frames": 4, "latent_tokens": 7},
    "causal": {"q": 2, "frames": 4, "causal": True},
    "causal 1d, qk_norm, masked": {
        "frames": 3,
        "causal": True,
        "positions": "1d",
        "qk_norm": True,
        "lengths": (4, 40),
    },
}

variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def model_of(seed: int = 0, **options: Any) -> ViTok:
    """A small model whose every weight is random, zeros included."""
    fields = {"encoder": "nano", "decoder": "micro", "p": 4, "c": 8, "resolution": 16, **options}
    torch.manual_seed(seed)
    model = ViTok(TokenizerSpec(**fields))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def image_model() -> ViTok:
    return model_of().eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(*shape: int, seed: int = 1) -> torch.Tensor:
    """Noise in [-1, 1]."""
    return noise(*shape, seed=seed).clamp(-1, 1)


def samples(model: ViTok, count: int = 2) -> torch.Tensor:
    spec = model.spec
    shape = (spec.resolution, spec.resolution)
    return pictures(count, 3, *(shape if spec.frames == 1 else (spec.frames, *shape)))


# --- forward and backward -----------------------------------------------------------------------


@variants
def test_every_row_of_every_weight_of_every_variant_gets_a_gradient(
    options: dict[str, Any],
) -> None:
    model = model_of(**options)
    x, spec = samples(model), model.spec
    keep = torch.tensor([spec.lengths[0], spec.tokens]) if spec.lengths else None
    x_hat, posterior = model(x, noise(2, spec.tokens, spec.c), keep)
    assert x_hat.shape == x.shape
    assert posterior.mean.shape == (2, spec.tokens, spec.c)
    ((x_hat - x).square().mean() + posterior.kl().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.reshape(len(parameter), -1).abs().amax(dim=1)
        assert rows.min() > 1e-9, name


@variants
def test_every_variant_says_in_bfloat16_about_what_it_says_in_float32(
    options: dict[str, Any],
) -> None:
    model = model_of(**options).eval()
    x = samples(model)
    with torch.no_grad():
        whole, posterior = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low, rough = model(x)
    assert rough.mean.dtype == torch.float32
    assert (rough.mean - posterior.mean).abs().mean() < 0.05 * posterior.mean.abs().mean()
    assert (low.float() - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_shapes_of_images_and_videos(image_model: ViTok) -> None:
    x = pictures(2, 3, 16, 16)
    posterior = image_model.encode(x)
    assert posterior.logvar is not None
    assert posterior.mean.shape == posterior.logvar.shape == (2, IMAGE.tokens, IMAGE.c)
    assert image_model.decode(posterior.mean).shape == x.shape
    x_hat, _ = image_model(x.unsqueeze(2))
    assert x_hat.shape == (2, 3, 1, 16, 16)
    assert torch.equal(x_hat.squeeze(2), image_model(x)[0])


def test_samples_of_another_shape_are_refused(image_model: ViTok) -> None:
    with pytest.raises(SpecError, match="do not fit"):
        image_model.encode(noise(2, 3, 32, 32))
    with pytest.raises(SpecError, match="do not fit"):
        ViTok(VIDEO).encode(noise(2, 3, 8, 8))
    for shape in ((2, 15, 8), (2, 16, 7), (16, 8)):
        with pytest.raises(SpecError, match=r"takes \(batch, 16, 8\)"):
            image_model.decode(noise(*shape))


BYTES = (torch.arange(2 * 3 * 16 * 16) % 256).to(torch.uint8).reshape(2, 3, 16, 16)
HALVES = torch.tensor([1.0, math.nan]).view(2, 1, 1, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (BYTES, "samples of uint8 do not go with weights of float32: from_uint8 of vitok_core"),
        (BYTES.int(), "samples of int32 .* in 0 to 255"),
        (BYTES > 9, "samples of bool"),
        (BYTES.float(), r"samples from 0 to 255: .* takes \[-1, 1\]; of 0 to 255 x / 127"),
        (BYTES / 255, r"samples from 0 to 1, none below 0, look like \[0, 1\].*2 \* x - 1"),
        (torch.rand(2, 3, 16, 16), r"look like \[0, 1\]"),
        (BYTES.float() - 127.5, r"samples from -127.5 to 127.5: .*; scale them"),
        (1.5 * from_uint8(BYTES), r"samples from -1.5 to 1.5: .*; clamp them"),
        (from_uint8(BYTES).double(), "samples of float64 .*give x.to.torch.float32"),
        (from_uint8(BYTES).half(), "samples of float16"),
        (from_uint8(BYTES).numpy(), "a tensor of float32, not numpy.ndarray: torch.from_numpy"),
        (BYTES.tolist(), "not builtins.list"),
        (from_uint8(BYTES) * HALVES, "1 of 2 samples hold"),
        (from_uint8(BYTES) * math.inf, "2 of 2 samples hold NaN or infinity"),
        (from_uint8(BYTES).permute(0, 2, 3, 1), r"do not fit .*first: x.permute\(0, 3, 1, 2\)"),
        (from_uint8(BYTES)[0], r"a batch of one: x.unsqueeze\(0\)"),
        (from_uint8(BYTES).unsqueeze(1), r"before time: x.transpose\(1, 2\)"),
        (from_uint8(BYTES)[:, :1], "do not fit"),
        (from_uint8(BYTES)[:0], "the batch is empty"),
    ],
)  # fmt: skip
def test_samples_of_another_type_or_range_are_refused(
    image_model: ViTok, given: Any, said: str
) -> None:
    for verb in (image_model.encode, image_model):
        with pytest.raises(SpecError, match=said):
            verb(given)


def test_samples_that_only_look_wrong_are_taken(image_model: ViTok) -> None:
    bright = from_uint8(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8) - BYTES[:1] // 2)
    for x in (bright, -bright, from_uint8(BYTES), torch.zeros(1, 3, 16, 16)):
        assert image_model.encode(x).mean.shape[0] == len(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert image_model.encode(from_uint8(BYTES).bfloat16()).mean.shape[0] == 2
    assert image_model.double().encode(from_uint8(BYTES).double()).mean.dtype == torch.float32


def test_only_bytes_are_scaled_from_bytes() -> None:
    for images in (BYTES.float(), BYTES / 255, BYTES.int(), BYTES.numpy()):
        with pytest.raises(SpecError, match="uint8 in 0 to 255, not "):
            from_uint8(images)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (noise(2, 16, 8).double(), "codes of float64 .*give x.to.torch.float32"),
        (noise(2, 16, 8).long(), "codes of int64"),
        (noise(2, 16, 8).numpy(), "codes are a tensor of float32, not numpy.ndarray"),
        (noise(2, 16, 8) / 0, "2 of 2 codes hold NaN or infinity"),
        (noise(2, 8, 16), r"codes of shape .*channels come last: z.transpose\(1, 2\)"),
        (noise(2, 4, 4, 8), "do not fit"),
    ],
)
def test_codes_of_another_type_or_shape_are_refused(
    image_model: ViTok, given: Any, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        image_model.decode(given)


def test_mean_without_noise_and_samples_with_it(image_model: ViTok) -> None:
    x, drawn = pictures(2, 3, 16, 16), noise(2, 16, 8)
    x_hat, posterior = image_model(x)
    assert torch.equal(x_hat, image_model.decode(posterior.mean))
    x_hat, posterior = image_model(x, drawn)
    assert torch.equal(x_hat, image_model.decode(posterior.sample(drawn)))
    assert not torch.equal(x_hat, image_model(x, -drawn)[0])


def test_every_linear_starts_xavier_uniform_and_every_mask_token_zero() -> None:
    torch.manual_seed(0)
    model = ViTok(TokenizerSpec.from_plain({**IMAGE.plain(), "latent_tokens": 4, "lengths": [2]}))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or not module.bias.any(), name
    assert model.cut_token_C is not None and not model.cut_token_C.any()
    assert model.patch_token_D is not None and not model.patch_token_D.any()


def test_recomputing_activations_changes_no_gradient() -> None:
    model = model_of(latent_tokens=5, norm="rmsnorm", qk_norm=True)
    x, drawn, found = samples(model), noise(2, 5, 8), []
    for again in (False, True):
        model.zero_grad()
        model.recompute_activations(again)
        assert [m.recompute for m in model.modules() if isinstance(m, Tower)] == [again, again]
        model(x, drawn)[0].square().mean().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# --- the code -----------------------------------------------------------------------------------


def test_log_variance_is_clamped(image_model: ViTok) -> None:
    with torch.no_grad():
        image_model.to_moments.bias[IMAGE.c :] = torch.tensor([1e6, -1e6] * (IMAGE.c // 2))
    logvar = image_model.encode(pictures(1, 3, 16, 16)).logvar
    assert logvar is not None
    assert (logvar.max().item(), logvar.min().item()) == (20.0, -30.0)


@given(st.floats(-3, 3), st.floats(-5, 3))
def test_kl_is_that_of_torch(mean: float, logvar: float) -> None:
    ours = Posterior(mean=torch.tensor([mean]), logvar=torch.tensor([logvar])).kl()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, np.exp(logvar / 2)), torch.distributions.Normal(0.0, 1.0)
    )
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4, rel=1e-4)


def test_a_posterior_draws_its_mean_and_deviation() -> None:
    posterior = Posterior(mean=torch.full((20_000, 1, 1), 2.0), logvar=torch.full((1, 1, 1), -1.0))
    drawn = posterior.sample(noise(20_000, 1, 1))
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(np.exp(-0.5), rel=0.02)


def test_a_code_without_randomness_draws_its_mean_and_has_no_kl() -> None:
    posterior = Posterior(mean=noise(2, 3, 4), logvar=None)
    assert torch.equal(posterior.sample(noise(2, 3, 4, seed=2)), posterior.mean)
    assert posterior.kl().shape == (2, 3, 4) and not posterior.kl().any()


@pytest.mark.parametrize("bottleneck", ["none", "layernorm"])
def test_deterministic_codes(bottleneck: str) -> None:
    model = model_of(bottleneck=bottleneck)
    posterior = model.encode(samples(model))
    assert posterior.logvar is None
    deviation = posterior.mean.std(dim=-1, correction=0)
    normalised = torch.allclose(deviation, torch.ones_like(deviation), atol=1e-3)
    assert normalised == (bottleneck == "layernorm")


def test_fixed_noise_has_its_deviation_everywhere() -> None:
    model = model_of(bottleneck="noise", noise_std=0.25)
    posterior, drawn = model.encode(samples(model)), noise(2, 16, 8)
    assert torch.allclose(posterior.sample(drawn) - posterior.mean, 0.25 * drawn, atol=1e-5)


# --- variants -----------------------------------------------------------------------------------


def test_what_is_cut_off_the_code_is_not_seen() -> None:
    model = model_of(lengths=(4, 16)).eval()
    z, other = noise(2, 16, 8), noise(2, 16, 8, seed=2)
    other[:, :4] = z[:, :4]
    assert torch.equal(model.decode(z, 4), model.decode(other, 4))
    assert not torch.allclose(model.decode(z, 5), model.decode(other, 5))
    other[:, :3] += 1.0
    assert not torch.allclose(model.decode(z, 4), model.decode(other, 4))
    assert torch.equal(model.decode(z, 16), model.decode(z))
    filled = z.clone()
    filled[:, 4:] = model.cut_token_C
    assert torch.equal(model.decode(z, 4), model.decode(filled))


def test_every_sample_may_keep_another_length() -> None:
    model = model_of(lengths=(4, 16), latent_tokens=20).eval()
    z = noise(3, 20, 8)
    together = model.decode(z, torch.tensor([4, 16, 20]))
    for index, keep in enumerate((4, 16, None)):
        assert torch.allclose(together[index], model.decode(z, keep)[index], atol=1e-5)


def test_the_posterior_is_that_of_all_tokens_whatever_is_kept() -> None:
    model = model_of(lengths=(4, 16)).eval()
    x = samples(model)
    whole, cut = model(x)[1], model(x, keep=4)[1]
    assert torch.equal(whole.mean, cut.mean)
    assert cut.kl().shape == (2, 16, 8)


@pytest.mark.parametrize(
    ("lengths", "keep", "says"),
    [
        ((), 4, "has no lengths"),
        ((), torch.tensor([4, 4]), "has no lengths"),
        ((4, 16), 0, "at least 1"),
        ((4, 16), 17, "has 16 tokens"),
        ((4, 16), torch.tensor([4]), "one for each of the 2 samples"),
        ((4, 16), torch.tensor([4.0, 4.0]), "one whole number"),
    ],
)
def test_lengths_that_cannot_be_kept(
    lengths: tuple[int, ...], keep: int | torch.Tensor, says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        model_of(lengths=lengths).decode(noise(2, 16, 8), keep)


@pytest.mark.parametrize("positions", ["axial", "1d", "sincos", "none"])
def test_the_decoder_tells_the_tokens_of_a_1d_code_and_the_tubelets_apart(positions: str) -> None:
    model = model_of(latent_tokens=6, positions=positions).eval()
    z = noise(1, 6, 8)
    x_hat = model.decode(z)
    assert not torch.allclose(x_hat, model.decode(z.flip(1)), atol=1e-3)
    assert len(torch.unique(model.decoder(torch.zeros(1, 22, 96))[0].round(decimals=4), dim=0)) > 16


def test_a_1d_code_stands_before_the_tubelets_and_is_not_turned() -> None:
    model = model_of(latent_tokens=5, q=2, frames=4).eval()
    grid, (wide, narrow) = model.spec.grid, (96, 64)
    unturned = torch.tensor([1.0, 0.0]).expand(5, 16, 2)
    table = torch.cat([unturned, rope_table(grid, 32)])

    def run(tower: Tower, tokens: torch.Tensor) -> torch.Tensor:
        for block in tower.blocks:
            tokens = block(tokens, table)
        normed: torch.Tensor = tower.norm(tokens)
        return normed

    x = samples(model)
    read = torch.cat([sincos_table_1d(5, narrow).expand(2, -1, -1), model.embed(x)], dim=1)
    mean = model.to_moments(run(model.encoder, read)[:, :5])[..., :8]
    assert torch.allclose(model.encode(x).mean, mean, atol=1e-5)

    assert model.patch_token_D is not None
    z, blank = noise(2, 5, 8), model.patch_token_D + sincos_table(grid, wide)
    written = torch.cat(
        [model.from_code(z) + sincos_table_1d(5, wide), blank.expand(2, -1, -1)], dim=1
    )
    x_hat = model.output(run(model.decoder, written)[:, 5:])
    assert torch.allclose(model.decode(z), x_hat, atol=1e-5)


def test_without_positions_tubelets_may_change_places_and_with_them_not() -> None:
    for positions in ("none", "axial", "1d", "sincos"):
        model = model_of(positions=positions).eval()
        x = samples(model)
        swapped = torch.cat([x[..., 8:], x[..., :8]], dim=-1)
        codes = model.encode(x).mean.reshape(2, 4, 4, 8)
        moved = model.encode(swapped).mean.reshape(2, 4, 4, 8)
        same = torch.allclose(torch.cat([codes[:, :, 2:], codes[:, :, :2]], 2), moved, atol=1e-4)
        assert same == (positions == "none"), positions


@pytest.mark.parametrize("positions", ["axial", "1d", "sincos"])
def test_causal_models_do_not_look_ahead(positions: str) -> None:
    for causal in (True, False):
        model = model_of(q=2, frames=6, causal=causal, positions=positions).eval()
        x = samples(model)
        later = x.clone()
        later[:, :, 4:] = pictures(2, 3, 2, 16, 16, seed=3)
        code, other = model.encode(x).mean, model.encode(later).mean
        assert torch.allclose(code[:, :32], other[:, :32], atol=1e-6) == causal
        assert not torch.allclose(code[:, 32:], other[:, 32:], atol=1e-3)
        x_hat, changed = model(x)[0], model(later)[0]
        assert torch.allclose(x_hat[:, :, :4], changed[:, :, :4], atol=1e-5) == causal


# --- normalisation ------------------------------------------------------------------------------


def statistics(mode: Any = "per-channel", **changes: Any) -> Normalisation:
    fields: dict[str, Any] = {
        "mean_C": noise(8),
        "std_C": noise(8).abs() + 0.1,
        "mean": 0.3,
        "std": 1.7,
        "samples": 100,
        **changes,
    }
    return Normalisation(mode=mode, **fields)


@pytest.mark.parametrize("mode", ["none", "scalar", "per-channel"])
def test_normalising_can_be_undone(image_model: ViTok, mode: str) -> None:
    image_model.normalisation = norm = statistics(mode)
    z = norm.mean_C + norm.std_C * noise(500, 16, 8)
    normal = image_model.normalise(z)
    assert torch.allclose(image_model.denormalise(normal), z, atol=1e-5)
    if mode == "per-channel":
        assert torch.allclose(normal.mean((0, 1)), torch.zeros(8), atol=0.05)
        assert torch.allclose(normal.std((0, 1)), torch.ones(8), atol=0.05)
    else:
        assert torch.allclose(normal, z / (1.7 if mode == "scalar" else 1.0))


def test_a_tokenizer_without_statistics_says_how_to_get_them(image_model: ViTok) -> None:
    for verb in (image_model.normalise, image_model.denormalise):
        with pytest.raises(SpecError, match="compute_latents"):
            verb(noise(1, 16, 8))


@pytest.mark.parametrize(
    ("norm", "says"),
    [
        (statistics("spherical"), "choose one of none, scalar, per-channel"),
        (statistics(mean_C=torch.zeros(4)), "do not fit a code of c = 8"),
        (statistics(std_C=torch.zeros(8)), "standard deviation of 0"),
        (statistics("scalar", std=0.0), "standard deviation of 0"),
        (statistics("none", mean=float("nan")), "not all finite"),
    ],
)
def test_statistics_that_cannot_be_used(
    image_model: ViTok, norm: Normalisation, says: str, tmp_path: Path
) -> None:
    image_model.normalisation = norm
    with pytest.raises(SpecError, match=says):
        save_tokenizer(image_model, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# --- files --------------------------------------------------------------------------------------


@variants
def test_every_variant_comes_back(options: dict[str, Any], tmp_path: Path) -> None:
    model = model_of(**options).eval()
    path = tmp_path / "a.safetensors"
    save_tokenizer(model, path)
    loaded = vitok_core.load(path)
    assert loaded.spec == model.spec
    assert loaded.normalisation is None and read_about(path) == {}
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    tables, fresh = dict(model.named_buffers()), dict(loaded.named_buffers())
    assert tables.keys() == fresh.keys()
    assert all(torch.equal(fresh[name], tables[name]) for name in tables)
    # The same kernels for both: attention that keeps nothing for gradients may round otherwise.
    x, model = samples(model), model.requires_grad_(False)
    assert torch.equal(loaded(x)[0], model(x)[0])


def test_same_weights_have_same_bytes_and_no_other_file_is_left(
    image_model: ViTok, tmp_path: Path
) -> None:
    image_model.normalisation = statistics()
    about = {"task": "3f2a", "config": {"steps": 5, "loss": {"kl": 1e-3}}, "metrics": {"psnr": 1.5}}
    for name in ("a", "b"):
        save_tokenizer(image_model, tmp_path / f"{name}.safetensors", about)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    assert read_about(tmp_path / "a.safetensors") == about


def test_statistics_come_back_exactly(image_model: ViTok, tmp_path: Path) -> None:
    image_model.normalisation = norm = statistics()
    save_tokenizer(image_model, tmp_path / "a.safetensors")
    found = load_tokenizer(tmp_path / "a.safetensors").normalisation
    assert found is not None
    assert torch.equal(found.mean_C, norm.mean_C) and torch.equal(found.std_C, norm.std_C)
    assert (found.mode, found.mean, found.std, found.samples) == ("per-channel", 0.3, 1.7, 100)


def test_what_is_no_tokenizer_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="does not exist"):
        vitok_core.load(tmp_path / "none.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"not weights" * 9)
    with pytest.raises(WeightsError, match="not a readable tokenizer"):
        load_tokenizer(tmp_path / "noise.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    for read in (load_tokenizer, read_about):
        with pytest.raises(WeightsError, match="holds no tokenizer"):
            read(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not a readable tokenizer"):
        read_about(tmp_path)
    with pytest.raises(
        WeightsError, match=r"it is a folder; .* there are noise.safetensors, other"
    ):
        vitok_core.load(tmp_path)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ("{", "not a readable tokenizer"),
        ([], "not whole"),
        ({"spec": {}}, "not whole"),
        ({"spec": {}, "normalisation": None, "about": {}}, "needs encoder"),
        (
            {"spec": {**IMAGE.plain(), "p": 3}, "normalisation": None, "about": {}},
            "does not divide",
        ),
        ({"spec": {**IMAGE.plain(), "depth": 3}, "normalisation": None, "about": {}}, "no field"),
        ({"spec": {**IMAGE.plain(), "c": 9}, "normalisation": None, "about": {}}, "size mismatch"),
        (
            {"spec": {**IMAGE.plain(), "encoder": "mini"}, "normalisation": None, "about": {}},
            "size",
        ),
        ({"spec": IMAGE.plain(), "normalisation": {"mode": "none"}, "about": {}}, "mean_C"),
    ],
)
def test_weights_whose_metadata_is_wrong(
    contents: object, says: str, tmp_path: Path, image_model: ViTok
) -> None:
    from safetensors.torch import save_file

    text = contents if isinstance(contents, str) else json.dumps(contents)
    path = tmp_path / "a.safetensors"
    save_file(image_model.state_dict(), path, metadata={METADATA_KEY: text})
    with pytest.raises(WeightsError, match=says):
        load_tokenizer(path)


# --- bytes --------------------------------------------------------------------------------------


@given(st.integers(0, 255))
def test_bytes_survive_the_way_to_floats_and_back(value: int) -> None:
    image = torch.full((1, 3, 2, 2), value, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(image)), image)


def test_reconstructions_are_clamped_and_rounded() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 0.999, 7.0])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255]
