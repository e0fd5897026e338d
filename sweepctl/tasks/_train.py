"""Tasks that train: the config becomes settings of a stage, the outcome the values of the task.

What all trainings have in common is here once: what is reported while they run (`_Telling`) and
what a finished one leaves in the record (`_trained`). The loops are in `vitok_core.train`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweepctl import runs
from sweepctl.runs import FITTED_FILE, Fitted
from sweepctl.tasks._device import device_memory, device_name
from sweepctl.tasks._work import BROKEN_SHOWN, Made, Work, log
from vitok_core.settings import DiT, Run, Stage1, Stage2, whole_steps

if TYPE_CHECKING:
    from vitok_core.data import Samples
    from vitok_core.spec import TokenizerSpec
    from vitok_core.train import TrainingProgress, TrainingResult

CONTINUED = "continued.json"
"""Says at which step of which earlier task a training has taken over."""

SHEETS = 5
"""Sheets of samples that a training leaves in sheets/ of its folder, at least; pictures only."""


def stage1(work: Work) -> Made:
    """Train an auto-encoder, or go on where an earlier attempt stopped."""
    from sweepctl.plan import completed, settings_of
    from vitok_core import train

    config = work.identity["config"]
    settings = settings_of(Stage1, config["stage1"], seed=config["seed"])
    telling, continued_from = _Telling(work), _gone_on(work)
    with _samples(work) as samples:
        result = train.train_stage1(
            tokenizer_spec(config),
            settings,
            samples,
            work.folder,
            run=_run(work, settings.steps),
            until=config.get("until"),
            about=work.about(
                "stage1",
                {
                    **config,
                    "tokenizer": completed(config["tokenizer"], "tokenizer"),
                    "stage1": completed(config["stage1"], Stage1.PLACE),
                },
            ),
            progress=telling,
            should_stop=work.should_stop,
        )
    return _trained(
        telling,
        result,
        continued_from,
        kl_per_channel=list(result.kl_per_channel),
        active_units=result.active_units,
    )


def stage2(work: Work) -> Made:
    """Train a tokenizer on against a discriminator, or go on where an earlier attempt stopped."""
    from sweepctl.plan import completed, settings_of
    from vitok_core import train
    from vitok_core.tokenizer import read_about

    config = work.identity["config"]
    settings = settings_of(Stage2, config["stage2"], seed=config["seed"])
    tokenizer = work.parents["tokenizer"] / "weights.safetensors"
    telling, continued_from = _Telling(work), _gone_on(work)
    with _samples(work) as samples:
        result = train.train_stage2(
            tokenizer,
            settings,
            samples,
            work.folder,
            run=_run(work, settings.steps),
            until=config.get("until"),
            # The numbers of stage 1 are not those of these weights.
            about=work.about(
                "stage2",
                {"stage2": completed(config["stage2"], Stage2.PLACE)},
                {"config": read_about(tokenizer).get("config", {})},
            ),
            progress=telling,
            should_stop=work.should_stop,
        )
    return _trained(
        telling,
        result,
        continued_from,
        tokenizer_sha256=result.tokenizer_sha256,
        discriminator_parameters=result.discriminator_parameters,
    )


def dit(work: Work) -> Made:
    """Train a generator of codes, or go on where an earlier attempt stopped."""
    from sweepctl.plan import completed, settings_of
    from vitok_core import train
    from vitok_core.latents import open_latents
    from vitok_core.tokenizer import load_tokenizer, read_about

    config = work.identity["config"]
    settings = settings_of(DiT, config["dit"], flip=config["flip"], seed=config["seed"])
    latents = open_latents(work.parents["latents"])
    spec = settings.spec(load_tokenizer(latents.weights).spec, config["classes"])
    telling, continued_from = _Telling(work), _gone_on(work)
    result = train.train_dit(
        spec,
        settings,
        latents,
        work.folder,
        run=_run(work, settings.steps),
        until=config.get("until"),
        about=work.about(
            "dit",
            {"dit": completed(config["dit"], DiT.PLACE), "classes": config["classes"]},
            {"config": read_about(latents.weights).get("config", {})},
        ),
        progress=telling,
        should_stop=work.should_stop,
    )
    return _trained(
        telling,
        result,
        continued_from,
        parameters=spec.parameters,
        latent_mean=result.latent_mean,
        latent_std=result.latent_std,
    )


def tokenizer_spec(config: Mapping[str, Any]) -> TokenizerSpec:
    """The tokenizer that a stage's config describes."""
    from sweepctl.plan import completed
    from vitok_core.spec import TokenizerSpec

    shape = {"resolution": config["resolution"], "frames": config["frames"]}
    return TokenizerSpec.from_plain({**completed(config["tokenizer"], "tokenizer"), **shape})


@contextlib.contextmanager
def _samples(work: Work) -> Iterator[Samples]:
    """What a tokenizer is trained on: the prepared parent, or a set of the user's as it lies."""
    from sweepctl.plan import completed
    from vitok_core import data

    if "stream" not in work.identity["config"]:
        yield data.open_prepared(work.parents["images"])
        return
    asked = completed(work.identity["config"]["stream"], "data")
    with data.StreamSet(
        data.find_scan(work.identity["data"]),
        resolution=asked["resolution"],
        frames=asked["frames"],
        fps=asked["fps"],
        threads=work.decoders,
        crop=asked["crop"],
    ) as stream:
        yield stream
        for one in stream.broken[:BROKEN_SHOWN]:
            why = f"{one.why}{': ' if one.detail else ''}{one.detail}"
            log(f"note: {one.name} was replaced by the next whole one: {why}")


