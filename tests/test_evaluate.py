"""Are reconstructions measured against their own originals, whatever the batches?"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vitok_core.data import SampleSet, open_prepared, prepare
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped
from vitok_core.evaluate import EvaluateProgress, code_metrics, reconstruct, reference_features
from vitok_core.metrics import MetricSet, _measure
from vitok_core.protocols import METRICS
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Posterior, ViTok, from_uint8, to_uint8

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=32)
LITE0 = ["psnr", "ssim", "lpips", "rfd_lite0", "rkid_lite0"]
VIDEO = dataclasses.replace(SPEC, q=4, frames=8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-eval", resolution=32, images=30, folder=folder)
    return open_prepared(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("clips")
    prepare("clips-eval", resolution=32, images=9, frames=8, folder=folder)
    return open_prepared(folder)


@pytest.fixture(scope="module")
def tokenizer() -> ViTok:
    torch.manual_seed(0)
    return ViTok(SPEC).eval()


def test_all_metrics_with_and_without_a_reference(
    tokenizer: ViTok, photos: SampleSet, tmp_path: Path
) -> None:
    told: list[EvaluateProgress] = []
    tf32: list[bool] = []
    reference = reference_features(
        photos,
        folder=tmp_path / "reference",
        batch=16,
        progress=lambda _: tf32.append(torch.backends.cudnn.allow_tf32),
    )
    assert np.load(reference).shape == (30, 1280)
    assert tf32 == [False, False] and torch.backends.cudnn.allow_tf32
    plain = reconstruct(
        tokenizer, photos, metrics=LITE0, folder=tmp_path, batch=30, progress=told.append
    )
    batched = reconstruct(
        tokenizer, photos, metrics=LITE0, references={"lite0": reference}, folder=tmp_path, batch=7
    )
    assert [entry.name for entry in plain] == LITE0
    assert {entry.n for entry in plain} == {30}
    for left, right in zip(plain, batched, strict=True):
        assert left.value == pytest.approx(right.value, rel=1e-3), left.name
    assert [(entry.done, entry.total) for entry in told] == [(30, 30)]


def test_pairs_for_a_picture_show_every_class_first(
    tokenizer: ViTok, photos: SampleSet, tmp_path: Path
) -> None:
    # Two classes only in the front; the others come late.
    order = np.concatenate([np.repeat([0, 1], 8), np.arange(2, 14)])
    images = SampleSet(samples=photos.samples[order], labels=photos.labels[order])
    reconstruct(tokenizer, images, metrics=["psnr"], folder=tmp_path, batch=5)
    originals = np.load(tmp_path / "originals.npy")
    reconstructions = np.load(tmp_path / "reconstructions.npy")
    assert originals.shape == reconstructions.shape == (16, 32, 32, 3)
    assert originals.dtype == reconstructions.dtype == np.uint8
    shown = [next(k for k in range(28) if np.array_equal(images.samples[k], o)) for o in originals]
    assert set(images.labels[shown]) == set(images.labels)
    with torch.no_grad():
        x = from_uint8(torch.from_numpy(originals).permute(0, 3, 1, 2))
        expected = to_uint8(tokenizer(x)[0]).permute(0, 2, 3, 1).numpy()
    assert np.abs(expected.astype(int) - reconstructions).max() <= 1


def test_the_value_is_that_of_the_pairs(
    tokenizer: ViTok, photos: SampleSet, tmp_path: Path
) -> None:
    (measured,) = reconstruct(tokenizer, photos.first(9), metrics=["psnr"], folder=tmp_path)
    pairs = [
        np.load(tmp_path / f"{side}.npy").astype(float) for side in ("originals", "reconstructions")
    ]
    mse = ((pairs[0] - pairs[1]) ** 2).mean(axis=(1, 2, 3))
    assert measured.value == pytest.approx((10 * np.log10(255**2 / mse)).mean())


@pytest.mark.slow
def test_clips_are_judged_frame_by_frame(clips: SampleSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = ViTok(VIDEO).eval()
    metrics = [name for name in LITE0 if name != "rfd_lite0"]  # slow, and features as for rkid
    told: list[EvaluateProgress] = []
    reference = reference_features(clips, folder=tmp_path / "reference", batch=20)
    assert np.load(reference).shape == (72, 1280)
    plain, batched = (
        reconstruct(
            tokenizer,
            clips,
            metrics=metrics,
            references=known,
            folder=tmp_path,
            batch=batch,
            progress=told.append,
        )
        for known, batch in ((None, 72), ({"lite0": reference}, 20))
    )
    assert {entry.n for entry in plain} == {9}
    for left, right in zip(plain, batched, strict=True):
        assert left.value == pytest.approx(right.value, rel=1e-3), left.name
    # 20 frames hold two whole clips.
    assert [entry.done for entry in told] == [9, 2, 4, 6, 8, 9]

    # What stands in the files is what was measured: all nine clips are among them.
    pairs = [np.load(tmp_path / f"{side}.npy") for side in ("originals", "reconstructions")]
    assert pairs[0].shape == pairs[1].shape == (9, 8, 32, 32, 3)
    assert {one.tobytes() for one in pairs[0]} == {one.tobytes() for one in clips.samples}
    mse = (np.subtract(*pairs, dtype=float) ** 2).mean(axis=(2, 3, 4))
    by_name = {entry.name: entry.value for entry in plain}
    assert by_name["psnr"] == pytest.approx((10 * np.log10(255**2 / mse)).mean())
    # The frames as single images give the same distributions, and means over 72 instead of 9.
    frames = MetricSet(["ssim", "rkid_lite0"], resolution=32)
    frames.update(
        *(torch.from_numpy(side.reshape(72, 32, 32, 3)).permute(0, 3, 1, 2) for side in pairs)
    )
    for entry in frames.compute():
        assert entry.n == 72
        assert by_name[entry.name] == pytest.approx(entry.value, rel=1e-4), entry.name


def test_a_masked_tokenizer_is_measured_at_each_length(photos: SampleSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    masked = ViTok(dataclasses.replace(SPEC, lengths=(2, 8))).eval()

    def value(length: int | None) -> float:
        (measured,) = reconstruct(
            masked, photos.first(9), metrics=["psnr"], folder=tmp_path, length=length
        )
        return measured.value

    assert value(None) == value(16)
    assert len({value(2), value(8), value(16)}) == 3
    originals = torch.from_numpy(np.load(tmp_path / "originals.npy")).permute(0, 3, 1, 2)
    value(2)
    with torch.no_grad():
        expected = to_uint8(masked(from_uint8(originals), keep=2)[0]).permute(0, 2, 3, 1).numpy()
    found = np.load(tmp_path / "reconstructions.npy")
    assert np.abs(expected.astype(int) - found).max() <= 1
    for length in (0, 17):
        with pytest.raises(SpecError, match=f"length = {length}"):
            value(length)
    with pytest.raises(SpecError, match="lengths"):
        reconstruct(
            ViTok(SPEC), photos.first(9), metrics=["psnr"], folder=tmp_path / "plain", length=8
        )
    assert not (tmp_path / "plain").exists()


def test_stopping(tokenizer: ViTok, photos: SampleSet, tmp_path: Path) -> None:
    asked = iter([False, True])
    with pytest.raises(Stopped, match="sample 10 of 30"):
        reconstruct(
            tokenizer,
            photos,
            metrics=["psnr"],
            folder=tmp_path,
            batch=10,
            should_stop=lambda: next(asked),
        )
    with pytest.raises(Stopped):
        reference_features(photos, folder=tmp_path, should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_evaluated(tokenizer: ViTok, photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="takes 1 frame"):
        reconstruct(
            ViTok(TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=64)),
            photos,
            metrics=["psnr"],
            folder=tmp_path,
        )
    with pytest.raises(SpecError, match=r"takes 8 frame.* samples of 1 frame"):
        reconstruct(ViTok(VIDEO), photos, metrics=["psnr"], folder=tmp_path)
    with pytest.raises(SpecError, match="batch = 0"):
        reconstruct(tokenizer, photos, metrics=["psnr"], folder=tmp_path, batch=0)
    with pytest.raises(SpecError, match="is not a protocol"):
        reference_features(photos, protocol_name="dam", folder=tmp_path)
    reference = reference_features(photos.first(5), folder=tmp_path)
    with pytest.raises(DataError, match="5 images, but 30"):
        reconstruct(
            tokenizer,
            photos,
            metrics=["rfd_lite0"],
            references={"lite0": reference},
            folder=tmp_path,
        )
    np.save(tmp_path / "other.npy", np.zeros((30, 7), np.float32))
    for other in ("other.npy", "none.npy"):
        with pytest.raises(DataError, match="the reference"):
            reconstruct(
                tokenizer,
                photos,
                metrics=["rfd_lite0"],
                references={"lite0": tmp_path / other},
                folder=tmp_path,
            )


def test_reconstructions_that_are_not_numbers(photos: SampleSet, tmp_path: Path) -> None:
    broken = ViTok(SPEC)
    with torch.no_grad():
        broken.output.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        reconstruct(broken, photos.first(9), metrics=["psnr"], folder=tmp_path)


# --- codes --------------------------------------------------------------------------------------

CODES = [name for name, metric in METRICS.items() if metric.of == "codes"]
GRID = dataclasses.replace(SPEC, p=4)
"""A grid of 8 x 8 tokens, which has a spectrum."""


def test_codes_are_measured_alone_and_beside_reconstructions(
    photos: SampleSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokenizer = ViTok(GRID).eval()
    alone = code_metrics(tokenizer, photos, metrics=CODES, batch=7)
    beside = reconstruct(
        tokenizer, photos, metrics=["code_kl", "psnr", *CODES[1:]], folder=tmp_path, batch=30
    )
    assert [one.name for one in beside] == ["code_kl", "psnr", *CODES[1:]]
    for one, other in zip(alone, [beside[0], *beside[2:]], strict=True):
        assert (one.name, one.n) == (other.name, 30)
        assert one.value == pytest.approx(other.value, rel=1e-5), one.name
    with torch.no_grad():
        x = from_uint8(torch.from_numpy(photos.batch(np.arange(30))))
        posterior = tokenizer.encode(x)
    by_name = {one.name: one for one in alone}
    kl = posterior.kl().double().mean(dim=(1, 2))
    assert by_name["code_kl"].value == pytest.approx(kl.mean().item())
    assert by_name["code_kl"].se == pytest.approx(kl.std().item() / 30**0.5)
    drawn = posterior.mean.double().var(
        dim=(0, 1), correction=0
    ) + posterior.logvar.double().exp().mean(dim=(0, 1))  # type: ignore[union-attr]  # of a kl bottleneck
    mean = posterior.mean.double().mean(dim=(0, 1))
    expected = 0.5 * (mean**2 + drawn - 1 - drawn.log()).mean()
    assert by_name["code_gaussianity"].value == pytest.approx(expected.item(), rel=1e-6)


class Pixels(ViTok):
    """Codes that are the pixels of the patches' means: equivariant to both transformations."""

    def decode(self, z_BLC: torch.Tensor, keep: int | torch.Tensor | None = None) -> torch.Tensor:
        side = self.spec.grid[1]
        picture = z_BLC[..., :3].transpose(1, 2).unflatten(2, (side, side))
        return picture.repeat_interleave(self.spec.p, 2).repeat_interleave(self.spec.p, 3)

    def encode(self, x: torch.Tensor) -> Posterior:
        small = torch.nn.functional.avg_pool2d(x, self.spec.p).flatten(2).transpose(1, 2)
        return Posterior(mean=torch.cat([small, small[..., :1]], dim=-1), logvar=None)


