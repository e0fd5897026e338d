"""Are the cells, tasks and fingerprints of a plan what a study's words promise?"""

from __future__ import annotations

import json
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import DATA, SMALL, load, plan_of
from sweepctl.datasets import data_identities
from sweepctl.errors import StudyError, UsageError
from sweepctl.kinds import optional_groups
from sweepctl.paths import flat
from sweepctl.plan import (
    ADDED_LATER,
    Recorded,
    Speed,
    canonical,
    completed,
    describe_tokenizer,
    fingerprint,
    lasting,
    make_plan,
    reasons,
    summary,
)
from sweepctl.plan._identity import differences
from sweepctl.study import load_study, resolve
from vitok_core.spec import TokenizerSpec

ROOT = Path(__file__).resolve().parent.parent


def swap(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


def prints(folder: Path, text: str = SMALL, *overrides: str) -> dict[str, str]:
    """Fingerprint of every stage-1 task by its label."""
    plan = plan_of(folder, text, *overrides)
    return {task.label: name for name, task in plan.tasks.items() if task.kind == "stage1"}


def test_cells_are_the_product_in_the_order_of_the_axes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert [dict(cell.axes) for cell in plan.cells] == [
        {"p": 4, "c": 4},
        {"p": 4, "c": 16},
        {"p": 8, "c": 4},
        {"p": 8, "c": 16},
    ]
    assert [cell.derived.E for cell in plan.cells] == [256, 1024, 64, 256]
    spec = TokenizerSpec(encoder="nano", decoder="nano", p=4, c=4, resolution=32)
    assert plan.cells[0].derived.parameters == spec.parameters
    kinds = [task.kind for task in plan.tasks.values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "prepare": 2,
        "reference": 1,
        "stage1": 4,
        "reconstruct": 4,
    }


def test_zip_moves_axes_together(tmp_path: Path) -> None:
    text = SMALL + "zip:\n  - {encoder: [nano, micro], decoder: [micro, nano]}\n"
    plan = plan_of(tmp_path, text)
    assert len(plan.cells) == 8
    assert {(cell.derived.encoder, cell.derived.decoder) for cell in plan.cells} == {
        ("nano", "micro"),
        ("micro", "nano"),
    }


def test_exclude_only_and_when(tmp_path: Path) -> None:
    text = (
        SMALL
        + """\
exclude:
  - {p: 4, c: 16}
  - {p: 8, c: 16, only: reconstruct}
  - {p: 500}
when:
  - {if: {E: "<= 64"}, set: {steps: 99}}
"""
    )
    plan = plan_of(tmp_path, text)
    assert [dict(cell.axes) for cell in plan.cells] == [
        {"p": 4, "c": 4},
        {"p": 8, "c": 4},
        {"p": 8, "c": 16},
    ]
    assert [cell.config["stages"]["stage1"]["steps"] for cell in plan.cells] == [10, 99, 10]
    assert "reconstruct:photos-eval" not in plan.cells[2].tasks
    assert any("matches no cell" in notice for notice in plan.notices)
    assert len(plan.dropped) == 1 and plan.dropped[0].reason.startswith("excluded by")

    kept = plan_of(tmp_path, SMALL + "only:\n  reconstruct: [{p: 8}]\n")
    measured = [cell for cell in kept.cells if "reconstruct:photos-eval" in cell.tasks]
    assert [cell.derived.p for cell in measured] == [8, 8]


def test_fixed_solves_c_and_names_what_it_drops(tmp_path: Path) -> None:
    text = swap("  c: [4, 16]\n", "").replace("p: [4, 8]", "p: [4, 8, 16, 32]")
    plan = plan_of(tmp_path, text + "fixed: {E: 64}\n")
    assert [(cell.derived.p, cell.derived.c) for cell in plan.cells] == [
        (4, 1),
        (8, 4),
        (16, 16),
        (32, 64),
    ]
    plan = plan_of(tmp_path, text + "fixed: {E: 32}\n")
    assert [cell.derived.p for cell in plan.cells] == [8, 16, 32]
    assert plan.dropped[0].reason == "no whole c gives E = 32 with 64 tokens"
    plan = plan_of(tmp_path, text + "fixed: {compression: 48}\n")
    assert {cell.derived.E for cell in plan.cells} == {64}


def test_fixed_solves_p_and_filters_when_nothing_is_open(tmp_path: Path) -> None:
    text = swap("  p: [4, 8]\n", "")
    plan = plan_of(tmp_path, text + "fixed: {E: 256}\n")
    assert [(cell.derived.p, cell.derived.c) for cell in plan.cells] == [(4, 4), (8, 16)]
    plan = plan_of(tmp_path, SMALL + "fixed: {E: 256}\n")
    assert [dict(cell.axes) for cell in plan.cells] == [{"p": 4, "c": 4}, {"p": 8, "c": 16}]
    assert [dropped.reason for dropped in plan.dropped] == [
        "E is 1024, not 256",
        "E is 64, not 256",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "fixed: {E: 7}\n", "no cell is left of 4 combinations"),
        (SMALL + "fixed: {E: 0.5}\n", "E must be a whole number above 0"),
        (
            swap("  p: [4, 8]\n  c: [4, 16]\n", "  seed: [0]\n") + "fixed: {E: 64}\n",
            "cannot give both p and c",
        ),
        (SMALL + "exclude: [{q: 1}]\n", "no cell is left"),
        (
            swap("c: [4, 16]", f"c: [{', '.join(map(str, range(1, 2001)))}]")
            .replace("p: [4, 8]", f"seed: [{', '.join(map(str, range(5000)))}]")
            .replace("decoder: nano", "decoder: nano, p: 4"),
            "5000 x 2000 = 10,000,000 combinations; a study has at most 100,000",
        ),
    ],
)
def test_grids_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StudyError, match=r"study\.yaml:[0-9]+:[0-9]+: ") as caught:
        plan_of(tmp_path, text)
    assert said in str(caught.value)


