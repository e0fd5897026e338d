"""Do several processes make what one makes? The same bytes, one writer, one fate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from parallel_entries import in_ranks, make, wait_for_a_dead_one

from vitok_core.errors import SpecError
from vitok_core.ranks import agree, collected, fail_together, from_first, share_out

WHATS = ["latents", "samples", "features", "reconstruct", "generation"]


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files of a folder, but for the record of what made them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("what", WHATS)
def test_one_two_and_four_processes_make_the_same_bytes(what: str, tmp_path: Path) -> None:
    (alone,) = in_ranks(1, make, tmp_path / "1", what)
    assert alone["made"]
    for ranks in (2, 4):
        for answer in in_ranks(ranks, make, tmp_path / str(ranks), what):
            assert answer == alone
        assert contents(tmp_path / str(ranks)) == contents(tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["latents", "samples"])
def test_what_three_processes_began_two_end_with_the_same_bytes(what: str, tmp_path: Path) -> None:
    in_ranks(1, make, tmp_path / "1", what)
    for answer in in_ranks(3, partial(make, stop_at=2), tmp_path / "run", what):
        assert answer["error"] == "Stopped"
        # Two turns of three batches of four.
        assert "stopped at 24 of" in answer["text"]
    in_ranks(2, make, tmp_path / "run", what)
    assert contents(tmp_path / "run") == contents(tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["latents", "features", "reconstruct", "generation"])
def test_all_processes_end_with_the_error_of_one(what: str, tmp_path: Path) -> None:
    for answer in in_ranks(3, partial(make, broken=True), tmp_path, what):
        assert answer == {"error": "DataError", "text": "sample 20 cannot be read"}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["features", "reconstruct", "generation"])
def test_all_processes_stop_when_one_is_told_to(what: str, tmp_path: Path) -> None:
    for answer in in_ranks(2, partial(make, stop_at=2), tmp_path, what):
        assert answer["error"] == "Stopped"
        assert "starts again from 0" in answer["text"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_no_process_waits_for_one_that_was_killed(victim: int) -> None:
    answers = in_ranks(3, wait_for_a_dead_one, victim, 2_000_000)
    assert answers.pop(victim) == "killed"
    assert all(isinstance(seconds, float) and seconds < 30 for seconds in answers), answers


def test_one_process_shares_with_nobody() -> None:
    assert agree(True) and not agree(False)
    assert collected(3) == [3]
    assert from_first(lambda: 4) == 4
    fail_together(None)
    with pytest.raises(SpecError, match="batch"):
        fail_together(SpecError("batch", "batch = 0"))
    written, told = list[int](), list[int]()
    done = share_out(
        [1, 2, 3], lambda n: n * n, written.append, report=told.append, should_stop=None
    )
    assert (done, written, told) == (True, [1, 4, 9], [0, 1, 2, 3])
    stops = iter([False, False, True])
    assert not share_out(
        [4, 5, 6], abs, written.append, report=told.append, should_stop=lambda: next(stops)
    )
    assert written == [1, 4, 9, 4, 5]


def test_what_cannot_be_written_ends_the_work() -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    for count in (1, 5):
        with pytest.raises(OSError, match="No space left"):
            share_out([1] * count, abs, full, report=lambda _: None, should_stop=None)
