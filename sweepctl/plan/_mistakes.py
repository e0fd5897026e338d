"""What makes a cell impossible, found at plan time, before it has cost anything.

Each mistake is (config path, message); the path says where in the study the message belongs. What
only a run can know (a missing file, a full disk) is found there. Values that are out of range were
refused when the study was read; what settings say against each other is known by
`vitok_core.settings`, and what data sets and metrics say against them is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from sweepctl.kinds import trainings
from sweepctl.plan._identity import ALLOW_OVERLAP, DataSet, groups_off, settings_of
from sweepctl.study import short_name
from vitok_core import settings
from vitok_core.errors import SpecError
from vitok_core.protocols import METRICS, networks, not_of_code, not_under
from vitok_core.settings import DETERMINISTIC, Sampling, Stages
from vitok_core.spec import TokenizerSpec

Mistake = tuple[str, str]

SHARED = 0.01
"""Share of the samples of an evaluation set that may be in the training set by accident: large sets
have some pictures twice."""


def mistakes(
    config: Mapping[str, Any],
    stages: Stages,
    spec: TokenizerSpec,
    errors: tuple[SpecError | None, SpecError | None],
    data: Mapping[str, DataSet],
) -> Iterator[Mistake]:
    """Everything that is wrong with a cell, on any machine.

    Args:
        config: the cell's config.
        stages: the settings of its stages.
        spec: its tokenizer.
        errors: why that tokenizer, and why its DiT, cannot be built; None where they can or there
            is no DiT.
        data: the data sets by name.
    """
    error, dit_error = errors
    if error is not None:
        group = "data" if error.field in ("resolution", "frames") else "tokenizer"
        yield f"{group}.{error.field}", error.message
        return
    off, name = groups_off(config), config["data"]["train"]
    classes = data[name].classes if data[name].problem is None else None
    yield from chain(
        _in_data(config, data, off),
        _in_overlap(config, data),
        _in_stream(config, data, off),
        _placed(stages.stage1.mistakes(spec)),
        _in_evaluation(config, spec),
    )
    if "stages.stage2" not in off:
        yield from _placed(stages.stage2.mistakes(spec))
    if "stages.dit" not in off:
        if dit_error is not None:
            yield _in_shape(dit_error, stages.dit.target)
        yield from _placed(stages.dit.mistakes(classes, name))
    if "evaluate.generation" not in off:
        yield from _in_generation(config, spec)
        sampling = settings_of(Sampling, config["evaluate"]["generation"])
        dit = stages.dit
        yield from _placed(sampling.mistakes(dit.target, classes, dit.class_dropout, name))


def _placed(found: Iterable[settings.Mistake]) -> Iterator[Mistake]:
    """What the settings say of themselves, with how a study says it for some cells only."""
    for one in found:
        hint = f", {_when_hint(*one.when)}" if one.when is not None else ""
        yield one.path, f"{one.message}{hint}"


def _in_shape(error: SpecError, target: str) -> Mistake:
    """Of a generator that cannot be built."""
    path = f"stages.dit.{error.field}"
    if error.field != "learn_sigma":
        return path, error.message
    return path, f"{error.message}, {_when_hint('stages.dit.target', target, path, 'false')}"


def ruled_out(
    stages: Stages,
    spec: TokenizerSpec,
    errors: tuple[SpecError | None, SpecError | None],
    off: tuple[str, ...],
) -> Iterator[tuple[str, Any]]:
    """Settings that the others of a cell leave one value only, with that value.

    Args:
        stages: the settings of its stages.
        spec: its tokenizer.
        errors: why that tokenizer, and why its DiT, cannot be built.
        off: the optional groups that the cell is without.
    """
    error, dit_error = errors
    if error is not None and error.field == "noise_std" and spec.bottleneck != "noise":
        yield "tokenizer.noise_std", None
    if dit_error is not None and dit_error.field == "learn_sigma":
        yield "stages.dit.learn_sigma", False
    found = [stages.stage1.mistakes(spec)]
    if "stages.stage2" not in off:
        found.append(stages.stage2.mistakes(spec))
    if "stages.dit" not in off:
        found.append(stages.dit.mistakes(None))
    for one in chain(*found):
        if one.when is not None:
            _, _, path, value = one.when
            yield path, value


def absences(
    config: Mapping[str, Any],
    stages: Stages,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None],
) -> Iterator[Mistake]:
    """What a cell needs and this machine does not have; on another one the same cell can run.

    Args:
        config: the cell's config.
        stages: the settings of its stages.
        data: the data sets by name.
        missing: why a pretrained file cannot be used, or None.
    """
    off, said = groups_off(config), set()
    for path, names, _, _ in _asked(config, off):
        for name in names:
            if (problem := data[name].problem) and name not in said:
                said.add(name)
                yield path, problem
    yield from _in_weights(config, stages, missing, off)


def _asked(
    config: Mapping[str, Any], off: tuple[str, ...]
) -> Iterator[tuple[str, list[str], str, int]]:
    """Data sets that a cell uses: where they and their number of samples stand, and both."""
    data, measured = config["data"], config["evaluate"]["reconstruction"]
    yield "data.train", [data["train"]], "data.images", data["images"]
    path = "evaluate.reconstruction"
    yield f"{path}.on", measured["on"], f"{path}.images", measured["images"]
    if "evaluate.generation" not in off:
        path, sampled = "evaluate.generation", config["evaluate"]["generation"]
        number = "images" if sampled["originals"] is None else "originals"
        yield f"{path}.on", sampled["on"], f"{path}.{number}", sampled[number]


def _in_data(
    config: Mapping[str, Any], data: Mapping[str, DataSet], off: tuple[str, ...]
) -> Iterator[Mistake]:
    frames, fps = config["data"]["frames"], config["data"]["fps"]
    if frames == 1 and fps is not None:
        yield "data.fps", f"fps = {fps:g}: one frame has no rate; leave fps out"
    videos = sorted(name for name, one in data.items() if one.video)
    for path, names, of_number, number in _asked(config, off):
        for name in names:
            most = data[name].samples
            if most is not None and number > most:
                yield of_number, f"{name} has {most:,} images, not {number:,}"
            if name in videos and frames == 1:
                yield path, f"{name} holds clips; give data.frames, for example 8"
            elif name not in videos and frames > 1:
                known = ", ".join(videos) or "none"
                yield (
                    path,
                    f"{name} holds single images, and data.frames is {frames}; set it to 1, or "
                    f"take a video data set ({known})",
                )
            elif frames > 1 and (refusal := data[name].refuses(frames, fps)):
                yield "data.frames" if fps is None else "data.fps", refusal


def overlaps(config: Mapping[str, Any], data: Mapping[str, DataSet]) -> list[str]:
    """Data sets that a cell's reconstructions are measured on and that hold what it is trained on.

    They are the same data set, or one of the same content under another name, or they share more
    than `SHARED` of the evaluation's samples. Copies of a picture in other bytes are not found.
    Generated samples are compared with the training set by convention: that is no overlap.
    """
    train = config["data"]["train"]
    return [
        name for name in config["evaluate"]["reconstruction"]["on"] if _is_in(name, train, data)
    ]


def _is_in(name: str, train: str, data: Mapping[str, DataSet]) -> bool:
    if name == train:
        return True
    one, other = data[name], data[train]
    if one.problem is not None or other.problem is not None:
        return False  # nothing is known of its content yet
    if one.identity == other.identity:
        return True
    return other.shares(name) > SHARED * (one.samples or one.streams or 1)


def _in_overlap(config: Mapping[str, Any], data: Mapping[str, DataSet]) -> Iterator[Mistake]:
    if config["evaluate"]["allow_overlap"]:
        return
    train = config["data"]["train"]
    for name in overlaps(config, data):
        same = "is measured on, too" if name == train else f"holds samples of {name}"
        yield (
            "data.train",
            f"{train} {same} (evaluate.reconstruction.on): the numbers would say nothing of data "
            f"that are not trained on; take another set, or set {ALLOW_OVERLAP} to true where that "
            "is meant, and results say so",
        )


def _in_stream(
    config: Mapping[str, Any], data: Mapping[str, DataSet], off: tuple[str, ...]
) -> Iterator[Mistake]:
    """What cannot be had from a data set that is decoded while it is trained on."""
    train = config["data"]["train"]
    known = data[train]
    if not config["data"]["stream"]:
        crop = config["data"]["crop"]
        if crop != "center":
            yield (
                "data.crop",
                f"crop = {crop}: prepared samples are cut once, before training; set data.stream "
                "to true, which cuts again in each pass, or leave crop out",
            )
        return
    if "stages.dit" not in off:
        yield (
            "data.stream",
            "a DiT learns from the codes of prepared samples, computed once; leave data.stream "
            "out, or stages.dit.steps",
        )
    if known.problem is not None:
        return
    if known.streams is None:
        yield (
            "data.stream",
            f"{train} is no data set of yours and is always prepared; leave data.stream out, or "
            "train on a data set of the site file",
        )
    elif config["data"]["images"] != known.streams:
        yield (
            "data.images",
            f"a stream shows all of {train}, which are {known.streams:,} samples: set data.images "
            f"to {known.streams}, not {config['data']['images']}",
        )


def _in_evaluation(config: Mapping[str, Any], spec: TokenizerSpec) -> Iterator[Mistake]:
    measured = config["evaluate"]["reconstruction"]
    length = measured["length"]
    if length is not None and length not in spec.lengths:
        lengths = ", ".join(str(one) for one in spec.lengths)
        yield (
            "evaluate.reconstruction.length",
            f"length = {length} is none of the lengths the tokenizer is trained for ({lengths})"
            if lengths
            else f"length = {length}: this tokenizer knows its code only whole; give "
            "tokenizer.lengths the code lengths to train it for, or leave length out",
        )
    yield from _in_measured(measured, spec, "reconstruction")
    for name in measured["metrics"]:
        if why := not_of_code(
            name,
            grid=spec.grid if spec.latent_tokens is None and length is None else None,
            random=spec.bottleneck not in DETERMINISTIC,
        ):
            yield "evaluate.reconstruction.metrics", why


def _in_generation(config: Mapping[str, Any], spec: TokenizerSpec) -> Iterator[Mistake]:
    """Of measuring samples."""
    sampled, where = config["evaluate"]["generation"], "evaluate.generation"
    for name, example in (("on", "a data set to compare with"), ("metrics", "for example gfid")):
        if not sampled[name]:
            yield f"{where}.{name}", f"samples are made, and {name} is empty; give {example}"
    length, path = config["evaluate"]["reconstruction"]["length"], "evaluate.reconstruction.length"
    if length is not None:
        yield (
            path,
            f"a generator makes whole codes, not of length {length}: E would not be that of the "
            "samples; measure lengths without generation, "
            + _when_hint(path, length, f"{where}.images", "null"),
        )
    yield from _in_measured(sampled, spec, "generation")


def _in_measured(measured: Mapping[str, Any], spec: TokenizerSpec, group: str) -> Iterator[Mistake]:
    """Metrics of one group of `evaluate` that cannot be measured on such samples, or so few."""
    for name in measured["metrics"]:
        metric = METRICS[name]
        if why := not_under(name, measured["protocol"]):
            yield f"evaluate.{group}.metrics", why
        if spec.frames < metric.frames:
            yield (
                f"evaluate.{group}.metrics",
                f"{name} needs clips of at least {metric.frames} frames, not {spec.frames}",
            )
        if spec.resolution < metric.smallest:
            yield (
                "data.resolution",
                f"{name} needs images of at least {metric.smallest} px, not {spec.resolution}",
            )
        for number in ("images", "originals"):
            count = measured.get(number)
            if count is not None and count < metric.needs:
                yield (
                    f"evaluate.{group}.{number}",
                    f"{name} needs at least {metric.needs} {number}, not {count}",
                )


def _in_weights(
    config: Mapping[str, Any],
    stages: Stages,
    missing: Callable[[str], str | None],
    off: tuple[str, ...],
) -> Iterator[Mistake]:
    """Pretrained files that are not there, each once, though several metrics wait for it."""
    said: set[str] = set()

    def why_not(file: str) -> str | None:
        if file in said:
            return None
        said.add(file)
        return missing(file)

    for group in ("reconstruction", "generation"):
        if f"evaluate.{group}" in off:
            continue
        measured = config["evaluate"][group]
        for name in measured["metrics"]:
            for backbone in networks([name], measured["protocol"]).values():
                for file in backbone.weights:
                    if why := why_not(file):
                        yield f"evaluate.{group}.metrics", f"{name}: {why}"
    for stage in trainings("tokenizer"):
        if f"stages.{stage}" in off:
            continue
        for term, backbone in getattr(stages, stage).loss.networks.items():
            for file in backbone.weights:
                if why := why_not(file):
                    yield f"stages.{stage}.loss.{term}", why


def _when_hint(path: str, value: object, other: str, wanted: object) -> str:
    """How a study says it for some cells only."""
    shown = f"{wanted:g}" if isinstance(wanted, int | float) else wanted
    match, changed = f"{short_name(path)}: {value}", f"{short_name(other)}: {shown}"
    return f"or for some cells: `when: [{{if: {{{match}}}, set: {{{changed}}}}}]`"


# --- no mistakes, but worth a word ------------------------------------------------------------


def short_averages(stages: Stages, off: tuple[str, ...]) -> Iterator[str]:
    """Trainings whose moving average has hardly left the weights it begins with: no mistake, but
    what is then measured is not what was trained."""
    for stage in trainings():
        how = getattr(stages, stage)
        if f"stages.{stage}" in off or how.ema is None:
            continue
        left = how.ema**how.steps
        if left > settings.INITIAL_SHARE:
            most = math.floor(1000 * settings.INITIAL_SHARE ** (1 / how.steps)) / 1000
            yield (
                f"stages.{stage}.ema = {how.ema:g} over {how.steps:,} steps: {left:.0%} of "
                "the averaged weights, which are the result, are those it began with; "
                f"take {most:g} or less, or null"
            )


def short_ramps(stages: Stages, off: tuple[str, ...]) -> Iterator[str]:
    """A stage 2 that ends before the discriminator's weight is what the study says: no mistake."""
    steps, adversarial = stages.stage2.steps, stages.stage2.adversarial
    if "stages.stage2" in off or steps is None or adversarial.weight == 0:
        return
    begun = steps - adversarial.start
    if begun < adversarial.ramp:
        where = "stages.stage2.adversarial"
        yield (
            f"{where}.weight: stage 2 ends after {steps:,} steps, when "
            f"{max(0, begun) / adversarial.ramp:.2g} of it is reached; it begins at start = "
            f"{adversarial.start:,} and rises over ramp = {adversarial.ramp:,} steps"
        )


def means_nothing(path: str, stages: Stages) -> str | None:
    """Why a setting changes nothing given the others of a cell; None when it may.

    An axis of such a setting would train the same model several times, and what is measured of the
    copies would count as so many independent results.
    """
    for stage in trainings("tokenizer"):
        loss, where = getattr(stages, stage).loss, f"stages.{stage}.loss"
        for name, term in settings.terms(type(loss)).items():
            if term.option and path == f"{where}.{term.option}" and name not in loss.active:
                return f"{where}.{name} is 0"
    stage2 = stages.stage2
    if path == "stages.stage2.loss.kl" and stage2.train == "decoder":
        return "stage 2 trains the decoder, and the KL term is of the encoder"
    adversarial, where = stage2.adversarial, "stages.stage2.adversarial"
    if stage2.steps is None or not path.startswith((where, "stages.stage2.discriminator")):
        return None
    if adversarial.weight == 0 and path != f"{where}.weight":
        return f"{where}.weight is 0"
    if adversarial.start >= stage2.steps and path != f"{where}.start":
        return f"the discriminator begins at step {adversarial.start}, when stage 2 is over"
    return None
