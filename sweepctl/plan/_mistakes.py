"""What makes a cell impossible? Found at plan time, before it has cost anything.

Each mistake is (config path, message); the path says where in the study the message belongs. What
only a run can know (a missing file, a full disk) is found there. Values of one setting that are out
of range were refused when the study was read; here settings are held against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from sweepctl.kinds import trainings
from sweepctl.plan._identity import DataSet, groups_off
from sweepctl.plan._mistakes_later import (
    Mistake,
    dit_mistakes,
    generation_mistakes,
    measured_mistakes,
    optimiser_mistakes,
    stage2_mistakes,
    when_hint,
)
from vitok_core.errors import SpecError
from vitok_core.protocols import BACKBONES, networks, not_of_code
from vitok_core.settings import Loss, from_plain
from vitok_core.spec import TokenizerSpec

DETERMINISTIC = ("none", "layernorm")
"""Bottlenecks whose code is no distribution, so that there is no KL of it."""

SSIM_SMALLEST = 11
"""Side in pixels of the window of SSIM."""


def mistakes(
    config: Mapping[str, Any],
    spec: TokenizerSpec,
    errors: tuple[SpecError | None, SpecError | None],
    data: Mapping[str, DataSet],
) -> Iterator[Mistake]:
    """Everything that is wrong with a cell, on any machine.

    Args:
        config: the cell's config.
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
    off = groups_off(config)
    yield from chain(
        _in_data(config, data, off),
        _in_stream(config, data, off),
        _in_training(config, spec, "stages.stage1"),
        _in_evaluation(config, spec),
    )
    if "stages.stage2" not in off:
        yield from chain(_in_training(config, spec, "stages.stage2"), stage2_mistakes(config, spec))
    if "stages.dit" not in off:
        yield from dit_mistakes(config, dit_error, data[config["data"]["train"]])
    if "evaluate.generation" not in off:
        yield from generation_mistakes(config, spec, data[config["data"]["train"]])


def absences(
    config: Mapping[str, Any],
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None],
) -> Iterator[Mistake]:
    """What a cell needs and this machine does not have; on another one the same cell can run.

    Args:
        config: the cell's config.
        data: the data sets by name.
        missing: why a pretrained file cannot be used, or None.
    """
    off, said = groups_off(config), set()
    for path, names, _, _ in _asked(config, off):
        for name in names:
            if (problem := data[name].problem) and name not in said:
                said.add(name)
                yield path, problem
    yield from _in_weights(config, missing, off)


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


def _in_stream(
    config: Mapping[str, Any], data: Mapping[str, DataSet], off: tuple[str, ...]
) -> Iterator[Mistake]:
    """What cannot be had from a data set that is decoded while it is trained on."""
    train = config["data"]["train"]
    known = data[train]
    if not config["data"]["stream"]:
        if config["data"]["crop"] == "random":
            yield (
                "data.crop",
                "crop = random: prepared samples are cut once, before training; set data.stream to "
                "true, which cuts anew in each pass, or leave crop out",
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


def _in_training(config: Mapping[str, Any], spec: TokenizerSpec, where: str) -> Iterator[Mistake]:
    """Of a stage that trains a tokenizer; `where` is its path."""
    stage = config["stages"][where.split(".")[1]]
    loss, at = stage["loss"], f"{where}.loss"
    yield from optimiser_mistakes(stage["optimiser"], f"{where}.optimiser")
    if spec.bottleneck in DETERMINISTIC and loss["kl"] > 0 and stage.get("train") != "decoder":
        yield (
            "tokenizer.bottleneck",
            f"a code of bottleneck {spec.bottleneck} is no distribution and has no KL, but its "
            f"weight is {loss['kl']:g}; set {at}.kl to 0, "
            f"{when_hint('tokenizer.bottleneck', spec.bottleneck, f'{at}.kl', 0)}",
        )
    smallest = BACKBONES[loss["lpips_net"]].smallest
    if loss["lpips"] > 0 and spec.resolution < smallest:
        yield (
            "data.resolution",
            f"the LPIPS loss ({loss['lpips_net']}) needs images of at least {smallest} px, not "
            f"{spec.resolution}; set {at}.lpips to 0 or use larger images",
        )
    if loss["ssim"] > 0 and spec.resolution < SSIM_SMALLEST:
        yield (
            "data.resolution",
            f"the SSIM loss needs images of at least {SSIM_SMALLEST} px, not {spec.resolution}; "
            f"set {at}.ssim to 0 or use larger images",
        )
    if not any(loss[name] > 0 for name in ("pixel_weight", "lpips", "ssim", "dino")):
        yield (
            f"{at}.pixel_weight",
            "pixel_weight, lpips, ssim and dino are all 0: nothing would ask for a reconstruction",
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
    yield from measured_mistakes(measured, spec, "reconstruction")
    for name in measured["metrics"]:
        if why := not_of_code(
            name,
            grid=spec.grid if spec.latent_tokens is None and length is None else None,
            random=spec.bottleneck not in DETERMINISTIC,
        ):
            yield "evaluate.reconstruction.metrics", why


def _in_weights(
    config: Mapping[str, Any], missing: Callable[[str], str | None], off: tuple[str, ...]
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
        loss = config["stages"][stage]["loss"]
        for term, backbone in from_plain(Loss, loss).networks.items():
            for file in backbone.weights:
                if why := why_not(file):
                    yield f"stages.{stage}.loss.{term}", why
