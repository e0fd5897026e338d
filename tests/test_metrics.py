"""Do metrics give the numbers that theory gives, whatever the batches?"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitok_core.errors import DataError, MetricError, NonFiniteError, SpecError
from vitok_core.features import feature_network
from vitok_core.metrics import (
    Measured,
    MetricSet,
    bootstrap_error,
    cover,
    frechet_distance,
    frechet_infinity,
    gaussian,
    gaussian_kernel_distance,
    gaussianity,
    inception_score,
    kernel_distance,
    linear_probe,
    ms_ssim,
    psnr,
    rounded,
    spectrum_slope,
    ssim,
)
from vitok_core.protocols import METRICS, PROTOCOLS

LITE0 = ["psnr", "ssim", "lpips", "rfd_lite0", "rkid_lite0"]


def images(count: int, *, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand((count, 3, 6, 6), generator=generator)
    smooth = torch.nn.functional.interpolate(small, size=side, mode="bicubic")
    return (255 * smooth).clamp(0, 255).to(torch.uint8)


def disturbed(originals: torch.Tensor, strength: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(-strength, strength + 1, originals.shape, generator=generator)
    return (originals.int() + noise).clamp(0, 255).to(torch.uint8)


@given(st.integers(1, 100))
def test_psnr_of_a_constant_difference(difference: int) -> None:
    x = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    expected = 20 * np.log10(255 / difference)
    assert psnr(x, x + difference).tolist() == pytest.approx([expected, expected])


def test_equal_images_have_a_finite_psnr() -> None:
    x = images(3)
    assert psnr(x, x).tolist() == [100.0] * 3


def test_ssim_of_equal_and_of_constant_images() -> None:
    x = images(3)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 3)
    # Constant images have no structure: only the term of the means is left.
    black, grey = torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.full((1, 3, 16, 16), 100)
    constant = (0.01 * 255) ** 2
    expected = constant / (100**2 + constant)
    assert ssim(black, grey.to(torch.uint8)).item() == pytest.approx(expected, rel=1e-3)


def test_ssim_is_the_mean_of_the_published_formula() -> None:
    from scipy.ndimage import gaussian_filter

    def blur(image: np.ndarray) -> np.ndarray:
        return np.asarray(
            gaussian_filter(image, sigma=1.5, truncate=3.5, mode="mirror", axes=(1, 2))
        )

    x, y = images(1), disturbed(images(1), 30)
    a, b = x[0].double().numpy(), y[0].double().numpy()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    expected = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    assert ssim(x, y).item() == pytest.approx(expected.mean(), abs=1e-4)


def test_frechet_distance_of_shifted_and_scaled_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 6))
    assert frechet_distance(a, a + 3.0) == pytest.approx(6 * 9.0, rel=1e-6)
    assert frechet_distance(a, 2.0 * a) == pytest.approx(
        np.trace(np.cov(a, rowvar=False)) + (a.mean(0) ** 2).sum(), rel=1e-6
    )
    assert frechet_distance(a, a[::-1]) == pytest.approx(0.0, abs=1e-6)


def test_kernel_distance_tells_distributions_apart() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    assert abs(kernel_distance(a, b)) < 0.1 < kernel_distance(a, b + 1.0)


def test_values_do_not_depend_on_batches_and_grow_with_damage() -> None:
    originals = images(24)
    found = {}
    for strength in (10, 60):
        reconstructions = disturbed(originals, strength)
        for batch in (24, 5):
            metrics = MetricSet(LITE0, resolution=32)
            for part in range(0, 24, batch):
                metrics.update(originals[part : part + batch], reconstructions[part : part + batch])
            measured = metrics.compute()
            assert [entry.name for entry in measured] == LITE0
            assert {entry.n for entry in measured} == {24}
            found[strength, batch] = {entry.name: entry.value for entry in measured}
        assert found[strength, 24] == pytest.approx(found[strength, 5], rel=1e-4)
    for name in LITE0:
        lower = found[10, 24][name] < found[60, 24][name]
        assert lower == (METRICS[name].better == "lower"), name


def test_a_clip_counts_once_and_its_frames_alike() -> None:
    """One frame of a clip of four is damaged: a quarter of the loss of that clip."""
    originals = images(8).reshape(2, 4, 3, 32, 32).transpose(1, 2)
    damaged = originals.clone()
    damaged[0, :, 3] = disturbed(originals[0, :, 3], 40)
    metrics = MetricSet(["psnr", "ssim", "lpips"], resolution=32, frames=4)
    metrics.update(originals, damaged)
    found = metrics.compute()
    assert {entry.n for entry in found} == {2}
    frame = MetricSet(["psnr", "ssim", "lpips"], resolution=32)
    frame.update(originals[:1, :, 3], damaged[:1, :, 3])
    for entry, alone, equal in zip(found, frame.compute(), (100.0, 1.0, 0.0), strict=True):
        assert entry.value == pytest.approx((alone.value + 7 * equal) / 8, rel=1e-5, abs=1e-7)


def test_the_reference_replaces_the_originals() -> None:
    originals, reconstructions = images(8), disturbed(images(8), 40)
    plain = MetricSet(["rfd_lite0"], resolution=32)
    plain.update(originals, reconstructions)
    reference = feature_network("lite0")(originals).numpy()
    known = MetricSet(["rfd_lite0"], resolution=32, references={"lite0": reference})
    known.update(originals, reconstructions)
    assert known.compute()[0].value == pytest.approx(plain.compute()[0].value, rel=1e-6)

    short = MetricSet(["rfd_lite0"], resolution=32, references={"lite0": reference[:7]})
    short.update(originals, reconstructions)
    with pytest.raises(DataError, match="7 images, but 8"):
        short.compute()

    broken = MetricSet(
        ["rkid_lite0"], resolution=32, references={"lite0": reference * np.float32(np.nan)}
    )
    broken.update(originals, reconstructions)
    with pytest.raises(NonFiniteError, match="rkid_lite0"):
        broken.compute()


def test_what_cannot_be_measured() -> None:
    with pytest.raises(SpecError, match=r"did you mean psnr\?"):
        MetricSet(["pnsr"], resolution=32)
    with pytest.raises(SpecError, match="named twice"):
        MetricSet(["psnr", "psnr"], resolution=32)
    with pytest.raises(SpecError, match="is not a protocol; there are lite0"):
        MetricSet(["psnr"], protocol_name="dam", resolution=32)
    with pytest.raises(SpecError, match="at least 31 px"):
        MetricSet(["lpips"], resolution=16)
    with pytest.raises(SpecError, match="at least 11 px"):
        ssim(images(1, side=8), images(1, side=8))
    with pytest.raises(DataError, match="psnr needs 1 images, there are 0"):
        MetricSet(["psnr"], resolution=32).compute()
    with pytest.raises(DataError, match="at least 2 images"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="uint8"):
        MetricSet(["psnr"], resolution=32).update(torch.zeros(1, 3, 32, 32), images(1))
    with pytest.raises(ValueError, match="cannot be compared"):
        MetricSet(["psnr"], resolution=32).update(images(1), images(2))


# --- against other people's code ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("psnr", 100.5, "psnr over 8 samples is 100.5, but it is 0 to 100: nothing was recorded"),
        ("ssim", -1.2, "is -1.2, but it is -1 to 1"),
        ("rfid", -0.5, "is -0.5, but it is from 0"),
        ("ris", 0.5, "is 0.5, but it is from 1"),
        ("code_probe", 1.1, "is 1.1, but it is 0 to 1"),
    ],
)
def test_a_value_beyond_its_bounds_is_a_failed_measurement(
    name: str, value: float, told: str
) -> None:
    with pytest.raises(MetricError, match=re.escape(told)):
        Measured(name=name, value=value, n=8)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_a_failed_measurement(value: float) -> None:
    for name in ("psnr", "rkid"):
        with pytest.raises(NonFiniteError, match=f"{name} over 8 samples is "):
            Measured(name=name, value=value, n=8)


def test_rounding_beyond_a_bound_is_kept() -> None:
    for name, value in (("rfid", -1e-6), ("ssim", 1 + 1e-7), ("psnr", 100.001), ("rkid", -3.0)):
        assert Measured(name=name, value=value, n=8).value == value


def test_an_evaluation_holds_each_value_against_the_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impossible = replace(METRICS["psnr"], bounds=(60.0, 100.0))
    measures = MetricSet(["psnr"], resolution=32)
    originals = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    measures.update(originals, originals + 9)
    assert measures.compute()[0].value == pytest.approx(20 * math.log10(255 / 9))
    monkeypatch.setitem(METRICS, "psnr", impossible)
    with pytest.raises(MetricError, match="but it is 60 to 100"):
        measures.compute()


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    # More images than are taken at a time, sides that are not equal.
    x = images(11, side=32)[..., :27]
    y = disturbed(x, 40)
    for left, right, a, b in zip(x, y, psnr(x, y), ssim(x, y, "inside"), strict=True):
        p, q = left.numpy(), right.numpy()
        expected = peak_signal_noise_ratio(p, q, data_range=255)
        assert a.item() == pytest.approx(expected, rel=1e-6)
        expected = structural_similarity(
            p,
            q,
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert b.item() == pytest.approx(expected, rel=1e-6)


def test_ms_ssim_of_equal_and_of_damaged_images() -> None:
    x = images(2, side=176)
    scores = [ms_ssim(x, disturbed(x, strength)) for strength in (0, 20, 60)]
    assert scores[0].tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert (scores[0] > scores[1]).all() and (scores[1] > scores[2]).all()
    with pytest.raises(SpecError, match="at least 161 px"):
        ms_ssim(x[..., :160], x[..., :160])


def features(count: int, width: int = 24, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, width)) @ rng.normal(size=(width, width))
    return (np.abs(mixed) + shift).astype(np.float32)


@pytest.mark.parametrize("count", [20, 70])
def test_distances_are_those_of_torch_fidelity(count: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    a, b = features(count), features(count, seed=1, shift=0.3)
    left, right = (torch.from_numpy(side).double() for side in (a, b))
    expected = fid_statistics_to_metric(
        *(fid_features_to_statistics(side) for side in (left, right)), verbose=False
    )
    assert frechet_distance(a, b) == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    expected = kid_features_to_metric(
        left, right, kid_subset_size=15, kid_subsets=100, kid_kernel="poly", rng_seed=2020,
        verbose=False,
    )  # fmt: skip
    assert kernel_distance(a, b, 15) == pytest.approx(
        expected["kernel_inception_distance_mean"], rel=1e-6
    )
    expected = isc_features_to_metric(right)
    assert inception_score(b) == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    expected = prc_features_to_metric(
        right, left, prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=False, verbose=False
    )
    found = cover(a, b)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)
    assert 0 < found.precision < 1


def exact_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance in 50 digits, from eigenvalues of the product of the covariances."""
    import mpmath

    with mpmath.workdps(50):
        means, covariances = [], []
        for side in (a, b):
            rows = mpmath.matrix(side.tolist())
            n, width = rows.rows, rows.cols
            mean = [sum(rows[i, j] for i in range(n)) / n for j in range(width)]
            centred = mpmath.matrix(n, width)
            for i in range(n):
                for j in range(width):
                    centred[i, j] = rows[i, j] - mean[j]
            means.append(mean)
            covariances.append(centred.T * centred / (n - 1))
        values = mpmath.eig(covariances[0] * covariances[1], left=False, right=False)
        root = sum(mpmath.sqrt(max(mpmath.re(value), 0)) for value in values)
        shift = sum((p - q) ** 2 for p, q in zip(*means, strict=True))
        trace = sum(one[j, j] for one in covariances for j in range(len(means[0])))
        return float(shift + trace - 2 * root)


