"""Do stage 2, latents, DiT and generation join a plan: shared, identified, checked and counted?"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies import DATA, SMALL, load, plan_of, write
from sweepctl.errors import StudyError
from sweepctl.kinds import optional_groups
from sweepctl.plan import DataSet, Plan, design_rows, make_plan, summary
from sweepctl.study import load_study, resolve, short_name
from sweepctl.study._paths import config_leaves
from vitok_core.errors import SpecError
from vitok_core.protocols import METRICS
from vitok_core.settings import Loss, Sampling, Stage2
from vitok_core.spec import DiTSpec, discriminator_parameters

LABELLED = {name: replace(one, classes=8) for name, one in DATA.items()}

WHOLE = """\
format: 1
study: whole
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 10, batch: 8, precision: fp32, loss: {lpips: 0}}
  stage2: {steps: 6, batch: 4, precision: fp32, ema: 0.5, loss: {lpips: 0}}
  dit: {steps: 8, batch: 4, size: nano, precision: fp32, ema: 0.5}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr, rfd_lite0]}
  generation: {on: [photos-eval], images: 32, metrics: [gfd_lite0], steps: 10}
"""


def plan(folder: Path, text: str = WHOLE, *overrides: str) -> Plan:
    return make_plan(load(folder, text, *overrides), data=LABELLED)


def kinds(made: Plan) -> dict[str, int]:
    return dict(Counter(task.kind for task in made.tasks.values()))


def refusal(folder: Path, text: str, *overrides: str, data: Any = LABELLED) -> str:
    with pytest.raises(StudyError) as caught:
        make_plan(load(folder, text, *overrides), data=data)
    return str(caught.value)


# --- who shares what --------------------------------------------------------------------------


def test_one_tokenizer_serves_stage_2_latents_and_three_scales(tmp_path: Path) -> None:
    text = WHOLE + "axes:\n  stage2.steps: [null, 6]\n  cfg: [1, 1.5, 3]\n"
    made = plan(tmp_path, text.replace("steps: 6, ", ""))
    assert len(made.cells) == 6 and not made.dropped
    assert kinds(made) == {
        "prepare": 2,
        "reference": 1,
        "stage1": 1,
        "stage2": 1,
        "latents": 2,
        "dit": 2,
        "reconstruct": 2,
        "generate": 6,
    }
    without, trained = made.cells[0], made.cells[3]
    assert "stage2" not in without.tasks and without.axes["stage2.steps"] is None
    for cell, final in ((without, "stage1"), (trained, "stage2")):
        tokenizer = cell.tasks[final]
        for stage in ("reconstruct:photos-eval", "latents"):
            assert dict(made.tasks[cell.tasks[stage]].parents)["tokenizer"] == tokenizer
        generate = dict(made.tasks[cell.tasks["generate:photos-eval"]].parents)
        assert generate["dit"] == cell.tasks["dit"] and generate["latents"] == cell.tasks["latents"]
        assert generate["reference"] == cell.tasks["reference:photos-eval"]
    by_stage = {line.stage: line for line in summary(made, {})}
    assert (by_stage["stage1"].shared, by_stage["stage2"].shared, by_stage["dit"].shared) == (
        5,
        2,
        4,
    )


def test_stage_1_is_that_of_a_study_that_ends_there(tmp_path: Path) -> None:
    whole, ended = plan(tmp_path), plan(tmp_path, SMALL.replace("p: [4, 8]", "p: [8]"))
    assert whole.cells[0].tasks["stage1"] == ended.cells[0].tasks["stage1"]


def test_parents_stand_before_children(tmp_path: Path) -> None:
    made = plan(tmp_path, WHOLE + "axes: {c: [4, 16], cfg: [1, 2]}\n")
    seen: set[str] = set()
    for name, task in made.tasks.items():
        assert {parent for _, parent in task.parents} <= seen
        seen.add(name)
    assert seen == {name for cell in made.cells for name in cell.tasks.values()}


def test_originals_of_another_number_are_another_reference(tmp_path: Path) -> None:
    made = plan(tmp_path, WHOLE, "evaluate.generation.originals=48")
    cell = made.cells[0]
    assert kinds(made)["prepare"] == 3 and kinds(made)["reference"] == 2
    assert {"prepare:photos-eval:generate", "reference:photos-eval:generate"} <= cell.tasks.keys()
    # Inception scores compare with nothing.
    alone = plan(
        tmp_path,
        WHOLE,
        *("generation.metrics=[gis]", "generation.protocol=adm", "generation.images=40"),
    )
    assert kinds(alone)["prepare"] == 2 and kinds(alone)["reference"] == 1


def test_every_task_of_a_plan_is_named_by_a_cell(tmp_path: Path) -> None:
    one_set = WHOLE.replace("photos-eval", "photos-train")
    made = plan(tmp_path, one_set, "evaluate.generation.images=48", "evaluate.allow_overlap=true")
    named = made.cells[0].tasks
    assert len(set(named.values())) == len(named) == len(made.tasks)
    assert {name for name in named if name.startswith("prepare")} == {
        "prepare:photos-train",
        "prepare:photos-train:reconstruct",
        "prepare:photos-train:generate",
    }


def test_leaving_out_a_stage_leaves_out_what_needs_it(tmp_path: Path) -> None:
    def left(stage: str) -> set[str]:
        text = WHOLE + f"axes: {{seed: [0, 1]}}\nonly: {{{stage}: [{{seed: 1}}]}}\n"
        first = plan(tmp_path, text).cells[0]
        return {stage.split(":")[0] for stage in first.tasks} - {"prepare", "reference"}

    assert left("stage1") == set()
    assert left("stage2") == {"stage1"}
    assert left("dit") == {"stage1", "stage2", "reconstruct"}
    assert left("reconstruct") == {"stage1", "stage2", "latents", "dit", "generate"}
    assert left("generate") == {"stage1", "stage2", "latents", "dit", "reconstruct"}


# --- what is identity -------------------------------------------------------------------------

LATER = {
    "stages.stage2": ("stage2", "latents", "dit", "reconstruct", "generate"),
    "stages.latents": ("latents", "dit", "generate"),
    "stages.dit": ("dit", "generate"),
    "evaluate.generation": ("generate",),
}
"""Kinds that depend on a group."""

OTHER: dict[str, Any] = {
    "stages.stage2.steps": 7,
    "stages.stage2.batch": 5,
    "stages.stage2.precision": "bf16",
    "stages.stage2.flip": False,
    "stages.stage2.compile": True,
    "stages.stage2.ema": 0.25,
    "stages.stage2.train": "all",
    "stages.stage2.discriminator_width": 0.5,
    "stages.stage2.adversarial.weight": 0.1,
    "stages.stage2.adversarial.start": 1,
    "stages.stage2.adversarial.ramp": 3,
    "stages.stage2.adversarial.r1": 1.0,
    "stages.stage2.adversarial.lecam": 0.001,
    "stages.stage2.adversarial.adaptive": True,
    "stages.stage2.loss.pixel": "l1",
    "stages.stage2.loss.pixel_weight": 2.0,
    "stages.stage2.loss.kl": 0.5,
    "stages.stage2.loss.lpips": 0.5,
    "stages.stage2.loss.lpips_net": "alex",
    "stages.stage2.loss.ssim": 0.5,
    "stages.stage2.loss.dino": 0.5,
    "stages.stage2.network_precision": "fp32",
    "stages.latents.normalisation": "scalar",
    "stages.latents.flip": False,
    "stages.latents.dtype": "bfloat16",
    "stages.dit.steps": 9,
    "stages.dit.batch": 5,
    "stages.dit.size": "micro",
    "stages.dit.learn_sigma": False,
    "stages.dit.qk_norm": True,
    "stages.dit.class_dropout": 0.5,
    "stages.dit.precision": "bf16",
    "stages.dit.compile": True,
    "stages.dit.ema": 0.25,
    "evaluate.generation.images": 24,
    "evaluate.generation.originals": 31,
    "evaluate.generation.on": ["photos-train"],
    "evaluate.generation.metrics": ["gfd_lite0", "gkid_lite0"],
    "evaluate.generation.bootstrap": 50,
    "evaluate.generation.cfg": 3.0,
    "evaluate.generation.cfg_interval": [0.1, 0.9],
    "evaluate.generation.steps": 20,
    "evaluate.generation.sampler": "ddpm",
    "evaluate.generation.spacing": "stride",
    "evaluate.generation.eta": 0.5,
    "evaluate.generation.precision": "bf16",
} | {
    f"stages.{optimiser}.{name}": value
    for optimiser in ("stage2.optimiser", "stage2.discriminator", "dit.optimiser")
    for name, value in {
        "lr": 0.5,
        "lr.per_256": 0.5,
        "decay": "matrices",
        "betas": [0.5, 0.9],
        "weight_decay": 0.5,
        "warmup": 0.5,
        "clip": 0.5,
        "schedule": "constant" if optimiser == "stage2.optimiser" else "cosine",
    }.items()
}

NEED_OTHERS: dict[str, tuple[Any, ...]] = {
    "stages.dit.target": ("flow", "stages.dit.learn_sigma=false"),
    "stages.stage2.optimiser.final_lr": (2e-5,),
    "stages.stage2.discriminator.final_lr": (1e-6, "discriminator.schedule=cosine"),
    "stages.dit.optimiser.final_lr": (1e-6, "dit.optimiser.schedule=cosine"),
    "evaluate.generation.protocol": (
        "clean",
        "generation.metrics=[gfid]",
        "generation.protocol=adm",
    ),
}


def test_no_setting_of_a_later_stage_is_missing_from_these_lists() -> None:
    later = {leaf for leaf in config_leaves() if leaf.startswith(tuple(optional_groups()))}
    assert later == OTHER.keys() | NEED_OTHERS.keys()


@pytest.mark.parametrize("path", [*OTHER, *NEED_OTHERS])
def test_a_setting_changes_its_stage_and_what_follows(tmp_path: Path, path: str) -> None:
    value, *beside = NEED_OTHERS.get(path, (OTHER.get(path),))
    if path == "stages.dit.optimiser.schedule":
        beside = ["stages.dit.optimiser.lr=1e-3"]
    before = plan(tmp_path, WHOLE, *beside)
    after = plan(tmp_path, WHOLE, *beside, f"{path}={json.dumps(value)}")
    group = ".".join(path.split(".")[:2])
    changed = {task.kind for name, task in after.tasks.items() if name not in before.tasks} - {
        "prepare",
        "reference",
    }
    assert changed == set(LATER[group])
    assert before.cells[0].key != after.cells[0].key


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_groups_that_are_off_are_nothing(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Whatever stands in a group that is off: the same cells, the same tasks."""
    folder = tmp_path_factory.mktemp("off")
    drawn = data.draw(
        st.lists(
            st.sampled_from(
                [
                    path
                    for path in OTHER
                    if path
                    not in ("stages.stage2.steps", "stages.dit.steps", "evaluate.generation.images")
                ]
            ),
            unique=True,
            max_size=8,
        )
    )
    plain = plan(folder, SMALL)
    dressed = plan(folder, SMALL, *(f"{path}={json.dumps(OTHER[path])}" for path in drawn))
    assert [cell.key for cell in dressed.cells] == [cell.key for cell in plain.cells]
    assert dressed.tasks == plain.tasks


