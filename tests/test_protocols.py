"""Are rules of measurement named, whole, and kept apart?"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import sweepctl.plan
from studies import plan_of
from vitok_core.protocols import (
    BACKBONES,
    FILES,
    METRICS,
    PROTOCOLS,
    Backbone,
    Protocol,
    explained,
    networks,
    not_of_code,
    not_under,
    references,
)
from vitok_core.protocols.backbones import published_sha256

LITE0_RECORD = {
    "name": "lite0",
    "version": 1,
    "backbone": "efficientnet-lite0, 1280 pooled features",
    "weights_sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "resize": "64 px, bilinear with antialias, align_corners false",
    "values": "reconstructions clamped to [-1, 1], rounded to uint8; both sides uint8",
    "perceptual": "lpips 0.1 alex, trunk "
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "kid": "100 subsets of min(n, 256), seed 2020, cubic polynomial",
}
"""In ledgers since version 0.1: if it changes, every result that people have is measured again."""


MEASURING = """\
format: 1
study: measuring
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 10, batch: 8, precision: fp32, loss: {lpips: 0}}
  dit: {steps: 8, batch: 4, size: nano, precision: fp32, class_dropout: 0}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr, ssim, rfd_lite0, rkid_lite0]}
  generation: {on: [photos-eval], images: 32, metrics: [gfd_lite0], steps: 10, cfg: 1}
