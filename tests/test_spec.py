"""Do shapes and closed-form counts agree with the paper and with the models that are built?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitok_core.errors import SpecError
from vitok_core.spec import DIT_SIZES, SIZES, Size, TokenizerSpec, parse_variant, training_flops
from vitok_core.tokenizer import ViTok

# Tables 2 to 4 of the paper: variant, resolution, frames, parameters in M, "GFLOPs" (MACs).
TABLES_2_TO_4 = [
    ("S-B/16", 256, 1, 129.0, 34.8),
    ("S-L/16", 256, 1, 426.8, 113.4),
    ("S-B/16", 512, 1, 129.0, 160.8),
    ("S-B/4x8", 128, 16, 129.0, 160.8),
]


def image_spec(**changes: Any) -> TokenizerSpec:
    fields = {"encoder": "S", "decoder": "B", "p": 16, "c": 16, "resolution": 256, **changes}
    return TokenizerSpec(**fields)


# --- the paper ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions", "gmacs"), [("S", 43.3, 11.6), ("B", 85.8, 23.1), ("L", 383.7, 101.8)]
)
def test_towers_of_table_1(name: str, millions: float, gmacs: float) -> None:
    """Embedding and blocks of 256 tokens: an encoder without its projection onto the code."""
    spec = image_spec(encoder=name)
    width = SIZES[name].width
    parameters = spec.encoder_parameters - (width + 1) * 2 * spec.c
    assert parameters / 1e6 == pytest.approx(millions, rel=0.005)
    macs = spec.encoder_macs - spec.tokens * width * 2 * spec.c
    assert macs / 1e9 == pytest.approx(gmacs, rel=0.003)


@pytest.mark.parametrize(("variant", "resolution", "frames", "millions", "gmacs"), TABLES_2_TO_4)
def test_counts_of_the_paper(
    variant: str, resolution: int, frames: int, millions: float, gmacs: float
) -> None:
    parts = parse_variant(variant)
    spec = image_spec(
        encoder=parts.encoder,
        decoder=parts.decoder,
        q=parts.q,
        p=parts.p,
        resolution=resolution,
        frames=frames,
    )
    assert spec.variant == variant
    assert spec.parameters / 1e6 == pytest.approx(millions, rel=0.005)
    assert spec.macs / 1e9 == pytest.approx(gmacs, rel=0.003)


def test_video_of_the_paper_has_the_cost_of_the_512_pixel_image() -> None:
    spec = image_spec(q=4, p=8, resolution=128, frames=16)
    assert (spec.tokens, spec.grid, spec.variant) == (1024, (4, 16, 16), "S-B/4x8")
    assert spec.macs == image_spec(resolution=512).macs
    assert spec.compression == 48


def test_code_of_the_paper() -> None:
    spec = image_spec()
    assert (spec.tokens, spec.E, spec.compression, spec.variant) == (256, 4096, 48.0, "S-B/16")
    assert {size.name: size.hidden for size in SIZES.values() if size.width >= 768} == {
        "S": 2048,
        "B": 2048,
        "L": 3072,
    }


@pytest.mark.parametrize("latent_tokens", [64, 128, 256, 512, 1024])
def test_latent_codes_of_the_paper(latent_tokens: int) -> None:
    spec = image_spec(latent_tokens=latent_tokens).check()
    assert (spec.tokens, spec.patches, spec.E) == (latent_tokens, 256, 16 * latent_tokens)
    assert spec.compression == 48 * 256 / latent_tokens


def test_code_lengths_of_the_paper() -> None:
    spec = image_spec(lengths=(32, 64, 128, 256)).check()
    assert spec.E == 4096
    assert [spec.E_at(length) for length in spec.lengths] == [512, 1024, 2048, 4096]
    for length, says in ((0, "at least 1"), (257, "has 256 tokens"), (True, "whole number")):
        with pytest.raises(SpecError, match=says):
            spec.E_at(length)
    with pytest.raises(SpecError, match="only whole"):
        image_spec().E_at(32)


# --- closed form and model ----------------------------------------------------------------------


def counted(spec: TokenizerSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Parameters and MACs of the encoder and decoder half of the model that is really built.

    The counter sees matrix products, masked ones of attention included, and nothing else; two
    operations are one MAC. It knows the plain form of attention only, not the fused kernels.
    """
    found = []
    x = (1, 3, spec.frames, spec.resolution, spec.resolution)
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = ViTok(spec).eval()
        for verb, shape in ((model.encode, x), (model.decode, (1, spec.tokens, spec.c))):
            with FlopCounterMode(display=False) as counter:
                verb(torch.zeros(shape))
            found.append(counter.get_total_flops())
    halves = {"encoder": 0, "decoder": 0}
    for name, parameter in model.named_parameters():
        encodes = name.split(".")[0] in ("embed", "encoder", "to_moments")
        halves["encoder" if encodes else "decoder"] += parameter.numel()
    assert not any(flops % 2 for flops in found)
    return (halves["encoder"], halves["decoder"]), (found[0] // 2, found[1] // 2)


def closed_form(spec: TokenizerSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    assert spec.parameters == spec.encoder_parameters + spec.decoder_parameters
    assert spec.macs == spec.encoder_macs + spec.decoder_macs
    return (
        (spec.encoder_parameters, spec.decoder_parameters),
        (spec.encoder_macs, spec.decoder_macs),
    )


@pytest.mark.parametrize("name", SIZES)
def test_counts_are_those_of_the_model(name: str) -> None:
    latent = {"latent_tokens": 24, "lengths": (8,), "qk_norm": True}
    for spec in (
        image_spec(encoder=name, decoder="nano", p=8, c=5, resolution=32),
        image_spec(encoder="nano", decoder=name, q=2, p=4, resolution=16, frames=4, **latent),
    ):
        assert closed_form(spec.check()) == counted(spec)


@st.composite
def specs(draw: st.DrawFn) -> TokenizerSpec:
    """Small tokenizers with every option; combinations that exclude one another are left out."""
    q, p, t, h = (draw(st.integers(1, most)) for most in (3, 8, 3, 4))
    bottleneck = draw(st.sampled_from(["kl", "none", "layernorm", "noise"]))
    latent_tokens = draw(st.none() | st.integers(1, 20))
    tokens = latent_tokens or t * h * h
    spec = TokenizerSpec(
        encoder=draw(st.sampled_from(["nano", "micro"])),
        decoder=draw(st.sampled_from(["nano", "pico"])),
        q=q,
        p=p,
        c=draw(st.integers(3, 20)),
        resolution=p * h,
        frames=q * t,
        latent_tokens=latent_tokens,
        lengths=tuple(sorted(draw(st.sets(st.integers(1, tokens), max_size=3)))),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        qk_norm=draw(st.booleans()),
        positions=draw(st.sampled_from(["axial", "1d", "sincos", "none"])),
        bottleneck=bottleneck,
        noise_std=0.5 if bottleneck == "noise" else None,
        causal=draw(st.booleans()) and t > 1 and latent_tokens is None,
    )
    return spec.check()


@settings(max_examples=15, deadline=None)
@given(specs())
def test_counts_are_those_of_the_model_for_every_option(spec: TokenizerSpec) -> None:
    assert closed_form(spec) == counted(spec)


def test_options_cost_what_they_are() -> None:
    spec = image_spec()
    width, blocks = 768, 6 + 12
    rms, qk = replace(spec, norm="rmsnorm"), replace(spec, qk_norm=True)
    assert spec.parameters - rms.parameters == (2 * blocks + 2) * width
    assert qk.parameters - spec.parameters == 2 * 64 * blocks
    assert spec.parameters - replace(spec, bottleneck="none").parameters == 16 * (width + 1)
    assert replace(spec, lengths=(8,)).parameters - spec.parameters == 16
    latent = replace(spec, latent_tokens=256)
    assert latent.parameters - spec.parameters == width
    assert latent.macs > 2 * spec.macs  # twice the tokens, and more in attention
    for free in (replace(spec, positions="none"), replace(spec, lengths=(8,)), rms, qk):
        assert free.macs == spec.macs


# --- plain data ---------------------------------------------------------------------------------


@given(specs())
def test_a_spec_comes_back_from_json(spec: TokenizerSpec) -> None:
    assert TokenizerSpec.from_plain(json.loads(json.dumps(spec.plain()))) == spec


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"patch": 16}, "patch", "'patch' is no field of a tokenizer; there are encoder, decoder"),
        ({"p": 24}, "p", "does not divide"),
        ({"lengths": "abc"}, "lengths", "list of lengths"),
        ({"lengths": {"a": 1}}, "lengths", "list of lengths"),
    ],
)
def test_plain_data_that_is_no_spec(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        TokenizerSpec.from_plain({**image_spec().plain(), **changes})
    assert caught.value.field == field


def test_plain_data_that_lacks_a_field() -> None:
    with pytest.raises(SpecError, match="needs resolution; got encoder, decoder, p, c"):
        TokenizerSpec.from_plain({"encoder": "S", "decoder": "B", "p": 16, "c": 16})


# --- variants -----------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(sorted(SIZES)),
    st.integers(1, 64),
    st.integers(1, 64),
)
def test_variant_reads_back(encoder: str, decoder: str, q: int, p: int) -> None:
    spec = image_spec(encoder=encoder, decoder=decoder, q=q, p=p, resolution=p, frames=q).check()
    variant = parse_variant(spec.variant)
    assert (variant.encoder, variant.decoder, variant.q, variant.p) == (encoder, decoder, q, p)


