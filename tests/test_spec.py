"""Do shapes and closed-form counts agree with the paper and with the models that are built?"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitok_core.errors import SpecError
from vitok_core.spec import SIZES, Size, TokenizerSpec, parse_variant, training_flops
from vitok_core.tokenizer import ViTok

# Table 1 and 2 of the paper: encoder, decoder, p, resolution, parameters in M, "GFLOPs" (MACs).
TABLE_2 = [
    ("S", "B", 16, 256, 129.0, 34.8),
    ("S", "L", 16, 256, 426.8, 113.4),
    ("S", "B", 16, 512, 129.0, 160.8),
]


def image_spec(**changes: object) -> TokenizerSpec:
    fields = {"encoder": "S", "decoder": "B", "p": 16, "c": 16, "resolution": 256, **changes}
    return TokenizerSpec(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("encoder", "decoder", "p", "resolution", "millions", "gmacs"), TABLE_2)
def test_counts_of_the_paper(
    encoder: str, decoder: str, p: int, resolution: int, millions: float, gmacs: float
) -> None:
    spec = image_spec(encoder=encoder, decoder=decoder, p=p, resolution=resolution)
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


def counted(spec: TokenizerSpec) -> tuple[int, int]:
    """Parameters of the encoder and decoder half of the model that is really built."""
    with torch.device("meta"):
        model = ViTok(spec)
    halves = {"encoder": 0, "decoder": 0}
    for name, parameter in model.named_parameters():
        encodes = name.split(".")[0] in ("embed", "encoder", "to_moments")
        halves["encoder" if encodes else "decoder"] += parameter.numel()
    return halves["encoder"], halves["decoder"]


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_model(name: str) -> None:
    spec = image_spec(encoder=name, decoder="nano", p=8, c=5, resolution=32)
    assert (spec.encoder_parameters, spec.decoder_parameters) == counted(spec)
    spec = image_spec(encoder="nano", decoder=name, q=2, p=4, resolution=16, frames=4)
    assert (spec.encoder_parameters, spec.decoder_parameters) == counted(spec)
    assert spec.parameters == sum(counted(spec))


@pytest.mark.parametrize(("p", "resolution"), [(4, 32), (8, 32), (16, 32)])
def test_macs_are_those_the_model_does(p: int, resolution: int) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    spec = image_spec(encoder="micro", decoder="nano", p=p, resolution=resolution)
    model = ViTok(spec).eval()
    # The counter knows plain matrix products, but not the fused attention of CPUs.
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, resolution, resolution))
    assert counter.get_total_flops() == 2 * spec.macs


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
    ],
)
def test_what_cannot_be_built(changes: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(SpecError, match=says.replace("?", r"\?")) as caught:
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


def test_training_flops_are_six_times_the_macs() -> None:
    spec = image_spec()
    assert training_flops(spec, 10) == 60 * spec.macs


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys, vitok_core.spec, vitok_core.protocols, vitok_core.data, vitok_core.weights;"
        "loaded = {'torch', 'PIL', 'skimage', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