# --- identity ------------------------------------------------------------------------------------


def test_names_notes_and_circumstances_are_not_identity(tmp_path: Path) -> None:
    before = plan_of(tmp_path).tasks.keys()
    for change in (
        swap("study: small", "study: other\nquestion: why?"),
        swap("slope: positive", "slope: negative"),
        swap("form: semilog", "form: quadratic"),
        SMALL + "run: {retries: 9, checkpoint_s: 1}\n",
        SMALL + "run: {micro_batch: {stage1: 3, dit: all}, recompute: {stage2: true}}\n",
        swap("p: [4, 8]", "p: [8, 4]"),
    ):
        assert plan_of(tmp_path, change).tasks.keys() == before


def test_adding_values_keeps_every_old_fingerprint(tmp_path: Path) -> None:
    before = plan_of(tmp_path).tasks.keys()
    after = plan_of(tmp_path, swap("c: [4, 16]", "c: [4, 8, 16]")).tasks
    assert before < after.keys()
    new = [after[name].kind for name in after.keys() - before]
    assert sorted(new) == ["reconstruct", "reconstruct", "stage1", "stage1"]


def test_what_an_evaluation_reads_does_not_touch_the_training(tmp_path: Path) -> None:
    before, after = plan_of(tmp_path), plan_of(tmp_path, swap("psnr, rfd_lite0", "psnr, ssim"))
    trained = {name for name, task in before.tasks.items() if task.kind == "stage1"}
    assert trained <= after.tasks.keys()
    measured = {name for name, task in before.tasks.items() if task.kind == "reconstruct"}
    assert not measured & after.tasks.keys()


