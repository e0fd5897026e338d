"""Measurements: a trained model and references become metric values."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl import runs
from sweepctl.runs import MetricValue
from sweepctl.tasks._work import Made, Work, log
from vitok_core.spec import FRAMES_AT_ONCE

if TYPE_CHECKING:
    from vitok_core.metrics import Measured

GENERATED = "generated.npy"
"""All samples of a generation, until they are measured."""


def reconstruct(work: Work) -> Made:
    """Measure a trained tokenizer on one data set."""
    from vitok_core import data, evaluate
    from vitok_core.tokenizer import load_tokenizer

    config, protocol = work.identity["config"], work.identity["protocol"]["name"]
    tokenizer = load_tokenizer(work.parents["tokenizer"] / "weights.safetensors", work.device)
    measured = evaluate.reconstruct(
        tokenizer,
        data.open_prepared(work.parents["images"]),
        metrics=config["metrics"],
        protocol_name=protocol,
        references=_references(work, protocol),
        length=config.get("length"),
        bootstrap=config.get("bootstrap") or 0,
        folder=work.folder,
        device=work.device,
        progress=lambda at: work.event({"step": at.done, "steps": at.total}),
        should_stop=work.should_stop,
    )
    return _measured(measured, config, protocol, "originals.npy", "reconstructions.npy")


def generate(work: Work) -> Made:
    """Draw samples from a trained generator, or go on with them, and measure their distribution."""
    from sweepctl.plan import settings_of
    from vitok_core import data, evaluate
    from vitok_core.dit import load_dit
    from vitok_core.generate import balanced_labels, progress_of, sample_to_file
    from vitok_core.metrics import protocol, rounded
    from vitok_core.settings import Sampling
    from vitok_core.tokenizer import load_tokenizer

    config, rules = work.identity["config"], protocol(work.identity["protocol"]["name"])
    dit = load_dit(work.parents["dit"] / "weights.safetensors", work.device)
    tokenizer = load_tokenizer(work.parents["latents"] / "weights.safetensors", work.device)
    # Every class as often as any other, so that the class balance is no part of the distance.
    labels = balanced_labels(config["images"], dit.spec.classes)
    drawn = work.folder / GENERATED
    samples = sample_to_file(
        drawn,
        dit,
        tokenizer,
        labels,
        sampling=settings_of(Sampling, config["sampling"]),
        seed=config["seed"],
        made_by={
            "protocol": rules.name,
            **{
                role: runs.file_record(work.parents[role], "weights.safetensors").sha256
                for role in ("dit", "latents")
            },
        },
        batch=max(1, FRAMES_AT_ONCE // tokenizer.spec.frames),
        device=work.device,
        to_bytes=functools.partial(rounded, rules=rules),
        progress=lambda done, total: work.event({"step": done, "steps": total, "phase": "sample"}),
        should_stop=work.should_stop,
    )
    measured = evaluate.measure_generation(
        data.SampleSet(samples=samples, labels=labels),
        metrics=config["metrics"],
        protocol_name=rules.name,
        references=_references(work, rules.name),
        bootstrap=config.get("bootstrap") or 0,
        folder=work.folder,
        device=work.device,
        progress=lambda at: work.event({"step": at.done, "steps": at.total, "phase": "measure"}),
        should_stop=work.should_stop,
    )
    made = _measured(measured, config, rules.name, "samples.npy", "sheet.png")
    # Only samples.npy stays of them; until the result is recorded a kill must find all again.
    return replace(made, spent=(drawn, progress_of(drawn)))


def _references(work: Work, protocol: str) -> dict[str, Path]:
    """Backbone -> features of the originals, from the parents that hold them."""
    from vitok_core.protocols import PROTOCOLS

    # The protocol's own backbone has the plain role, so that older tasks keep their identity.
    return {
        PROTOCOLS[protocol].features if role == "reference" else role.split("-", 1)[1]: (
            folder / "features.npy"
        )
        for role, folder in work.parents.items()
        if role.startswith("reference")
    }


def _measured(
    measured: Sequence[Measured], config: Mapping[str, Any], protocol: str, *files: str
) -> Made:
    """What is recorded of measured numbers; `files` are the pictures beside them.

    A task that measures a model on its way, not at its end, has the training step in its config.
    """
    for one in measured:
        if one.note:
            log(f"note: {one.name}: {one.note}")
    return Made(
        files=files,
        metrics=tuple(
            MetricValue(
                name=one.name,
                dataset=config["dataset"],
                protocol=protocol,
                value=one.value,
                n=one.n,
                step=config.get("step"),
                se=one.se,
            )
            for one in measured
        ),
        values={"notes": {one.name: one.note for one in measured if one.note}},
    )
