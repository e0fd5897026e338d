"""Are the latents on disk the tokenizer's posteriors, and their statistics those of drawn codes?"""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped, WeightsError
from vitok_core.latents import PROGRESS_FILE, LatentsInfo, compute_latents, open_latents
from vitok_core.latents._stored import as_float32, as_stored, rounded
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Posterior, ViTok, from_uint8, load_tokenizer, read_about

IMAGE = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=3, resolution=16)
KINDS: dict[str, TokenizerSpec] = {
    "image": IMAGE,
    "1-D code, masked": TokenizerSpec(
        encoder="nano", decoder="nano", p=8, c=3, resolution=16, latent_tokens=5, lengths=(2, 5)
    ),
    "video": TokenizerSpec(encoder="nano", decoder="nano", q=2, p=8, c=3, resolution=16, frames=4),
    "not random": TokenizerSpec(
        encoder="nano", decoder="nano", p=8, c=3, resolution=16, bottleneck="layernorm"
    ),
    "fixed noise": TokenizerSpec(
        encoder="nano", decoder="nano", p=8, c=3, resolution=16, bottleneck="noise", noise_std=0.5
    ),
}


def build(spec: TokenizerSpec = IMAGE) -> ViTok:
    torch.manual_seed(0)
    tokenizer = ViTok(spec)
    with torch.no_grad():  # channels of different mean, scale and spread
        tokenizer.to_moments.weight.mul_(0.3)
        tokenizer.to_moments.bias.copy_(0.5 * torch.arange(spec.moments) - 1.5)
    return tokenizer


def samples(spec: TokenizerSpec = IMAGE, count: int = 7) -> SampleSet:
    shape = (count, *((spec.frames,) if spec.frames > 1 else ()), 16, 16, 3)
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, shape, np.uint8)
    return SampleSet(samples=pixels, labels=np.arange(count) % 3)


def compute(folder: Path, spec: TokenizerSpec = IMAGE, **options: object) -> LatentsInfo:
    given: dict[str, object] = {"normalisation": "per-channel", "flip": True, "batch": 3, **options}
    return compute_latents(build(spec), samples(spec), folder, **given)  # type: ignore[arg-type]  # tests


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_posteriors_are_the_tokenizers_and_mirrored_ones_stand_behind(
    spec: TokenizerSpec, tmp_path: Path
) -> None:
    info = compute(tmp_path, spec)
    latents, data, tokenizer = open_latents(tmp_path), samples(spec), build(spec).eval()
    assert (len(latents), latents.tokens, latents.c) == (7, spec.tokens, spec.c)
    assert latents.mirrored and info.mirrored and info.samples == 7
    indices, flips = np.array([4, 0, 6]), np.array([False, True, True])
    batch = latents.batch(indices, flips)
    with torch.no_grad():
        posterior = tokenizer.encode(from_uint8(torch.from_numpy(data.batch(indices, flips))))
    assert np.allclose(batch.mean, posterior.mean.numpy(), atol=1e-5)
    assert batch.labels.tolist() == [1, 0, 0]
    if posterior.logvar is None:
        assert batch.logvar is None and not (tmp_path / "logvar.npy").exists()
    else:
        assert batch.logvar is not None
        assert np.allclose(batch.logvar, posterior.logvar.numpy(), atol=1e-5)
    files = {"mean.npy", "labels.npy", "weights.safetensors"} | info.sha256.keys()
    assert {path.name for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_statistics_are_those_of_drawn_codes(spec: TokenizerSpec, tmp_path: Path) -> None:
    """Of many draws; the deviation of the means alone would be far off where there is noise."""
    found = compute(tmp_path, spec).normalisation
    latents = open_latents(tmp_path)
    draws = np.random.Generator(np.random.Philox(2)).standard_normal((400, *latents.mean.shape))
    spread = 0.0 if latents.logvar is None else np.exp(0.5 * latents.logvar)
    codes = latents.mean + draws * spread
    assert np.allclose(found.mean_C, latents.mean.mean(axis=(0, 1), dtype=float), atol=1e-6)
    assert np.allclose(found.std_C, codes.std(axis=(0, 1, 2)), rtol=0.02)
    assert found.mean == pytest.approx(latents.mean.mean(dtype=float), abs=1e-6)
    assert found.std == pytest.approx(codes.std(), rel=0.02)
    assert found.samples == 7


def test_normalised_codes_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    compute(tmp_path)
    latents = open_latents(tmp_path)
    assert latents.logvar is not None
    mean, logvar = (torch.tensor(array[:, None]) for array in (latents.mean, latents.logvar))
    noise = torch.randn(14, 500, 4, 3, generator=torch.Generator().manual_seed(0))
    drawn = mean + noise * torch.exp(0.5 * logvar)
    z = latents.normalisation.normalise(drawn)
    assert torch.allclose(z.mean(dim=(0, 1, 2)), torch.zeros(3), atol=0.03)
    assert torch.allclose(z.std(dim=(0, 1, 2)), torch.ones(3), atol=0.03)


@pytest.mark.parametrize("mode", ["none", "scalar", "per-channel"])
def test_the_tokenizer_carries_its_normalisation(mode: str, tmp_path: Path) -> None:
    info = compute(tmp_path, normalisation=mode, about={"study": "s"})
    tokenizer = load_tokenizer(info.weights)
    assert tokenizer.normalisation is not None
    assert tokenizer.normalisation.mode == open_latents(tmp_path).normalisation.mode == mode
    z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tokenizer.denormalise(tokenizer.normalise(z)), z, atol=1e-5)
    assert torch.equal(tokenizer.normalise(z), z) is (mode == "none")
    assert read_about(info.weights) == {"study": "s"}


