"""Does a study file mean what it says, and is every mistake named with its place?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import DATA, SMALL, load, write
from sweepctl.columns import DERIVED
from sweepctl.errors import StudyError, UsageError
from sweepctl.plan import make_plan
from sweepctl.study import SCHEMA_FILE, init_study, json_schema, load_site, load_study
from vitok_core.protocols import METRICS


def mistakes(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        make_plan(load(folder, text, *overrides), data=DATA)
    return [str(problem).split("\n")[0] for problem in caught.value.problems]


def swap(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


def test_numbers_are_read_as_people_mean_them(tmp_path: Path) -> None:
    text = swap("steps: 10", "steps: 2k, optimiser: {lr: 1e-4, clip: 1}")
    template = load(tmp_path, text).grid.template["stages"]["stage1"]
    assert template["optimiser"]["lr"] == 0.0001
    assert template["steps"] == 2000
    assert isinstance(template["optimiser"]["clip"], float)


def test_null_is_a_value_where_a_setting_takes_it_and_else_removes(tmp_path: Path) -> None:
    base = swap("steps: 10", "steps: 10, ema: 0.5, optimiser: {clip: 0.5, lr: 0.5}")
    write(tmp_path, base, "base.yaml")
    over = "format: 1\nstudy: over\nbase: base.yaml\nstages:\n  stage1: {}\n"

    def stages(text: str, *overrides: str) -> dict[str, Any]:
        found = load(tmp_path, text, *overrides).grid.template["stages"]
        return {
            "clip": found["stage1"]["optimiser"]["clip"],
            "lr": found["stage1"]["optimiser"]["lr"],
            "ema": found["stage1"]["ema"],
            "stage2.ema": found["stage2"]["ema"],
        }

    assert stages(over) == {"clip": 0.5, "lr": 0.5, "ema": 0.5, "stage2.ema": 0.9999}
    nulls = "stage1: {ema: null, optimiser: {clip: null, lr: null}}\n  stage2: {ema: null}"
    # lr takes no null: that of the base is removed, and the default is left.
    wanted = {"clip": None, "lr": 4e-4, "ema": None, "stage2.ema": None}
    assert stages(over.replace("stage1: {}", nulls)) == wanted
    names = ("stage1.optimiser.clip", "stage1.optimiser.lr", "stage1.ema", "stage2.ema")
    assert stages(over, *(f"stages.{name}=null" for name in names)) == wanted
    assert stages(base, "stages.stage1.optimiser.clip=null")["clip"] is None
    axis = over + "axes: {stage1.optimiser.clip: [null, 1]}\n"
    rows = [factor.rows for factor in load(tmp_path, axis).grid.factors]
    assert ((None,), (1.0,)) in rows


MISTAKES = {
    "unknown key": (
        ("lpips: 0", "lpisp: 0"),
        "study.yaml:9:57: stages.stage1.loss.lpisp: unknown key 'lpisp' (did you mean 'lpips'?); "
        "allowed: pixel, pixel_weight, kl, lpips, lpips_net, ssim, dino",
    ),
    "wrong type": (
        ("images: 64", "images: many"),
        "study.yaml:6:53: data.images: needs a whole number, not the text 'many'",
    ),
    "no is a text": (
        ("precision: fp32", "precision: fp32, flip: no"),
        "study.yaml:9:56: stages.stage1.flip: needs true or false, not the text 'no'",
    ),
    "duplicate key": (
        ("  c: [4, 16]", "  p: [4, 16]"),
        "study.yaml:5:3: axes.p: the key 'p' stands here twice (line 4)",
    ),
    "unknown data set": (
        ("train: photos-train", "train: photo-train"),
        "study.yaml:6:15: data.train: unknown data set 'photo-train' (did you mean "
        "'photos-train'?); known: clips-eval, clips-train, photos-eval, photos-train",
    ),
    "unknown metric": (
        ("metrics: [psnr, rfd_lite0]", "metrics: [psnr, fid]"),
        "study.yaml:11:67: evaluate.reconstruction.metrics.1: unknown metric 'fid' (did you mean "
        "'rfid'?); known: "
        + ", ".join(name for name, one in METRICS.items() if one.group == "reconstruction"),
    ),
    "unknown size": (
        ("encoder: nano", "encoder: nanoo"),
        "study.yaml:7:22: tokenizer.encoder: unknown size 'nanoo' (did you mean 'nano'?); known: "
        "nano, pico, micro, mini, tiny, S, B, L",
    ),
    "p does not divide": (
        ("p: [4, 8]", "p: [4, 5]"),
        "study.yaml:4:10: axes.p.1: p = 5 does not divide the resolution 32",
    ),
    "axis of nothing": (
        ("  p: [4, 8]", "  pp: [4, 8]"),
        "study.yaml:4:3: axes.pp: there is no 'pp' in a cell's config (did you mean 'p'?)",
    ),
    "wrong value on an axis": (
        ("c: [4, 16]", "c: [4, x]"),
        "study.yaml:5:10: axes.c.1: needs a whole number, not the text 'x'",
    ),
    "empty axis": (("c: [4, 16]", "c: []"), "study.yaml:5:6: axes.c: needs at least 1 entry"),
    "value twice": (
        ("c: [4, 16]", "c: [4, 4]"),
        "study.yaml:5:10: axes.c.1: 4 stands on this axis twice",
    ),
    "fit of what is not measured": (
        ("metric: psnr, on", "metric: ssim, on"),
        "study.yaml:13:17: fits.law.metric: unknown metric among those this study measures 'ssim'",
    ),
    "claim about no fit": (
        ("fit: law, slope", "fit: lav, slope"),
        "study.yaml:15:26: claims.0.fit: unknown fit 'lav' (did you mean 'law'?); known: law",
    ),
    "claim that claims nothing": (
        (", slope: positive", ""),
        "study.yaml:15:5: claims.0: claims nothing; give it slope: negative",
    ),
    "a scalar for an axis": (
        ("c: [4, 16]", "c: 4"),
        "study.yaml:5:6: axes.c: needs a list, not 4; write [4]",
    ),
    "words for an axis": (
        ("c: [4, 16]", "c: 4, 16"),
        "study.yaml:5:6: axes.c: needs a list, not the text '4, 16'; write [4, 16]",
    ),
    "a mapping for a list": (
        ("fits:", "exclude: {p: 4}\nfits:"),
        "study.yaml:12:10: exclude: needs a list, not a mapping; write [{p: 4}]",
    ),
    "a number in quotes": (
        ("images: 64", "images: '64'"),
        "study.yaml:6:53: data.images: needs a whole number, not the text '64'; leave the quotes",
    ),
    "a decimal comma": (
        ("precision: fp32", "precision: fp32, optimiser: {lr: '0,1'}"),
        "study.yaml:9:66: stages.stage1.optimiser.lr: needs a number, not the text '0,1'; write a "
        "decimal point",
    ),
    "a unit": (
        ("fits:", "run: {checkpoint_s: 30 s}\nfits:"),
        "study.yaml:12:21: run.checkpoint_s: must be 'auto', or a number, not the text '30 s'; "
        "write 30 without",
    ),
    "neither a word nor a mapping": (
        ("fits:", "run: {non_finite: ignore}\nfits:"),
        "study.yaml:12:19: run.non_finite: must be 'stop', or a mapping (key: value), not the text",
    ),
    "no format": (
        ("format: 1\n", ""),
        "study.yaml:1:1: the key 'format' is missing; add `format: 1` as the first line",
    ),
    "format in quotes": (
        ("format: 1", "format: '1'"),
        "study.yaml:1:9: format: must be 1, not the text '1'; leave the quotes out",
    ),
    "no name": (("study: small\n", ""), "study.yaml:1:1: the key 'study' is missing; add `study: "),
    "slip in a key that must be there": (
        ("resolution: 32", "resolutoin: 32"),
        "study.yaml:6:29: data.resolutoin: unknown key 'resolutoin' (did you mean 'resolution'?)",
    ),
    "metric in capitals": (
        ("metrics: [psnr, rfd_lite0]", "metrics: [PSNR, rfd_lite0]"),
        "study.yaml:11:61: evaluate.reconstruction.metrics.0: unknown metric 'PSNR' (did you mean "
        "'psnr'?); known: psnr, ",
    ),
    "data set in capitals": (
        ("on: [photos-eval], images", "on: [Photos_Eval], images"),
        "study.yaml:11:25: evaluate.reconstruction.on.0: unknown data set 'Photos_Eval' (did you "
        "mean 'photos-eval'?)",
    ),
    "a key of another place": (
        ("fits:", "checkpoint_s: 30\nfits:"),
        "study.yaml:12:1: checkpoint_s: unknown key 'checkpoint_s' (it belongs to run); allowed: ",
    ),
    "axis of a code size": (
        ("  c: [4, 16]", "  E: [4, 16]"),
        "study.yaml:5:3: axes.E: E cannot be set: it follows from other settings; hold it at one "
        "value with `fixed: {E: VALUE}`, or vary p and c",
    ),
    "axis of a metric": (
        ("  c: [4, 16]", "  c: [4, 16]\n  psnr: [20]"),
        "study.yaml:6:3: axes.psnr: psnr is a metric, which is measured and cannot be set",
    ),
    "merge keys": (
        ("{lpips: 0}", "{<<: {lpips: 0}, pixel: l1}"),
        "study.yaml:9:57: stages.stage1.loss.<<: merge keys (<<) are not part of YAML 1.2 and are "
        "not read; `base` does this: put the shared settings into a file of their own",
    ),
    "YAML 1.1": (
        ("format: 1", "%YAML 1.1\n---\nformat: 1"),
        "study.yaml:1:1: a study is YAML 1.2, and this line says 1.1; remove it",
    ),
    "a tag that lies": (
        ("precision: fp32", "precision: fp32, flip: !!bool maybe"),
        "study.yaml:9:56: stages.stage1.flip: the tag tag:yaml.org,2002:bool is not allowed",
    ),
    "a list as a mapping": (
        ("{train: photos-train", "!!seq {train: photos-train"),
        "study.yaml:6:7: data: the tag tag:yaml.org,2002:seq is not allowed in a study",
    ),
    "a number without an end": (
        ("steps: 10", f"steps: 1{'0' * 400}"),
        "study.yaml:9:19: stages.stage1.steps: a number of 401 digits; a study has at most 40",
    ),
    "a tab that indents": (
        ("  stage1:", "\tstage1:"),
        "study.yaml:9:1: not YAML: a tab cannot indent; use spaces",
    ),
    "newer format": (("format: 1", "format: 2"), "study.yaml:1:9: format: must be 1, not 2"),
    "bad name": (("study: small", "study: ../x"), "study.yaml:2:8: study: the text '../x' is not"),
    "tag": (
        ("steps: 10", "steps: !!python/name:os.system x"),
        "study.yaml:9:19: stages.stage1.steps: the tag tag:yaml.org,2002:python/name:os.system is",
    ),
    "not YAML": (("axes:", "axes: [}"), "study.yaml:3:8: not YAML: "),
    "not finite": (("steps: 10", "steps: .inf"), "study.yaml:9:19: stages.stage1.steps: .inf is"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (old, new), expected = MISTAKES[name]
    said = mistakes(Path(), swap(old, new))
    assert [line for line in said if line.startswith(expected)], said
    if name not in SEVERAL:
        assert len(said) == 1, said


SEVERAL = ("duplicate key", "axis of nothing", "axis of a code size", "unknown metric")
"""Mistakes that leave something else without a value or a name."""


SEARCH = """\
search:
  trials: 3
  prune: {{}}
  space: {{{space}}}
  objectives: [{{metric: {metric}}}]
