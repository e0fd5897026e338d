"""Are CLIP and VideoMAE the published networks, and do their files load in the published layout?

Their weights cannot be had here: narrow networks of the same kind stand in, with random weights in
the publishers' layouts. The values of VideoMAE come from the reference code of content-debiased FVD
(cd-fvd 0.1.1) on the same weights and clips.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import pytest
import torch
from published import published
from torch import nn
from torch.nn import functional

from vitok_core.errors import WeightsError
from vitok_core.features import ClipTrunk, VideoMaeTrunk, feature_network
from vitok_core.features import _clip as clip_module
from vitok_core.features import _videomae as videomae_module
from vitok_core.metrics import MetricSet, gaussian_kernel_distance
from vitok_core.protocols import BACKBONES, FILES, PROTOCOLS, networks, references
from vitok_core.weights import (
    add_weights,
    fetch_weights,
    weights_missing,
    weights_path,
    weights_sha256,
    weights_state,
)

VIDEOMAE = "videomae-g-ssv2"
jit = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def random_(network: nn.Module, std: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    return network.eval()


def waves(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by a formula, the same wherever they are made."""
    made = {}
    for number, (name, value) in enumerate(sorted(state.items())):
        steps = torch.arange(value.numel(), dtype=torch.float64)
        made[name] = (torch.sin(steps * 0.7 + number) * 0.5).reshape(value.shape).float()
        if "norm" in name and name.endswith("weight"):
            made[name] += 1
    return made


def narrow_videomae() -> VideoMaeTrunk:
    return VideoMaeTrunk(24, 2, 3, 96, size=28).eval()


def clips(frames: int = 16, side: int = 28) -> torch.Tensor:
    steps = torch.arange(2 * 3 * frames * side * side, dtype=torch.float64)
    return (torch.sin(steps * 0.37) * 0.5 + 0.5).reshape(2, 3, frames, side, side).float()


def test_videomae_gives_the_reference_code_s_values() -> None:
    trunk = narrow_videomae()
    # The file holds a classifier of 5 as well, whose names come into the order of the formula.
    head = {"head.weight": torch.zeros(5, 24), "head.bias": torch.zeros(5)}
    state = waves(trunk.state_dict() | head)
    trunk.load_state_dict(videomae_module.without_head({"module": state}))
    with torch.no_grad():
        found = trunk(clips())
    expected = [
        [-1.9131296873092651, 1.7498538494110107, 1.4330401420593262, -0.8660090565681458],
        [-1.9311249256134033, 1.7435091733932495, 1.4223154783248901, -0.8728398680686951],
    ]
    torch.testing.assert_close(found[:, :4], torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_videomae_is_torch_s_own_encoder() -> None:
    trunk = random_(narrow_videomae())
    x = clips()
    with torch.no_grad():
        tokens = trunk.patch_embed["proj"](x).flatten(2).transpose(1, 2)  # type: ignore[index,operator]
        tokens = tokens + torch.from_numpy(videomae_module.sinusoids(32, 24))
        for number in range(2):
            state = {
                name.removeprefix(f"blocks.{number}."): value
                for name, value in trunk.state_dict().items()
                if name.startswith(f"blocks.{number}.")
            }
            layer = nn.TransformerEncoderLayer(
                24, 3, 96, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True,
                norm_first=True,
            ).eval()  # fmt: skip
            q, v = state["attn.q_bias"], state["attn.v_bias"]
            layer.load_state_dict(
                {
                    "self_attn.in_proj_weight": state["attn.qkv.weight"],
                    "self_attn.in_proj_bias": torch.cat([q, torch.zeros(24), v]),
                    "self_attn.out_proj.weight": state["attn.proj.weight"],
                    "self_attn.out_proj.bias": state["attn.proj.bias"],
                    **{f"linear{i}.{end}": state[f"mlp.fc{i}.{end}"]
                       for i in (1, 2) for end in ("weight", "bias")},
                    **{f"norm{i}.{end}": state[f"norm{i}.{end}"]
                       for i in (1, 2) for end in ("weight", "bias")},
                }
            )  # fmt: skip
            tokens = layer(tokens)
        expected = functional.layer_norm(
            tokens.mean(dim=1), (24,), trunk.fc_norm.weight, trunk.fc_norm.bias, 1e-6  # type: ignore[arg-type,union-attr]
        )  # fmt: skip
        torch.testing.assert_close(trunk(x), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def videomae_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the publisher's layout of a narrow network, not yet added."""
    monkeypatch.setattr(videomae_module, "VIDEOMAE_G", (24, 2, 3, 96))
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path / "weights"))
    trunk = random_(VideoMaeTrunk(24, 2, 3, 96))
    head = {"head.weight": torch.zeros(174, 24), "head.bias": torch.zeros(174)}
    torch.save({"module": trunk.half().state_dict() | head}, tmp_path / "mae.pth")
    return tmp_path / "mae.pth"