@pytest.mark.parametrize("rows", [(12, 12), (4, 4), (4, 9)])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_frechet_distance_against_fifty_digits(rows: tuple[int, int], spread: float) -> None:
    """Also with covariances that are singular, and with nearly equal sets."""
    rng = np.random.default_rng(7)
    scales = np.logspace(0, -3, 6)
    a = rng.normal(size=(rows[0], 6)) * scales
    b = (rng.normal(size=(rows[1], 6)) * spread * scales) + (
        a if rows[0] == rows[1] else 0.5 * scales
    )
    # What is left of a sum of about 1: rounding is 1e-16 of that.
    assert frechet_distance(a, b) == pytest.approx(exact_frechet(a, b), rel=1e-12, abs=1e-14)
    assert frechet_distance(gaussian(a), gaussian(b)) == frechet_distance(a, b)


def test_cover_is_that_of_its_definition() -> None:
    real, fake = features(40, 3), features(30, 3, seed=1, shift=0.2)
    between = np.linalg.norm(real[:, None] - fake[None], axis=-1)
    within = np.sort(np.linalg.norm(real[:, None] - real[None], axis=-1), axis=1)
    others = np.sort(np.linalg.norm(fake[:, None] - fake[None], axis=-1), axis=1)
    found = cover(real, fake)
    assert found.precision == (between <= within[:, [3]]).any(axis=0).mean()
    assert found.recall == (between <= others[:, 3]).any(axis=1).mean()
    assert found.density == pytest.approx((between < within[:, [5]]).sum() / (5 * 30))
    assert found.coverage == (between < within[:, [5]]).any(axis=1).mean()
    with pytest.raises(DataError, match="more than 5 images"):
        cover(real, fake[:5])


