"""Does every command work for a user without a home folder: no HOME, no entry in the passwords?"""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import SMALL, write
from vitok_core.data import scans_folder
from vitok_core.errors import DataError, WeightsError
from vitok_core.files import user_folder
from vitok_core.weights import weights_folder, weights_state

Call = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VITOK_WEIGHTS", "VITOK_SCANS"):
        monkeypatch.delenv(name, raising=False)


def test_commands_need_no_home(tmp_path: Path, call_joined: Call) -> None:
    write(tmp_path, SMALL, "small.yaml")
    for words, said in (
        (("check", "small.yaml"), "valid study"),
        (("plan", "small.yaml"), "small"),
        (("data", "list"), "photos-train"),
        (("weights", "list"), "lite0"),
        (("spec", "--help"), "Usage"),
    ):
        code, out = call_joined(*words)
        assert code == 0 and said in out, out
    code, out = call_joined("status")
    assert code == 1 and "there is no results database" in out
    assert not (tmp_path / "~").exists(), "no folder is called ~"


def test_what_needs_a_folder_says_so_in_one_sentence(tmp_path: Path, call_joined: Call) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "sweepctl.site.yaml").write_text("datasets: {mine: {folder: pictures}}\n")
    for words, variable in (
        (("data", "scan", "mine"), "VITOK_SCANS"),
        (("weights", "add", "lite0", "sweepctl.site.yaml"), "VITOK_WEIGHTS"),
    ):
        code, out = call_joined(*words)
        assert code == 1 and out.count("error: ") == 1 and "no home folder" in out, out
        assert variable in out
    code, out = call_joined("data", "list")
    assert code == 0 and "mine" in out, "to list needs none"
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("runs: ~/runs\n", ("retry", "x"), "there is no results database"),
        ("runs: ~/runs\n", ("run", "small.yaml"), "no home folder"),
        ("datasets: {mine: {folder: ~/pictures}}\n", ("data", "list"), "no home folder"),
        ("database: ~/results.db\n", ("status",), "results"),
    ],
)
def test_a_site_file_that_speaks_of_a_home(
    tmp_path: Path, call_joined: Call, text: str, words: tuple[str, ...], said: str
) -> None:
    write(tmp_path, SMALL, "small.yaml")
    (tmp_path / "sweepctl.site.yaml").write_text(text)
    code, out = call_joined(*words)
    assert code in (1, 2, 3) and out.count("error: ") == 1 and said in out, out


def test_variables_stand_in_for_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_folder("cache", "vitok_core") is None
    with pytest.raises(WeightsError, match="set VITOK_WEIGHTS"):
        weights_folder()
    with pytest.raises(DataError, match="set VITOK_SCANS"):
        scans_folder()
    assert weights_state("lite0").source in ("package", None)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_folder("cache", "vitok_core") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "vitok_core" / "weights"
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    assert scans_folder() == tmp_path / "scans"