def test_settings_without_effect_are_told(tmp_path: Path) -> None:
    text = (
        WHOLE.replace("steps: 6, ", "")
        .replace("steps: 8, ", "")
        .replace("images: 32, metrics: [g", "metrics: [g")
    )
    notices = plan(tmp_path, text).notices
    assert [notice.split(": ")[0] for notice in notices] == [
        f"{group} has settings without effect"
        for group in ("stages.stage2", "stages.dit", "evaluate.generation")
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stage2=st.sets(st.sampled_from([None, 4, 6]), min_size=1),
    dit=st.sets(st.sampled_from([None, 8, 16]), min_size=1),
    cfg=st.sets(st.sampled_from([1.0, 1.5, 3.0]), min_size=1),
)
def test_laws_of_expansion_over_optional_stages(
    tmp_path_factory: Any, stage2: set[int | None], dit: set[int | None], cfg: set[float]
) -> None:
    folder = tmp_path_factory.mktemp("laws")
    axes: dict[str, set[Any]] = {"stage2.steps": stage2, "dit.steps": dit, "cfg": cfg}
    text = WHOLE.replace("steps: 6, ", "").replace("steps: 8, ", "")
    lines = [f"  {name}: {json.dumps(sorted(values, key=str))}" for name, values in axes.items()]
    text += "axes:\n" + "\n".join(lines) + "\n"
    if dit == {None}:
        assert "cell has one; give stages.dit.steps a number" in refusal(folder, text)
        return
    made = plan(folder, text)
    # Without a DiT all scales are one cell; what has no effect on a cell is no value of it.
    with_dit = len(dit - {None}) * len(cfg)
    assert len(made.cells) == len(stage2) * (with_dit + (None in dit))
    assert len({cell.key for cell in made.cells}) == len(made.cells)
    assert len(made.dropped) == len(stage2) * (None in dit) * (len(cfg) - 1)
    for cell in made.cells:
        assert (cell.axes["cfg"] is None) == (cell.axes["dit.steps"] is None)
        assert (cell.derived.dit_macs is None) == (cell.axes["dit.steps"] is None)
    count = kinds(made)
    assert count["stage1"] == 1
    assert count.get("stage2", 0) == len(stage2 - {None})
    assert count["latents"] == len(stage2)
    assert count["dit"] == len(stage2) * len(dit - {None})
    assert count["generate"] == len(stage2) * with_dit
    assert count["reconstruct"] == len(stage2)