IDENTITY = {  # a leaf of the config that stage 1 reads -> another value for it
    "seed": 5,
    "data.resolution": 64,
    "data.images": 65,
    "tokenizer.encoder": "micro",
    "tokenizer.decoder": "micro",
    "tokenizer.p": 16,
    "tokenizer.c": 5,
    "stages.stage1.steps": 11,
    "stages.stage1.batch": 9,
    "stages.stage1.precision": "bf16",
    "stages.stage1.network_precision": "fp32",
    "stages.stage1.flip": False,
    "stages.stage1.optimiser.lr": 0.5,
    "stages.stage1.optimiser.lr.per_256": 0.5,
    "stages.stage1.optimiser.betas": [0.5, 0.9],
    "stages.stage1.optimiser.weight_decay": 0.5,
    "stages.stage1.optimiser.warmup": 0.5,
    "stages.stage1.optimiser.final_lr": 2e-5,
    "stages.stage1.optimiser.clip": 0.5,
    "stages.stage1.optimiser.decay": "matrices",
    "stages.stage1.loss.pixel": "l1",
    "stages.stage1.loss.kl": 0.5,
    "stages.stage1.loss.lpips": 0.5,
    "stages.stage1.loss.lpips_net": "alex",
    "tokenizer.latent_tokens": 8,
    "tokenizer.lengths": [8, 64],
    "tokenizer.norm": "rmsnorm",
    "tokenizer.qk_norm": True,
    "tokenizer.positions": "1d",
    "stages.stage1.compile": True,
    "stages.stage1.ema": 0.5,
    "stages.stage1.optimiser.schedule": "constant",
    "stages.stage1.loss.pixel_weight": 0.5,
    "stages.stage1.loss.ssim": 0.5,
    "stages.stage1.loss.dino": 0.5,
}


@pytest.mark.parametrize("path", IDENTITY)
def test_every_setting_of_a_training_is_identity(tmp_path: Path, path: str) -> None:
    value = json.dumps(IDENTITY[path])
    assert resolve(path) == path
    text = swap("axes:\n  p: [4, 8]\n  c: [4, 16]\n", "").replace(
        "decoder: nano", "decoder: nano, p: 4, c: 4"
    )
    before = set(prints(tmp_path, text).values())
    after = set(prints(tmp_path, text, f"{path}={value}").values())
    assert len(before) == len(after) == 1 and before != after


def test_no_setting_of_stage_1_is_missing_from_that_list() -> None:
    from sweepctl.study._paths import config_leaves

    read = {
        leaf
        for leaf in config_leaves()
        if leaf.startswith(("stages.stage1", "tokenizer", "seed", "data"))
    }
    # These need others beside them, below.
    assert read - IDENTITY.keys() == {
        "data.train",
        "data.frames",
        "data.fps",
        "data.stream",
        "data.crop",
        "tokenizer.q",
        "tokenizer.causal",
        "tokenizer.bottleneck",
        "tokenizer.noise_std",
    }


def test_settings_that_need_others_are_identity_too(tmp_path: Path) -> None:
    codes = [
        {"tokenizer.bottleneck": "none", "kl": 0},
        {"tokenizer.bottleneck": "layernorm", "kl": 0},
        {"tokenizer.bottleneck": "noise", "tokenizer.noise_std": 0.5},
        {"tokenizer.bottleneck": "noise", "tokenizer.noise_std": 0.25},
        {"kl": 0},
    ]
    found = [prints(tmp_path, SMALL, *_sets(code)).values() for code in codes]
    clips = [{}, {"q": 2}, {"q": 2, "causal": True}, {"data.fps": 15}, {"data.frames": 4}]
    found += [prints(tmp_path, CLIPS, *_sets(code)).values() for code in clips]
    every = [name for names in found for name in names]
    assert len(set(every)) == len(every) == 5 * 4 + 5


def _sets(values: dict[str, object]) -> list[str]:
    return [f"{path}={json.dumps(value)}" for path, value in values.items()]


CLIPS = """\
format: 1
study: clips
data: {train: clips-train, resolution: 32, images: 64, frames: 8}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 10, batch: 8, precision: fp32, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [clips-eval], images: 32, metrics: [psnr, rfd_lite0]}
"""

