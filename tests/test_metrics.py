"""Do metrics give the numbers that theory gives, whatever the batches?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitok_core.errors import DataError, NonFiniteError, SpecError
from vitok_core.features import Lite0
from vitok_core.metrics import MetricSet, frechet_distance, kernel_distance, psnr, ssim
from vitok_core.protocols import METRICS, PROTOCOLS
from vitok_core.weights import WEIGHTS


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
            metrics = MetricSet(tuple(METRICS), resolution=32)
            for part in range(0, 24, batch):
                metrics.update(originals[part : part + batch], reconstructions[part : part + batch])
            measured = metrics.compute()
            assert [entry.name for entry in measured] == list(METRICS)
            assert {entry.n for entry in measured} == {24}
            found[strength, batch] = {entry.name: entry.value for entry in measured}
        assert found[strength, 24] == pytest.approx(found[strength, 5], rel=1e-4)
    for name, metric in METRICS.items():
        lower = found[10, 24][name] < found[60, 24][name]
        assert lower == (metric.better == "lower"), name


def test_the_reference_replaces_the_originals() -> None:
    originals, reconstructions = images(8), disturbed(images(8), 40)
    plain = MetricSet(["rfd_lite0"], resolution=32)
    plain.update(originals, reconstructions)
    reference = Lite0()(originals).numpy()
    known = MetricSet(["rfd_lite0"], resolution=32, reference_NF=reference)
    known.update(originals, reconstructions)
    assert known.compute()[0].value == pytest.approx(plain.compute()[0].value, rel=1e-6)

    short = MetricSet(["rfd_lite0"], resolution=32, reference_NF=reference[:7])
    short.update(originals, reconstructions)
    with pytest.raises(DataError, match="7 images, but 8"):
        short.compute()

    broken = MetricSet(["rkid_lite0"], resolution=32, reference_NF=reference * np.float32(np.nan))
    broken.update(originals, reconstructions)
    with pytest.raises(NonFiniteError, match="rkid_lite0"):
        broken.compute()


def test_what_cannot_be_measured() -> None:
    with pytest.raises(SpecError, match=r"did you mean psnr\?"):
        MetricSet(["pnsr"], resolution=32)
    with pytest.raises(SpecError, match="named twice"):
        MetricSet(["psnr", "psnr"], resolution=32)
    with pytest.raises(SpecError, match="is no protocol; there are lite0"):
        MetricSet(["psnr"], protocol_name="adm", resolution=32)
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


def test_the_protocol_names_the_weights_that_are_used() -> None:
    protocol = PROTOCOLS["lite0"]
    assert protocol.weights_sha256 == WEIGHTS["lite0"].sha256
    assert WEIGHTS["lpips-alex-trunk"].sha256 in protocol.perceptual
    assert "about" not in protocol.record()