def test_the_gaussian_kernel_distance_over_all_pairs() -> None:
    a, b = features(12, 5).astype(float), features(9, 5, seed=1).astype(float)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (a, b)]

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        squares = ((x[:, None] - y[None]) ** 2).sum(-1)
        return float(np.exp(-squares / 200.0).mean())

    expected = mean(unit[0], unit[0]) + mean(unit[1], unit[1]) - 2 * mean(*unit)
    assert gaussian_kernel_distance(a, b) == pytest.approx(1000 * expected, rel=1e-9)
    with pytest.raises(DataError, match="no direction"):
        gaussian_kernel_distance(np.zeros((3, 2)), a[:, :2])


def test_the_extrapolation_takes_the_bias_away() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(600, 10)), rng.normal(size=(600, 10))
    biased, unbiased = frechet_distance(a, b), frechet_infinity(a, b)
    assert abs(unbiased) < 0.35 * biased
    assert frechet_infinity(a, b) == unbiased
    far = frechet_infinity(a, b + 2.0)
    assert far == pytest.approx(40.0, rel=0.05)
    with pytest.raises(DataError, match="at least 4"):
        frechet_infinity(a[:3], b[:3])


def test_the_bootstrap_error_is_that_of_repeated_draws() -> None:
    def difference(a: np.ndarray, b: np.ndarray) -> float:
        return float(a.mean() - b.mean())

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 1)), rng.normal(size=(300, 1))
    expected = np.sqrt(1 / 200 + 1 / 300)
    found = bootstrap_error(difference, a, b, resamples=400)
    assert found == pytest.approx(expected, rel=0.15)
    # Paired sets are drawn together: what both share drops out.
    assert bootstrap_error(difference, a, a + 1, resamples=20) == pytest.approx(0, abs=1e-12)
    with pytest.raises(DataError, match="at least 2 resamples"):
        bootstrap_error(difference, a, b, resamples=1)