"""
"""A study that measures reconstructions and samples."""

FIRST = {
    "lite0": "c11e6dac4d8c0ccece81a154a28892ab30ab45dcb42e25cbc94aac2e6e642b40",
    "torch-fidelity": "2fc477a6de396b87a39ceb9af6749934bb2b6708242ab243a33e63d883496098",
    "adm": "1be055f658ae637633eb6cb6bcb4cc182002452aecc02f7322ffe3dfb34f90bb",
    "clean": "ae29af2300a1a82abf9c2663b87d6d3a72db79a5ed39c376756f57b919823464",
    "vitok": "3b6421beb5d68ce0746ac34bb843b00dcb3d78815712cb34b74e01ecbfb1ee83",
}
"""SHA-256 of the first records of all rules, as canonical JSON."""


def measured(protocol: str) -> list[str]:
    """Every metric that a protocol has rules for."""
    return [name for name in METRICS if not_under(name, protocol) is None]


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def test_the_record_that_people_have_results_under() -> None:
    assert PROTOCOLS["lite0"].record() == LITE0_RECORD
    assert PROTOCOLS["lite0"].record(measured("lite0")) == LITE0_RECORD


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_first_records_are_kept_word_for_word(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert digest(protocol.record(measured(name))) == FIRST[name]
    # Two networks came when results existed: only what uses them names them.
    later = {"clip", "videomae"}
    for metric in measured(name):
        record = protocol.record([metric])
        assert later & record.keys() == later & {METRICS[metric].features}
        assert record == {key: value for key, value in record.items() if value != ""}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_names_the_weights_that_are_used(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    first = protocol.record(measured(name))
    for file in BACKBONES[protocol.network].weights:
        assert first["weights_sha256"] == published_sha256(file)
    assert published_sha256("lpips-alex-trunk") in first["perceptual"]
    for features, said in {"dinov2": "dino", "i3d": "video", "clip": "clip"}.items():
        if backbone := protocol.backbone(features):
            assert all(published_sha256(file) in first[said] for file in backbone.weights)


ANOTHER: dict[str, Any] = {
    "version": 2,
    "rounding": lambda now: "truncate" if now != "truncate" else "nearest",
    "ssim_border": lambda now: "inside" if now != "inside" else "mirrored",
    "psnr_over": lambda now: "all" if now != "all" else "image",
}
"""Another value of a field that is not a number or a switch."""

FOR_PEOPLE = {"about", "differs", "only_packaged"}
"""Fields of a protocol that change no number: prose, and which metrics are refused."""


def changed(one: Protocol, field: str) -> Protocol:
    """The protocol with another value of one field."""
    now = getattr(one, field)
    if field == "network":
        others = [net.name for net in BACKBONES.values() if net.features == one.features]
        given: Any = next((name for name in others if name != now), "inception-tf1")
    elif field in ANOTHER:
        given = ANOTHER[field](now) if callable(ANOTHER[field]) else ANOTHER[field]
    elif isinstance(now, bool):
        given = not now
    else:
        given = now + 1 if isinstance(now, int) else f"{now}x"
    assert given != now
    return dataclasses.replace(one, **{field: given})


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(Protocol)])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_changed_rule_is_another_record_of_what_reads_it(name: str, field: str) -> None:
    protocol = PROTOCOLS[name]
    other = changed(protocol, field)
    for metric in measured(name):
        one = METRICS[metric]
        if other.backbone(one.features or "") is None and one.features:
            continue  # lite0 with another main network has no rule for its features
        looked_at = field == "network" and one.features == protocol.features
        read = field in ("name", "version") or looked_at or field in one.reads
        before, after = protocol.record([metric]), other.record([metric])
        assert (before != after) == (read and field not in FOR_PEOPLE), metric
        if before != after and field != "name":
            assert after["record"] == 2
            assert field == "network" or after[field] == getattr(other, field)


def test_every_rule_is_read_by_a_metric() -> None:
    read = {field for one in METRICS.values() for field in one.reads}
    fields = {one.name for one in dataclasses.fields(Protocol)}
    assert read == fields - FOR_PEOPLE - {"name", "version", "network"}


UNREAD = {"features", "smallest", "frames", "main", "maker", "about"}
"""Fields of a backbone that change no number: its key, what it refuses, its code, prose."""


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(Backbone)])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_changed_network_is_another_record_of_what_looks_through_it(
    name: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = BACKBONES[name]
    others: dict[str, Any] = {
        "sees": "clips" if backbone.sees != "clips" else "images",
        "size": (backbone.size or 0) + 8,
        "resize": "bilinear" if backbone.resize != "bilinear" else "trilinear",
        "weights": ("lpips-vgg-heads", *backbone.weights),
        "width": backbone.width + 1,
        "name": f"{name}-2",
        "features": backbone.features,
        "smallest": backbone.smallest + 1,
        "frames": backbone.frames + 1,
        "main": backbone.main,
        "maker": "vitok_core.features._elsewhere:Network",
        "about": "Another sentence.",
    }
    other = dataclasses.replace(backbone, **{field: others[field]})
    before = {
        (rules, metric): one.record([metric])
        for rules, one in PROTOCOLS.items()
        for metric in measured(rules)
    }
    monkeypatch.setitem(BACKBONES, name, other)
    for (rules, metric), record in before.items():
        one = METRICS[metric]
        seen = one.features and PROTOCOLS[rules].backbone(one.features) is other
        after = PROTOCOLS[rules].record([metric])
        assert (after != record) == (bool(seen) and field not in UNREAD), (rules, metric)


def fingerprints(folder: Path) -> dict[str, set[str]]:
    """Kind of each task of a study that measures -> the fingerprints."""
    found: dict[str, set[str]] = {kind: set() for kind in ("reference", "reconstruct", "generate")}
    for task in plan_of(folder, MEASURING).tasks.values():
        if task.kind in found:
            found[task.kind].add(task.fingerprint)
    return found


def test_the_fingerprints_of_a_plan_move_with_what_they_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = fingerprints(tmp_path)
    assert all(before.values())

    def moved() -> set[str]:
        after = fingerprints(tmp_path)
        for kind, names in before.items():
            assert len(after[kind]) == len(names)
            assert after[kind] == names or not after[kind] & names  # all of a kind, or none
        return {kind for kind in before if after[kind] != before[kind]}

    for field, kinds in {
        "kid_subset": {"reconstruct"},
        "ssim_border": {"reconstruct"},
        "rounding": {"reconstruct", "generate"},
        "psnr_over": {"reconstruct"},
        "inception_splits": set(),
        "about": set(),
        "version": {"reference", "reconstruct", "generate"},
    }.items():
        with monkeypatch.context() as patch:
            patch.setitem(PROTOCOLS, "lite0", changed(PROTOCOLS["lite0"], field))
            assert moved() == kinds, field
    for field, value in {"size": 72, "resize": "bilinear"}.items():
        with monkeypatch.context() as patch:
            patch.setitem(
                BACKBONES,
                "lite0",
                dataclasses.replace(BACKBONES["lite0"], **{field: value}),  # type: ignore[arg-type]
            )
            assert moved() == set(before)


def test_no_network_has_its_name_in_the_planner() -> None:
    names = {*BACKBONES, *FILES, *(one.features for one in BACKBONES.values())}
    found = {
        (path.name, text)
        for path in Path(sweepctl.plan.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(text := node.value, str)
        if text in names
    }
    assert not found


def test_records_differ_and_are_frozen() -> None:
    records = [digest(one.record()) for one in PROTOCOLS.values()]
    assert len(set(records)) == len(PROTOCOLS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["adm"].version = 2  # type: ignore[misc]  # that is what is tried


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_explained_rule_by_rule(name: str) -> None:
    rows = explained(name)
    assert len({rule for rule, *_ in rows}) == len(rows)
    said = {rule: (value, meaning) for rule, value, meaning, _ in rows}
    read = {field for one in METRICS.values() for field in one.reads}
    assert read | {"version"} == {rule for rule, _, _, network in rows if not network}
    protocol = PROTOCOLS[name]
    assert said["rounding"][0] == protocol.rounding
    assert said["kid_subset"][0] == str(protocol.kid_subset)
    assert said[protocol.features][0] == protocol.network


def test_metrics_of_other_features_are_refused_with_what_to_take() -> None:
    assert not_under("rfid", "adm") is None
    assert not_under("psnr", "lite0") is None and not_under("lpips", "vitok") is None
    said = not_under("rfid", "lite0")
    assert said is not None and "torch-fidelity or adm or clean or vitok" in said
    assert "take lite0" in str(not_under("rfd_lite0", "adm"))
    assert "no rule" in str(not_under("rfvd", "lite0"))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_can_be_measured_under_some_protocol(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    fitting = [rules for rules in PROTOCOLS if not_under(name, rules) is None]
    assert fitting
    for rules in fitting:
        found = networks([name], rules)
        assert list(found) == [metric.features][: len(found)]
        assert all(file in FILES for one in found.values() for file in one.weights)


def test_the_backbones_whose_originals_are_compared_with() -> None:
    assert references(["psnr", "lpips", "ris", "code_kl"]) == ()
    assert references(["rkid", "rfid", "rfdd", "rfvd"]) == ("dinov2", "i3d", "inception")


def test_codes_that_a_metric_cannot_look_at() -> None:
    grid = (1, 8, 8)
    assert not_of_code("psnr", grid=None, random=False) is None
    assert not_of_code("code_probe", grid=None, random=False) is None
    assert "no KL" in str(not_of_code("code_kl", grid=grid, random=False))
    assert "1-D code" in str(not_of_code("code_rotation_error", grid=None, random=True))
    assert "4 x 4" in str(not_of_code("code_spectrum_slope", grid=(1, 3, 3), random=True))
    assert "halves" in str(not_of_code("code_scale_error", grid=(1, 3, 3), random=True))
