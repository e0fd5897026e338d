"""Is the generator the DiT of its spec, and do its weights come back as they were written?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vitok_core.dit import DiT, load_dit, read_dit_about, save_dit, time_features
from vitok_core.errors import SpecError, WeightsError
from vitok_core.spec import DIT_SIZES, DiTSpec, TokenizerSpec, dit_training_flops

SMALL = DiTSpec(size="nano", grid=(1, 3, 3), c=4, classes=5)
IMAGENET = DiTSpec(size="L", grid=(1, 16, 16), c=4, classes=1000)
OPTIONS = {
    "plain": {},
    "learned variance": {"learn_sigma": True},
    "qk norm": {"qk_norm": True},
    "no classes": {"classes": 0},
    "1-D code": {"grid": (9, 1, 1), "positions": "1d"},
    "video": {"grid": (2, 3, 3)},
    "flow": {"target": "flow"},
}


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(spec: DiTSpec, *, trained: bool = True) -> DiT:
    """A network; `trained` gives what starts at zero some values."""
    torch.manual_seed(0)
    dit = DiT(spec).eval()
    if trained:
        with torch.no_grad():
            for parameter in dit.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return dit


# --- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options"),
    [
        pytest.param(size, options, marks=[] if size == "nano" else pytest.mark.slow)
        for size in DIT_SIZES
        for options in OPTIONS.values()
    ],
)
def test_closed_form_is_what_the_model_counts(size: str, options: dict[str, object]) -> None:
    spec = replace(SMALL, **{"size": size, **options}).check()
    with torch.device("meta"):
        dit = DiT(spec)
        x, time = torch.empty(1, spec.tokens, spec.c), torch.empty(1)
        with FlopCounterMode(display=False) as counter:
            dit(x, time)
    assert sum(parameter.numel() for parameter in dit.parameters()) == spec.parameters
    assert counter.get_total_flops() == 2 * spec.macs  # matrix products, attention's included
    assert dit_training_flops(spec, 10) == 60 * spec.macs


@pytest.mark.parametrize("c", [4, 8, 16])
@pytest.mark.parametrize(
    ("size", "parameters", "macs"), [("L", 457.8e6, 80.71e9), ("XL", 674.8e6, 118.64e9)]
)
def test_published_counts(size: str, parameters: float, macs: float, c: int) -> None:
    """Peebles & Xie: DiT-L/2 and DiT-XL/2 at 256 px, 256 tokens; their Gflops are MACs."""
    spec = replace(IMAGENET, size=size, c=c, learn_sigma=True).check()
    assert spec.parameters == pytest.approx(parameters, rel=0.01)
    assert spec.macs == pytest.approx(macs, rel=0.01)


# --- spec -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "xl"}, "size"),
        ({"grid": (16, 16)}, "grid"),
        ({"grid": (1, 0, 4)}, "grid"),
        ({"c": 0}, "c"),
        ({"classes": -1}, "classes"),
        ({"classes": False}, "classes"),
        ({"target": "x0"}, "target"),
        ({"positions": "none"}, "positions"),
        ({"qk_norm": 1}, "qk_norm"),
        ({"learn_sigma": True, "target": "v"}, "learn_sigma"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(SpecError) as error:
        replace(SMALL, **options).check()
    assert error.value.field == field


@given(
    st.sampled_from(list(DIT_SIZES)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 64),
    st.integers(0, 1000),
    st.sampled_from(["eps", "v", "flow"]),
    st.booleans(),
)
def test_plain_data_come_back(
    size: str, grid: tuple[int, int, int], c: int, classes: int, target: str, qk_norm: bool
) -> None:
    spec = DiTSpec(size=size, grid=grid, c=c, classes=classes, target=target, qk_norm=qk_norm)
    assert DiTSpec.from_plain(spec.plain()) == spec


def test_plain_data_with_other_fields_are_refused() -> None:
    with pytest.raises(SpecError, match="no field of a DiT"):
        DiTSpec.from_plain({**SMALL.plain(), "patch": 2})
    with pytest.raises(SpecError, match="needs classes"):
        DiTSpec.from_plain({k: v for k, v in SMALL.plain().items() if k != "classes"})


def test_the_spec_for_a_tokenizer_has_its_codes() -> None:
    image = TokenizerSpec(encoder="nano", decoder="nano", p=4, c=8, resolution=16)
    assert DiTSpec.for_tokenizer(image, size="nano", classes=3) == DiTSpec(
        size="nano", grid=(1, 4, 4), c=8, classes=3
    )
    video = replace(image, frames=4, q=2)
    assert DiTSpec.for_tokenizer(video, size="nano", classes=3).grid == (2, 4, 4)
    row = DiTSpec.for_tokenizer(replace(image, latent_tokens=5), size="nano", classes=3)
    assert (row.grid, row.positions) == ((5, 1, 1), "1d")


# --- network --------------------------------------------------------------------------------------


def test_time_features_are_sines_at_geometric_rates() -> None:
    features = time_features(torch.tensor([0.0, 3.0]))
    assert features.shape == (2, 256)
    assert features[0].tolist() == [1.0] * 128 + [0.0] * 128
    rate = 10_000 ** (-5 / 128)
    assert features[1, 5].item() == pytest.approx(torch.tensor(3 * rate).cos().item(), abs=1e-6)
    assert features[1, 133].item() == pytest.approx(torch.tensor(3 * rate).sin().item(), abs=1e-6)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_starts_as_zero_and_every_parameter_learns(options: dict[str, object]) -> None:
    spec = replace(SMALL, **options)
    x, time = noise(3, spec.tokens, spec.c), torch.tensor([0.0, 400.0, 999.0])
    labels = torch.tensor([0, 4, 5]) if spec.classes else None
    assert build(spec, trained=False)(x, time, labels).abs().max() == 0
    dit = build(spec)
    predicted = dit(x, time, labels)
    assert predicted.shape == (3, spec.tokens, spec.outputs)
    predicted.square().sum().backward()
    for name, parameter in dit.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_time_class_and_place_matter() -> None:
    dit, x = build(SMALL), noise(1, 9, 4).expand(2, 9, 4)
    times, same = torch.tensor([10.0, 500.0]), torch.tensor([10.0, 10.0])
    by_time = dit(x, times, torch.tensor([1, 1]))
    assert not torch.allclose(by_time[0], by_time[1], atol=1e-3)
    by_class = dit(x, same, torch.tensor([1, 2]))
    assert not torch.allclose(by_class[0], by_class[1], atol=1e-3)
    moved = dit(x[:1].roll(1, dims=1), same[:1], torch.tensor([1])).roll(-1, dims=1)
    assert not torch.allclose(by_class[0], moved[0], atol=1e-3)


def test_no_labels_are_the_null_label() -> None:
    dit, x, time = build(SMALL), noise(2, 9, 4), torch.tensor([1.0, 2.0])
    assert dit.null == 5
    assert torch.equal(dit(x, time), dit(x, time, torch.tensor([5, 5])))


def test_recomputed_activations_give_the_same_gradient() -> None:
    x, time = noise(2, 9, 4), torch.tensor([10.0, 500.0])
    gradients = []
    for recompute in (False, True):
        dit = build(SMALL).train()
        dit.recompute = recompute
        dit(x, time).square().sum().backward()
        gradients.append([parameter.grad for parameter in dit.parameters()])
    for kept, again in zip(*gradients, strict=True):
        assert (kept is None and again is None) or torch.equal(kept, again)


def test_other_codes_and_unwanted_labels_are_refused() -> None:
    with pytest.raises(SpecError, match="do not fit"):
        build(SMALL)(noise(1, 8, 4), torch.zeros(1))
    with pytest.raises(SpecError, match="without any"):
        build(replace(SMALL, classes=0))(noise(1, 9, 4), torch.zeros(1), torch.tensor([0]))


def test_bfloat16_is_close() -> None:
    dit, x, time = build(replace(SMALL, qk_norm=True)), noise(2, 9, 4), torch.tensor([1.0, 900.0])
    exact = dit(x, time)
    with torch.autocast("cpu", torch.bfloat16):
        rough = dit(x, time)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_come_back(options: dict[str, object], tmp_path: Path) -> None:
    spec = replace(SMALL, **options)
    dit, path = build(spec), tmp_path / "weights.safetensors"
    save_dit(dit, path, {"study": "s", "metrics": {"loss": 0.5}})
    again = load_dit(path)
    x, time = noise(2, spec.tokens, spec.c), torch.tensor([3.0, 700.0])
    assert again.spec == spec and not again.training
    assert torch.equal(dit(x, time), again(x, time))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert read_dit_about(path) == {"study": "s", "metrics": {"loss": 0.5}}


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_dit(build(SMALL), tmp_path / name, {"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_files_that_hold_no_dit_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="does not exist"):
        load_dit(tmp_path / "nothing")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(WeightsError, match="not a readable DiT"):
        load_dit(tmp_path / "text")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(WeightsError, match="holds no DiT"):
        load_dit(tmp_path / "other")
    save_dit(build(SMALL), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "swapped").write_bytes(
        data.replace(b'\\"size\\": \\"nano\\"', b'\\"size\\": \\"mini\\"')
    )
    with pytest.raises(WeightsError, match="not a readable DiT"):
        load_dit(tmp_path / "swapped")
