"""What makes stage 2, a DiT or the measurement of its samples impossible? Found at plan time.

Mistakes are as in `_mistakes`: (config path, message). Nothing of torch is loaded, so the rules of
`vitok_core.train.Stage2Config`, `DiTConfig` and `vitok_core.generate.Sampling` are said once more
here, at their places in the study; a test holds both against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sweepctl.kinds import trainings
from sweepctl.plan._identity import DataSet
from sweepctl.study import short_name
from vitok_core.errors import SpecError
from vitok_core.protocols import METRICS, not_under
from vitok_core.spec import TokenizerSpec, check_discriminator

Mistake = tuple[str, str]

INITIAL_SHARE = 0.05
"""With more of the first weights than this left in a moving average, the training was too short."""

CONSTANT_FINAL_LR = 1e-5
"""The default, which a constant schedule leaves alone: its rate does not fall to anything."""

DIFFUSION_STEPS = 1000
"""Steps of the process that targets eps and v are trained on; a sampler visits some of them."""


def optimiser_mistakes(optimiser: Mapping[str, Any], where: str) -> Iterator[Mistake]:
    """Of one optimiser; `where` is its path."""
    final_lr, path = optimiser["final_lr"], f"{where}.final_lr"
    if optimiser["schedule"] == "constant" and final_lr != CONSTANT_FINAL_LR:
        hint = when_hint(f"{where}.schedule", "constant", path, CONSTANT_FINAL_LR)
        yield (
            path,
            f"final_lr = {final_lr:g} means nothing to a constant schedule, which ends at lr; "
            f"leave it out, {hint}",
        )
    if optimiser["schedule"] == "cosine" and final_lr > optimiser["lr"]:
        yield path, f"final_lr = {final_lr:g} is above the peak lr = {optimiser['lr']:g}"


def stage2_mistakes(config: Mapping[str, Any], spec: TokenizerSpec) -> Iterator[Mistake]:
    """Of the discriminator; the rest of stage 2 is judged as stage 1 is."""
    stage2 = config["stages"]["stage2"]
    if stage2["adversarial"]["weight"] == 0:
        return
    yield from optimiser_mistakes(stage2["discriminator"], "stages.stage2.discriminator")
    try:
        check_discriminator(spec.resolution, stage2["discriminator_width"])
    except SpecError as error:
        group = "data" if error.field == "resolution" else "stages.stage2"
        yield f"{group}.{error.field}", error.message


def dit_mistakes(
    config: Mapping[str, Any], error: SpecError | None, train: DataSet
) -> Iterator[Mistake]:
    """Of the generator.

    Args:
        config: the cell's config.
        error: why it cannot be built, or None.
        train: the data set it learns from.
    """
    dit = config["stages"]["dit"]
    if error is not None:
        path, hint = f"stages.dit.{error.field}", ""
        if error.field == "learn_sigma":
            hint = f", {when_hint('stages.dit.target', dit['target'], path, 'false')}"
        yield path, f"{error.message}{hint}"
    yield from optimiser_mistakes(dit["optimiser"], "stages.dit.optimiser")
    if train.classes == 0 and train.problem is None and dit["class_dropout"] > 0:
        yield (
            "stages.dit.class_dropout",
            f"{config['data']['train']} has no labels, so none can be left out; set class_dropout "
            "to 0",
        )


def generation_mistakes(
    config: Mapping[str, Any], spec: TokenizerSpec, train: DataSet
) -> Iterator[Mistake]:
    """Of making samples and measuring them.

    Args:
        config: the cell's config.
        spec: the tokenizer.
        train: the data set that the generator learns from.
    """
    sampled, where = config["evaluate"]["generation"], "evaluate.generation"
    for name, example in (("on", "a data set to compare with"), ("metrics", "for example gfid")):
        if not sampled[name]:
            yield f"{where}.{name}", f"samples are made, and {name} is empty; give {example}"
    length = config["evaluate"]["reconstruction"]["length"]
    if length is not None:
        yield (
            "evaluate.reconstruction.length",
            f"a generator makes whole codes, not of length {length}: E would not be that of the "
            "samples; measure lengths without generation, "
            + when_hint(
                "evaluate.reconstruction.length", length, "evaluate.generation.images", "null"
            ),
        )
    yield from measured_mistakes(sampled, spec, "generation")
    yield from _in_sampling(config, train)


def _in_sampling(config: Mapping[str, Any], train: DataSet) -> Iterator[Mistake]:
    sampled, dit = config["evaluate"]["generation"], config["stages"]["dit"]
    where, cfg, steps = "evaluate.generation", sampled["cfg"], sampled["steps"]
    allowed = ("euler",) if dit["target"] == "flow" else ("ddim", "ddpm")
    sampler = sampled["sampler"] or allowed[0]
    if sampler not in allowed:
        yield (
            f"{where}.sampler",
            f"sampler = {sampler}: a DiT of target {dit['target']} is sampled by "
            f"{' or '.join(allowed)}; leave sampler out",
        )
    elif sampler == "euler":
        if sampled["spacing"] != "sections":
            yield f"{where}.spacing", "the steps of euler are equal; leave spacing out"
    elif steps > DIFFUSION_STEPS:
        yield f"{where}.steps", f"steps = {steps}: must be from 1 to {DIFFUSION_STEPS}"
    elif sampled["spacing"] == "stride" and not _strides(steps):
        yield (
            f"{where}.steps",
            f"steps = {steps}: no whole stride visits that many of {DIFFUSION_STEPS} steps; use a "
            f"divisor of {DIFFUSION_STEPS} or spacing sections",
        )
    if sampled["eta"] != 0 and sampler != "ddim":
        yield f"{where}.eta", f"eta = {sampled['eta']:g}: only ddim has it, not {sampler}"
    interval = sampled["cfg_interval"]
    if interval is not None and interval[0] > interval[1]:
        yield f"{where}.cfg_interval", "the smaller share comes first: from 0 (clean) to 1 (noise)"
    if cfg == 1 and interval is not None:
        yield f"{where}.cfg_interval", "there is no guidance with cfg 1; leave the interval out"
    if cfg != 1 and train.classes == 0 and train.problem is None:
        yield (
            f"{where}.cfg",
            f"cfg = {cfg:g}: {config['data']['train']} has no labels, and a DiT without classes "
            "cannot be guided; set cfg to 1",
        )
    elif cfg != 1 and dit["class_dropout"] == 1:
        yield (
            f"{where}.cfg",
            f"cfg = {cfg:g} guides by labels, and with class_dropout 1 none is ever learned; set "
            "cfg to 1 or stages.dit.class_dropout to 0.1",
        )
    elif cfg != 1 and dit["class_dropout"] == 0:
        yield (
            f"{where}.cfg",
            f"cfg = {cfg:g} compares with a DiT that is told no label, and class_dropout is 0, so "
            "it never learned without; set cfg to 1 or stages.dit.class_dropout to 0.1",
        )


def _strides(steps: int) -> bool:
    return any(len(range(0, DIFFUSION_STEPS, k)) == steps for k in range(1, DIFFUSION_STEPS + 1))


def short_averages(config: Mapping[str, Any], off: tuple[str, ...]) -> Iterator[str]:
    """Trainings whose moving average has hardly left the weights it begins with: no mistake, but
    what is then measured is not what was trained."""
    for stage in trainings():
        how = config["stages"][stage]
        if f"stages.{stage}" in off or how["ema"] is None:
            continue
        left = how["ema"] ** how["steps"]
        if left > INITIAL_SHARE:
            most = math.floor(1000 * INITIAL_SHARE ** (1 / how["steps"])) / 1000
            yield (
                f"stages.{stage}.ema = {how['ema']:g} over {how['steps']:,} steps: {left:.0%} of "
                "the averaged weights, which are the result, are those it began with; "
                f"take {most:g} or less, or null"
            )


def short_ramps(config: Mapping[str, Any], off: tuple[str, ...]) -> Iterator[str]:
    """A stage 2 that ends before the discriminator's weight is what the study says: no mistake."""
    stage2 = config["stages"]["stage2"]
    adversarial, steps = stage2["adversarial"], stage2["steps"]
    if "stages.stage2" in off or steps is None or adversarial["weight"] == 0:
        return
    begun = steps - adversarial["start"]
    if begun < adversarial["ramp"]:
        where = "stages.stage2.adversarial"
        yield (
            f"{where}.weight: stage 2 ends after {steps:,} steps, when "
            f"{max(0, begun) / adversarial['ramp']:.2g} of it is reached; it begins at start = "
            f"{adversarial['start']:,} and rises over ramp = {adversarial['ramp']:,} steps"
        )


