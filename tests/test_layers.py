"""Do the parts compute what they say, as independent implementations compute it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitok_core.layers import (
    Attention,
    Block,
    RMSNorm,
    SwiGLU,
    Tower,
    TubeletEmbed,
    TubeletOutput,
    causal_mask,
    fold,
    make_norm,
    rope_split,
    rope_table,
    rope_table_1d,
    rotate,
    sincos_table,
    sincos_table_1d,
    unfold,
)
from vitok_core.spec import SIZES, Norm, Size, TokenizerSpec

NANO = SIZES["nano"]
THIRDS = Size(name="thirds", width=48, depth=1, heads=2)  # 24 features a head: 8 for each axis
SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=4, c=4, resolution=16)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- tubelets -----------------------------------------------------------------------------------


def test_embedding_is_a_strided_convolution() -> None:
    embed, x = TubeletEmbed(24, q=2, p=4), noise(2, 3, 4, 8, 8)
    convolution = torch.nn.Conv3d(3, 24, kernel_size=(2, 4, 4), stride=(2, 4, 4))
    with torch.no_grad():
        convolution.weight.copy_(embed.project.weight.reshape(24, 3, 2, 4, 4))
        convolution.bias.copy_(torch.nn.init.normal_(embed.project.bias))  # type: ignore[union-attr]  # it has one
    assert torch.allclose(embed(x), convolution(x).flatten(2).transpose(1, 2), atol=1e-5)


def test_output_is_a_transposed_convolution() -> None:
    output, tokens = TubeletOutput(24, grid=(2, 2, 3), q=2, p=4), noise(2, 12, 24)
    convolution = torch.nn.ConvTranspose3d(24, 3, kernel_size=(2, 4, 4), stride=(2, 4, 4))
    with torch.no_grad():
        convolution.weight.copy_(output.project.weight.T.reshape(24, 3, 2, 4, 4))
        convolution.bias.copy_(torch.nn.init.normal_(output.bias))  # type: ignore[union-attr]  # it has one
    grid = tokens.transpose(1, 2).reshape(2, 24, 2, 2, 3)
    assert torch.allclose(output(tokens), convolution(grid), atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_fold_undoes_unfold(t: int, h: int, q: int, p: int) -> None:
    x = noise(2, 3, t * q, h * p, h * p)
    assert torch.equal(fold(unfold(x, q, p), (t, h, h), q, p), x)


# --- positions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head_width", "expected"), [(64, (16, 24, 24)), (72, (24, 24, 24)), (32, (8, 12, 12))]
)
def test_split_of_a_head(head_width: int, expected: tuple[int, int, int]) -> None:
    assert rope_split(head_width) == expected


@given(st.integers(4, 80).map(lambda half: 2 * half))
def test_split_uses_the_whole_head_in_pairs(head_width: int) -> None:
    parts = rope_split(head_width)
    assert sum(parts) == head_width
    assert all(part % 2 == 0 and part >= 0 for part in parts)
    assert min(parts[1:]) > 0


def test_positions_are_relative_and_one_frame_leaves_the_time_part_alone() -> None:
    table = rope_table((2, 4, 4), 32)
    q, k = noise(1, 1, 1, 32).expand(1, 32, 1, 32), noise(1, 2, 1, 32)[:, 1:].expand(1, 32, 1, 32)
    scores = (rotate(q, table)[0, :, 0] @ rotate(k, table)[0, :, 0].T).reshape(2, 4, 4, 2, 4, 4)
    # Same offset (0, +1, +2), elsewhere on the grid.
    assert scores[0, 0, 0, 0, 1, 2].item() == pytest.approx(
        scores[1, 2, 1, 1, 3, 3].item(), rel=1e-4
    )
    assert abs(scores[0, 0, 0, 0, 1, 2] - scores[0, 0, 0, 0, 2, 1]).item() > 1e-3
    x = noise(1, 16, 1, 32)
    turned = rotate(x, rope_table((1, 4, 4), 32))
    assert torch.equal(turned[..., :8], x[..., :8])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


@given(st.integers(4, 20).map(lambda half: 2 * half), st.integers(2, 9))
def test_1d_positions_turn_by_the_difference_of_indices(head_width: int, tokens: int) -> None:
    q, k = (noise(1, 1, 1, head_width, seed=s).expand(1, tokens, 1, head_width) for s in (1, 2))
    table = rope_table_1d(tokens, head_width)
    scores = rotate(q, table)[0, :, 0] @ rotate(k, table)[0, :, 0].T
    for offset in range(1 - tokens, tokens):
        diagonal = scores.diagonal(offset)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)


def test_fixed_vectors_are_sines_and_cosines_of_the_coordinates() -> None:
    image, video = sincos_table((1, 3, 5), 16), sincos_table((2, 3, 5), 32)
    assert image.shape == (15, 16)
    token = 1 * 5 + 3  # row 1, column 3: half of the width each, 4 frequencies
    frequencies = 10_000.0 ** -(torch.arange(4) / 4)
    expected = torch.cat([f(k * frequencies) for k in (1, 3) for f in (torch.sin, torch.cos)])
    assert torch.allclose(image[token], expected, atol=1e-6)
    # 8 features for time, 12 for each axis in space, as a head of 32 is split.
    assert torch.equal(video[:15, :8], torch.tensor([0.0] * 4 + [1.0] * 4).expand(15, 8))
    assert torch.equal(video[15:, 8:], video[:15, 8:])
    assert torch.equal(sincos_table_1d(6, 16)[2], sincos_table((1, 1, 6), 32)[2, 16:])


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([16, 30, 64, 96, 1152]),
)
def test_no_two_tokens_have_the_same_fixed_vector(grid: tuple[int, int, int], width: int) -> None:
    table = sincos_table(grid, width)
    assert table.shape == (grid[0] * grid[1] * grid[2], width)
    assert len(torch.unique(table, dim=0)) == len(table)


def test_a_token_sees_its_own_and_earlier_steps() -> None:
    seen = causal_mask((3, 1, 2)).int().tolist()
    assert seen == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]


# --- blocks -------------------------------------------------------------------------------------


def test_rms_norm_divides_by_the_root_mean_square_also_in_bfloat16() -> None:
    norm, x = make_norm("rmsnorm", 16), 3 * noise(2, 5, 16) + 1
    assert isinstance(norm, RMSNorm)
    torch.nn.init.normal_(norm.weight)
    expected = x / x.square().mean(-1, keepdim=True).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-5)
    low = norm(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.float(), expected, rtol=0.02, atol=0.02)


def test_no_mask_is_a_mask_that_allows_everything() -> None:
    attention, x = Attention(NANO), noise(2, 16, 64)
    everything = torch.ones(16, 16, dtype=torch.bool)
    table = rope_table((1, 4, 4), 32)
    assert torch.allclose(attention(x, table), attention(x, table, everything), atol=1e-6)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_queries_and_keys_are_normalised_a_head(norm: Norm) -> None:
    torch.manual_seed(0)
    attention, x = Attention(NANO, qk_norm=norm), noise(2, 16, 64)
    before = attention(x, None)
    with torch.no_grad():
        attention.qkv.weight[:32] *= 50.0  # the queries of the first head only
    assert torch.allclose(attention(x, None), before, atol=1e-4)
    with torch.no_grad():
        attention.qkv.weight[128:160] *= 50.0  # its values
    assert not torch.allclose(attention(x, None), before, atol=1e-1)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_mixed_precision_is_close_to_float32(norm: Norm) -> None:
    torch.manual_seed(0)
    tower, x = (
        Tower(NANO, replace(SPEC, norm=norm, qk_norm=True, latent_tokens=3)),
        noise(2, 19, 64),
    )
    whole = tower(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = tower(x)
    assert (low.float() - whole).abs().mean() < 0.02


def test_recomputing_changes_no_gradient_and_computes_twice() -> None:
    torch.manual_seed(0)
    tower, x = Tower(NANO, SPEC), noise(2, 16, 64)
    calls: list[int] = []
    for block in tower.blocks:
        block.attention.register_forward_hook(lambda *_: calls.append(1))
    found: list[list[torch.Tensor]] = []
    for again in (False, True):
        tower.recompute = again
        tower.zero_grad()
        calls.clear()
        tower(x).square().sum().backward()
        assert len(calls) == (1 + again) * NANO.depth
        found.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(tower.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    calls.clear()
    tower.eval()(x).sum().backward()
    assert len(calls) == NANO.depth


@pytest.mark.slow
def test_the_form_for_compilers_turns_by_the_same_angles() -> None:
    x, table = noise(2, 16, 3, 32), rope_table((1, 4, 4), 32)
    compiled = torch.compile(rotate, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x, table), rotate(x, table), atol=1e-6)


# --- oracles ------------------------------------------------------------------------------------


def timm() -> Any:
    """Imported late, because it is slow to import; needed by no more than the tests below."""
    import timm.layers
    import timm.models.eva

    return timm


def timm_positions(grid: tuple[int, int, int]) -> torch.Tensor:
    """What timm turns 24 features a head by: 4 frequencies for each of three axes."""
    bands = timm().layers.pos_embed_sincos.freq_bands(4, temperature=10_000.0, step=1)
    sin, cos = timm().layers.build_rotary_pos_embed(list(grid), bands=bands, in_pixels=False)
    return torch.cat([sin, cos], dim=-1)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(1, 4, 5), (3, 2, 4)])
def test_rotation_is_that_of_timm(grid: tuple[int, int, int]) -> None:
    q_BNLK = noise(2, 3, grid[0] * grid[1] * grid[2], 24)
    theirs = timm().layers.apply_rot_embed_cat(q_BNLK, timm_positions(grid))
    ours = rotate(q_BNLK.transpose(1, 2), rope_table(grid, 24)).transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_swiglu_is_that_of_timm() -> None:
    torch.manual_seed(0)
    ours, x = SwiGLU(NANO), noise(2, 5, 64)
    torch.nn.init.normal_(ours.gate_up.bias)
    torch.nn.init.normal_(ours.out.bias)
    theirs = timm().layers.SwiGLU(64, NANO.hidden)
    weight, bias = ours.gate_up.weight.chunk(2), ours.gate_up.bias.chunk(2)
    theirs.load_state_dict(
        {
            "fc1_g.weight": weight[0],
            "fc1_g.bias": bias[0],
            "fc1_x.weight": weight[1],
            "fc1_x.bias": bias[1],
            "fc2.weight": ours.out.weight,
            "fc2.bias": ours.out.bias,
        }
    )
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("prefix", [0, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_that_of_timm(norm: Norm, qk_norm: bool, prefix: int, causal: bool) -> None:
    """A prefix is to timm what the tokens of a 1-D code are to us: not turned."""
    torch.manual_seed(0)
    grid = (3, 2, 4)
    x = noise(2, prefix + 24, 48)
    ours = Block(THIRDS, norm, qk_norm)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    kinds = {
        "layernorm": lambda width, **_: torch.nn.LayerNorm(width),
        "rmsnorm": lambda width, **_: torch.nn.RMSNorm(width, eps=1e-6),
    }
    theirs = timm().models.eva.EvaBlock(
        48,
        2,
        qkv_bias=False,
        mlp_ratio=THIRDS.hidden / 48,
        swiglu_mlp=True,
        num_prefix_tokens=prefix,
        qk_norm=qk_norm,
        norm_layer=kinds[norm],
    )
    names = {
        "attention_norm": "norm1",
        "mlp_norm": "norm2",
        "attention.out": "attn.proj",
        "attention": "attn",
        "mlp.gate_up": "mlp.fc1",
        "mlp.out": "mlp.fc2",
    }
    weights = dict(theirs.state_dict())
    for name, tensor in ours.state_dict().items():
        module = next(own for own in names if name.startswith(f"{own}."))
        target = names[module] + name.removeprefix(module)
        assert target in weights and weights[target].shape == tensor.shape
        weights[target] = tensor
    for name in ("attn.q_norm.bias", "attn.k_norm.bias"):
        if name in weights:
            assert not weights[name].any()  # our norms of queries and keys have no shift
    theirs.load_state_dict(weights)

    table = rope_table(grid, 24)
    unturned = torch.tensor([1.0, 0.0]).expand(prefix, 12, 2)
    mask = None
    if causal:
        mask = functional.pad(causal_mask(grid), (prefix, 0, prefix, 0), value=True)
    out = ours(x, torch.cat([unturned, table]), mask)
    assert torch.allclose(out, theirs(x, rope=timm_positions(grid), attn_mask=mask), atol=1e-5)