def test_batches_change_rounding_only(tmp_path: Path) -> None:
    one, all_ = compute(tmp_path / "one", batch=1), compute(tmp_path / "all", batch=100)
    assert torch.allclose(one.normalisation.std_C, all_.normalisation.std_C, rtol=1e-5)
    left, right = open_latents(tmp_path / "one"), open_latents(tmp_path / "all")
    assert np.allclose(left.mean, right.mean, atol=1e-5)


def test_the_same_latents_are_the_same_bytes(tmp_path: Path) -> None:
    import hashlib

    infos = [compute(tmp_path / name) for name in ("a", "b")]
    assert infos[0].sha256 == infos[1].sha256
    for name, digest in infos[0].sha256.items():
        data = (tmp_path / "b" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
    assert infos[0].weights.read_bytes() == infos[1].weights.read_bytes()


def test_without_mirroring_there_are_no_copies(tmp_path: Path) -> None:
    compute(tmp_path, flip=False)
    latents = open_latents(tmp_path)
    assert len(latents.mean) == len(latents) == 7 and not latents.mirrored
    assert len(latents.batch(np.array([1, 2]), np.array([False, False])).mean) == 2
    with pytest.raises(DataError, match="no mirrored copies"):
        latents.batch(np.array([1, 2]), np.array([False, True]))


def test_a_stop_leaves_nothing_and_progress_counts_copies(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    compute(tmp_path / "whole", progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 14), (3, 14), (6, 14), (7, 14), (10, 14), (13, 14), (14, 14)]
    asked = iter(range(100))
    with pytest.raises(Stopped, match="at 6 of 14"):
        compute(tmp_path / "stopped", should_stop=lambda: next(asked) == 2)
    assert list((tmp_path / "stopped").iterdir()) == []


def test_a_second_computation_replaces_the_first_as_a_whole(tmp_path: Path) -> None:
    compute(tmp_path)
    compute(tmp_path, KINDS["not random"])
    assert open_latents(tmp_path).logvar is None
    assert not (tmp_path / "logvar.npy").exists()


def test_constant_codes_are_refused_where_they_would_be_divided_by_0(tmp_path: Path) -> None:
    tokenizer = build(KINDS["fixed noise"])
    with torch.no_grad():
        tokenizer.to_moments.weight.zero_()
    info = compute_latents(tokenizer, samples(), tmp_path, normalisation="per-channel", flip=False)
    assert np.allclose(info.normalisation.std_C, 0.5)  # the noise alone is a deviation
    plain = ViTok(TokenizerSpec.from_plain({**IMAGE.plain(), "bottleneck": "none"}))
    with torch.no_grad():
        plain.to_moments.weight.zero_()
    for mode in ("scalar", "per-channel"):
        with pytest.raises(SpecError, match="deviation of 0"):
            compute_latents(plain, samples(), tmp_path / "x", normalisation=mode, flip=False)  # type: ignore[arg-type]  # parametrised
    assert list((tmp_path / "x").iterdir()) == []


def test_broken_weights_and_unfitting_samples_are_refused(tmp_path: Path) -> None:
    tokenizer = build()
    with torch.no_grad():
        tokenizer.to_moments.bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match="samples 0 to 6"):
        compute_latents(tokenizer, samples(), tmp_path, normalisation="none", flip=False)
    with pytest.raises(DataError, match="takes 4 of 16 px"):
        compute_latents(
            build(KINDS["video"]), samples(), tmp_path, normalisation="none", flip=False
        )
    with pytest.raises(SpecError, match="choose one of"):
        compute(tmp_path, normalisation="channel")
    with pytest.raises(SpecError, match="at least 1"):
        compute(tmp_path, batch=0)


