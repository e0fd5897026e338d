"""Do two processes train as one? Same global batch, same weights, one writer, one fate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from parallel_entries import CONFIG, SPEC, run, train_in_processes

from vitok_core.data import prepare
from vitok_core.errors import SpecError
from vitok_core.tokenizer import load_tokenizer
from vitok_core.train import world
from vitok_core.train._parallel import micro_batches, part, sum_gradients

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-train", resolution=16, images=45, folder=folder)
    return folder


def difference(left: Path, right: Path) -> float:
    """Norm of the difference of all weights, relative to the norm of the weights."""
    a, b = (
        torch.nn.utils.parameters_to_vector(
            load_tokenizer(path / "weights.safetensors").parameters()
        )
        for path in (left, right)
    )
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(a))


def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    # 7 samples: rows 0-2 and 3-6, in micro-batches of 2, 1 and 2, 2.
    told = train_in_processes(2, data, tmp_path / "two", micro_batch=2)
    alone = run(data, tmp_path / "one", stop_at=None)
    for answer in told:
        assert answer["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert told[0]["losses"] == told[1]["losses"]
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-5


def test_two_processes_stop_together_and_resume_to_the_byte(data: Path, tmp_path: Path) -> None:
    train_in_processes(2, data, tmp_path / "whole")
    for answer in train_in_processes(2, data, tmp_path / "run", stop_at=9):
        assert (answer["error"], "step 9 of 20" in answer["text"]) == ("Stopped", True)
    for answer in train_in_processes(2, data, tmp_path / "run"):
        assert answer["resumed_from"] == 9
    whole, resumed = (tmp_path / name / "weights.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_what_two_processes_began_one_can_end(data: Path, tmp_path: Path) -> None:
    train_in_processes(2, data, tmp_path / "run", stop_at=11)
    ended = run(data, tmp_path / "run", stop_at=None)
    assert ended["resumed_from"] == 11
    run(data, tmp_path / "one", stop_at=None)
    assert difference(tmp_path / "one", tmp_path / "run") < 1e-5


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
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    sum_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]
    with pytest.raises(SpecError):
        dataclasses.replace(CONFIG, ema=1.0).check(SPEC)
