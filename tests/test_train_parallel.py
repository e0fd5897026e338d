"""Do two processes train as one? Same global batch, same weights, one writer, one fate."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import dit_entries
import pytest
import stage2_entries
import torch
from parallel_entries import (
    CONFIG,
    SPEC,
    in_ranks,
    one_sample_too_many,
    run,
    run_alike,
    sums_of_random_tries,
    train_in_processes,
)
from safetensors.torch import load_file

from vitok_core.data import prepare
from vitok_core.errors import SpecError
from vitok_core.tokenizer import ViTok, save_tokenizer
from vitok_core.train import world
from vitok_core.train._parallel import GradientSum, micro_batches, part


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-train", resolution=16, images=45, folder=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_sums_are_those_of_all_processes_whatever_happens(processes: int) -> None:
    assert in_ranks(processes, sums_of_random_tries, range(30)) == [[]] * processes


@pytest.mark.slow
def test_all_processes_end_when_one_cannot_hold_a_sample() -> None:
    first, second = in_ranks(2, one_sample_too_many, 1)
    assert "another process" in first
    assert second == "CUDA out of memory"


def difference(left: Path, right: Path) -> float:
    """Norm of the difference of all weights, relative to the norm of the weights."""
    a, b = (load_file(folder / "weights.safetensors") for folder in (left, right))
    assert a.keys() == b.keys()
    apart, whole = (
        math.fsum(float(one.double().square().sum()) for one in of)
        for of in ([a[name] - b[name] for name in a], a.values())
    )
    return math.sqrt(apart / whole)


def train_by(stage: str, ranks: int, data: Path, folder: Path) -> None:
    """A short training in micro-batches of 2, in several processes."""
    if stage == "stage1":
        in_ranks(ranks, run_alike, data, folder)
    elif stage == "stage2":
        in_ranks(ranks, stage2_entries.train, data / "tokenizer.safetensors", data, folder)
    else:
        in_ranks(ranks, dit_entries.train, data / "latents", folder)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2", "dit"])
def test_one_two_and_four_processes_end_with_the_same_weights(
    stage: str, data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save_tokenizer(ViTok(stage2_entries.SPEC), data / "tokenizer.safetensors")
    dit_entries.make_latents(data / "latents")
    for ranks in (1, 2, 4):
        train_by(stage, ranks, data, tmp_path / str(ranks))
    for ranks in (2, 4):
        assert difference(tmp_path / "1", tmp_path / str(ranks)) < 1e-6


@pytest.mark.slow
def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    # 7 samples: rows 0-2 and 3-6, in micro-batches of 2, 1 and 2, 2.
    told = train_in_processes(2, data, tmp_path / "two", micro_batch=2)
    alone = run(data, tmp_path / "one", stop_at=None)
    for answer in told:
        assert answer["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert told[0]["losses"] == told[1]["losses"]
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-5


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_to_the_byte(data: Path, tmp_path: Path) -> None:
    train_in_processes(2, data, tmp_path / "whole")
    for answer in train_in_processes(2, data, tmp_path / "run", stop_at=9):
        assert (answer["error"], "step 10 of 20" in answer["text"]) == ("Stopped", True)
    for answer in train_in_processes(2, data, tmp_path / "run"):
        assert answer["resumed_from"] == 10  # the wish travels with a step and is read in the next
    whole, resumed = (tmp_path / name / "weights.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
def test_what_two_processes_began_one_can_end(data: Path, tmp_path: Path) -> None:
    train_in_processes(2, data, tmp_path / "run", stop_at=11)
    ended = run(data, tmp_path / "run", stop_at=None)
    assert ended["resumed_from"] == 12
    run(data, tmp_path / "one", stop_at=None)
    assert difference(tmp_path / "one", tmp_path / "run") < 1e-5


@pytest.mark.slow
def test_every_process_ends_with_the_error_of_the_first(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for answer in train_in_processes(2, data, tmp_path / "file"):
        assert answer["error"] == "CheckpointError"
        assert "cannot write to" in answer["text"]
    for answer in train_in_processes(2, data, tmp_path / "small", config={"batch": 1}):
        assert (answer["error"], "2 processes" in answer["text"]) == ("SpecError", True)


def test_outside_of_torchrun_there_is_one_process() -> None:
    assert (world().rank, world().size) == (0, 1)
    assert part(7) == slice(0, 7)
    assert micro_batches(slice(3, 8), 2) == [slice(3, 5), slice(5, 7), slice(7, 8)]
    assert micro_batches(slice(3, 8), None) == [slice(3, 8)]
    layer = torch.nn.Linear(2, 2)
    sums = GradientSum(layer)
    sums.begin()
    assert layer.weight.grad is None
    layer(torch.ones(1, 2)).sum().backward()
    assert sums.finish(True, False) == [True, False]
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[1, 1], [1, 1]]
    assert not layer.weight._post_accumulate_grad_hooks
    with pytest.raises(SpecError):
        dataclasses.replace(CONFIG, ema=1.0).check(SPEC)