QUICKSTART = {
    "photos-train 32px x 8192": "s1:f328648f705a6e8ef2129d0c950e7de1",
    "pico-pico/4 c4 32px seed 0": "s1:f05ef450b82df414aac115271d58afe8",
    "photos-eval 32px x 1024": "s1:61ce3251b01005d2286a56839b3883a1",
    "photos-eval features, lite0": "s1:1c0068c12c58dc8fa8c8e9039c179f82",
    "pico-pico/4 c4 32px on photos-eval": "s1:8bd38cd1316cc4f0753199a0dd7fc365",
    "pico-pico/4 c16 32px seed 0": "s1:85879267db5795fad9e4aa375e2d35d0",
    "pico-pico/4 c16 32px on photos-eval": "s1:3e876b1911efc52f5bcdd2ba8d981712",
    "pico-pico/4 c64 32px seed 0": "s1:48224afb6d6d8ddb924d9a5addde693a",
    "pico-pico/4 c64 32px on photos-eval": "s1:c7abd88ababe017e1b605489bbb0577d",
    "pico-pico/8 c4 32px seed 0": "s1:6fba1d997bd1c019005da39a18d4a8dc",
    "pico-pico/8 c4 32px on photos-eval": "s1:168c30d464f5464b1d0b72ae7e97d5fe",
    "pico-pico/8 c16 32px seed 0": "s1:c50c9409626f38780c56ab751e8e8235",
    "pico-pico/8 c16 32px on photos-eval": "s1:cb860786bcd42af619ab25bae9c121ac",
    "pico-pico/8 c64 32px seed 0": "s1:9781c07584c53333146f2b4656503a41",
    "pico-pico/8 c64 32px on photos-eval": "s1:535ad4e3914ee0b9eb41f2ca20e67698",
    "pico-pico/16 c4 32px seed 0": "s1:1f15226883007772cee11e4faaddcc6c",
    "pico-pico/16 c4 32px on photos-eval": "s1:6611e0a54cdb7935ad9b855e6f4e5e39",
    "pico-pico/16 c16 32px seed 0": "s1:504fde8eb4fff27008afe29167ec6dfd",
    "pico-pico/16 c16 32px on photos-eval": "s1:516e0c3fe5bb56104f230c1ceefd2e97",
    "pico-pico/16 c64 32px seed 0": "s1:7a2e7c05909fc81a90a80c44cc5258f4",
    "pico-pico/16 c64 32px on photos-eval": "s1:75346c38cbf2a4f02a1123545b87c316",
}
"""Label -> fingerprint of every task of studies/quickstart.yaml."""

QUICKSTART_CELLS = [
    "s1:e7a0fdeaae24f11e4803f247d54a2dc3",
    "s1:d6f497e73688859a3e05951b1c4fb9a8",
    "s1:c92e40039edb1c284bda0961c2e60738",
    "s1:73b8c12f3d0a1fc495d69ca69e7cce7b",
    "s1:de7da222f8fce9b91435ff6aea93bf61",
    "s1:d88f25d3f6a1f47d3c4bb57d3e655419",
    "s1:af8b3f57d93d01d68bbae7078decc47c",
    "s1:5da1d0dc4d8981b7385ca14c88c2db92",
    "s1:90b6f234f595826fde254553f9ed4d7a",
]


def test_fingerprints_are_those_of_yesterday() -> None:
    """Whoever changes one makes everybody compute everything again: only on purpose.

    On purpose is an edit of the file, of a data recipe, of a protocol, or of a kind's version.
    """
    data = data_identities()
    plan = make_plan(load_study(ROOT / "studies" / "quickstart.yaml", datasets=data), data=data)
    assert {task.label: task.fingerprint for task in plan.tasks.values()} == QUICKSTART
    assert [cell.key for cell in plan.cells] == QUICKSTART_CELLS


