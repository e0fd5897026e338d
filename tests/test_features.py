"""Do backbones see images as the protocols say, and do the numbers equal the field's own?

No pretrained Inception, DINOv2 or I3D can be had here without a download, so these tests save
random weights in the published layout and pin them: everything but the values of the weights is
what a user gets.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published import published
from torch import nn

from vitok_core.data import SampleSet
from vitok_core.evaluate import reconstruct, reference_features
from vitok_core.features import DinoV2Trunk, FidInception, feature_network
from vitok_core.features import _dino as dino_module
from vitok_core.features._inception import _fid_trunk
from vitok_core.metrics import MetricSet
from vitok_core.protocols import BACKBONES, FILES
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok
from vitok_core.weights import weights_path

INCEPTION = ["rfid", "ris", "rkid", "rprecision", "rrecall", "rdensity", "rcoverage"]


def pin(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make a saved file the pinned one of a name."""
    data = path.read_bytes()
    changed = dataclasses.replace(
        published(name),
        file=path.name,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    monkeypatch.setenv("VITOK_WEIGHTS", str(path.parent))
    monkeypatch.setitem(FILES, name, changed)


def random_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights with which activations neither vanish nor explode."""
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(value)
    return dict(state)


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of the FID Inception, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "fid.pth"
    classifier = nn.Linear(2048, 1008).state_dict()
    fc = {f"fc.{name}": 20 * value for name, value in classifier.items()}
    torch.save(random_state(_fid_trunk()) | fc, path)
    return path


def pictures(count: int, side: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand((count, 3, 6, 6), generator=generator)
    smooth = nn.functional.interpolate(small, size=side, mode="bicubic")
    return (255 * smooth).clamp(0, 255).to(torch.uint8)


def damaged(originals: torch.Tensor, strength: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    noise = torch.randint(-strength, strength + 1, originals.shape, generator=generator)
    return (originals.int() + noise).clamp(0, 255).to(torch.uint8)


class Listed(torch.utils.data.Dataset[torch.Tensor]):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


@pytest.mark.slow
def test_the_numbers_of_torch_fidelity(inception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FID, IS, KID, precision and recall of the same images through the same weights."""
    import torch_fidelity
    from torch_fidelity import metric_kid

    pin(monkeypatch, "inception-fid", inception)
    # It sums its kernel in the features' float32, which is worth 1.2e-6; its code on the same
    # features in float64 is what can be held to 1e-6.
    kid = metric_kid.kid_features_to_metric
    monkeypatch.setattr(
        metric_kid,
        "kid_features_to_metric",
        lambda a, b, **how: kid(a.double(), b.double(), **how),
    )
    x = pictures(14)
    y = damaged(x)
    metrics = MetricSet(INCEPTION, protocol_name="torch-fidelity", resolution=40)
    for at in range(0, 14, 5):
        metrics.update(x[at : at + 5], y[at : at + 5])
    found = {one.name: one for one in metrics.compute()}
    theirs = torch_fidelity.calculate_metrics(
        input1=Listed(y),
        input2=Listed(x),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=14,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception),
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
        cache=False,
    )
    expected = {
        "rfid": theirs["frechet_inception_distance"],
        "ris": theirs["inception_score_mean"],
        "rkid": theirs["kernel_inception_distance_mean"],
        "rprecision": theirs["precision"],
        "rrecall": theirs["recall"],
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    assert found["ris"].value > 1.0 and "singular" in found["rfid"].note


@pytest.mark.slow
def test_batches_do_not_change_a_number(inception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, "inception-fid", inception)
    x = pictures(10)
    y = damaged(x)
    found = []
    for batch in (1, 7, 64):
        metrics = MetricSet(
            [*INCEPTION, "psnr", "ssim"], protocol_name="adm", resolution=40, bootstrap=2
        )
        for at in range(0, 10, batch):
            metrics.update(x[at : at + batch], y[at : at + batch])
        found.append(metrics.compute())
    assert found[0] == found[1] == found[2]
    assert [one.se is not None for one in found[0]] == [True] * 3 + [False] * 4 + [True] * 2


def test_the_bicubic_resize_is_that_of_pillow(
    inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, "inception-fid", inception)
    network = feature_network("inception-bicubic")
    seen: list[torch.Tensor] = []
    network.trunk = nn.Sequential(nn.Identity())
    network.trunk.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    for side in (64, 330):
        image = pictures(1, side, seed=side)
        network(image)
        expected = [
            np.asarray(
                Image.fromarray(channel.astype(np.float32)).resize(
                    (299, 299), Image.Resampling.BICUBIC
                )
            )
            for channel in image[0].numpy()
        ]
        # In units of one step of 255; torch and Pillow round the filter's weights differently.
        assert np.abs(seen[-1][0].numpy() * 128 + 128 - np.stack(expected)).max() < 0.01
    unknown: Any = "nearest"
    other = FidInception(dataclasses.replace(BACKBONES["inception-bicubic"], resize=unknown))
    with pytest.raises(ValueError, match="bilinear-tf1"):
        other(image)


@pytest.mark.slow
def test_the_inception_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    theirs = inception_v3(weights=None, init_weights=False, transform_input=False)
    theirs.load_state_dict(random_state(theirs))
    torch.save(theirs.state_dict(), tmp_path / "tv.pth")
    pin(monkeypatch, "inception-torchvision", tmp_path / "tv.pth")
    network = feature_network("inception-torchvision")
    images = pictures(2)
    x = nn.functional.interpolate(
        2 * (images.float() / 255) - 1, size=(299, 299), mode="bilinear", align_corners=True
    )
    weight, bias = network.classifier()  # type: ignore[operator]  # a module's attributes are Tensor | Module to mypy
    with torch.no_grad():
        expected = theirs.eval()(x)
    assert network(images).shape == (2, BACKBONES["inception-torchvision"].width)
    assert torch.allclose(network(images) @ weight.T + bias, expected, rtol=1e-4, atol=1e-5)


def test_dino_features_are_the_class_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow stand-in: the published one has 300 million weights."""
    size = (24, 2, 3)
    monkeypatch.setattr(dino_module, "DINO_L14", size)
    torch.manual_seed(0)
    trunk = DinoV2Trunk(*size)
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, std=0.2)
    torch.save(trunk.state_dict(), tmp_path / "dino.pth")
    pin(monkeypatch, "dinov2-l14", tmp_path / "dino.pth")
    network = feature_network("dinov2")
    images = pictures(2, side=224)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = trunk.eval().tokens((images / 255 - mean) / std)
    assert torch.equal(network(images), expected[:, 0])
    assert torch.equal(trunk((images / 255 - mean) / std), expected[:, 1:])
    assert network(pictures(3, side=40)).shape == (3, 24)


class ClipMeans(nn.Module):
    """Speaks as I3D does: 400 numbers of a clip in [-1, 1] at 224 px."""

    def forward(
        self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
    ) -> torch.Tensor:
        assert not rescale and not resize and return_features
        assert x.shape[-1] == 224 and x.abs().max() <= 1.0
        wave = torch.arange(1, 401, dtype=torch.float32) / 100.0
        means = x.mean(dim=(2, 3, 4)).sum(dim=1, keepdim=True)
        motion = (x[:, :, 1:] - x[:, :, :-1]).abs().mean(dim=(1, 2, 3, 4)).unsqueeze(1)
        return torch.sin(wave * means) + 10.0 * motion * torch.cos(wave)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_videos_are_compared_as_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = torch.jit.script(ClipMeans())  # type: ignore[no-untyped-call]  # torch's
    script.save(str(tmp_path / "i3d.pt"))
    pin(monkeypatch, "i3d", tmp_path / "i3d.pt")
    clips = pictures(6 * 10, side=32).reshape(6, 10, 3, 32, 32).permute(0, 2, 1, 3, 4)
    swapped = clips.flip(2)
    stirred = clips[:, :, torch.tensor([0, 5, 1, 6, 2, 7, 3, 8, 4, 9])]
    samples = SampleSet(
        samples=np.ascontiguousarray(clips.permute(0, 2, 3, 4, 1).numpy()),
        labels=np.zeros(6, np.int64),
    )
    path = reference_features(
        samples, protocol_name="adm", features="i3d", folder=tmp_path / "reference"
    )
    assert np.load(path).shape == (6, 400)
    for other in (swapped, stirred):
        metrics = MetricSet(
            ["psnr", "rfvd", "rkvd"],
            protocol_name="adm",
            resolution=32,
            frames=10,
            references={"i3d": np.load(path)},
        )
        metrics.update(clips, other)
        found = {one.name: one for one in metrics.compute()}
        assert found["rfvd"].n == 6 and "6 rows for 400" in found["rfvd"].note
        if other is swapped:  # the same motion backwards: no frame is where it was
            assert found["psnr"].value < 20
            assert found["rfvd"].value == pytest.approx(0, abs=1e-6)
        else:
            assert found["rfvd"].value > 1e-4


def test_references_are_computed_once(
    inception: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two tokenizers on the same originals: their features are computed once, and only once."""
    pin(monkeypatch, "inception-fid", inception)
    counted = {"images": 0}
    forward = FidInception.forward

    def counting(self: FidInception, images: torch.Tensor) -> torch.Tensor:
        counted["images"] += len(images)
        # Cheap features that depend on every pixel.
        flat = images.float().flatten(1)
        angles = torch.arange(1, 2049) * flat.mean(dim=1, keepdim=True) / 50.0
        return torch.sin(angles + flat.std(dim=1, keepdim=True))

    assert forward is not counting
    monkeypatch.setattr(FidInception, "forward", counting)
    images = pictures(12, side=32)
    samples = SampleSet(
        samples=np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()),
        labels=np.arange(12, dtype=np.int64),
    )
    path = reference_features(samples, protocol_name="torch-fidelity", folder=tmp_path)
    assert counted.pop("images") == 12
    spec = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=32)
    for seed in range(2):
        counted["images"] = 0
        torch.manual_seed(seed)
        found = reconstruct(
            ViTok(spec).eval(),
            samples,
            metrics=INCEPTION,
            protocol_name="torch-fidelity",
            references={"inception": path},
            folder=tmp_path / str(seed),
        )
        assert counted["images"] == 12  # the reconstructions, for seven metrics
        assert [one.name for one in found] == INCEPTION


def test_a_pinned_file_must_be_the_file(inception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, "inception-fid", inception)
    assert weights_path("inception-fid") == inception
