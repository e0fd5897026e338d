"""Are the cells, tasks and fingerprints of a plan what a study's words promise?"""

from __future__ import annotations

import json
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import DATA, SMALL, load, plan_of
from sweepctl.errors import StudyError
from sweepctl.plan import (
    Recorded,
    Speed,
    canonical,
    differences,
    fingerprint,
    make_plan,
    reasons,
    summary,
)
from sweepctl.study import resolve
from vitok_core.spec import TokenizerSpec


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
    "stages.stage1.flip": False,
    "stages.stage1.optimiser.lr": 0.5,
    "stages.stage1.optimiser.betas": [0.5, 0.9],
    "stages.stage1.optimiser.weight_decay": 0.5,
    "stages.stage1.optimiser.warmup": 0.5,
    "stages.stage1.optimiser.final_lr": 2e-5,
    "stages.stage1.optimiser.clip": 0.5,
    "stages.stage1.loss.pixel": "l1",
    "stages.stage1.loss.kl": 0.5,
    "stages.stage1.loss.lpips": 0.5,
    "stages.stage1.loss.lpips_net": "alex",
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
    # q needs frames, which images do not have; the training set has one alternative, below.
    assert read - IDENTITY.keys() == {"tokenizer.q", "data.train"}


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
        ("lr=1e-6", "final_lr = 1e-05 is above the peak lr = 1e-06"),
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
    speed = Speed(
        kind="stage1", device="cpu", attempts=1, flops=trainings[2].cost.flops, seconds=7200.0
    )
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
    assert said["reconstruct"] == (4, "made anew because its tokenizer changed")
    assert set(said) == {"stage1", "reconstruct"}
    fresh = {one.stage: one.why for one in reasons(before, {}, [], {})}
    assert set(fresh.values()) == {"never run"}


def test_differences_name_old_and_new() -> None:
    assert differences('{"a":{"b":1},"c":2}', '{"a":{"b":3},"d":[1]}') == [
        "a.b: 1 -> 3",
        "c: 2 -> absent",
        "d: absent -> [1]",
    ]