def test_frames_of_a_clip_are_drawn_together() -> None:
    """Frames that hardly differ within a clip carry the error of clips, not of frames."""
    rng = np.random.default_rng(1)
    clips = rng.normal(size=(60, 1, 1))
    a = (clips + 0.01 * rng.normal(size=(60, 8, 1))).reshape(480, 1)

    def mean(left: np.ndarray, right: np.ndarray) -> float:
        return float(left.mean())

    together = bootstrap_error(mean, a, a, resamples=400, rows=8)
    assert together == pytest.approx(clips.std() / np.sqrt(60), rel=0.15)
    one_by_one = bootstrap_error(mean, a, a, resamples=400)
    assert one_by_one == pytest.approx(together / np.sqrt(8), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [frechet_distance, frechet_infinity])
def test_the_bootstrap_error_of_frechet_distances_is_that_of_new_images(
    distance: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    """Against the deviation over fresh sets of images; of the extrapolation too."""
    rng, width, n = np.random.default_rng(4), 4, 400
    shift = 0.4 * np.ones(width)

    def pair() -> tuple[np.ndarray, np.ndarray]:
        a = rng.normal(size=(n, width))
        return a, a + shift + 0.5 * rng.normal(size=(n, width))

    fresh = float(np.std([distance(*pair()) for _ in range(200)], ddof=1))
    errors = [bootstrap_error(distance, *pair(), resamples=40) for _ in range(12)]
    assert 0.7 * fresh < np.mean(errors) < 1.4 * fresh


@pytest.mark.slow
def test_every_distribution_metric_has_its_error_where_one_is_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (100, 3, 16, 16), generator=generator).to(torch.uint8)
    y = (x.int() + torch.randint(-30, 31, x.shape, generator=generator)).clamp(0, 255)
    names = ["rfd_lite0", "rfd_lite0_infinity", "rkid_lite0"]
    found = {}
    for bootstrap in (0, 2):
        measures = MetricSet(names, resolution=16, bootstrap=bootstrap)
        measures.update(x, y.to(torch.uint8))
        found[bootstrap] = measures.compute()
    assert [one.value for one in found[0]] == [one.value for one in found[2]]
    assert [one.se for one in found[0]] == [None] * 3
    assert all(one.se is not None and one.se > 0 for one in found[2])
    plain, infinity, _ = found[0]
    assert infinity.value != plain.value


