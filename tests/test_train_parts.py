"""Do the parts that every training stage shares keep their laws?"""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitok_core.discriminator import Discriminator
from vitok_core.dit import DiT
from vitok_core.errors import SpecError
from vitok_core.settings import Optimiser
from vitok_core.spec import DEVICES, DiTSpec, Flops, TokenizerSpec
from vitok_core.tokenizer import ViTok
from vitok_core.train._batches import read_ahead
from vitok_core.train._guard import NORM, Side, what_is_not_finite
from vitok_core.train._history import History, HistoryFile, SpikeWatch
from vitok_core.train._optimise import Ema, adamw, learning_rate, stream
from vitok_core.train._progress import Event
from vitok_core.train._speed import peak_memory_bytes, share_of_peak

OPTIMISER = Optimiser(lr=1.0, warmup=0.1, final_lr=0.2)


# --- optimiser ----------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    rates = [learning_rate(OPTIMISER, step, 101) for step in range(101)]
    assert rates[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2)
    assert all(np.diff(rates[10:]) < 0)
    assert learning_rate(dataclasses.replace(OPTIMISER, warmup=0.0), 0, 1) == 1.0
    assert learning_rate(dataclasses.replace(OPTIMISER, warmup=0.99), 9, 10) == 1.0


def test_a_warm_up_from_one_on_is_a_number_of_steps() -> None:
    optimiser = dataclasses.replace(OPTIMISER, warmup=10.0).check()
    rates = [learning_rate(optimiser, step, 101) for step in range(101)]
    assert rates == [learning_rate(OPTIMISER, step, 101) for step in range(101)]
    assert learning_rate(dataclasses.replace(OPTIMISER, warmup=1.0), 0, 10) == 1.0
    assert learning_rate(dataclasses.replace(OPTIMISER, warmup=10.0), 9, 10) == 1.0


def test_the_last_rate_is_never_above_the_first_by_default() -> None:
    assert (Optimiser(lr=1e-3).last_lr, Optimiser(lr=1e-7).last_lr) == (1e-5, 1e-7)
    small = Optimiser(lr=1e-7, warmup=0.0).check()
    assert [learning_rate(small, step, 3) for step in range(3)] == pytest.approx([1e-7] * 3)


def test_a_constant_rate_rises_and_stays() -> None:
    constant = Optimiser(lr=1.0, warmup=0.5, schedule="constant").check()
    assert [learning_rate(constant, step, 8) for step in range(8)] == [
        0.25,
        0.5,
        0.75,
        1,
        1,
        1,
        1,
        1,
    ]


@given(
    steps=st.integers(1, 500),
    warmup=st.floats(0, 1, exclude_max=True),
    lr=st.floats(1e-6, 1.0),
    share=st.floats(0.001, 1),
)
def test_no_rate_is_above_the_peak_or_below_the_end(
    steps: int, warmup: float, lr: float, share: float
) -> None:
    optimiser = Optimiser(lr=lr, warmup=warmup, final_lr=lr * share).check()
    rates = [learning_rate(optimiser, step, steps) for step in range(steps)]
    assert max(rates) <= lr * (1 + 1e-12)
    assert min(rates) > 0
    rising = round(warmup * steps)
    assert min(rates[rising:], default=lr) >= lr * share * (1 - 1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.0},
        {"lr": math.nan},
        {"betas": (0.9, 1.0)},
        {"betas": (0.9,)},
        {"weight_decay": -1.0},
        {"warmup": 1.5},
        {"final_lr": 2.0},
        {"final_lr": 0.1, "schedule": "constant"},
        {"schedule": "linear"},
        {"clip": 0.0},
    ],
)
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        dataclasses.replace(OPTIMISER, **changes).check()
    assert caught.value.field == next(iter(changes))


