"""Are rules of measurement named, whole, and kept apart?"""

from __future__ import annotations

import dataclasses

import pytest

from vitok_core.protocols import (
    FEATURE_WIDTHS,
    METRICS,
    PROTOCOLS,
    not_of_code,
    not_under,
    pretrained,
    references,
)
from vitok_core.weights import DOWNLOADS, WEIGHTS, weights_names, weights_sha256

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
"""In ledgers since version 0.1: if it changes, every result that people have is measured anew."""


def test_the_record_that_people_have_results_under() -> None:
    assert PROTOCOLS["lite0"].record() == LITE0_RECORD


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_names_the_weights_that_are_used(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    main = "rfd_lite0" if protocol.features == "lite0" else "rfid"
    (file,) = pretrained(main, name)
    assert protocol.weights_sha256 == weights_sha256(file)
    assert WEIGHTS["lpips-alex-trunk"].sha256 in protocol.perceptual
    if protocol.dino:
        assert DOWNLOADS["dinov2-l14"].sha256 in protocol.dino
        assert DOWNLOADS["i3d"].sha256 in protocol.video


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_rule_that_the_program_follows_is_in_the_record(name: str) -> None:
    """Fields the program reads are said in words: another value must be another record."""
    protocol = PROTOCOLS[name]
    record = protocol.record()
    assert "about" not in record and all(value != "" for value in record.values())
    others = [one for one in PROTOCOLS.values() if one.name != name]
    for field, said in {
        "rounding": "values",
        "psnr_over": "psnr",
        "frames_apart": "frames",
        "inception_bias": "inception_score",
        "inception_splits": "inception_score",
        "kid_subset": "kid",
        "network": "resize",
    }.items():
        for other in others:
            if getattr(other, field) != getattr(protocol, field):
                assert other.record().get(said) != record.get(said), (field, other.name)


def test_records_differ_and_are_frozen() -> None:
    records = [tuple(sorted(one.record().items())) for one in PROTOCOLS.values()]
    assert len(set(records)) == len(PROTOCOLS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["adm"].version = 2  # type: ignore[misc]  # that is what is tried


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
        assert set(pretrained(name, rules)) <= set(weights_names())
    assert metric.features in (None, "alex", *FEATURE_WIDTHS)


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