def test_equivariant_codes_have_the_error_of_their_reconstruction(photos: SampleSet) -> None:
    """Patches of one colour: the error left is what any decoder of them has."""
    blocks = photos.samples[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)
    flat = SampleSet(samples=blocks, labels=photos.labels)
    tokenizer = Pixels(dataclasses.replace(GRID, p=2)).eval()
    names = ["code_scale_error", "code_rotation_error"]
    rotated = code_metrics(tokenizer, flat, metrics=names[1:])
    assert rotated[0].value < 1e-10
    torch.manual_seed(0)
    untrained = code_metrics(ViTok(GRID).eval(), photos, metrics=names)
    assert all(0.5 < one.value < 50 for one in untrained)


def test_the_half_size_grid_is_decoded_with_the_same_weights(photos: SampleSet) -> None:
    from vitok_core.evaluate._codes import _at_half_size

    torch.manual_seed(0)
    for spec in (GRID, dataclasses.replace(GRID, positions="sincos", frames=2, q=2)):
        tokenizer = ViTok(spec).eval()
        half = _at_half_size(tokenizer)
        z = torch.randn(2, half.spec.tokens, 4)
        small = ViTok(half.spec).eval()
        small.load_state_dict(tokenizer.state_dict())
        with torch.no_grad():
            assert torch.equal(half.decode(z), small.decode(z))