class _Telling:
    """Progress of a training as events and notes, each note once; what fits is kept on disk."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.noted: set[str] = set()
        self.device = _device_of(work)
        self.kept: Fitted | None = None
        (work.folder / FITTED_FILE).unlink(missing_ok=True)

    def __call__(self, at: TrainingProgress) -> None:
        # At once: if the loss is no number in the next step, the spike before it was the warning.
        self.note(at.notes)
        self.keep(at.micro_batch, at.recompute_activations)
        self.work.event(
            {
                "step": at.step,
                "steps": at.steps,
                "loss": at.loss,
                "samples_per_s": at.samples_per_s,
                "eta_s": at.eta_s,
            }
        )

    def keep(self, micro_batch: int | None, recompute: bool, peak: int | None = None) -> None:
        """Keep what fits the device, once it has; that all fits a CPU is no news.

        Of several processes the first one does.
        """
        from vitok_core import train

        if train.world().rank > 0:
            return
        fits = dataclasses.replace(
            self.device, micro_batch=micro_batch, recompute=recompute, peak_bytes=peak
        )
        if fits != self.kept and (fits.memory_bytes > 0 or micro_batch is not None):
            runs.write_json(self.work.folder / FITTED_FILE, fits)
            self.kept = fits

    def note(self, texts: tuple[str, ...]) -> None:
        for text in texts:
            if text not in self.noted:
                self.noted.add(text)
                log(f"note: {text}")


def _gone_on(work: Work) -> int:
    """As `_take_over`, done by the first of several processes."""
    from vitok_core.ranks import from_first

    return from_first(lambda: _take_over(work))


def _take_over(work: Work) -> int:
    """Take up the end of an earlier training, once; the step it ended at, 0 for none."""
    from vitok_core import train

    note = work.folder / CONTINUED
    if note.exists():
        return int(runs.read_json(note)["step"])
    for earlier in work.continues:
        step = train.link_checkpoint(work.folder, earlier)
        if step > 0:
            runs.write_json(note, {"step": step, "task": earlier.name})
            log(f"goes on from step {step} of {earlier.name}")
            return step
    return 0


def _trained(telling: _Telling, result: TrainingResult, continued_from: int, **own: Any) -> Made:
    """What is recorded of a finished training; `own` are the values of its kind."""
    from vitok_core import train

    # On a CPU it is the memory of the process, of which nobody takes parts.
    peak = result.peak_memory_bytes if telling.device.memory_bytes > 0 else None
    telling.keep(result.micro_batch, result.recompute_activations, peak)
    telling.note((*result.notes, *(event.text for event in result.events)))
    return Made(
        files=(result.weights.name,),
        values={
            "loss": result.loss,
            "loss_recent": result.loss_recent,
            "parts_recent": dict(result.parts_recent),
            "samples": result.samples,
            "samples_per_s": result.samples_per_s,
            "flops_per_s": result.flops_per_s,
            "mfu": result.mfu,
            "peak_memory_bytes": result.peak_memory_bytes,
            "resumed_from": result.resumed_from,
            "ranks": train.world().size,
            "micro_batch": result.micro_batch,
            "recompute_activations": result.recompute_activations,
            "continued_from": continued_from,
            **own,
            "skipped_steps": sum(event.kind == train.SKIPPED for event in result.events),
            "events": [dataclasses.asdict(event) for event in result.events],
            "notes": list(result.notes),
            "curve": [
                {"step": point.step, "loss": point.loss, **point.parts} for point in result.curve
            ],
        },
        share=1 - continued_from / result.steps,
    )


def _run(work: Work, steps: int | None) -> Run:
    micro_batch, recompute = work.micro_batch, work.recompute
    known = _known(work)
    if known is not None and micro_batch == "auto" and recompute in ("auto", known.recompute):
        micro_batch, recompute = known.micro_batch or "all", known.recompute
        log(f"begins with {micro_batch} samples at once, which fitted before")
    return Run(
        device=work.device,
        checkpoint_s=work.checkpoint_s,  # type: ignore[arg-type]
        skip_non_finite=work.skip_non_finite,
        micro_batch=None if micro_batch == "all" else micro_batch,  # type: ignore[arg-type]
        recompute_activations=recompute,  # type: ignore[arg-type]
        sheet_every=max(1, whole_steps(steps) // SHEETS),
    )


ROOMIER = 1.1
"""With so many times the free memory that there was, what fitted then says little: more may fit."""


def _device_of(work: Work) -> Fitted:
    """The device of an attempt, before anything has fitted it."""
    from vitok_core import train

    memory, free = device_memory(work.device)
    return Fitted(
        device_name=device_name(work.device, work.threads),
        memory_bytes=memory,
        ranks=train.world().size,
        micro_batch=None,
        recompute=False,
        free_bytes=free,
    )


def _known(work: Work) -> Fitted | None:
    """What fitted a device like this one in an earlier training; None where nothing is known."""
    here = _device_of(work)
    for one in work.fitted:
        same = (one.device_name, one.memory_bytes, one.ranks)
        if same != (here.device_name, here.memory_bytes, here.ranks):
            continue
        if one.free_bytes and here.free_bytes and here.free_bytes > ROOMIER * one.free_bytes:
            return None
        return one
    return None