def test_short_names_are_first_of_what_every_cell_has() -> None:
    assert (resolve("steps"), resolve("kl")) == ("stages.stage1.steps", "stages.stage1.loss.kl")
    assert resolve("stage2.loss.kl") == "stages.stage2.loss.kl"
    assert (short_name("evaluate.generation.steps"), short_name("stages.dit.size")) == (
        "generation.steps",
        "size",
    )
    assert all(resolve(short_name(leaf)) == leaf for leaf in config_leaves())


def test_no_setting_has_the_short_name_of_a_number_that_is_measured() -> None:
    """Both are columns of `results`: the weight of LPIPS is `loss.lpips` there."""
    assert not {short_name(leaf) for leaf in config_leaves()} & set(METRICS)
    with pytest.raises(ValueError, match=r"could be data\.images, evaluate\.reconstruction"):
        resolve("images")


def test_an_axis_with_dots_in_its_name_can_be_set(tmp_path: Path) -> None:
    text = WHOLE.replace("steps: 6, ", "") + "axes:\n  stage2.steps: [null, 6]\n"
    for name in ("axes.stage2.steps", "axes.stages.stage2.steps"):
        made = plan(tmp_path, text, f"{name}=[5]", "axes.generation.cfg=[1, 2]")
        assert [dict(cell.axes) for cell in made.cells] == [
            {"stage2.steps": 5, "cfg": 1.0},
            {"stage2.steps": 5, "cfg": 2.0},
        ]