def test_codes_that_have_no_such_number(photos: SampleSet) -> None:
    one_d = ViTok(dataclasses.replace(SPEC, latent_tokens=8, positions="1d"))
    with pytest.raises(SpecError, match="a 1-D code and a cut code have none"):
        code_metrics(one_d, photos, metrics=["code_rotation_error"])
    plain = ViTok(dataclasses.replace(SPEC, bottleneck="none"))
    with pytest.raises(SpecError, match="there is no KL"):
        code_metrics(plain, photos, metrics=["code_kl"])
    with pytest.raises(SpecError, match="'psnr' is not a metric of codes; there are code_kl"):
        code_metrics(plain, photos, metrics=["psnr"])
    with pytest.raises(DataError, match="code_probe needs 20 samples, there are 5"):
        code_metrics(plain, photos.first(5), metrics=["code_probe"])
    (probe,) = code_metrics(one_d, photos, metrics=["code_probe"])
    assert 0 <= probe.value <= 1


class Means(torch.nn.Module):
    """Stands in for an Inception: 2048 features of an image, all of them from its mean."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.float().mean(dim=(1, 2, 3))
        return torch.stack([mean / 10, images.float()[:, 0].mean(dim=(1, 2)) / 10], 1).repeat(
            1, 1024
        )


def test_distributions_frame_index_by_frame_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol of ViTok's authors compares frame t with frame t only: order in time counts."""
    monkeypatch.setattr(_measure, "feature_network", lambda name: Means())
    # Frame t of every clip is t * 20 bright, more or less.
    noise = np.random.default_rng(0).integers(0, 9, size=(12, 3, 4, 32, 32))
    clips = torch.from_numpy(noise + 20 * np.arange(4).reshape(1, 1, 4, 1, 1)).to(torch.uint8)
    values = {}
    for rules in ("vitok", "torch-fidelity"):
        for name, other in (("same", clips), ("backwards", clips.flip(2))):
            store = MetricSet(["rfid"], protocol_name=rules, resolution=32, frames=4)
            store.update(clips, other)
            (found,) = store.compute()
            values[rules, name] = found.value
            assert found.n == 12 and ("4 frame indices" in found.note) == (rules == "vitok")
    assert values["vitok", "same"] == pytest.approx(0, abs=1e-6)
    # Pooled, clips that run backwards have the frames that they had.
    assert values["torch-fidelity", "backwards"] == pytest.approx(0, abs=1e-6)
    # 2048 features move by 20 * (3, 1, -1, -3) / 10; the noise is the same in other frames.
    assert values["vitok", "backwards"] == pytest.approx(2048 * 4 * (9 + 1 + 1 + 9) / 4, rel=0.05)


