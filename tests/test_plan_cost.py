"""Are expected times those of what was measured, and as uncertain as it was?"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studies import SMALL, plan_of, write
from sweepctl import cli
from sweepctl.errors import UsageError
from sweepctl.plan import (
    Calibration,
    Cost,
    On,
    Open,
    Speed,
    expected_hours,
    parse_on,
    summary,
    time_left,
    total,
    whole_run,
)
from sweepctl.plan._cost import t_quantile, together
from vitok_core.settings import Stage1, Stage2
from vitok_core.spec import Flops, TokenizerSpec

H100 = "NVIDIA H100 80GB HBM3"


def speed(seconds: float, flops: float = 1e15, kind: str = "stage1", **more: object) -> Speed:
    return Speed(**{"kind": kind, "device": "gpu", "seconds": seconds, "flops": flops, **more})


def cost(flops: Flops) -> Cost:
    return Cost(flops=flops.total, tf32_flops=flops.tf32, fp32_flops=flops.fp32)


# --- the paper's hours ------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["8xH100", "8xH100@0.35"])
def test_the_first_stage_of_the_paper_costs_what_it_says(on: str) -> None:
    """S-B/16 at 256 px, 100,000 steps of 1024 images: 6 to 12 hours on 8 H100 (appendix A)."""
    spec = TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=256)
    flops = Stage1().flops(spec)
    devices = parse_on(on)
    expected = Calibration((), devices).expect("stage1", cost(flops))
    assert expected is not None and expected.basis is not None
    assert 6 / 2 < expected.seconds / 3600 / devices.devices < 12 * 2
    assert "of 989 TFLOP/s" in expected.basis.source and H100 in expected.basis.source


def test_the_built_in_assumption_covers_the_paper_s_hours() -> None:
    spec = TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=256)
    first = Stage1().flops(spec)
    second = Stage2(steps=100_000).flops(spec)
    for flops, said in ((first, (6, 12)), (second, (3, 6))):
        expected = Calibration((), On(devices=8, device="H100")).expect("stage1", cost(flops))
        assert expected is not None and expected.low is not None and expected.high is not None
        low, high = expected.low / 8 / 3600, expected.high / 8 / 3600
        assert low < sum(said) / 2 < high


# --- measured ---------------------------------------------------------------------------------


def test_the_first_that_there_is_of_kind_training_and_assumption() -> None:
    asked = Cost(flops=4 * 10**15)
    own = Calibration([speed(2.0), speed(30.0, kind="dit")]).expect("stage1", asked)
    assert own is not None and own.seconds == pytest.approx(8.0)
    assert own.basis is not None and own.basis.source == "1 stage1 task on gpu"
    training = Calibration([speed(30.0, kind="dit")]).expect("stage1", asked)
    assert training is not None and training.seconds == pytest.approx(120.0)
    assert training.basis is not None and "1 training task" in training.basis.source
    assert Calibration([speed(1.0, kind="reconstruct")]).expect("stage1", asked) is None
    assumed = Calibration([], On(device="h100", share=0.5)).expect("stage1", asked)
    assert assumed is not None and assumed.seconds == pytest.approx(4e15 / (0.5 * 989.4e12))
    assert assumed.low is None  # stated, not measured


def test_what_has_no_flops_goes_by_samples() -> None:
    known = Calibration([speed(10.0, flops=0, kind="prepare", samples=1000)])
    expected = known.expect("prepare", Cost(samples=250))
    assert expected is not None and expected.seconds == pytest.approx(2.5)
    bare = Calibration([speed(10.0, flops=0, kind="prepare")]).expect("prepare", Cost())
    assert bare is not None and bare.seconds == pytest.approx(10.0)
    assert Calibration([], On(device="H100")).expect("prepare", Cost(samples=9)) is None


def test_only_the_newest_kind_of_device_or_the_one_asked_for_counts() -> None:
    both = [speed(1.0, device="NVIDIA L4"), speed(9.0, device="cpu, 2 threads")]
    asked = Cost(flops=10**15)
    for on, seconds in ((None, 9.0), (On(device="l4"), 1.0), (On(device="CPU"), 9.0)):
        expected = Calibration(both, on).expect("stage1", asked)
        assert expected is not None and expected.seconds == pytest.approx(seconds), on
    stated = Calibration(both, On(device="l4", share=1.0)).expect("stage1", asked)
    assert stated is not None and stated.seconds == pytest.approx(1e15 / 121e12)


def test_tasks_of_about_the_size_count_when_there_are_enough() -> None:
    small = [speed(1.0, 1e12), speed(1.0, 1e12), speed(1.0, 1e12)]
    large = [speed(100.0, 1e16), speed(110.0, 2e16)]
    near = Calibration(small + large).expect("stage1", Cost(flops=10**12))
    assert near is not None and near.seconds == pytest.approx(1.0)
    far = Calibration(small + large).expect("stage1", Cost(flops=10**16))
    assert far is not None and far.basis is not None and far.basis.measured == 5


# --- intervals --------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 20, 200])
def test_the_quantile_is_student_s(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


def test_one_attempt_has_no_interval_and_two_a_wide_one() -> None:
    asked = Cost(flops=10**15)
    one = Calibration([speed(2.0)]).expect("stage1", asked)
    assert one is not None and (one.low, one.high) == (None, None)
    two = Calibration([speed(2.0), speed(2.2)]).expect("stage1", asked)
    assert two is not None and two.low is not None and two.high is not None
    assert two.high / two.low > 3
    # Up to a factor of 1,000; beyond, t(1) = 12.7 makes an interval that says nothing.
    for second, known in ((3.0, True), (3.9, False), (40.0, False)):
        apart = Calibration([speed(2.0), speed(second)]).expect("stage1", asked)
        assert apart is not None and apart.seconds == pytest.approx(math.sqrt(2.0 * second))
        assert (apart.low is not None, apart.high is not None) == (known, known)
    many = Calibration([speed(2.0 + 0.2 * (i % 2)) for i in range(40)]).expect("stage1", asked)
    assert many is not None and many.low is not None and many.high is not None
    assert many.low / 0.9 > 1.9 and many.high < 2.5


@settings(max_examples=40)
@given(
    logs=st.lists(st.floats(-1, 1), min_size=3, max_size=12),
    level=st.floats(-3, 3),
)
def test_the_interval_is_that_of_one_more_task(logs: list[float], level: float) -> None:
    """Equal to the prediction interval of a mean, in logarithms."""
    known = Calibration([speed(math.exp(level + one)) for one in logs])
    expected = known.expect("stage1", Cost(flops=10**15))
    assert expected is not None and expected.low is not None and expected.high is not None
    mean, n = level + sum(logs) / len(logs), len(logs)
    sd = statistics.stdev(logs)
    half = stats.t.ppf(0.975, n - 1) * sd * math.sqrt(1 + 1 / n)
    assert math.log(expected.seconds) == pytest.approx(mean, abs=1e-6)
    assert math.log(expected.high) == pytest.approx(mean + half, abs=0.01 * half + 1e-5)
    assert math.log(expected.low) == pytest.approx(mean - half, abs=0.01 * half + 1e-5)


def test_a_sum_averages_what_is_each_task_s_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SMALL)
    trainings = [task for task in plan.tasks.values() if task.kind == "stage1"]
    flops = trainings[0].cost.flops
    known = Calibration([speed(2.0 + 0.1 * (i % 3), flops) for i in range(9)])
    single, several = expected_hours(trainings[:1], known), expected_hours(trainings, known)
    assert single.high is not None and several.high is not None
    assert several.high / several.hours < single.high / single.hours
    # What nothing is known of is named and left out.
    rest = expected_hours(plan.tasks.values(), known)
    assert rest.hours > several.hours and set(rest.unknown) == {"prepare", "reference"}


# --- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("8xH100@0.35", On(devices=8, device="H100", share=0.35)),
        ("H100", On(devices=1, device="H100")),
        ("2 x L40S @ 40%", On(devices=2, device="L40S", share=0.4)),
        ("4xA100-SXM4-80GB", On(devices=4, device="A100-SXM4-80GB")),
        ("2*H100", On(devices=2, device="H100")),
        ("8 x 200 TFLOP/s", On(devices=8, device="200 TFLOP/s", peak=2e14)),
        ("1.5PFLOPS@30%", On(device="1.5PFLOPS", peak=1.5e15, share=0.3)),
        ("16x800 gflop/s", On(devices=16, device="800 gflop/s", peak=8e11)),
    ],
)
def test_devices_are_read_as_people_write_them(text: str, on: On) -> None:
    assert parse_on(text) == on


@pytest.mark.parametrize(
    "text",
    ["", "8x", "0 TFLOP/s", "2x-3 TFLOP/s", "H100@2", "H100@0", "0xH100", "H100@1.2.3", "@0.3"],
)
def test_devices_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Calibration((), parse_on(text))


def source(on: str, flops: Flops) -> str:
    expected = Calibration((), parse_on(on)).expect("stage1", cost(flops))
    assert expected is not None and expected.basis is not None
    return expected.basis.source


@pytest.mark.parametrize(
    ("on", "flops", "said"),
    [
        ("H100", Flops(bf16=1), f"assumed 20 % of 989 TFLOP/s bf16, 13 to 34 % ({H100})"),
        ("H100", Flops(fp32=1), f"assumed 20 % of 67 TFLOP/s fp32, 13 to 34 % ({H100})"),
        ("H100@0.4", Flops(tf32=1), f"assumed 40 % of 495 TFLOP/s tf32 ({H100})"),
        (
            "rtx4090",
            Flops(bf16=1, tf32=1, fp32=1),
            "assumed 20 % of 165 TFLOP/s bf16, 82.6 TFLOP/s tf32 and fp32, 13 to 34 % (NVIDIA "
            "GeForce RTX 4090)",
        ),
        ("8 x 200 TFLOP/s", Flops(fp32=1, bf16=1), "assumed 20 % of 200 TFLOP/s, 13 to 34 %"),
        ("200 TFLOP/s @ 50 %", Flops(fp32=1), "assumed 50 % of 200 TFLOP/s"),
        ("cpu", Flops(fp32=1), "assumed 20 % of 0.096 TFLOP/s fp32, 13 to 34 % (cpu)"),
    ],
)
def test_an_assumption_names_the_peaks_of_the_precisions_that_are_used(
    on: str, flops: Flops, said: str
) -> None:
    assert source(on, flops) == said


def test_a_peak_of_one_s_own_counts_for_every_precision() -> None:
    flops = Flops(bf16=10**14, tf32=10**14, fp32=10**14)
    expected = Calibration((), parse_on("100 TFLOP/s@0.5")).expect("stage1", cost(flops))
    assert expected is not None and expected.seconds == pytest.approx(6.0)
    # What was measured on a device of another name says nothing about it.
    other = Calibration([speed(1.0, device="100 GPU")], parse_on("100 TFLOP/s"))
    assert other.expect("stage1", cost(flops)).seconds == pytest.approx(15.0)  # type: ignore[union-attr]


def test_one_assumption_is_wrong_alike_about_all_precisions(tmp_path: Path) -> None:
    """The interval of a sum is as wide as that of its parts, whatever they are computed in."""
    known = Calibration((), On(device="H100"))
    parts = [
        known.expect("stage1", cost(flops))
        for flops in (Flops(bf16=10**18), Flops(fp32=10**17), Flops(tf32=10**17))
    ]
    whole = together(part for part in parts if part is not None)
    assert whole.low is not None and whole.high is not None
    assert whole.high / whole.seconds == pytest.approx(0.20 / 0.13)
    assert whole.low / whole.seconds == pytest.approx(0.20 / 0.34)


def test_hours_below_a_minute_are_printed_as_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, SMALL)
    said = planned(monkeypatch, capsys, str(file), "--on", "4 x 1 TFLOP/s")
    assert re.search(r"in all [\d.]+ s \([\d.]+ s to [\d.]+ s\) on one device or slot; on 4,", said)
    assert "of 1 TFLOP/s" in said and not re.search(r"0\.0\d+ hours", said)
    made = json.loads(planned(monkeypatch, capsys, str(file), "--on", "1 TFLOP/s", "--json"))
    assert 0 < made["total"]["hours"] < 1 / 60  # for programs always hours
    assert made["on"]["peak"] == 1e12 and made["device"] == "1 TFLOP/s"
    large = planned(monkeypatch, capsys, str(file), "--set", "steps=10M", "--on", "1 TFLOP/s")
    assert re.search(r"in all [\d.]+ hours \([\d.]+ to [\d.]+ hours\)", large)


def planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["sweepctl", "plan", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out + said.err if "--json" not in words else said.out


# --- until the end ----------------------------------------------------------------------------


def a_task(*parents: str, **more: object) -> Open:
    return dataclasses.replace(
        Open(kind="stage1", cost=Cost(flops=10**15), parents=parents), **more
    )


def test_the_time_left_knows_slots_chains_and_what_runs() -> None:
    known = Calibration([speed(10.0), speed(10.0), speed(10.0)])
    four = {name: a_task() for name in "abcd"}
    assert [time_left(four, known, slots).seconds for slots in (1, 2, 4, 9)] == pytest.approx(
        [40, 20, 10, 10]
    )
    chain = {"a": a_task(), "b": a_task("a"), "c": a_task("b", "done before")}
    left = time_left(chain, known, 8)
    assert (left.seconds, left.chain_seconds, left.work_seconds) == pytest.approx((30, 30, 30))
    # A running task that tells its pace is believed; one that does not, by what is left of it.
    running = {"a": a_task(running=True, fraction=0.5, rest_s=100.0)}
    assert time_left(running, known, 1).seconds == pytest.approx(100.0)
    running = {"a": a_task(running=True, fraction=0.5)}
    assert time_left(running, known, 1).seconds == pytest.approx(5.0)
    unknown = time_left({"a": Open(kind="reference", cost=Cost())}, known, 1)
    assert unknown.seconds == 0 and unknown.unknown == {"reference": 1}


@settings(max_examples=40)
@given(
    seconds=st.lists(st.floats(0.1, 100), min_size=1, max_size=12),
    slots=st.integers(1, 6),
    links=st.lists(st.integers(0, 11), max_size=12),
)
def test_the_end_is_between_the_bounds_of_any_schedule(
    seconds: list[float], slots: int, links: list[int]
) -> None:
    """Graham 1969: no less than work / slots and the longest chain, no more than their sum."""
    known = Calibration([speed(1.0), speed(1.0)])
    tasks = {
        str(index): Open(
            kind="stage1",
            cost=Cost(flops=round(1e15 * length)),
            parents=tuple(str(link) for link in links[index : index + 1] if link < index),
        )
        for index, length in enumerate(seconds)
    }
    left = time_left(tasks, known, slots)
    least = max(left.work_seconds / slots, left.chain_seconds)
    assert least * (1 - 1e-9) <= left.seconds
    assert left.seconds <= (left.work_seconds / slots + left.chain_seconds) * (1 + 1e-9)


# --- plans ------------------------------------------------------------------------------------


def test_tasks_that_studies_share_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = plan_of(tmp_path / "one", SMALL)
    two = plan_of(tmp_path / "two", SMALL.replace("c: [4, 16]", "c: [4, 32]"))
    assert len(one.tasks) == len(two.tasks)
    known = Calibration([], On(devices=2, device="H100", share=0.4))
    both = total([one, two], {}, known)
    assert both.tasks == len({**one.tasks, **two.tasks}) < len(one.tasks) + len(two.tasks)
    assert both.cells == 8 and both.uses == total([one], {}, known).uses * 2
    assert both.hours < 2 * total([one], {}, known).hours < 1.01 * both.hours_unshared
    twice = total([one, one], {}, known)
    assert twice.tasks == len(one.tasks) and twice.hours == total([one], {}, known).hours
    # With tasks that are done already nothing is left of them.
    done = dict.fromkeys(one.tasks, "done")
    rest = total([one, two], done, known)
    assert rest.cached == len(one.tasks) and rest.hours < both.hours
    assert whole_run([one], {}, known, 2).seconds <= total([one], {}, known).hours * 3600


def test_a_stage_s_hours_name_their_source(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SMALL)
    known = Calibration([], On(device="L4"))
    lines = {line.stage: line for line in summary(plan, {}, known)}
    stage1 = lines["stage1"]
    assert stage1.hours is not None and stage1.hours_low is not None
    assert stage1.hours_low < stage1.hours < (stage1.hours_high or 0)
    # The study trains in float32, so that is the peak that counts.
    assert stage1.source == "assumed 20 % of 30.3 TFLOP/s fp32, 13 to 34 % (NVIDIA L4)"
    assert lines["prepare"].hours is None and lines["prepare"].source == ""


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(SMALL)
    (tmp_path / "two.yaml").write_text(
        SMALL.replace("study: small", "study: other").replace("c: [4, 16]", "c: [4, 32]")
    )

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return run


def test_plan_counts_several_studies_together(call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = call("plan", "one.yaml", "two.yaml", "--on", "8xH100@0.35")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and [row[0] for row in rows[1:]] == ["small", "other", "all, each task once"]
    tasks = [int(row[3]) for row in rows[1:]]
    assert tasks[2] < tasks[0] + tasks[1]
    assert f"{tasks[0] + tasks[1]} if each study had its own" in err
    assert "on 8, one task per device" in err and "assumed 35 % of 67 TFLOP/s fp32" in err
    code, out, _ = call("plan", "one.yaml", "two.yaml", "--on", "H100", "--json")
    told = json.loads(out)
    assert told["total"]["tasks"] == tasks[2] and told["tasks_of_the_studies"] > tasks[2]
    assert told["device"] == H100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("one.yaml", "--on", "TPU"), "H100"),
        (("one.yaml", "--on", "H100@3"), "share"),
        (("one.yaml", "two.yaml", "--power"), "one study at a time"),
    ],
)
def test_what_cannot_be_costed_is_exit_code_2(
    call: Callable[..., tuple[int, str, str]], words: tuple[str, ...], said: str
) -> None:
    code, _, err = call("plan", *words)
    assert code == 2 and said in err


# --- memory -------------------------------------------------------------------------------------

LARGE = """\
format: 1
study: large
axes: {p: [16, 8]}
data: {train: photos-train, resolution: 256, images: 64}
tokenizer: {encoder: S, decoder: B, c: 16}
stages: {stage1: {steps: 10, batch: 512, loss: {lpips: 0}}}
evaluate:
  reconstruction: {on: [photos-eval], images: 8, metrics: [psnr]}