def test_rows_of_a_design_have_what_both_measure(tmp_path: Path) -> None:
    rows = design_rows(plan(tmp_path, WHOLE + "axes: {cfg: [1, 2]}\n"))
    assert [(row["cell"], row["metric"], row["cfg"]) for row in rows] == [
        (cell, metric, scale)
        for cell, scale in ((1, 1.0), (2, 2.0))
        for metric in ("psnr", "rfd_lite0", "gfd_lite0")
    ]


# --- what cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stages.dit.steps=null"], "samples are made by a DiT, and no cell has one"),
        (["axes.weight=[0.1, 0.2]", "stage2.steps=null"], "no effect: no cell has stage 2; give"),
        (["axes.cfg=[1, 2]", "generation.images=null"], "no effect: no cell makes samples; give"),
        (["axes.size=[nano]", "dit.steps=null", "generation.images=null"], "no cell has a DiT"),
        (["size=nanoo"], "unknown DiT size 'nanoo' (did you mean 'nano'?)"),
        (["target=v"], "learn_sigma with target v"),
        (["target=flow", "learn_sigma=false", "sampler=ddim"], "of target flow is sampled by eule"),
        (["sampler=euler"], "of target eps is sampled by ddim or ddpm"),
        (["spacing=stride", "generation.steps=300"], "no whole stride visits that many"),
        (["generation.steps=1001"], "must be from 1 to 1000"),
        (["sampler=ddpm", "eta=0.5"], "eta = 0.5: only ddim has it"),
        (["cfg_interval=[0.9, 0.1]"], "the smaller share comes first"),
        (["cfg=1", "cfg_interval=[0.1, 0.9]"], "there is no guidance with cfg 1"),
        (["class_dropout=0"], "it never learned without; set cfg to 1 or stages.dit.class_dropo"),
        (["class_dropout=1"], "with class_dropout 1 none is ever learned"),
        (["generation.metrics=[rfd_lite0]"], "its twin here is gfd_lite0"),
        (["metrics=[psnr, gfd_lite0]"], "belongs under evaluate.generation.metrics"),
        (["generation.metrics=[gfid]"], "gfid is measured on features (inception) that protocol"),
        (["generation.metrics=[]"], "samples are made, and metrics is empty; give for example"),
        (["generation.on=[]"], "samples are made, and on is empty; give a data set"),
        (["generation.images=1"], "gfd_lite0 needs at least 2 images, not 1"),
        (["generation.originals=1"], "gfd_lite0 needs at least 2 originals, not 1"),
        (["generation.on=[clips-eval]"], "clips-eval holds clips"),
        (["lengths=[4, 16]", "length=4"], "a generator makes whole codes, not of length 4"),
        (["resolution=48"], "the discriminator halves images down to 4 x 4"),
        (["discriminator.final_lr=1e-6"], "means nothing to a constant schedule"),
        (
            ["stage2.optimiser.lr=1e-6", "stage2.optimiser.final_lr=1e-5"],
            "final_lr = 1e-05 is above the peak lr = 1e-06",
        ),
        (["stage2.loss.pixel_weight=0"], "nothing would ask for a reconstruction"),
        (
            ["bottleneck=none", "kl=0", "stage2.train=all"],
            "set stages.stage2.loss.kl to 0, or for some cells: `when: [{if: {bottleneck: none}, "
            "set: {stage2.loss.kl: 0}}]`",
        ),
    ],
)
def test_what_would_fail_after_hours(tmp_path: Path, overrides: list[str], said: str) -> None:
    assert said in refusal(tmp_path, WHOLE, *overrides)