def test_a_file_without_a_published_hash_is_the_one_that_was_added_first(
    videomae_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_sha256(VIDEOMAE) == ""
    for ask in (weights_path, fetch_weights):
        with pytest.raises(WeightsError, match=f"no hash of .*weights add {VIDEOMAE} FILE"):
            ask(VIDEOMAE)
    assert "records its hash" in str(weights_missing(VIDEOMAE))
    path = add_weights(VIDEOMAE, videomae_file)
    recorded = hashlib.sha256(videomae_file.read_bytes()).hexdigest()
    assert weights_sha256(VIDEOMAE) == recorded and weights_path(VIDEOMAE) == path
    assert weights_state(VIDEOMAE, verify=True).verified and weights_missing(VIDEOMAE) is None
    # From then on no other file is taken, and none is opened that changed.
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match=f"expected {recorded} .recorded in"):
        add_weights(VIDEOMAE, tmp_path / "other.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert weights_state(VIDEOMAE, verify=True).verified is False
    with pytest.raises(WeightsError, match="is not the pinned file"):
        weights_path(VIDEOMAE)
    # A file that lies there without a record was never taken over by anyone.
    path.with_name(f"{path.name}.sha256").unlink()
    with pytest.raises(WeightsError, match="recorded when it was added"):
        weights_path(VIDEOMAE)


def test_clips_through_videomae(videomae_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_weights(VIDEOMAE, videomae_file)
    network = feature_network("videomae")
    x = (255 * clips(18, side=20)).to(torch.uint8)
    found = network(x)
    assert found.shape == (2, 24) and found.dtype == torch.float32
    # The frames after the sixteenth are not looked at, and each is resized by itself.
    assert torch.equal(found, network(x[:, :, :16]))
    frames = [
        functional.interpolate(x[:, :, t].float() / 255, size=(224, 224), mode="bilinear")
        for t in range(16)
    ]
    with torch.no_grad():
        expected = network.trunk(torch.stack(frames, dim=2))  # type: ignore[operator]
    assert torch.equal(found, expected)
    monkeypatch.setitem(BACKBONES, "videomae", dataclasses.replace(BACKBONES["videomae"], width=24))
    measures = MetricSet(["rfvd_videomae"], protocol_name="adm", resolution=20, frames=18)
    measures.update(x, x)
    (same,) = measures.compute()
    assert same.value == pytest.approx(0, abs=1e-6) and same.n == 2


def test_another_network_in_the_file_is_refused(
    videomae_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_weights(VIDEOMAE, videomae_file)
    monkeypatch.setattr(videomae_module, "VIDEOMAE_G", (24, 3, 3, 96))
    with pytest.raises(WeightsError, match="is not a ViT-g of VideoMAE v2"):
        feature_network("videomae")


@pytest.mark.slow  # importing timm
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_clip_is_timm_s() -> None:
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    trunk = random_(ClipTrunk(32, 2, 4, 16, size=28))
    oracle = VisionTransformer(
        img_size=28,
        patch_size=14,
        embed_dim=32,
        depth=2,
        num_heads=4,
        num_classes=16,
        pre_norm=True,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-5),
        act_layer="quick_gelu",
    ).eval()
    whole = {f"visual.{name}": value for name, value in trunk.state_dict().items()}
    oracle.load_state_dict(checkpoint_filter_fn(whole, oracle))
    x = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(trunk(x), oracle(x), rtol=1e-4, atol=1e-5)


class WholeClip(nn.Module):
    """An archive like the publisher's: an image tower in half precision beside other tensors."""

    def __init__(self, tower: ClipTrunk) -> None:
        super().__init__()
        self.text_projection = nn.Parameter(torch.zeros(4, 4))
        self.visual = tower

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.text_projection


@jit
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_images_through_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_module, "CLIP_L14", (16, 1, 2, 8))
    trunk = random_(ClipTrunk(16, 1, 2, 8))
    archive = torch.jit.trace(WholeClip(ClipTrunk(16, 1, 2, 8)), torch.zeros(2, 4))  # type: ignore[no-untyped-call]
    archive.load_state_dict(
        {f"visual.{name}": value for name, value in trunk.state_dict().items()}
        | {"text_projection": torch.zeros(4, 4)}
    )
    archive.half().save(str(tmp_path / "clip.pt"))
    data = (tmp_path / "clip.pt").read_bytes()
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(
        FILES,
        "clip-l14-336",
        dataclasses.replace(
            published("clip-l14-336"),
            file="clip.pt",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        ),
    )
    network = feature_network("clip")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 40, 40), generator=generator).to(torch.uint8)
    found = network(images)
    assert found.shape == (5, 8) and found.dtype == torch.float32
    resized = functional.interpolate(
        images.float() / 255, size=(336, 336), mode="bicubic", antialias=True
    )
    mean, std = (
        torch.tensor(one).reshape(1, 3, 1, 1)
        for one in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    half = {name: value.half().float() for name, value in trunk.state_dict().items()}
    trunk.load_state_dict(half)
    with torch.no_grad():
        torch.testing.assert_close(found, trunk((resized - mean) / std), rtol=1e-4, atol=1e-5)
    # The metric over it is the kernel distance of these embeddings.
    monkeypatch.setitem(BACKBONES, "clip", dataclasses.replace(BACKBONES["clip"], width=8))
    measures = MetricSet(["rcmmd"], protocol_name="torch-fidelity", resolution=40)
    other = images.flip(0).roll(3, dims=2)
    measures.update(images, other)
    (measured,) = measures.compute()
    assert measured.value == pytest.approx(
        gaussian_kernel_distance(found.numpy(), network(other).numpy()), rel=1e-9
    )


def test_what_the_metrics_ask_for_and_what_their_protocols_say() -> None:
    assert networks(["rcmmd"], "adm")["clip"].weights == ("clip-l14-336",)
    assert networks(["rfvd_videomae"], "clean")["videomae"].weights == (VIDEOMAE,)
    assert references(["rcmmd", "rfvd_videomae", "psnr"]) == ("clip", "videomae")
    protocol = PROTOCOLS["adm"]
    assert published("clip-l14-336").sha256 in protocol.record(["rcmmd"])["clip"]
    # Rules that came later are in the record of what uses them, and move nothing else.
    plain = protocol.record()
    assert "clip" not in plain and "videomae" not in plain and plain == protocol.record(["rfvd"])
    with_clip = protocol.record(["rcmmd"])
    assert with_clip == plain | {"clip": with_clip["clip"]}
    assert with_clip == protocol.record(features=["clip"])
