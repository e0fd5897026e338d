"""What do trainings and measurements begin from? Data in arrays, features of originals, codes.

Nothing is learned here: the same files come out whoever makes them.
"""

from __future__ import annotations

import functools

from sweepctl.tasks._work import BROKEN_SHOWN, Made, Work, log
from vitok_core.spec import FRAMES_AT_ONCE


def prepare(work: Work) -> Made:
    """Cut a data set's images or clips into an on-disk array, or go on with it."""
    from sweepctl.plan import completed
    from vitok_core import data

    config, identity = completed(work.identity["config"], "data"), work.identity["data"]
    make = functools.partial(data.prepare, config["dataset"])
    if "content" in identity:  # a data set of the user's: by its content, wherever it is here
        make = functools.partial(data.prepare_own, data.find_scan(identity), threads=work.decoders)
    info = make(
        resolution=config["resolution"],
        images=config["images"],
        frames=config["frames"],
        fps=config["fps"],
        folder=work.folder,
        progress=lambda done, total: work.event({"step": done, "steps": total}),
        should_stop=work.should_stop,
    )
    for one in info.broken[:BROKEN_SHOWN]:
        log(f"note: {one.name} was skipped: {one.why}{': ' if one.detail else ''}{one.detail}")
    if len(info.broken) > BROKEN_SHOWN:
        log(f"note: {len(info.broken)} files were skipped; report.json names all")
    return Made(
        files=("samples.npy", "labels.npy", *(("report.json",) if "content" in identity else ())),
        values={
            "images": info.images,
            "sources": list(info.sources),
            "samples_sha256": info.samples_sha256,
            "read": info.read,
            "handled": dict(info.handled),
            "broken": len(info.broken),
        },
    )


def reference(work: Work) -> Made:
    """Features of the originals, computed once for all tokenizers."""
    from vitok_core import data, evaluate

    images = data.open_prepared(work.parents["images"])
    evaluate.reference_features(
        images,
        protocol_name=work.identity["protocol"]["name"],
        features=work.identity["config"].get("features"),
        folder=work.folder,
        device=work.device,
        progress=lambda at: work.event({"step": at.done, "steps": at.total}),
        should_stop=work.should_stop,
    )
    return Made(files=("features.npy",), values={"images": len(images)})


def latents(work: Work) -> Made:
    """Posteriors of all samples, computed once, and the tokenizer with their statistics."""
    from sweepctl.plan import completed
    from vitok_core import data
    from vitok_core.latents import compute_latents
    from vitok_core.tokenizer import load_tokenizer, read_about

    settings = completed(work.identity["config"], "stages.latents")
    weights = work.parents["tokenizer"] / "weights.safetensors"
    tokenizer = load_tokenizer(weights, work.device)
    about = read_about(weights)
    info = compute_latents(
        tokenizer,
        data.open_prepared(work.parents["images"]),
        work.folder,
        normalisation=settings["normalisation"],
        flip=settings["flip"],
        dtype=settings["dtype"],
        device=work.device,
        batch=max(1, FRAMES_AT_ONCE // tokenizer.spec.frames),
        # Of the folder's one task, whose identity names tokenizer and data.
        made_by={"task": work.task},
        # Still the weights of that training, with its numbers.
        about=work.about("latents", {"latents": settings}, about),
        progress=lambda done, total: work.event({"step": done, "steps": total}),
        should_stop=work.should_stop,
    )
    statistics = info.normalisation
    return Made(
        files=(*info.sha256, info.weights.name),
        values={
            "samples": info.samples,
            "mirrored": info.mirrored,
            "tokens": info.tokens,
            "c": info.c,
            "arrays_bytes": info.arrays_bytes,
            "mean": statistics.mean,
            "std": statistics.std,
            "mean_per_channel": statistics.mean_C.tolist(),
            "std_per_channel": statistics.std_C.tolist(),
        },
    )