def test_a_data_set_without_labels_has_an_unconditional_dit(tmp_path: Path) -> None:
    plain: dict[str, DataSet] = dict(DATA)
    said = refusal(tmp_path, WHOLE, data=plain)
    assert "photos-train has no labels, so none can be left out; set class_dropout to 0" in said
    assert "a DiT without classes cannot be guided; set cfg to 1" in said
    made = make_plan(load(tmp_path, WHOLE, "class_dropout=0", "cfg=1"), data=plain)
    dit = made.tasks[made.cells[0].tasks["dit"]]
    assert json.loads(dit.identity)["config"]["classes"] == 0


def test_frozen_encoders_may_have_any_code(tmp_path: Path) -> None:
    assert plan(tmp_path, WHOLE, "bottleneck=none", "kl=0").cells


def test_sampling_is_judged_as_by_the_library(tmp_path: Path) -> None:
    study = load(tmp_path, WHOLE)

    def agrees(target: Any, **asked: Any) -> bool:
        sets = [f"{name}={json.dumps(value)}" for name, value in asked.items()]
        sets = [one.replace("steps=", "generation.steps=") for one in sets]
        sets += [f"target={target}", f"learn_sigma={json.dumps(target == 'eps')}"]
        file = write(tmp_path, study.text)
        interval = asked.get("cfg_interval")
        try:
            sampling = replace(
                Sampling(), **{**asked, "cfg_interval": interval and tuple(interval)}
            )
            sampling.check(target, 8)
        except SpecError:
            allowed = False
        else:
            allowed = True
        try:
            make_plan(load_study(file, overrides=sets, datasets=DATA), data=LABELLED)
        except StudyError:
            return not allowed
        return allowed

    for target, sampler in itertools.product(("eps", "v", "flow"), (None, "ddim", "ddpm", "euler")):
        for more in (
            {"steps": 10},
            {"steps": 300, "spacing": "stride"},
            {"steps": 2000},
            {"eta": 0.5},
            {"cfg": 1.0, "cfg_interval": [0.0, 1.0]},
            {"cfg": 2.0, "cfg_interval": [0.6, 0.5]},
        ):
            asked = {"steps": 10, "cfg": 1.5, "sampler": sampler, **more}
            assert agrees(target, **asked), (target, asked)


