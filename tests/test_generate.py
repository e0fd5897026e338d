"""Do samples follow from seed and label alone, whatever the batch, and does guidance reach them?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitok_core.dit import DiT
from vitok_core.errors import NonFiniteError, SpecError, Stopped
from vitok_core.generate import balanced_labels, progress_of, sample, sample_codes, sample_to_file
from vitok_core.settings import Sampling
from vitok_core.spec import DiTSpec, TokenizerSpec
from vitok_core.tokenizer import Normalisation, ViTok, to_uint8

IMAGE = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=3, resolution=16)
VIDEO = TokenizerSpec(encoder="nano", decoder="nano", q=2, p=8, c=3, resolution=16, frames=4)
LABELS = [0, 1, 2, 2, 1, 3]
FEW = Sampling(steps=4, cfg=1.0)


def tokenizer(spec: TokenizerSpec = IMAGE) -> ViTok:
    torch.manual_seed(0)
    built = ViTok(spec)
    built.normalisation = Normalisation(
        mode="per-channel",
        mean_C=torch.tensor([0.0, 1.0, -1.0]),
        std_C=torch.tensor([0.5, 1.0, 2.0]),
        mean=0.0,
        std=1.5,
        samples=9,
    )
    return built


def dit(spec: TokenizerSpec = IMAGE, **options: object) -> DiT:
    torch.manual_seed(1)
    given: dict[str, object] = {"size": "nano", "classes": 3, **options}
    built = DiT(DiTSpec.for_tokenizer(spec, **given))  # type: ignore[arg-type]  # tests
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def codes(model: DiT, sampling: Sampling = FEW, labels: list[int] = LABELS, **options: int):  # type: ignore[no-untyped-def]  # tests
    return sample_codes(model, labels, sampling=sampling, **{"seed": 5, **options})


EVERY = {
    "ddim": ({}, FEW),
    "ddim, eta": ({}, Sampling(steps=4, eta=0.7, cfg=1.0)),
    "ddim, stride": ({"target": "v"}, Sampling(steps=4, spacing="stride", cfg=1.0)),
    "ddpm": ({}, Sampling(steps=4, sampler="ddpm", cfg=1.0)),
    "ddpm, learned variance": ({"learn_sigma": True}, Sampling(steps=4, sampler="ddpm", cfg=1.0)),
    "euler": ({"target": "flow"}, FEW),
    "guided": ({"learn_sigma": True}, Sampling(steps=4, cfg=2.0)),
    "guided in an interval": (
        {"target": "flow"},
        Sampling(steps=4, cfg=2.0, cfg_interval=(0.2, 0.8)),
    ),
}


@pytest.mark.parametrize(("options", "sampling"), EVERY.values(), ids=EVERY)
def test_batches_and_calls_change_rounding_only(
    options: dict[str, object], sampling: Sampling
) -> None:
    model = dit(**options)
    whole = codes(model, sampling)
    assert whole.shape == (6, 4, 3) and whole.dtype == np.float32
    scale = np.abs(whole).max()
    for batch in (1, 4):
        assert np.allclose(codes(model, sampling, batch=batch), whole, atol=1e-4 * scale)
    later = codes(model, sampling, LABELS[2:], first=2)
    assert np.allclose(later, whole[2:], atol=1e-4 * scale)
    assert not np.allclose(codes(model, sampling, seed=6), whole, atol=1e-2 * scale)


def test_the_label_changes_the_sample_and_the_noise_is_the_samples_own() -> None:
    model = dit()
    first, other = codes(model, labels=[0, 0]), codes(model, labels=[1, 0])
    assert not np.allclose(first[0], other[0], atol=1e-2)
    assert np.allclose(first[1], other[1], atol=1e-4)
    assert not np.allclose(first[0], first[1], atol=1e-2)


def test_guidance_of_one_is_none_and_more_moves_away() -> None:
    model = dit()
    plain, guided = codes(model), codes(model, Sampling(steps=4, cfg=3.0))
    assert np.array_equal(codes(model, Sampling(steps=4, cfg=1.0)), plain)
    assert not np.allclose(plain, guided, atol=1e-2)
    null = codes(model, Sampling(steps=4, cfg=3.0), [3, 3])
    assert np.allclose(null, codes(model, FEW, [3, 3]), atol=1e-3)
    never = codes(model, Sampling(steps=4, cfg=3.0, cfg_interval=(0.5, 0.5)))
    assert np.array_equal(never, plain)


def test_samples_are_the_decoded_denormalised_codes() -> None:
    model, decoder = dit(), tokenizer()
    made = sample(model, decoder, LABELS, sampling=FEW, seed=5, batch=4)
    z = torch.from_numpy(codes(model, batch=4))
    assert decoder.normalisation is not None
    scale, shift = decoder.normalisation.std_C, decoder.normalisation.mean_C
    with torch.no_grad():
        expected = to_uint8(decoder.decode(z * scale + shift)).permute(0, 2, 3, 1)
    assert made.shape == (6, 16, 16, 3) and made.dtype == np.uint8
    assert np.abs(made.astype(int) - expected.numpy()).max() <= 1


def test_clips_come_with_their_frames() -> None:
    made = sample(dit(VIDEO), tokenizer(VIDEO), [0, 1], sampling=FEW, seed=5)
    assert made.shape == (2, 4, 16, 16, 3)
    assert not np.array_equal(made[:, 0], made[:, 3])


def test_a_1d_code_is_sampled_too() -> None:
    spec = replace(IMAGE, latent_tokens=5, lengths=(2, 5))
    made = sample(dit(spec), tokenizer(spec), [0], sampling=FEW, seed=5)
    assert made.shape == (1, 16, 16, 3)


def test_an_unconditional_generator_takes_the_label_that_means_none() -> None:
    model = dit(classes=0)
    assert codes(model, labels=[0, 0]).shape == (2, 4, 3)
    with pytest.raises(SpecError, match="has 0 classes"):
        codes(model, labels=[0, 1])
    with pytest.raises(SpecError, match="without classes"):
        codes(model, Sampling(cfg=2.0), [0])


def test_bfloat16_is_close() -> None:
    model = dit()
    plain, rough = codes(model), codes(model, Sampling(steps=4, precision="bf16", cfg=1.0))
    assert not np.array_equal(plain, rough)
    assert np.linalg.norm(plain - rough) < 0.2 * np.linalg.norm(plain)


@pytest.mark.parametrize(
    ("target", "sampling", "field"),
    [
        ("eps", Sampling(sampler="euler", cfg=1.0), "sampler"),
        ("flow", Sampling(sampler="ddim", cfg=1.0), "sampler"),
        ("eps", Sampling(steps=0, cfg=1.0), "steps"),
        ("eps", Sampling(steps=1001, cfg=1.0), "steps"),
        ("flow", Sampling(steps=0, cfg=1.0), "steps"),
        ("flow", Sampling(spacing="stride", cfg=1.0), "spacing"),
        ("eps", Sampling(steps=300, spacing="stride", cfg=1.0), "steps"),
        ("eps", Sampling(eta=1.5, cfg=1.0), "eta"),
        ("eps", Sampling(sampler="ddpm", eta=0.5, cfg=1.0), "eta"),
        ("flow", Sampling(eta=0.5, cfg=1.0), "eta"),
        ("eps", Sampling(cfg=-1.0), "cfg"),
        ("eps", Sampling(cfg=2.0, cfg_interval=(0.8, 0.2)), "cfg_interval"),
        ("eps", Sampling(cfg_interval=(0.1, 0.9), cfg=1.0), "cfg_interval"),
        ("eps", Sampling(precision="fp16"), "precision"),  # type: ignore[arg-type]  # meant
    ],
)
def test_settings_that_cannot_be_used(target: str, sampling: Sampling, field: str) -> None:
    with pytest.raises(SpecError) as error:
        codes(dit(target=target), sampling)
    assert error.value.field == field


@pytest.mark.parametrize("labels", [[], [-1], [4], [0.5], [[0, 1]]])
def test_labels_that_cannot_be_used(labels: list[int]) -> None:
    with pytest.raises(SpecError) as error:
        codes(dit(), labels=labels)
    assert error.value.field == "labels"


def test_other_codes_and_missing_statistics_are_refused() -> None:
    with pytest.raises(SpecError, match="makes codes of 4 tokens"):
        sample(dit(), tokenizer(replace(IMAGE, p=4)), [0], sampling=FEW, seed=0)
    torch.manual_seed(0)
    with pytest.raises(SpecError, match="compute_latents"):
        sample(dit(), ViTok(IMAGE), [0], sampling=FEW, seed=0)


def test_broken_weights_are_told() -> None:
    model = dit()
    with torch.no_grad():
        model.output.bias[0] = torch.inf
    with pytest.raises(NonFiniteError, match="samples 0 to 5"):
        codes(model)


def test_progress_and_stop(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sample(
        dit(),
        tokenizer(),
        LABELS,
        sampling=FEW,
        seed=5,
        batch=4,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(4, 6), (6, 6)]
    asked = iter([False, True])
    with pytest.raises(Stopped, match="at 4 of 6"):
        sample_codes(dit(), LABELS, sampling=FEW, seed=5, batch=4, should_stop=lambda: next(asked))


# --- samples in a file --------------------------------------------------------------------------


def to_file(path: Path, **options: object) -> np.ndarray:  # type: ignore[type-arg]  # tests
    given: dict[str, object] = {
        "sampling": FEW,
        "seed": 5,
        "made_by": {"dit": "1"},
        "batch": 2,
        **options,
    }
    labels = given.pop("labels", LABELS)
    return sample_to_file(path, dit(), tokenizer(), labels, **given)  # type: ignore[arg-type]  # tests


def stops_after(asked: int):  # type: ignore[no-untyped-def]  # tests
    left = iter(range(asked))
    return lambda: next(left, None) is None


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_file_of_samples_goes_on_where_it_ended(tmp_path: Path, asked: int) -> None:
    whole = to_file(tmp_path / "whole.npy")
    expected = np.concatenate(
        [
            sample(dit(), tokenizer(), LABELS[at : at + 2], sampling=FEW, seed=5, first=at)
            for at in (0, 2, 4)
        ]
    )
    assert np.array_equal(whole, expected)
    path = tmp_path / "part.npy"
    with pytest.raises(Stopped, match=f"stopped at {2 * asked} of 6"):
        to_file(path, should_stop=stops_after(asked))
    told: list[tuple[int, int]] = []
    again = to_file(path, progress=lambda *at: told.append(at))
    assert told == [(done, 6) for done in (2, 4, 6)][asked:]
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not again.flags.writeable
    # All there: nothing is made again.
    to_file(path, should_stop=stops_after(0))


def test_what_is_not_known_to_be_safe_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.npy"
    whole = to_file(path).tobytes()
    state = progress_of(path)
    state.write_text(state.read_text().replace('"done": 6', '"done": 4'))
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0" * 100)  # what a crash of the machine can leave behind
    told: list[int] = []
    assert to_file(path, progress=lambda done, total: told.append(done)).tobytes() == whole
    assert told == [6]
    for damage in ("{", "[]", '{"done": 6}'):
        state.write_text(damage)
        told.clear()
        assert to_file(path, progress=lambda done, total: told.append(done)).tobytes() == whole
        assert told == [2, 4, 6]
    path.unlink()
    assert to_file(path).tobytes() == whole


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 6},
        {"made_by": {"dit": "2"}},
        {"sampling": Sampling(steps=3, cfg=1.0)},
        {"labels": LABELS[::-1]},
        {"batch": 3},
    ],
    ids=lambda other: next(iter(other)),
)
def test_samples_of_anything_else_are_made_anew(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "samples.npy"
    with pytest.raises(Stopped):
        to_file(path, should_stop=stops_after(2))
    told: list[int] = []
    found = to_file(path, progress=lambda done, total: told.append(done), **other)
    assert len(told) == 6 // other.get("batch", 2)  # type: ignore[operator]  # tests
    assert np.array_equal(found, to_file(tmp_path / "new.npy", **other))


def test_classes_take_turns() -> None:
    assert balanced_labels(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert balanced_labels(3, 0).tolist() == [0, 0, 0]


def test_pixels_that_are_no_numbers_are_no_black_picture() -> None:
    broken = tokenizer()
    with torch.no_grad():
        broken.output.project.weight.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="decoded samples 0 to 5"):
        sample(dit(), broken, LABELS, sampling=FEW, seed=5)