@pytest.mark.parametrize("text", ["S-B", "S/16", "S-B/", "S-B/4x", "S-B/0", "X-B/16", "S-B/16 "])
def test_what_is_no_variant(text: str) -> None:
    with pytest.raises(SpecError):
        parse_variant(text)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"encoder": "s"}, "encoder", "did you mean S?"),
        ({"decoder": "minni"}, "decoder", "did you mean mini?"),
        ({"decoder": "Z"}, "decoder", "nano, pico, micro, mini, tiny, S, B, L"),
        ({"p": 24}, "p", "1, 2, 4, 8, 16, 32, 64, 128, 256"),
        ({"q": 3, "frames": 4}, "q", "does not divide"),
        ({"c": 0}, "c", "at least 1"),
        ({"c": True}, "c", "whole number"),
        ({"resolution": 256.0}, "resolution", "whole number"),
        ({"latent_tokens": 0}, "latent_tokens", "at least 1"),
        ({"norm": "batchnorm"}, "norm", "choose one of layernorm, rmsnorm"),
        ({"norm": ["rmsnorm"]}, "norm", "choose one of layernorm, rmsnorm"),
        ({"positions": "2d"}, "positions", "axial, 1d, sincos, none"),
        ({"bottleneck": "vq"}, "bottleneck", "kl, none, layernorm, noise"),
        ({"qk_norm": 1}, "qk_norm", "true or false"),
        ({"causal": "yes"}, "causal", "true or false"),
        ({"bottleneck": "noise"}, "noise_std", "needs a standard deviation"),
        ({"bottleneck": "noise", "noise_std": 0.0}, "noise_std", "above 0"),
        ({"bottleneck": "noise", "noise_std": True}, "noise_std", "above 0"),
        ({"bottleneck": "noise", "noise_std": float("nan")}, "noise_std", "above 0"),
        ({"bottleneck": "noise", "noise_std": float("inf")}, "noise_std", "above 0"),
        ({"noise_std": 0.5}, "noise_std", "this one is kl"),
        ({"bottleneck": "layernorm", "c": 2}, "c", "at least 3"),
        ({"lengths": [32]}, "lengths", "list of lengths"),
        ({"lengths": (64, 32)}, "lengths", "rise strictly"),
        ({"lengths": (32, 32)}, "lengths", "rise strictly"),
        ({"lengths": (0, 32)}, "lengths", "at least 1"),
        ({"lengths": (32, 512)}, "lengths", "the 256 tokens"),
        ({"lengths": (32, 256), "latent_tokens": 64}, "lengths", "the 64 tokens"),
        ({"causal": True}, "causal", "at least 2 steps"),
        ({"causal": True, "frames": 4, "q": 4}, "causal", "4 frames with q = 4 are 1"),
        ({"causal": True, "frames": 4, "latent_tokens": 8}, "causal", "1-D code"),
    ],
)
def test_what_cannot_be_built(changes: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(SpecError, match=re.escape(says)) as caught:
        image_spec(**changes).check()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 64, "depth": 1, "heads": 3},
        {"width": 66, "depth": 1, "heads": 6},
        {"width": 64, "depth": 0, "heads": 2},
    ],
)
def test_sizes_that_cannot_be_built(fields: dict[str, int]) -> None:
    with pytest.raises(SpecError):
        Size(name="odd", **fields)


@pytest.mark.parametrize("sizes", [SIZES, DIT_SIZES])
def test_every_named_size_can_be_built(sizes: dict[str, Size]) -> None:
    assert all(name == size.name for name, size in sizes.items())
    assert all(size.width % 4 == 0 and size.hidden % 8 == 0 for size in sizes.values())


def test_training_flops_are_six_times_the_macs_and_twice_for_what_is_frozen() -> None:
    spec = image_spec()
    assert training_flops(spec, 10) == 60 * spec.macs
    frozen = training_flops(spec, 10, train="decoder")
    assert frozen == 20 * spec.encoder_macs + 60 * spec.decoder_macs


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys, vitok_core.spec, vitok_core.protocols, vitok_core.data, vitok_core.weights;"
        "loaded = {'torch', 'PIL', 'skimage', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