def test_an_average_that_has_not_left_its_beginning_is_told(tmp_path: Path) -> None:
    made = plan(tmp_path, WHOLE, "stages.dit.ema=0.9999", "adversarial.ramp=6")
    (told,) = made.notices
    assert told.startswith("stages.dit.ema = 0.9999 over 8 steps: 100% of the averaged weights")
    assert not plan(tmp_path, WHOLE, "stages.dit.ema=0.687", "adversarial.ramp=6").notices


def test_a_discriminator_that_is_hardly_heard_is_told(tmp_path: Path) -> None:
    (told,) = plan(tmp_path, WHOLE, "adversarial.ramp=7", "adversarial.start=2").notices
    assert "stage 2 ends after 6 steps, when 0.57 of it is reached" in told


@pytest.mark.parametrize(
    ("axis", "others", "why"),
    [
        ("stage1.loss.lpips_net: [alex, vgg]", (), "stages.stage1.loss.lpips is 0"),
        ("stage2.loss.lpips_net: [alex, vgg]", (), "stages.stage2.loss.lpips is 0"),
        ("stage2.loss.kl: [0, 1]", (), "stage 2 trains the decoder"),
        ("r1: [0, 1]", ("adversarial.weight=0",), "adversarial.weight is 0"),
        ("stage2.discriminator.lr: [1e-5, 1e-4]", ("adversarial.weight=0",), "weight is 0"),
        ("adversarial.weight: [0.1, 5]", ("adversarial.start=6",), "begins at step 6, when"),
    ],
)
def test_an_axis_that_changes_no_cell_is_a_mistake(
    tmp_path: Path, axis: str, others: tuple[str, ...], why: str
) -> None:
    with pytest.raises(StudyError, match="has an effect on no cell") as caught:
        plan(tmp_path, WHOLE + f"axes: {{{axis}}}\n", *others)
    assert why in str(caught.value)
    # Where it changes some, it is an axis like any other.
    freed = {
        "lpips is 0": "stage1.loss.lpips=1" if "stage1" in axis else "stage2.loss.lpips=1",
        "decoder": "stage2.train=all",
        "weight is 0": "adversarial.weight=1",
        "begins": "adversarial.start=5",
    }
    change = next(change for word, change in freed.items() if word in why)
    assert len(plan(tmp_path, WHOLE + f"axes: {{{axis}}}\n", change).cells) == 2


# --- what it costs ----------------------------------------------------------------------------