"""


@pytest.mark.parametrize("name", ["L", *DERIVED, "psnr", "nothing"])
@pytest.mark.parametrize("where", ["axes: {{{name}: [1, 2]}}\n", "zip: [{{{name}: [1, 2]}}]\n", ""])
def test_what_cannot_be_set_is_no_axis_of_a_search(tmp_path: Path, where: str, name: str) -> None:
    below = SMALL.split("axes:")[0] + "data:" + SMALL.split("data:")[1].split("fits:")[0]
    block = "lr: {low: 1e-4, high: 1e-2}" if where else f"{name}: [1, 2]"
    text = below.replace("decoder: nano", "decoder: nano, p: 8, c: 8")
    text += where.format(name=name) + SEARCH.format(space=block, metric="psnr")
    (said,) = mistakes(tmp_path, text)
    assert ".yaml:" in said and f".{name}: " in said


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ("[{decoder: 7}]", "zip.0.decoder: needs a list, not 7; write [7]"),
        ("[{decoder: nano, encoder: [nano]}]", "zip.0.decoder: needs a list, not the text 'nano'"),
        ("[{metrics: {a: 1}}]", "zip.0.metrics: needs a list, not a mapping; write [{a: 1}]"),
        ("[7]", "zip.0: needs a mapping (key: value), not 7"),
        ("{c: [4, 16]}", "zip: needs a list, not a mapping; write [{c: [4, 16]}]"),
        ("[{evaluate.reconstruction.metrics: [[psnr], 7]}]", "needs a list, not 7; write [7]"),
        ("[{evaluate.reconstruction.metrics: [[psnr], psnr]}]", "write [psnr]"),
    ],
)
def test_what_moves_together_are_lists(tmp_path: Path, zipped: str, said: str) -> None:
    found = mistakes(tmp_path, SMALL + f"zip: {zipped}\n")
    assert len(found) == 1 and said in found[0], found


def test_a_slip_in_a_metric_is_one_mistake(tmp_path: Path) -> None:
    """Fits, claims and objectives that name the metric as it is are right."""
    search = SEARCH.format(space="lr: {low: 1e-4, high: 1e-2}", metric="psnr")
    for old, new in (("metrics: [psnr,", "metrics: [PSNR,"), ("on: [photos", "on: [photo")):
        (said,) = mistakes(tmp_path, swap(old, new) + search)
        assert "evaluate.reconstruction." in said and "did you mean" in said
    both = swap("metrics: [psnr,", "metrics: [PSNR,") + search.replace("psnr", "pnsr")
    first, second = mistakes(tmp_path, both)
    assert "unknown metric 'PSNR'" in first
    assert "search.objectives.0.metric" in second and "did you mean 'psnr'" in second


def test_lists_words_and_null_can_be_axes(tmp_path: Path) -> None:
    text = swap(
        "  c: [4, 16]\n",
        "  latent_tokens: [null, 4]\n  lengths: [[], [1, 4]]\n  noise_std: [null]\n",
    ).replace("decoder: nano", "decoder: nano, c: 4")
    plan = make_plan(load(tmp_path, text), data=DATA)
    assert len(plan.cells) == 8
    assert [cell.axes["lengths"] for cell in plan.cells][:2] == [[], [1, 4]]
    assert [cell.derived.tokens for cell in plan.cells] == [64, 64, 4, 4, 16, 16, 4, 4]
    wrong = text.replace("[1, 4]]", "[1, x], 4]")
    said = mistakes(tmp_path, wrong)
    assert [line.split("study.yaml:")[1] for line in said] == [
        "6:17: axes.lengths.1: needs a whole number, not the text 'x'",
        "6:25: axes.lengths.2: needs a list, not 4; write [4]",
    ]
    # A list is matched by a list of lists: a list of values means any of them.
    left = text + "exclude: [{lengths: [[1, 4]]}, {latent_tokens: null, p: 8}]\n"
    assert len(make_plan(load(tmp_path, left), data=DATA).cells) == 3


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    text = (
        swap("steps: 10", "steps: -1").replace("format: 1", "format: 7").replace("c: [4", "c: [0")
    )
    said = mistakes(tmp_path, text)
    assert len(said) == 3
    assert [line.split(":")[1] for line in said] == ["1", "5", "9"]  # in reading order


def test_many_mistakes_on_a_long_line_stay_readable(tmp_path: Path) -> None:
    text = swap("c: [4, 16]", f"c: [{', '.join(['4'] * 500)}, 4x]")
    with pytest.raises(StudyError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == 500
    assert "... and 450 more" in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 300
    last = str(caught.value.problems[-1]).splitlines()
    assert last[1][last[2].index("^") :].startswith("4x")


def test_the_caret_stands_under_the_mistake(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        load(tmp_path, swap("train: photos-train", "train: photo-train"))
    source, caret = str(caught.value).split("\n")[1:]
    assert source[caret.index("^") : caret.rindex("^") + 1] == "photo-train"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("[1, 2]", "a study is a mapping of keys"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 20_000, "nested too deeply"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("\x00", "not YAML"),
        ("? [a, b]\n: 1", "a key must be plain text"),
        ("#" * 300_000, "the file has 300,000 bytes"),
    ],
)
def test_hostile_files_get_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    assert said in mistakes(tmp_path, text)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("study: small\n", "study: small\t# a remark\n"),
        ("axes:\n", "axes:\t# a remark\n"),
        ("axes:\n", "axes: \t \n"),
        ("axes:\n", "axes:\n\t# a remark\n"),
        ("axes:\n", "\t\naxes:\n"),
        ("study: small\n", "study:\tsmall\nquestion: |\t# a remark\n  is it\tso?\n"),
        ("study: small\n", "study: small\nquestion: is\tit\n"),
        ("  - {name", "  -\t{name"),
        ("study: small\n", "study: small  # a \u2028 b \u2029 c \x85 d\n"),
        ("study: small\n", "study: small\nquestion: a\u2028b\x85c\n"),
        ("study: small\n", 'study: small\nquestion: "a\u2028b\x85c"\n'),
        ("format: 1\n", "\ufeffformat: 1\n"),
        ("format: 1\n", "%YAML 1.2\n---\nformat: 1\n"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blanks_and_line_breaks_are_those_of_yaml_1_2(
    tmp_path: Path, old: str, new: str, end: str
) -> None:
    """Tabs separate; lines end at CR and LF only, so what comes later has its right line."""
    text = swap(old, new).replace("images: 64", "images: 0")
    file = tmp_path / "study.yaml"
    file.write_bytes(text.replace("\n", end).encode())
    with pytest.raises(StudyError) as caught:
        load_study(file, datasets=DATA)
    (problem,) = caught.value.problems
    line = next(n for n, one in enumerate(text.split("\n"), start=1) if "images: 0" in one)
    assert problem.place == f"{file}:{line}:53"
    assert problem.source.startswith("data: {train") and "images: 0" in problem.source


def test_texts_keep_their_line_separators(tmp_path: Path) -> None:
    text = swap("study: small\n", "study: small\nquestion: a\u2028b\x85c\td\n")
    assert load(tmp_path, text).study.question == "a\u2028b\x85c\td"
    escaped = swap("study: small\n", 'study: small\nquestion: "a\\Lb\\Nc\\td"\n')
    assert load(tmp_path, escaped).study.question == "a\u2028b\x85c\td"


def test_a_source_line_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        load(tmp_path, swap("study: small", 'study: "\x85 \u202e\u2028"  # \ufeff'))
    assert all(char.isprintable() or char == "\n" for char in str(caught.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('base: "a\\0b"\n', "3:7: base: holds a NUL"),
        ('question: "\\ud800"\n', "3:11: question: holds a NUL or half of a surrogate pair"),
        ('"\\0": 1\n', "3:1: a key with a NUL or half of a surrogate pair"),
        (f"base: {'x' * 5000}\n", "3:7: base: base 'xxx"),
        ("base: [5]\n", "3:8: base.0: base takes the path of a file, not 5"),
        ("base: {a: 1}\n", "3:7: base: base takes the path of a file, not a mapping"),
        ("base: .\n", "3:7: base: base '.' is not there"),
    ],
)
def test_texts_that_no_file_can_keep(tmp_path: Path, text: str, said: str) -> None:
    assert f"study.yaml:{said}" in mistakes(tmp_path, "format: 1\nstudy: x\n" + text)[0]


def test_axes_that_are_none_and_overrides(tmp_path: Path) -> None:
    broken = SMALL.split("axes:")[0] + "axes: 5\ndata:" + SMALL.split("data:")[1]
    assert "axes: needs a mapping" in " ".join(mistakes(tmp_path, broken, "lr=1e-3"))
    (said,) = mistakes(tmp_path, broken, "axes.p=[8]")
    assert "leads through something that is not a mapping" in said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("lr: {low: 1, high: 1e308, step: 1e-300}", "are too many; at most 1,000,000,000"),
        ("lr: {low: -1e308, high: 1e308, step: 1}", "are too many; at most 1,000,000,000"),
        ("evaluate.reconstruction.metrics: [[psnr], [ssim]]", "this cannot be searched"),
    ],
)
def test_spaces_without_an_end_or_a_common_number(tmp_path: Path, entry: str, said: str) -> None:
    found = mistakes(tmp_path, SMALL + SEARCH.format(space=entry, metric="psnr"))
    assert said in " ".join(found), found


def test_a_nested_bomb_is_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 100,000 values" in mistakes(tmp_path, "\n".join(lines))[0]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"format: 1\nstudy: \xff\n")
    with pytest.raises(StudyError, match=r"x.yaml:2:8: not UTF-8"):
        load_study(file, datasets=DATA)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none.yaml:1:1: the file does not exist"):
        load_study(tmp_path / "none.yaml", datasets=DATA)


# --- bases, overrides, conditions ---------------------------------------------------------------


def test_a_base_lies_below_and_later_wins(tmp_path: Path) -> None:
    write(tmp_path / "presets", SMALL.replace("study: small\n", ""), "base.yaml")
    text = """\