def test_splits_of_the_inception_score() -> None:
    """Two classes known for sure: 2 over all, 1 within a split that has one of them only."""
    logits = np.where(np.arange(40)[:, None] < 20, [50.0, -50.0], [-50.0, 50.0])
    assert inception_score(logits, splits=1, shuffled=False) == pytest.approx(2.0)
    assert inception_score(logits, splits=2, shuffled=False) == pytest.approx(1.0)
    assert inception_score(logits, splits=-20, shuffled=False) == pytest.approx(1.0)
    assert inception_score(logits, splits=-5000, shuffled=False) == pytest.approx(2.0)
    assert inception_score(logits, splits=2, shuffled=True) > 1.5
    with pytest.raises(DataError, match="10 splits"):
        inception_score(logits[:9])


# --- rules of protocols -------------------------------------------------------------------------


def test_how_protocols_round() -> None:
    x_hat = torch.tensor([-2.0, -1.0, 0.0, 0.003, 0.5, 0.999, 1.0, 7.0])
    found = {name: rounded(x_hat, one).tolist() for name, one in PROTOCOLS.items()}
    assert found["lite0"] == found["clean"] == [0, 0, 128, 128, 191, 255, 255, 255]
    assert found["adm"] == [0, 0, 128, 128, 191, 255, 255, 255]
    assert found["vitok"] == [0, 0, 127, 127, 191, 254, 255, 255]


def test_pooled_psnr_lies_below_the_mean() -> None:
    x = images(6)
    y = torch.cat([disturbed(x[:3], 5), disturbed(x[3:], 60)])
    values = {}
    for name in ("vitok", "torch-fidelity"):
        metrics = MetricSet(["psnr"], protocol_name=name, resolution=32)
        metrics.update(x, y)
        (values[name],) = metrics.compute()
    error = (x.double() - y.double()).square().mean()
    assert values["vitok"].value == pytest.approx(float(10 * torch.log10(255**2 / error)))
    assert values["vitok"].value < values["torch-fidelity"].value
    assert values["vitok"].se is None
    scores = psnr(x, y).numpy()
    assert values["torch-fidelity"].se == pytest.approx(scores.std(ddof=1) / np.sqrt(6))


def test_lpips_is_that_of_its_package() -> None:
    import lpips

    from vitok_core.features import feature_network
    from vitok_core.tokenizer import from_uint8

    x, y = images(3), disturbed(images(3), 30)
    with warnings.catch_warnings():
        # lpips calls torchvision by a keyword that torchvision has renamed.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    theirs.load_state_dict(feature_network("alex").state_dict())
    metrics = MetricSet(["lpips"], resolution=32)
    metrics.update(x, y)
    with torch.no_grad():
        expected = theirs(from_uint8(x), from_uint8(y)).double().mean().item()
    assert metrics.compute()[0].value == expected


# --- codes --------------------------------------------------------------------------------------


def test_gaussianity_is_zero_for_unit_gaussians_only() -> None:
    one = np.ones(3)
    assert gaussianity(0 * one, one) == 0
    assert gaussianity(one, one) == pytest.approx(0.5)
    assert gaussianity(0 * one, 4 * one) == pytest.approx(0.5 * (3 - np.log(4)))
    with pytest.raises(DataError, match="1 of 3 channels never change"):
        gaussianity(one, np.array([1.0, 0.0, 1.0]))