def test_operations_of_later_stages(tmp_path: Path) -> None:
    made = plan(tmp_path, WHOLE + "axes: {cfg: [1, 2]}\n", "cfg_interval=null")
    one, two = made.cells
    cost = {stage: made.tasks[name].cost for stage, name in one.tasks.items()}
    derived = one.derived
    stage2 = Stage2(steps=6, batch=4, precision="fp32", loss=Loss(lpips=0.0))
    flops = stage2.flops(load_spec(one.config))
    assert cost["stage2"].flops == flops.total and cost["stage2"].samples == 24
    judge = discriminator_parameters(32, 1.0)
    assert cost["stage2"].parameters == derived.parameters + judge
    assert cost["latents"].flops == 2 * derived.encoder_macs * 2 * 64
    assert cost["latents"].disk_bytes == 4 * (2 * 2 * 64 * 16 * 4 + derived.parameters) + 8 * 64
    halved = plan(tmp_path, WHOLE, "cfg_interval=null", "stages.latents.dtype=bfloat16")
    latents = halved.tasks[halved.cells[0].tasks["latents"]]
    assert cost["latents"].disk_bytes - latents.cost.disk_bytes == 2 * (2 * 2 * 64 * 16 * 4)
    same = plan(tmp_path, WHOLE, "cfg_interval=null", "stages.latents.dtype=float32")
    assert one.tasks["latents"] in same.tasks and one.tasks["latents"] not in halved.tasks
    assert derived.dit_macs is not None
    assert cost["dit"].flops == 6 * derived.dit_macs * 8 * 4
    dit = DiTSpec.for_tokenizer(load_spec(one.config), size="nano", classes=8, learn_sigma=True)
    assert (derived.dit_parameters, derived.dit_macs) == (dit.parameters, dit.macs)
    made_once = 2 * (10 * dit.macs + derived.decoder_macs) * 32
    assert cost["generate:photos-eval"].flops == made_once
    guided = made.tasks[two.tasks["generate:photos-eval"]].cost.flops
    assert guided == made_once + 2 * 10 * dit.macs * 32
    half = plan(tmp_path, WHOLE, "cfg_interval=[0, 0.5]").cells[0].tasks["generate:photos-eval"]
    part = plan(tmp_path, WHOLE, "cfg_interval=[0, 0.5]").tasks[half].cost.flops
    assert part == made_once + 2 * 5 * dit.macs * 32


def load_spec(config: Any) -> Any:
    from vitok_core.spec import TokenizerSpec

    return TokenizerSpec(
        **{**config["tokenizer"], "lengths": ()},
        resolution=config["data"]["resolution"],
        frames=config["data"]["frames"],
    )


def test_a_study_without_them_has_none(tmp_path: Path) -> None:
    made = plan_of(tmp_path)
    assert set(kinds(made)) == {"prepare", "reference", "stage1", "reconstruct"}
    assert all(cell.derived.dit_macs is None for cell in made.cells)


def test_laws_may_be_of_samples_and_of_later_settings(tmp_path: Path) -> None:
    def mistakes(law: str, axes: str = "", text: str = WHOLE) -> str:
        text += f"fits:\n  law: {{metric: gfd_lite0, on: photos-eval, {law}}}\n"
        try:
            load(tmp_path, text + axes)
        except StudyError as error:
            return str(error)
        return ""

    for x in ("cfg", "generation.steps", "stage2.steps", "weight"):
        law = f"x: {x}, form: loglog"
        assert "is no axis of this study, so results do not tell it" in mistakes(law)
        text = WHOLE.replace("stage2: {steps: 6, ", "stage2: {").replace(", steps: 10}", "}")
        assert not mistakes(law, f"axes:\n  {x}: [5, 6]\n", text)
    for x in ("dit_macs", "rfd_lite0", "c", "resolution"):
        assert not mistakes(f"x: {x}, form: loglog")
    assert "is not a number; a fit needs one" in mistakes("x: cfg_interval, form: loglog")
    assert "is not a number; a fit needs one" in mistakes("x: target, form: loglog")