format: 1
study: above
base: presets/base.yaml
axes: {c: [8], seed: [0, 1]}
stages: {stage1: {steps: 20}}
claims: null
"""
    study = load(tmp_path, text)
    assert study.name == "above"
    assert study.study.axes == {"p": (4, 8), "c": (8,), "seed": (0, 1)}
    assert study.grid.template["stages"]["stage1"]["batch"] == 8
    assert study.study.claims == ()
    assert study.origin("stages.stage1.steps").endswith("study.yaml:5:26")
    assert study.origin("stages.stage1.batch").endswith("presets/base.yaml:8:30")
    assert study.origin("stages.stage1.flip") == "default"


def test_a_mistake_in_a_base_is_named_in_the_base(tmp_path: Path) -> None:
    write(tmp_path, swap("images: 64", "images: 0").replace("study: small\n", ""), "base.yaml")
    said = mistakes(tmp_path, "format: 1\nstudy: above\nbase: base.yaml\n")
    assert "base.yaml:5:53: data.images: must be at least 1, not 0" in said[0]


def test_bases_that_are_missing_or_circular(tmp_path: Path) -> None:
    assert "base 'none.yaml' is not there" in mistakes(tmp_path, "base: none.yaml\n")[0]
    assert "leads back to itself" in mistakes(tmp_path, "base: study.yaml\n")[0]


def test_overrides_are_validated_and_win(tmp_path: Path) -> None:
    study = load(
        tmp_path, SMALL, "steps=3", "axes.p=[8]", "run.retries=0", "stages.stage1.loss.kl=0"
    )
    assert study.grid.template["stages"]["stage1"]["steps"] == 3
    assert study.grid.template["stages"]["stage1"]["loss"]["kl"] == 0.0
    assert study.study.axes["p"] == (8,)
    assert study.study.run.retries == 0
    assert study.origin("stages.stage1.steps") == "--set steps=3"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps", "an override is written path=value"),
        ("stepss=3", "there is no 'stepss' in a cell's config (did you mean 'steps'?)"),
        ("steps=[", "is not a YAML value"),
        ("steps=many", "needs a whole number"),
        ("p=4", "p is an axis here; set axes.p=[...] instead"),
        ("loss=3", "'loss' is a group, not a value"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, said: str) -> None:
    first = mistakes(tmp_path, SMALL, override)[0]
    assert first.startswith(f"--set {override}: ") and said in first


@settings(max_examples=60, deadline=None)
@given(
    where=st.integers(0, len(SMALL) - 1),
    insert=st.text(
        alphabet=st.sampled_from(list("{}[]:,-&*!|>'\"#% \n\tax01.~?@`\\é\x07")), max_size=4
    ),
    cut=st.integers(0, 8),
)
def test_any_damage_gives_problems_with_places_or_a_plan(
    tmp_path_factory: pytest.TempPathFactory, where: int, insert: str, cut: int
) -> None:
    text = SMALL[:where] + insert + SMALL[where + cut :]
    folder = tmp_path_factory.mktemp("damaged")
    try:
        plan = make_plan(load(folder, text), data=DATA)
    except StudyError as error:
        assert error.problems
        for problem in error.problems:
            file, line, column = problem.place.rsplit(":", 2)
            assert file.endswith("study.yaml") and int(line) >= 1 and int(column) >= 1
    else:
        assert plan.cells


# --- schema, start, site -------------------------------------------------------------------------


def test_the_shipped_schema_is_the_models_schema() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), (
        "run: sweepctl schema > sweepctl/study.schema.json"
    )


def test_the_schema_accepts_a_study_and_refuses_a_slip() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    study = {"format": 1, "study": "x", "axes": {"p": [4]}, "stages": {"stage1": {"steps": "100k"}}}
    assert not list(validator.iter_errors(study))
    assert list(validator.iter_errors({**study, "stagess": {}}))
    assert list(validator.iter_errors({**study, "stages": {"stage1": {"precision": "fp8"}}}))


def test_init_writes_a_study_that_plans(tmp_path: Path) -> None:
    files = init_study(tmp_path / "mine.yaml")
    assert [file.name for file in files] == ["mine.yaml", "study.schema.json"]
    plan = make_plan(load_study(files[0], datasets=DATA), data=DATA)
    assert plan.study_name == "mine" and len(plan.cells) == 4
    with pytest.raises(UsageError, match="exists already"):
        init_study(tmp_path / "mine.yaml")
    with pytest.raises(UsageError, match="cannot name a study"):
        init_study(tmp_path / "my study!.yaml")


def test_a_site_file_is_checked_like_a_study(tmp_path: Path) -> None:
    good = write(tmp_path, "runs: /data/runs\nworkers: {threads: 4}\n", "good.yaml")
    assert (load_site(good).runs, load_site(good).workers.threads) == ("/data/runs", 4)
    assert load_site(good).workers.decoders is None
    with pytest.raises(StudyError, match=r"workers.decoders: must be at least 1, not 0"):
        load_site(write(tmp_path, "workers: {decoders: 0}\n", "zero.yaml"))
    with pytest.raises(StudyError, match=r"bad.yaml:1:11: workers.thread: unknown key"):
        load_site(write(tmp_path, "workers: {thread: 4}\n", "bad.yaml"))
    with pytest.raises(StudyError, match="does not exist"):
        load_site(tmp_path / "none.yaml")
    assert load_site(write(tmp_path, "# nothing yet\n", "empty.yaml")).runs is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0", "must be at least 1, not 0"),
        ("half", "must be 'auto' or 'all', or a whole number, or a mapping (key: value), not the"),
        (
            "[1]",
            "must be 'auto' or 'all', or a whole number, or a mapping (key: value), not a list",
        ),
        ("{stage3: 4}", "must be 'stage1', 'stage2' or 'dit', not the text 'stage3'"),
    ],
)
def test_a_setting_of_several_forms_has_one_mistake(tmp_path: Path, value: str, said: str) -> None:
    (found,) = mistakes(tmp_path, SMALL + f"run: {{micro_batch: {value}}}\n")
    assert said in str(found) and "run.micro_batch" in str(found)
