"""Is a missing pretrained file found before anything is trained?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from studies import DATA, SMALL, load, write
from sweepctl import pretrained
from sweepctl.cli._check import check
from sweepctl.cli._session import plan_file
from sweepctl.errors import StudyError, SweepctlError
from sweepctl.plan import make_plan
from vitok_core.weights import weights_names

RFID = SMALL.replace("metrics: [psnr, rfd_lite0]", "metrics: [psnr, rfid], protocol: adm")
assert RFID != SMALL


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("SWEEPCTL_OFFLINE", raising=False)


def refused(folder: Path, text: str) -> str:
    study = load(folder, text)
    return str(StudyError(list(make_plan(study, data=DATA, missing=pretrained.missing).absent)))


def test_a_study_that_asks_for_fid_says_how_to_get_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(tmp_path, RFID)
    assert "evaluate.reconstruction.metrics: rfid: the pretrained weights inception-fid" in said
    assert "sweepctl weights fetch inception-fid" in said
    monkeypatch.setenv("SWEEPCTL_OFFLINE", "1")
    said = refused(tmp_path, RFID)
    assert "sweepctl weights add inception-fid FILE" in said
    # What a user meets who runs it, and who only looks at it.
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, RFID)
    with pytest.raises(StudyError, match="weights add inception-fid FILE"):
        plan_file(file, (), to_run=True)
    check(file, ())
    assert "cannot be run here: " in capsys.readouterr().err


def test_the_weights_of_losses_are_looked_for_as_well(tmp_path: Path) -> None:
    text = SMALL.replace("lpips: 0", "lpips: 0, dino: 1")
    assert text != SMALL
    assert "stages.stage1.loss.dino: the pretrained weights dinov2-s14" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("metrics", "protocol", "said"),
    [
        ("rfid", "lite0", "take torch-fidelity or adm or clean or vitok as the protocol"),
        ("rfd_lite0", "adm", "take lite0 as the protocol"),
        ("rfvd", "lite0", "no rule for"),
        ("code_spectrum_slope", "lite0", "needs a grid of at least 4 x 4 tokens, not 2 x 2"),
    ],
)
def test_metrics_that_cannot_be_measured_so(
    metrics: str, protocol: str, said: str, tmp_path: Path
) -> None:
    text = SMALL.replace(
        "metrics: [psnr, rfd_lite0]", f"metrics: [psnr, {metrics}], protocol: {protocol}"
    ).replace("p: [4, 8]", "p: [16]")
    study = load(tmp_path, text)
    with pytest.raises(StudyError) as caught:
        make_plan(study, data=DATA)
    assert said in str(caught.value)


def test_a_reference_for_each_backbone_and_the_old_one_unchanged(tmp_path: Path) -> None:
    def references(metrics: str, protocol: str) -> dict[str, str]:
        text = SMALL.replace(
            "metrics: [psnr, rfd_lite0]", f"metrics: [psnr, {metrics}], protocol: {protocol}"
        )
        plan = make_plan(load(tmp_path, text), data=DATA)
        found = {task.label: task.identity for task in plan.tasks.values()}
        children = [one for one in plan.tasks.values() if one.kind == "reconstruct"]
        for child in children:
            roles = dict(child.parents)
            assert {role for role in roles if role.startswith("reference")} == {
                "reference" if "," not in label.split("features, ")[1] else "reference-dinov2"
                for label in found
                if "features" in label
            }
        return {label: one for label, one in found.items() if "features" in label}

    old = references("rfd_lite0", "lite0")
    assert list(old) == ["photos-eval features, lite0"]
    assert '"config":{}' in old["photos-eval features, lite0"]
    both = references("rfid, rkid, rfdd", "adm")
    assert sorted(both) == ["photos-eval features, adm", "photos-eval features, adm, dinov2"]
    assert '"config":{"features":"dinov2"}' in both["photos-eval features, adm, dinov2"]
    assert references("ris", "adm") == {}


def test_a_later_backbone_is_in_the_identity_of_what_it_measures_alone(tmp_path: Path) -> None:
    """And a file without a published hash by the hash of the one that was added."""

    def plan(metrics: str, folder: str) -> dict[str, dict[str, Any]]:
        text = SMALL.replace(
            "metrics: [psnr, rfd_lite0]", f"metrics: [psnr, {metrics}], protocol: adm"
        )
        text = text.replace("photos", "clips").replace("images: 64}", "images: 64, frames: 16}")
        text = text.replace("axes:\n  p: [4, 8]\n  c: [4, 16]\n", "").replace(
            "decoder: nano}", "decoder: nano, q: 4, p: 8, c: 4}"
        )
        tasks = make_plan(load(tmp_path / folder, text), data=DATA).tasks.values()
        return {
            task.label.split("adm")[-1].strip(", ") or "own": json.loads(task.identity)
            for task in tasks
            if task.kind in ("reference", "reconstruct")
        }

    plain = plan("rfid", "a")
    more = plan("rfid, rcmmd, rfvd_videomae", "b")
    assert plain["own"] == more["own"] and "clip" not in plain["own"]["protocol"]
    assert "CLIP ViT-L/14" in more["clip"]["protocol"]["clip"]
    assert "videomae" not in more["clip"]["protocol"] and "pretrained" not in more["clip"]
    assert more["videomae"]["pretrained"] == {"videomae-g-ssv2": ""}
    (measured,) = (one for label, one in more.items() if "on clips-eval" in label)
    assert {"clip", "videomae"} <= measured["protocol"].keys() and "pretrained" in measured
    (tmp_path / "file.pth").write_bytes(b"weights")
    pretrained.add("videomae-g-ssv2", tmp_path / "file.pth")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert plan("rfvd_videomae", "c")["videomae"]["pretrained"] == {"videomae-g-ssv2": sha256}


def test_what_is_said_of_the_files(tmp_path: Path) -> None:
    states = pretrained.files()
    assert [state["name"] for state in states] == [*weights_names()]
    assert {state["path"] for state in states if state["source"] is None} == {None}
    with pytest.raises(SweepctlError, match="no weights 'none'"):
        pretrained.files(["none"])
    with pytest.raises(SweepctlError, match="is not a file"):
        pretrained.add("i3d", tmp_path)