def test_missing_and_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        open_latents(tmp_path)
    compute(tmp_path)
    with (tmp_path / "mean.npy").open("r+b") as file:
        os.ftruncate(file.fileno(), 200)
    with pytest.raises(DataError, match="damaged"):
        open_latents(tmp_path)
    np.save(tmp_path / "mean.npy", np.zeros((14, 4, 2), np.float32))
    with pytest.raises(DataError, match="expected float32"):
        open_latents(tmp_path)
    (tmp_path / "mean.npy").unlink()
    with pytest.raises(DataError, match="does not exist"):
        open_latents(tmp_path)


# --- going on -----------------------------------------------------------------------------------


def stops_after(asked: int):  # type: ignore[no-untyped-def]  # tests
    left = iter(range(asked))
    return lambda: next(left, None) is None


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 2, 4])
def test_interrupted_latents_end_with_the_same_bytes(
    spec: TokenizerSpec, asked: int, tmp_path: Path
) -> None:
    whole = compute(tmp_path / "whole", spec, made_by={"task": 1})
    by_hand = compute(tmp_path / "hand", spec)
    assert contents(tmp_path / "whole") == contents(tmp_path / "hand")
    assert whole.sha256 == by_hand.sha256
    folder = tmp_path / "part"
    # 7 samples in batches of 3, and their mirrored copies: the fifth batch is in the second half.
    with pytest.raises(Stopped, match=f"stopped at {(0, 6, 10)[asked // 2]} of 14; they are kept"):
        compute(folder, spec, made_by={"task": 1}, should_stop=stops_after(asked))
    assert not (folder / "mean.npy").exists() and not (folder / "weights.safetensors").exists()
    told: list[int] = []
    again = compute(
        folder, spec, made_by={"task": 1}, progress=lambda done, total: told.append(done)
    )
    assert told == [0, 3, 6, 7, 10, 13, 14][asked:]
    assert again.sha256 == whole.sha256
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_part_of_anything_else_is_computed_anew(tmp_path: Path) -> None:
    compute(tmp_path / "whole")
    for other in ({"made_by": {"task": 2}}, {"batch": 4}, {"flip": False}, {"made_by": None}):
        folder = tmp_path / next(iter(other)) / str(len(list(tmp_path.iterdir())))
        with pytest.raises(Stopped):
            compute(folder, made_by={"task": 1}, should_stop=stops_after(2))
        found = compute(folder, **{"made_by": {"task": 1}, **other})
        again = compute(folder / "new", **{"made_by": {"task": 1}, **other})
        assert found.sha256 == again.sha256
    with pytest.raises(Stopped):
        compute(folder, made_by={"task": 1}, should_stop=stops_after(2))
    (folder / PROGRESS_FILE).write_text("{")
    compute(folder, made_by={"task": 1})
    assert (folder / "mean.npy").read_bytes() == (tmp_path / "whole" / "mean.npy").read_bytes()