def means_nothing(path: str, config: Mapping[str, Any]) -> str | None:
    """Why a setting changes nothing beside the others of a cell; None when it may.

    An axis of such a setting would train the same model several times, and what is measured of the
    copies would count as so many independent results.
    """
    for stage in trainings("tokenizer"):
        loss = f"stages.{stage}.loss"
        if path == f"{loss}.lpips_net" and config["stages"][stage]["loss"]["lpips"] == 0:
            return f"{loss}.lpips is 0"
    stage2 = config["stages"]["stage2"]
    if path == "stages.stage2.loss.kl" and stage2["train"] == "decoder":
        return "stage 2 trains the decoder, and the KL term is of the encoder"
    adversarial, where = stage2["adversarial"], "stages.stage2.adversarial"
    if stage2["steps"] is None or not path.startswith((where, "stages.stage2.discriminator")):
        return None
    if adversarial["weight"] == 0 and path != f"{where}.weight":
        return f"{where}.weight is 0"
    if adversarial["start"] >= stage2["steps"] and path != f"{where}.start":
        return f"the discriminator begins at step {adversarial['start']}, when stage 2 is over"
    return None


def measured_mistakes(
    measured: Mapping[str, Any], spec: TokenizerSpec, group: str
) -> Iterator[Mistake]:
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


def when_hint(path: str, value: object, other: str, wanted: object) -> str:
    """How a study says it for some cells only."""
    shown = f"{wanted:g}" if isinstance(wanted, int | float) else wanted
    match, changed = f"{short_name(path)}: {value}", f"{short_name(other)}: {shown}"
    return f"or for some cells: `when: [{{if: {{{match}}}, set: {{{changed}}}}}]`"