def matrix_names(model: nn.Module) -> set[str]:
    """Names of the parameters that decay with `decay: matrices`; the others have a group."""
    optimiser = adamw(model, Optimiser(weight_decay=0.5, decay="matrices"), torch.device("cpu"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = optimiser.param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert len(names) == len(decaying["params"]) + len(others["params"])
    return {names[id(parameter)] for parameter in decaying["params"]}


def test_only_matrices_decay_where_a_study_says_so() -> None:
    spec = TokenizerSpec(encoder="nano", decoder="nano", p=4, c=4, resolution=16, latent_tokens=4)
    latent = TokenizerSpec(**dataclasses.asdict(spec) | {"qk_norm": True, "norm": "rmsnorm"})
    dit = DiTSpec.for_tokenizer(spec, size="nano", classes=3, target="eps", learn_sigma=False)
    for model in (ViTok(spec), ViTok(latent), DiT(dit), Discriminator(16, 0.1)):
        kept = {name for name, _ in model.named_parameters()} - matrix_names(model)
        matrices = {name: one for name, one in model.named_parameters() if name not in kept}
        assert all(name.endswith(".weight") and one.ndim >= 2 for name, one in matrices.items())
        # What has two dimensions and still does not decay is no matrix of a layer.
        two = {name for name in kept if dict(model.named_parameters())[name].ndim >= 2}
        assert two <= {"positions_LD", "classes.weight"}, two
        assert all("norm" not in name and "token" not in name for name in matrices)


def test_all_parameters_decay_in_one_group_by_default() -> None:
    model = Discriminator(16, 0.1)
    (group,) = adamw(model, Optimiser(weight_decay=0.5), torch.device("cpu")).param_groups
    assert len(group["params"]) == len(list(model.parameters())) and group["weight_decay"] == 0.5


def test_matrices_shrink_and_the_rest_stays_without_a_gradient() -> None:
    torch.manual_seed(0)
    model = Discriminator(16, 0.1)
    before = {name: one.detach().clone() + 1 for name, one in model.named_parameters()}
    with torch.no_grad():
        for name, one in model.named_parameters():
            one.copy_(before[name])
            one.grad = torch.zeros_like(one)
    decaying = matrix_names(model)
    adamw(model, Optimiser(lr=0.1, weight_decay=0.5, decay="matrices"), torch.device("cpu")).step()
    for name, one in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in decaying else 1.0
        assert torch.allclose(one, factor * before[name]), name


def test_what_is_not_finite_is_named_by_its_side() -> None:
    model = Side(names=("loss", "kl", NORM), norm=NORM, lr=1e-3)
    judge = Side(names=("hinge", "norm"), norm="norm", lr=2e-5)
    whole = {"loss": 1.0, "kl": 2.0, NORM: 3.0, "hinge": 4.0, "norm": 5.0}
    for name in ("loss", "kl", NORM):
        said = what_is_not_finite(4, whole | {name: math.inf}, [model, judge])
        assert said.startswith("step 5: loss ") and "the update was not made" in said
        assert "now 0.001" in said and "hinge" not in said
    said = what_is_not_finite(4, whole | {"hinge": math.nan}, [model, judge])
    assert said.startswith("step 5: hinge nan, gradient norm 5; ") and "now 2e-05" in said


def test_streams_differ_by_seed_step_and_purpose() -> None:
    drawn = {
        stream(seed, step, purpose=purpose)
        for seed in (0, 1, 2**63 - 1)
        for step in range(5)
        for purpose in range(4)
    }
    assert len(drawn) == 3 * 5 * 4
    assert all(0 <= number < 2**63 for number in drawn)


def test_the_average_begins_with_the_weights_and_follows_them() -> None:
    module = torch.nn.Linear(2, 1).to(torch.bfloat16)
    ema = Ema(module, 0.5)
    before = module.weight.detach().float().clone()
    with torch.no_grad():
        module.weight.add_(2.0)
    after = module.weight.detach().float()
    ema.update(module)
    ema.store(module)
    torch.testing.assert_close(module.weight.float(), (before + after) / 2, rtol=0.01, atol=0.01)
    assert ema.state_dict()["weight"].dtype == torch.float32
    other = Ema(torch.nn.Linear(2, 1), 0.5)
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.state_dict()["weight"], ema.state_dict()["weight"])
    with pytest.raises(SpecError, match="from 0 to below 1"):
        Ema(module, 1.0)


# --- history and events -------------------------------------------------------------------------


def watched(losses: list[float]) -> list[int]:
    """Steps, from 1, at which a spike was seen."""
    history = History(len(losses))
    watch = SpikeWatch(history)
    for step, loss in enumerate(losses):
        history.add(step, {"loss": loss})
        watch.look(step)
    return [event.step for event in history.events]


def test_a_spike_is_more_than_three_medians() -> None:
    assert watched([1.0] * 20 + [3.01]) == [21]
    assert watched([1.0] * 20 + [2.99]) == []
    assert watched([1.0] * 19 + [9.0]) == []  # too little before it to compare with
    assert watched([1.0] * 30 + [5.0, 6.0, 1.0, 5.0]) == [31, 34]  # once an excursion
    assert watched([100.0] * 50 + [1.0] * 100 + [4.0]) == [151]  # the last 100 steps count
    assert watched([-1.0] * 20 + [0.9]) == []
    assert watched([-1.0] * 20 + [1.1]) == [21]  # a generator's loss may be negative


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 10.0), min_size=25, max_size=60), st.lists(st.integers(0, 24)))
def test_a_history_resumes_from_its_file(losses: list[float], stops: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        history, kept, known = History(len(losses)), HistoryFile(Path(name)), None
        first = events = 0
        for step, loss in enumerate(losses):
            if step in stops:
                # What comes after the checkpoint, half a block perhaps, is cut off.
                known = kept.append(kept.block(history, first, step, events))
                with kept.path.open("ab") as file:
                    file.write(b"half")
                history, kept = History(len(losses)), HistoryFile(Path(name))
                for head, values in kept.read(known):
                    history.load(head["first"], values)
                    history.events += [Event(step=s, kind=k, text=t) for s, k, t in head["events"]]
                first, events = step, len(history.events)
            history.add(step, {"loss": loss, **({"r1": 2 * loss} if step % 3 == 1 else {})})
            SpikeWatch(history).look(step)
    assert [event.step for event in history.events] == watched(losses)
    assert [history.at(step, "loss") for step in range(len(losses))] == losses
    assert history.before(len(losses), "r1", 99) == [2 * loss for loss in losses[1::3]]


def test_a_damaged_history_is_noticed(tmp_path: Path) -> None:
    history, kept = History(3), HistoryFile(tmp_path)
    for step in range(3):
        history.add(step, {"loss": float(step)})
    known = kept.append(kept.block(history, 0, 3, 0))
    data = bytearray(kept.path.read_bytes())
    data[-1] ^= 1
    kept.path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        HistoryFile(tmp_path).read(known)
    kept.path.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        HistoryFile(tmp_path).read(known)


def test_terms_that_come_and_go_are_averaged_where_they_are() -> None:
    history = History(4)
    for step in range(4):
        history.add(step, {"loss": float(step), **({"r1": 5.0 + step} if step % 2 else {})})
    assert [(point.step, point.loss, dict(point.parts)) for point in history.curve()] == [
        (1, 0.0, {}),
        (2, 1.0, {"r1": 6.0}),
        (3, 2.0, {}),
        (4, 3.0, {"r1": 8.0}),
    ]
    assert history.recent().loss == 1.5
    assert dict(history.recent().parts) == {"r1": 7.0}
    assert history.before(4, "r1", 3) == [6.0, 8.0]


@settings(max_examples=30)
@given(st.integers(1, 950))
def test_a_curve_has_at_most_100_stretches_that_cover_everything(steps: int) -> None:
    history = History(steps)
    for step in range(steps):
        history.add(step, {"loss": 1.0})
    ends = [point.step for point in history.curve()]
    assert len(ends) <= 100 and ends[-1] == steps
    assert len(set(np.diff([0, *ends])[:-1])) <= 1


# --- reading ahead, speed -----------------------------------------------------------------------


def test_reading_ahead_keeps_the_order_and_raises_where_it_would() -> None:
    assert list(read_ahead(lambda step: step * step, range(2, 6))) == [4, 9, 16, 25]
    assert list(read_ahead(lambda step: step, range(0))) == []

    def fails_at_2(step: int) -> int:
        if step == 2:
            raise OSError("disk gone")
        return step

    seen = []
    with pytest.raises(OSError, match="disk gone"):
        for value in read_ahead(fails_at_2, range(5)):
            seen.append(value)
    assert seen == [0, 1]


@pytest.mark.slow  # two processes that import torch
def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(200 * 2**20, dtype=torch.uint8)
    after = peak_memory_bytes(torch.device("cpu"))
    assert 100e6 < before <= after and len(held) / 2 < after < 50e9
    code = (
        "import torch; from vitok_core.train._speed import peak_memory_bytes as peak;"
        "print(peak(torch.device('cpu')))"
    )
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    held_by_parent = torch.ones(2**30, dtype=torch.uint8)
    again = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    # What a parent needs is not counted as its child's.
    assert int(again.stdout) < int(child.stdout) + len(held_by_parent) / 2


def test_a_peak_is_known_or_none() -> None:
    assert share_of_peak(Flops(bf16=1), 1.0, torch.device("cpu")) is None
    for name, device in DEVICES.items():
        peaks = device.peaks
        assert peaks["fp32"] <= peaks["tf32"] <= peaks["bf16"], name
        # Before Ampere, and on CPUs, there are float32 products only.
        old = name == "cpu" or name.startswith("Tesla ")
        assert (peaks["bf16"] > peaks["tf32"]) != old, name