# --- processes ----------------------------------------------------------------------------------

TWO = """
import json, sys
from pathlib import Path
import torch, torch.distributed as dist
from vitok_core.data import open_prepared
from vitok_core.evaluate import reconstruct, reference_features
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok

rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
if world > 1:
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
torch.manual_seed(0)
spec = TokenizerSpec(encoder="nano", decoder="nano", p=4, c=4, resolution=32)
samples = open_prepared(folder / "photos")
out = folder / f"of{world}"
known = {"lite0": reference_features(samples, folder=out, batch=8)}
if world > 1:
    dist.barrier()
names = ["psnr", "ssim", "rfd_lite0", "rkid_lite0", "code_kl", "code_probe", "code_scale_error"]
found = reconstruct(
    ViTok(spec).eval(), samples, metrics=names, references=known, folder=out, batch=8
)
(out / f"values{rank}.json").write_text(json.dumps([(x.name, x.value, x.n, x.se) for x in found]))
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_one_and_two_processes_give_the_same_numbers(photos: SampleSet, tmp_path: Path) -> None:
    prepare("photos-eval", resolution=32, images=30, folder=tmp_path / "photos")
    for world in (1, 2):
        (tmp_path / f"of{world}").mkdir()
        started = [
            subprocess.Popen(
                [sys.executable, "-c", TWO, str(rank), str(world), str(tmp_path)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for rank in range(world)
        ]
        assert [one.wait(timeout=120) for one in started] == [0] * world
    alone = json.loads((tmp_path / "of1" / "values0.json").read_text())
    for rank in (0, 1):
        assert json.loads((tmp_path / "of2" / f"values{rank}.json").read_text()) == alone
    for name in ("features.npy", "originals.npy", "reconstructions.npy"):
        pair = [np.load(tmp_path / of / name) for of in ("of1", "of2")]
        assert np.array_equal(*pair), name