@given(st.sampled_from([-3.0, -2.0, -1.0, 0.0]), st.integers(0, 5))
def test_the_slope_of_made_spectra(slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.fft.fftfreq(16)[:, None] * 16
    radius = np.maximum(np.hypot(rows, rows.T), 1)
    spectrum = radius ** (slope / 2) * np.exp(2j * np.pi * rng.random((40, 16, 16)))
    codes = np.fft.ifft2(spectrum).real.reshape(20, 2, 16, 16).transpose(0, 2, 3, 1)[:, None]
    assert spectrum_slope(codes) == pytest.approx(slope, abs=0.25)


def test_the_probe_finds_what_is_linear_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    direction = rng.normal(size=(3, 8))
    told = direction[labels] * 3 + rng.normal(size=(300, 8))
    assert linear_probe(told, labels) > 0.95
    assert linear_probe(rng.normal(size=(300, 8)), labels) == pytest.approx(1 / 3, abs=0.12)
    # More numbers than samples: the dual form, which gives the same predictions.
    wide = np.concatenate([told, 1e-9 * rng.normal(size=(300, 400))], axis=1)[:, :]
    assert linear_probe(wide[:60], labels[:60]) >= 0.5
    with pytest.raises(DataError, match="at least 20 samples of at least 2 labels"):
        linear_probe(told, np.zeros(300, np.int64))


# -------------------------------------------------------------------- what cannot be compared


def with_bad(features: np.ndarray, value: float, *rows: int) -> np.ndarray:
    """Features with one value replaced in some rows."""
    bad = features.copy()
    bad[list(rows), 3] = value
    return bad


@pytest.mark.parametrize(
    ("value", "holds"),
    [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (-np.inf, "NaN or infinity"),
     (1e200, r"numbers beyond 1e\+20")],
)  # fmt: skip
def test_features_that_are_no_numbers_name_the_side_and_the_count(value: float, holds: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 8)), rng.normal(size=(20, 8))
    left, right = with_bad(a, value, 4, 9, 20), with_bad(b, value, 2)
    for distance in (
        frechet_distance, frechet_infinity, kernel_distance, gaussian_kernel_distance, cover,
    ):  # fmt: skip
        with pytest.raises(
            NonFiniteError,
            match=rf"^3 of 30 feature vectors of the originals hold {holds} .*number 4,",
        ):
            distance(left, b)
        with pytest.raises(
            NonFiniteError, match=r"^1 of 20 feature vectors of the reconstructions or samples"
        ):
            distance(a, right)
    with pytest.raises(NonFiniteError, match=r"of the originals.*; 1 of 20.*samples hold"):
        kernel_distance(left, right)
    with pytest.raises(NonFiniteError, match=r"1 of 20 .*outputs of the classifier"):
        inception_score(right, splits=2)
    with pytest.raises(NonFiniteError, match="3 of 30 feature vectors of the set"):
        gaussian(left)


def test_very_large_features_have_distances() -> None:
    # No overflow in squares and cubes below the limit.
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(20, 4)).astype("f4") * np.float32(1e18) for _ in range(2))
    values = [d(a, b) for d in (frechet_distance, kernel_distance, frechet_infinity)]
    assert np.isfinite(values).all()
    assert frechet_distance(a, b) == pytest.approx(
        1e36 * frechet_distance(a / np.float32(1e18), b / np.float32(1e18)), rel=1e-5
    )


def test_two_networks_cannot_be_compared() -> None:
    for distance in (frechet_distance, frechet_infinity, kernel_distance, cover):
        with pytest.raises(DataError, match=r"of shape \(4,\).*of \(6,\).*the same network"):
            distance(np.zeros((9, 4)), np.zeros((9, 6)))


def test_codes_that_are_no_numbers_are_counted() -> None:
    codes = np.random.default_rng(0).normal(size=(40, 16))
    bad = with_bad(codes, np.nan, 7, 8)
    with pytest.raises(NonFiniteError, match=r"2 of 40 codes hold NaN or infinity .*number 7,"):
        linear_probe(bad, np.arange(40) % 2)
    with pytest.raises(NonFiniteError, match="2 of 40 codes"):
        spectrum_slope(bad.reshape(40, 1, 4, 4, 1))
    with pytest.raises(NonFiniteError, match="1 of 2 channels"):
        gaussianity(np.zeros(2), np.array([1.0, np.nan]))


def test_pairs_are_compared_as_bytes_of_one_shape() -> None:
    x = images(2)
    for other in (x.float(), x / 255, x.double(), x.numpy(), x[:1], x[0], x.unsqueeze(2)):
        for metric in (psnr, ssim, ms_ssim):
            with pytest.raises(SpecError, match="compare two uint8 tensors of one shape"):
                metric(x, other)
    with pytest.raises(SpecError, match=r"not float32 of shape .* with float32 of shape"):
        psnr(x / 255, x / 255)