def test_a_setting_that_was_added_later_is_left_out_at_its_old_value(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    whole, kept = plan.cells[0].config, lasting(plan.cells[0].config)
    needed = {path for path in flat(whole) if not path.startswith(tuple(optional_groups()))}
    assert flat(kept).keys() == needed - ADDED_LATER.keys()
    changed = plan_of(tmp_path, SMALL, "norm=rmsnorm", "lengths=[4]").cells[0].config
    assert flat(lasting(changed)).keys() - flat(kept).keys() == {
        "tokenizer.norm",
        "tokenizer.lengths",
    }
    # Zero and false are equal to Python, and not one value.
    odd = {
        "tokenizer": {"qk_norm": 0, "causal": False},
        "stages": {"stage1": {"loss": {"ssim": 0}}},
    }
    assert lasting(odd) == {"tokenizer": {"qk_norm": 0}, "stages": {"stage1": {"loss": {}}}}


def test_what_was_left_out_is_filled_in_again(tmp_path: Path) -> None:
    for config in (plan_of(tmp_path).cells[0].config, plan_of(tmp_path, CLIPS).cells[0].config):
        kept = lasting(config)
        for path in ("data", "tokenizer", "stages.stage1", "evaluate.reconstruction"):
            part, whole = kept, config
            for key in path.split("."):
                part, whole = part[key], whole[key]
            assert completed(part, path) == whole


def test_the_defaults_of_later_settings_are_their_old_values() -> None:
    """A study that does not name them computes what it always did."""
    from sweepctl.study._paths import config_leaves

    for path, value in ADDED_LATER.items():
        default = config_leaves()[path].default
        assert (list(default) if isinstance(default, tuple) else default) == value, path


@settings(max_examples=50, deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
        max_leaves=8,
    )
)
def test_canonical_json_is_stable_and_reads_back(value: object) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text
    assert fingerprint(text) == fingerprint(canonical(json.loads(text)))
    assert fingerprint(text).startswith("s1:") and len(fingerprint(text)) == 35


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("final_lr=1e-3", "final_lr = 0.001 is above the peak lr = 0.0004; leave it out"),
        ("lpips=1", None),  # the VGG trunk takes 16 px
        ("stages.stage1.loss={lpips: 1, lpips_net: alex}", "the LPIPS loss (alex) needs images"),
        ("evaluate.reconstruction.images=1", "rfd_lite0 needs at least 2 images, not 1"),
        ("metrics=[lpips]", "lpips needs images of at least 31 px, not 16"),
    ],
)
def test_what_would_fail_in_hours_is_refused_now(
    tmp_path: Path, override: str, said: str | None
) -> None:
    text = swap("resolution: 32", "resolution: 16").split("fits:")[0]
    if override.startswith("stages.stage1.loss="):
        text, override = text.replace("{lpips: 0}", override.partition("=")[2]), "seed=0"
    if said is None:
        plan_of(tmp_path, text, override)
        return
    with pytest.raises(StudyError) as caught:
        plan_of(tmp_path, text, override)
    assert said in str(caught.value) and len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": {1, 2}}, object(), float("nan"), [float("inf")], Path("x")]
)
def test_what_is_not_plain_data_has_no_identity(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical(value)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        plan_of(folder, text, *overrides)
    return str(caught.value).replace(f"{folder / 'study.yaml'}:", "")


def test_clips_and_images_are_not_mixed_up(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, CLIPS + "axes: {q: [1, 2, 4]}\n")
    assert [cell.derived.tokens for cell in plan.cells] == [128, 64, 32]
    assert {cell.derived.frames for cell in plan.cells} == {8}
    prepared = [task for task in plan.tasks.values() if task.kind == "prepare"]
    assert prepared[0].label == "clips-train 8x32px x 64"
    assert prepared[0].cost.disk_bytes == 64 * (8 * 32 * 32 * 3 + 8)
    assert refusal(tmp_path, CLIPS, "frames=null").startswith(
        "3:15: data.train: clips-train holds clips; give data.frames, for example 8"
    )
    said = refusal(tmp_path, CLIPS.replace("on: [clips-eval]", "on: [clips-eval, photos-eval]"))
    assert "8:24: evaluate.reconstruction.on: photos-eval holds single images" in said
    assert "take a video data set (clips-eval, clips-train)" in said
    assert "one frame has no rate" in refusal(tmp_path, SMALL, "fps=10")
    assert "q = 3 does not divide the 8 frames" in refusal(tmp_path, CLIPS, "q=3")
    assert "causal attention needs at least 2 steps" in refusal(
        tmp_path, CLIPS, "q=8", "causal=true"
    )


def test_clips_that_no_video_is_long_enough_for_are_refused(tmp_path: Path) -> None:
    data = data_identities()
    for override, where in (("frames=400", "data.frames"), ("fps=60", "data.fps")):
        study = load(tmp_path, CLIPS, override)
        with pytest.raises(StudyError, match=rf"{where}: clips-(train|eval): ") as caught:
            make_plan(study, data=data)
        assert "at most" in str(caught.value)


def test_a_code_without_randomness_takes_no_kl(tmp_path: Path) -> None:
    text = swap("  p: [4, 8]", "  bottleneck: [kl, none, layernorm]\n  p: [8]")
    said = refusal(tmp_path, text).splitlines()
    assert said[0].startswith("4:20: axes.bottleneck.1: a code of bottleneck none is no distribut")
    assert said[3].startswith("4:26: axes.bottleneck.2: a code of bottleneck layernorm is no dis")
    # What it says to do works.
    advice = said[0].partition("`")[2].partition("`")[0]
    assert advice == "when: [{if: {bottleneck: none}, set: {kl: 0}}]"
    more = advice.replace("bottleneck: none", "bottleneck: [none, layernorm]")
    plan = plan_of(tmp_path, f"{text}{more}\n")
    assert [cell.config["stages"]["stage1"]["loss"]["kl"] for cell in plan.cells] == [
        *(1e-3, 1e-3),
        *(0, 0, 0, 0),
    ]


def test_a_constant_schedule_ends_at_its_rate(tmp_path: Path) -> None:
    plan_of(tmp_path, SMALL, "schedule=constant", "lr=1e-6")
    said = refusal(tmp_path, SMALL, "schedule=constant", "final_lr=1e-4")
    assert said.startswith(
        "--set final_lr=1e-4: stages.stage1.optimiser.final_lr: final_lr = 0.0001"
    )
    # What it says to do works.
    advice = said.partition("`")[2].partition("`")[0]
    text = SMALL.replace("c: [4, 16]", "schedule: [cosine, constant]").replace(
        "decoder: nano", "decoder: nano, c: 4"
    )
    plan = plan_of(tmp_path, f"{text}{advice}\n", "final_lr=1e-4")
    ends = [cell.config["stages"]["stage1"]["optimiser"]["final_lr"] for cell in plan.cells]
    assert ends == [1e-4, 1e-5, 1e-4, 1e-5]


def test_lengths_of_one_tokenizer_share_its_training(tmp_path: Path) -> None:
    text = swap("  c: [4, 16]", "  length: [null, 2, 8]").replace(
        "decoder: nano", "decoder: nano, c: 16, lengths: [2, 8, 16]"
    )
    plan = plan_of(tmp_path, text)
    kinds = [task.kind for task in plan.tasks.values()]
    assert (kinds.count("stage1"), kinds.count("reconstruct")) == (2, 6)
    first = plan.cells[:3]
    assert len({cell.tasks["stage1"] for cell in first}) == 1
    assert [cell.derived.tokens for cell in first] == [64, 2, 8]
    assert [cell.derived.E for cell in first] == [1024, 32, 128]
    assert [cell.derived.compression for cell in first] == [3.0, 96.0, 24.0]
    labels = [plan.tasks[cell.tasks["reconstruct:photos-eval"]].label for cell in first]
    assert labels[1] == "nano-nano/4 c16 masked 32px at 2 tokens on photos-eval"
    # Matches and fixed values speak of the measured code.
    assert [
        cell.axes["length"] for cell in plan_of(tmp_path, text + "fixed: {E: 128}\n").cells
    ] == [*(8, 8)]
    assert len(plan_of(tmp_path, text + "exclude: [{tokens: 2}]\n").cells) == 4
    assert "length = 3 is none of the lengths the tokenizer is trained for (2, 8, 16)" in refusal(
        tmp_path, text.replace("[null, 2, 8]", "[null, 3]")
    )
    assert "this tokenizer knows its code only whole" in refusal(tmp_path, SMALL, "length=4")


def test_fixed_solves_c_of_a_latent_code(tmp_path: Path) -> None:
    text = swap("  c: [4, 16]", "  latent_tokens: [4, 16]\n  bottleneck: [layernorm]")
    text = text.replace("lpips: 0", "lpips: 0, kl: 0")
    plan = plan_of(tmp_path, text + "fixed: {E: 64}\n")
    assert [(cell.derived.tokens, cell.derived.c) for cell in plan.cells] == [(4, 16), (16, 4)] * 2
    text = swap("  p: [4, 8]", "  latent_tokens: [16]")
    said = refusal(tmp_path, text + "fixed: {E: 64}\n")
    assert "p does not decide the 16 tokens of this code; give p a value" in said


@settings(max_examples=25, deadline=None)
@given(
    p=st.lists(st.sampled_from([1, 2, 4, 8, 16, 32]), min_size=1, max_size=4, unique=True),
    c=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    left_out=st.integers(1, 64),
)
def test_laws_of_expansion(
    tmp_path_factory: pytest.TempPathFactory,
    p: list[int],
    c: list[int],
    seeds: list[int],
    left_out: int,
) -> None:
    text = swap("p: [4, 8]", f"p: {p}").replace("c: [4, 16]", f"c: {c}\n  seed: {seeds}")
    text += f"exclude: [{{c: {left_out}}}]\n"
    folder = tmp_path_factory.mktemp("grid")
    expected = len(p) * len(seeds) * len([value for value in c if value != left_out])
    if expected == 0:
        with pytest.raises(StudyError, match="no cell is left"):
            plan_of(folder, text)
        return
    plan = plan_of(folder, text)
    assert len(plan.cells) == expected
    assert len({cell.key for cell in plan.cells}) == expected
    assert sum(task.kind == "stage1" for task in plan.tasks.values()) == expected
    graph = {name: [parent for _, parent in task.parents] for name, task in plan.tasks.items()}
    assert {parent for parents in graph.values() for parent in parents} <= graph.keys()
    order = {name: place for place, name in enumerate(plan.tasks)}
    assert all(order[parent] < order[name] for name in graph for parent in graph[name])
    TopologicalSorter(graph).prepare()
    assert make_plan(load(folder, text), data=DATA) == make_plan(load(folder, text), data=DATA)


# --- summary and reasons ------------------------------------------------------------


def test_the_summary_counts_and_calibrates(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SMALL + "seed: 3\n")
    trainings = [task for task in plan.tasks.values() if task.kind == "stage1"]
    states = {trainings[0].fingerprint: "done", trainings[1].fingerprint: "failed"}
    lines = {line.stage: line for line in summary(plan, states)}
    assert (
        lines["stage1"].tasks,
        lines["stage1"].cached,
        lines["stage1"].new,
        lines["stage1"].blocked,
    ) == (4, 1, 2, 1)
    assert lines["reconstruct"].blocked == 1
    assert lines["prepare"].cells == 4 and lines["prepare"].shared == 6
    assert lines["stage1"].hours is None
    speed = Speed(kind="stage1", device="cpu", flops=trainings[2].cost.flops, seconds=7200.0)
    rest = trainings[2].cost.flops + trainings[3].cost.flops
    hours = {line.stage: line for line in summary(plan, states, [speed])}["stage1"].hours
    assert hours == pytest.approx(2.0 * rest / trainings[2].cost.flops)


def test_the_reason_names_the_field_that_changed(tmp_path: Path) -> None:
    before = plan_of(tmp_path)
    after = plan_of(tmp_path, SMALL, "steps=20")
    recorded = [
        Recorded(
            axes=cell.axes,
            stage=stage,
            fingerprint=name,
            identity=before.tasks[name].identity,
            state="done",
        )
        for cell in before.cells
        for stage, name in cell.tasks.items()
    ]
    states = dict.fromkeys(before.tasks, "done")
    said = {one.stage: (one.tasks, one.why) for one in reasons(after, states, recorded, {})}
    assert said["stage1"] == (4, "changed: config.stage1.steps: 10 -> 20")
    assert said["reconstruct"] == (4, "recomputed because its tokenizer changed")
    assert set(said) == {"stage1", "reconstruct"}
    fresh = {one.stage: one.why for one in reasons(before, {}, [], {})}
    assert set(fresh.values()) == {"never run"}


def test_differences_name_the_old_value_that_was_left_out(tmp_path: Path) -> None:
    plans = [plan_of(tmp_path, SMALL, *more) for more in ((), ("ema=0.9", "qk_norm=true"))]
    old, new = (plan.tasks[plan.cells[0].tasks["stage1"]].identity for plan in plans)
    assert differences(old, new) == [
        "config.stage1.ema: null -> 0.9",
        "config.tokenizer.qk_norm: false -> true",
    ]


def test_differences_name_old_and_new() -> None:
    assert differences('{"a":{"b":1},"c":2}', '{"a":{"b":3},"d":[1]}') == [
        "a.b: 1 -> 3",
        "c: 2 -> absent",
        "d: absent -> [1]",
    ]


# --- one tokenizer without a study ----------------------------------------------------------------


def test_a_variant_string_is_counted_as_the_paper_does() -> None:
    one = describe_tokenizer("S-B/4x8", resolution=128, frames=16, dit="XL", classes=1000)
    parts = {part.part: part for part in one.parts}
    assert list(parts) == ["encoder", "decoder", "tokenizer", "DiT-XL"]
    assert parts["tokenizer"].parameters == pytest.approx(129e6, rel=0.005)
    assert parts["tokenizer"].macs == pytest.approx(160.8e9, rel=0.003)  # table 4's "GFLOPs"
    assert parts["encoder"].macs + parts["decoder"].macs == parts["tokenizer"].macs
    assert all(part.flops == 2 * part.macs for part in one.parts)
    assert parts["DiT-XL"].parameters == pytest.approx(675e6, rel=0.01)
    assert (one.grid, one.code.tokens, one.code.E) == ((4, 16, 16), 1024, 16384)
    assert one.code.compression == 48.0 and one.cut == ()


def test_a_masked_code_is_counted_at_each_length() -> None:
    one = describe_tokenizer("S-B/16", latent_tokens=128, lengths=(32, 128), channels=8)
    assert [(code.tokens, code.E, code.compression) for code in one.cut] == [
        (32, 256, 768.0),
        (128, 1024, 192.0),
    ]
    assert one.code == one.cut[-1]


@pytest.mark.parametrize(
    ("variant", "given", "said"),
    [
        ("S/16", {}, "is not a variant"),
        ("S-X/16", {}, "is no size; there are"),
        ("S-B/15", {}, "p = 15 does not divide the resolution 256"),
        ("S-B/16", {"norm": "batch"}, "choose one of layernorm, rmsnorm"),
        ("S-B/16", {"dit": "G"}, "is no size"),
        ("S-B/16", {"bottleneck": "noise"}, "needs a standard deviation above 0"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_a_usage_error(
    variant: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        describe_tokenizer(variant, **given)
