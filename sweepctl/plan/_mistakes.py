"""What makes a cell impossible? Found at plan time, before it has cost anything.

Each mistake is (config path, message); the path says where in the study the message belongs. What
only a run can know (a missing file, a full disk) is found there. Values of one setting that are out
of range were refused when the study was read; here settings are held against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from sweepctl.plan._identity import DataSet
from vitok_core.errors import SpecError
from vitok_core.protocols import METRICS, not_of_code, not_under, pretrained
from vitok_core.spec import TokenizerSpec
from vitok_core.weights import LPIPS_SMALLEST

Mistake = tuple[str, str]

DETERMINISTIC = ("none", "layernorm")
"""Bottlenecks whose code is no distribution, so that there is no KL of it."""

SSIM_SMALLEST = 11
"""Side in pixels of the window of SSIM."""

CONSTANT_FINAL_LR = 1e-5
"""The default, which a constant schedule leaves alone: its rate does not fall to anything."""


def mistakes(
    config: Mapping[str, Any],
    spec: TokenizerSpec,
    error: SpecError | None,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None],
) -> Iterator[Mistake]:
    """Everything that is wrong with a cell.

    Args:
        config: the cell's config.
        spec: its tokenizer.
        error: why that tokenizer cannot be built, or None.
        data: the data sets by name.
        missing: why a pretrained file cannot be used, or None.
    """
    if error is not None:
        group = "data" if error.field in ("resolution", "frames") else "tokenizer"
        yield f"{group}.{error.field}", error.message
        return
    yield from chain(
        _in_data(config, data),
        _in_training(config, spec),
        _in_evaluation(config, spec),
        _in_weights(config, missing),
    )


def _in_data(config: Mapping[str, Any], data: Mapping[str, DataSet]) -> Iterator[Mistake]:
    frames, fps = config["data"]["frames"], config["data"]["fps"]
    if frames == 1 and fps is not None:
        yield "data.fps", f"fps = {fps:g}: one frame has no rate; leave fps out"
    videos = sorted(name for name, one in data.items() if one.video)
    measured = config["evaluate"]["reconstruction"]
    for path, names, of_number, number in (
        ("data.train", [config["data"]["train"]], "data.images", config["data"]["images"]),
        (
            "evaluate.reconstruction.on",
            measured["on"],
            "evaluate.reconstruction.images",
            measured["images"],
        ),
    ):
        for name in names:
            if problem := data[name].problem:
                yield path, problem
                continue
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


def _in_training(config: Mapping[str, Any], spec: TokenizerSpec) -> Iterator[Mistake]:
    stage1 = config["stages"]["stage1"]
    optimiser, loss = stage1["optimiser"], stage1["loss"]
    final_lr, path = optimiser["final_lr"], "stages.stage1.optimiser.final_lr"
    if optimiser["schedule"] == "constant" and final_lr != CONSTANT_FINAL_LR:
        yield (
            path,
            (
                f"final_lr = {final_lr:g} means nothing to a constant schedule, which ends at lr; "
                f"leave it out, {_when('schedule', 'constant', 'final_lr', CONSTANT_FINAL_LR)}"
            ),
        )
    if optimiser["schedule"] == "cosine" and final_lr > optimiser["lr"]:
        yield path, f"final_lr = {final_lr:g} is above the peak lr = {optimiser['lr']:g}"
    if spec.bottleneck in DETERMINISTIC and loss["kl"] > 0:
        yield (
            "tokenizer.bottleneck",
            f"a code of bottleneck {spec.bottleneck} is no distribution and has no KL, but its "
            f"weight is {loss['kl']:g}; set stages.stage1.loss.kl to 0, "
            f"{_when('bottleneck', spec.bottleneck, 'kl', 0)}",
        )
    smallest = LPIPS_SMALLEST[loss["lpips_net"]]
    if loss["lpips"] > 0 and spec.resolution < smallest:
        yield (
            "data.resolution",
            f"the LPIPS loss ({loss['lpips_net']}) needs images of at least {smallest} px, not "
            f"{spec.resolution}; set stages.stage1.loss.lpips to 0 or use larger images",
        )
    if loss["ssim"] > 0 and spec.resolution < SSIM_SMALLEST:
        yield (
            "data.resolution",
            f"the SSIM loss needs images of at least {SSIM_SMALLEST} px, not {spec.resolution}; "
            "set stages.stage1.loss.ssim to 0 or use larger images",
        )
    if not any(loss[name] > 0 for name in ("pixel_weight", "lpips", "ssim", "dino")):
        yield (
            "stages.stage1.loss.pixel_weight",
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
    for name in measured["metrics"]:
        metric = METRICS[name]
        if why := not_under(name, measured["protocol"]):
            yield "evaluate.reconstruction.metrics", why
        if why := not_of_code(
            name,
            grid=spec.grid if spec.latent_tokens is None and length is None else None,
            random=spec.bottleneck not in DETERMINISTIC,
        ):
            yield "evaluate.reconstruction.metrics", why
        if spec.frames < metric.frames:
            yield (
                "evaluate.reconstruction.metrics",
                f"{name} needs clips of at least {metric.frames} frames, not {spec.frames}",
            )
        if spec.resolution < metric.smallest:
            yield (
                "data.resolution",
                f"{name} needs images of at least {metric.smallest} px, not {spec.resolution}",
            )
        if measured["images"] < metric.needs:
            yield (
                "evaluate.reconstruction.images",
                f"{name} needs at least {metric.needs} images, not {measured['images']}",
            )


def _in_weights(
    config: Mapping[str, Any], missing: Callable[[str], str | None]
) -> Iterator[Mistake]:
    """Pretrained files that are not there, before anything is trained that waits for them."""
    measured, loss = config["evaluate"]["reconstruction"], config["stages"]["stage1"]["loss"]
    for name in measured["metrics"]:
        if not_under(name, measured["protocol"]):
            continue
        for file in pretrained(name, measured["protocol"]):
            if why := missing(file):
                yield "evaluate.reconstruction.metrics", f"{name}: {why}"
    if loss["lpips"] > 0:
        for part in ("trunk", "heads"):
            if why := missing(f"lpips-{loss['lpips_net']}-{part}"):
                yield "stages.stage1.loss.lpips", why
    if loss["dino"] > 0 and (why := missing("dinov2-s14")):
        yield "stages.stage1.loss.dino", why


def _when(name: str, value: object, other: str, wanted: float) -> str:
    return f"or for some cells: `when: [{{if: {{{name}: {value}}}, set: {{{other}: {wanted:g}}}}}]`"
