"""The ground floor: files replaced safely, dotted paths, plain data, statistics without scipy."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit

from sweepctl import paths
from sweepctl.plain import finite, to_json
from sweepctl.statistics import t_quantile
from vitok_core.files import replacing, sha256_of, write_bytes, write_json

# --- files --------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"old")
    write_bytes(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_stays_when_writing_its_successor_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as temporary:
        temporary.write_bytes(b"ha")
        assert path.read_bytes() == b"old"  # nothing is seen before the end
        raise RuntimeError("half way")
    with pytest.raises(ValueError):
        write_json(path, {"loss": math.nan})
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_that_the_block_never_wrote_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.bin"):
        pass


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"")
    assert sha256_of(tmp_path / "a.bin").startswith("e3b0c44298fc1c149afbf4c8996fb924")


# --- paths --------------------------------------------------------------------------------------


def test_put_copies_what_it_changes() -> None:
    shared = {"stage1": {"steps": 1, "lr": 0.1}}
    tree = {"stages": shared}
    assert paths.put(tree, "stages.stage1.steps", 2)
    assert paths.put(tree, ("stages", "a.b"), 3)
    assert paths.get(tree, "stages.stage1") == {"steps": 2, "lr": 0.1}
    assert paths.get(tree, ("stages", "a.b")) == 3
    assert shared == {"stage1": {"steps": 1, "lr": 0.1}}


def test_put_leaves_a_tree_alone_that_it_cannot_enter() -> None:
    tree = {"stages": {"stage1": None}}
    assert not paths.put(tree, "stages.stage1.steps", 2)
    assert not paths.put(tree, "stages.stage1.adam.beta", 2)
    assert tree == {"stages": {"stage1": None}}


def test_get_and_remove_what_is_not_there() -> None:
    tree = {"a": {"b": 1}, "c": 2}
    for path in ("x", "a.x", "a.x.y", "c.x", "a.b.x"):
        assert paths.get(tree, path, "none") == "none"
        paths.remove(tree, path)
    assert tree == {"a": {"b": 1}, "c": 2}
    paths.remove(tree, "a.b")
    assert tree == {"a": {}, "c": 2}


KEYS = st.text("abc", min_size=1, max_size=2)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        st.integers() | st.none() | st.lists(st.integers(), max_size=2),
        lambda below: st.dictionaries(KEYS, below, min_size=1, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@given(TREES)
def test_nested_is_the_reverse_of_flat(tree: dict[str, object]) -> None:
    leaves = paths.flat(tree)
    assert paths.nested(leaves.items()) == tree
    assert all(paths.get(tree, path) == value for path, value in leaves.items())


def test_lists_are_leaves_unless_their_entries_are() -> None:
    tree = {"a": [1, {"b": 2}], "c": {}, "d": []}
    assert paths.flat(tree) == {"a": [1, {"b": 2}], "c": {}, "d": []}
    assert paths.flat(tree, lists=True) == {"a.0": 1, "a.1.b": 2, "c": {}, "d": []}
    assert paths.flat({}) == {}


# --- plain data ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    name: str
    value: float
    where: Path


def test_json_is_strict() -> None:
    one = Measure("psnr", 1.5, Path("a/b"))
    assert json.loads(to_json([one])) == [{"name": "psnr", "value": 1.5, "where": "a/b"}]
    assert to_json(OrderedDict(b=1, a=(2,))) == '{"b":1,"a":[2]}'
    with pytest.raises(ValueError):
        to_json({"loss": math.inf})
    with pytest.raises(TypeError, match="set"):
        to_json({1, 2})


def test_numbers_that_are_not_finite_are_null() -> None:
    value = {"a": [math.nan, 1], "b": (np.float64("inf"), np.int64(2)), 3: np.array([np.nan, 0.5])}
    assert finite(value) == {"a": [None, 1], "b": [None, 2], "3": [None, 0.5]}
    assert finite(Measure("psnr", math.nan, Path())) == {
        "name": "psnr",
        "value": None,
        "where": Path(),
    }


# --- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("df", [0.5, 1, 1.5, 2, 3, 3.7, 5, 8, 13, 30, 100, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_t_quantile_is_that_of_scipy(df: float, confidence: float) -> None:
    expected = float(stdtrit(df, 0.5 + confidence / 2))
    # scipy before 1.17 is itself up to 3e-11 off, for example at 1 degree of freedom.
    assert t_quantile(df, confidence) == pytest.approx(expected, rel=1e-10)
