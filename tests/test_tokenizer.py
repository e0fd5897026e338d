"""Is the model the ViTok of the paper, and do its weights come back as they were written?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitok_core.errors import SpecError, WeightsError
from vitok_core.layers import (
    TubeletEmbed,
    TubeletOutput,
    fold,
    rope_split,
    rope_table,
    rotate,
    unfold,
)
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok, from_uint8, load_tokenizer, save_tokenizer, to_uint8

IMAGE = TokenizerSpec(encoder="nano", decoder="micro", p=4, c=8, resolution=16)
VIDEO = TokenizerSpec(encoder="nano", decoder="nano", q=2, p=4, c=8, resolution=8, frames=4)


@pytest.fixture
def image_model() -> ViTok:
    torch.manual_seed(0)
    return ViTok(IMAGE).eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_embedding_is_a_strided_convolution() -> None:
    embed, x = TubeletEmbed(24, q=2, p=4), noise(2, 3, 4, 8, 8)
    kernel = embed.project.weight.reshape(24, 3, 2, 4, 4)
    expected = functional.conv3d(x, kernel, embed.project.bias, stride=(2, 4, 4))
    assert torch.allclose(embed(x), expected.flatten(2).transpose(1, 2), atol=1e-5)


def test_output_is_a_transposed_convolution() -> None:
    output, tokens = TubeletOutput(24, grid=(2, 2, 3), q=2, p=4), noise(2, 12, 24)
    torch.nn.init.normal_(output.bias)
    kernel = output.project.weight.T.reshape(24, 3, 2, 4, 4)
    grid = tokens.transpose(1, 2).reshape(2, 24, 2, 2, 3)
    expected = functional.conv_transpose3d(grid, kernel, output.bias, stride=(2, 4, 4))
    assert torch.allclose(output(tokens), expected, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_fold_undoes_unfold(t: int, h: int, q: int, p: int) -> None:
    x = noise(2, 3, t * q, h * p, h * p)
    assert torch.equal(fold(unfold(x, q, p), (t, h, h), q, p), x)


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


def test_shapes_of_images_and_videos(image_model: ViTok) -> None:
    x = noise(2, 3, 16, 16)
    posterior = image_model.encode(x)
    assert posterior.mean.shape == posterior.logvar.shape == (2, IMAGE.tokens, IMAGE.c)
    assert image_model.decode(posterior.mean).shape == x.shape
    assert image_model(x.unsqueeze(2)).shape == (2, 3, 1, 16, 16)
    assert torch.equal(image_model(x.unsqueeze(2)).squeeze(2), image_model(x))
    clips = noise(2, 3, 4, 8, 8)
    assert ViTok(VIDEO)(clips).shape == clips.shape


def test_samples_of_another_shape_are_refused(image_model: ViTok) -> None:
    with pytest.raises(SpecError, match="do not fit"):
        image_model.encode(noise(2, 3, 32, 32))
    with pytest.raises(SpecError, match="do not fit"):
        ViTok(VIDEO).encode(noise(2, 3, 8, 8))


def test_mean_without_generator_and_samples_with_one(image_model: ViTok) -> None:
    x = noise(2, 3, 16, 16)
    assert torch.equal(image_model(x), image_model.decode(image_model.encode(x).mean))
    first, second, third = (image_model(x, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_log_variance_is_clamped(image_model: ViTok) -> None:
    with torch.no_grad():
        image_model.to_moments.bias[IMAGE.c :] = torch.tensor([1e6, -1e6] * (IMAGE.c // 2))
    logvar = image_model.encode(noise(1, 3, 16, 16)).logvar
    assert (logvar.max().item(), logvar.min().item()) == (20.0, -30.0)


def test_every_linear_starts_xavier_uniform() -> None:
    torch.manual_seed(0)
    for name, module in ViTok(IMAGE).named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or not module.bias.any(), name


def test_weights_come_back_and_same_weights_have_same_bytes(
    image_model: ViTok, tmp_path: Path
) -> None:
    save_tokenizer(image_model, tmp_path / "a.safetensors")
    save_tokenizer(image_model, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = load_tokenizer(tmp_path / "a.safetensors")
    assert loaded.spec == IMAGE
    assert not loaded.training
    x = noise(2, 3, 16, 16)
    assert torch.equal(loaded(x), image_model(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_what_is_no_tokenizer_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="does not exist"):
        load_tokenizer(tmp_path / "none.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"not weights" * 9)
    with pytest.raises(WeightsError, match="no readable tokenizer"):
        load_tokenizer(tmp_path / "noise.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "other.safetensors")


@given(st.integers(0, 255))
def test_bytes_survive_the_way_to_floats_and_back(value: int) -> None:
    image = torch.full((1, 3, 2, 2), value, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(image)), image)


def test_reconstructions_are_clamped_and_rounded() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 0.999, 7.0])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255]