def test_a_part_that_lost_its_end_is_told(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        compute(tmp_path, made_by={"task": 1}, should_stop=stops_after(2))
    os.truncate(tmp_path / ".mean.npy.part", 200)
    with pytest.raises(DataError, match=r"is shorter than \.latents\.json next to it says; delete"):
        compute(tmp_path, made_by={"task": 1})


# --- bfloat16 -----------------------------------------------------------------------------------


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_bfloat16_is_the_nearest_number_of_eight_bits_even_in_a_tie(values: list[float]) -> None:
    exact = np.array(values, np.float32)
    posterior = Posterior(mean=torch.from_numpy(exact), logvar=None)
    stored = rounded(posterior, "bfloat16").mean
    # By whole numbers: add half of the last kept bit, less one where that bit is 0 (ties to even).
    bits = exact.view(np.uint32).astype(np.uint64)
    expected = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32)
    assert stored.numpy().view(np.uint32).tolist() == expected.tolist()
    array = as_stored(stored, "bfloat16")
    assert array.nbytes == 2 * len(values)
    assert np.array_equal(as_float32(array).view(np.uint32), expected)
    once_more = rounded(Posterior(mean=stored, logvar=stored), "bfloat16")
    assert torch.equal(once_more.mean, stored) and torch.equal(stored, once_more.logvar)  # type: ignore[arg-type]  # there


@pytest.mark.parametrize("spec", [IMAGE, KINDS["not random"]], ids=["random", "not random"])
def test_latents_in_bfloat16_take_half_the_disk(spec: TokenizerSpec, tmp_path: Path) -> None:
    whole = compute(tmp_path / "whole", spec)
    half = compute(tmp_path / "half", spec, dtype="bfloat16")
    before, after = open_latents(tmp_path / "whole"), open_latents(tmp_path / "half")
    arrays = before.mean.nbytes * (1 if before.logvar is None else 2)
    assert whole.arrays_bytes - half.arrays_bytes == arrays // 2
    rows, flips = np.array([4, 0, 6]), np.array([False, True, True])
    exact, read = before.batch(rows, flips), after.batch(rows, flips)
    assert read.mean.dtype == np.float32
    assert np.array_equal(read.mean, torch.from_numpy(exact.mean).bfloat16().float().numpy())
    if exact.logvar is not None:
        assert read.logvar is not None
        logvar = torch.from_numpy(exact.logvar).bfloat16().float().numpy()
        assert np.array_equal(read.logvar, logvar)
    # The statistics are those of the numbers that will be read.
    everything = after.batch(np.tile(np.arange(7), 2), np.repeat([False, True], 7))
    mean_C = everything.mean.mean(axis=(0, 1), dtype=float)
    assert np.allclose(half.normalisation.mean_C, mean_C, rtol=1e-6, atol=1e-7)
    assert not np.array_equal(half.normalisation.mean_C, whole.normalisation.mean_C)
    with pytest.raises(SpecError, match="choose one of float32, bfloat16"):
        compute(tmp_path, spec, dtype="float16")


def test_a_part_in_another_type_is_computed_again(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        compute(tmp_path / "part", made_by={"task": 1}, should_stop=stops_after(2))
    compute(tmp_path / "part", made_by={"task": 1}, dtype="bfloat16")
    with pytest.raises(Stopped):
        compute(tmp_path / "two", made_by={"task": 1}, dtype="bfloat16", should_stop=stops_after(2))
    compute(tmp_path / "two", made_by={"task": 1}, dtype="bfloat16")
    compute(tmp_path / "whole", dtype="bfloat16")
    for name in ("part", "two"):
        assert contents(tmp_path / name) == contents(tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_read_by_position_and_a_file_that_is_cut_off_is_told(
    dtype: str, tmp_path: Path
) -> None:
    compute(tmp_path, dtype=dtype)
    latents, before = open_latents(tmp_path), threading.active_count()
    in_memory = dataclasses.replace(
        latents, mean=np.array(latents.mean), logvar=np.array(latents.logvar), files=(None, None)
    )
    for rows in (np.array([6]), np.arange(7), np.array([], np.int64), np.array([3, 3, 0])):
        flips = np.arange(len(rows)) % 2 == 0
        one, other = latents.batch(rows, flips), in_memory.batch(rows, flips)
        assert one.logvar is not None and other.logvar is not None
        assert np.array_equal(one.mean, other.mean) and np.array_equal(one.logvar, other.logvar)
        assert one.mean.dtype == one.logvar.dtype == np.float32
    assert threading.active_count() == before
    os.truncate(tmp_path / "logvar.npy", (tmp_path / "logvar.npy").stat().st_size - 1)
    latents.batch(np.array([0, 6]))
    with pytest.raises(DataError, match=r"logvar\.npy ends before row 13"):
        latents.batch(np.array([6]), np.array([True]))