"""


def said_of_memory(call: Callable[..., tuple[int, str, str]], *words: str) -> list[str]:
    write(Path(), LARGE, "large.yaml")
    code, _, err = call("plan", "large.yaml", *words)
    assert code == 0, err
    return [line for line in err.splitlines() if "memory of" in line or "not fit" in line]


def test_plan_says_how_many_samples_fit_the_device(
    call: Callable[..., tuple[int, str, str]],
) -> None:
    assert said_of_memory(call) == []  # no device is known
    assert said_of_memory(call, "--on", "cpu") == []
    (line,) = said_of_memory(call, "--on", "2xL4")
    code, out, _ = call("plan", "large.yaml", "--on", "2xL4", "--json")
    assert code == 0
    (found,) = json.loads(out)["memory"]
    low, high = found["smallest"], found["largest"]
    assert 1 <= low["micro_batch"] < high["micro_batch"] < 512 == low["batch"]
    assert low["bytes"] <= 24e9 and high["bytes"] <= 24e9
    assert f"{low['micro_batch']} to {high['micro_batch']} of 512 samples" in line
    (more,) = said_of_memory(call, "--on", "H200")
    assert more != line


def test_plan_names_what_does_not_fit_as_the_study_has_it(
    call: Callable[..., tuple[int, str, str]],
) -> None:
    small = ("--set", "run.micro_batch.stage1=2", "--set", "run.recompute=true", "--on", "L4")
    (line,) = said_of_memory(call, *small)
    assert "memory of stage1: 2 of 512 samples at once" in line
    assert "activations recomputed" in line
    (line,) = said_of_memory(call, "--set", "run.micro_batch=all", "--on", "L4")
    assert line.startswith("warning: stage1-") and " and 1 more do not fit NVIDIA L4" in line
