"""The laws that the ViTok paper plots and what it claims: figures and findings as studies.

Each entry of `_studies` names figures, the laws that are plotted there with the R2 that is printed
next to them, and claims in a form that can turn out wrong. Fitted on `reference_points`, a figure
gives back the plotted lines; a finding (`finding-1` to `finding-5`) is put to tests that the paper
did not make: the same tests that your studies go through. The findings are in our words.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweepctl.errors import UsageError
from sweepctl.paper._points import reference_points
from sweepctl.study import (
    AnyClaim,
    FactorClaim,
    Fit,
    HoldoutClaim,
    MonotoneClaim,
    OptimumClaim,
    SlopeClaim,
    TradeoffClaim,
)

if TYPE_CHECKING:
    import pandas as pd

_IMAGENET, _COCO, _GENERATED = "ImageNet-1K val", "COCO-2017 val", "ImageNet-1K"
_VIDEOS = {
    "kinetics": "Kinetics-700 val",
    "ucf": "UCF-101 train",
    "shutterstock": "Shutterstock val",
}
_MARGINS = {"psnr": 0.25}
"""What counts as nothing. 10 % of rFID is what a tenth of a doubling of E buys; in PSNR the same
tenth buys about 0.25 dB."""
_SCALES = {"rfid": "loglog", "rfvd": "loglog", "gfid": "loglog"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperStudy:
    """What the paper shows in some figures.

    Attributes:
        about: what it is about, in one sentence.
        figures: the figures that hold its points, as `reference_points` names them.
        fits: the plotted laws by name.
        claims: what is claimed.
        printed: R2 as printed in the figure, by the name of the law.
    """

    about: str
    figures: tuple[str, ...]
    fits: Mapping[str, Fit]
    claims: tuple[AnyClaim, ...] = ()
    printed: Mapping[str, float] = field(default_factory=dict)


def _fit(metric: str, on: str, **more: Any) -> Fit:
    words = {"metric": metric, "on": on, "form": _SCALES.get(metric, "semilog")} | more
    return Fit.model_validate(words)


def _reconstruction(*metrics: str) -> dict[str, Fit]:
    """Laws in E, one a metric and data set: "rfid-coco"."""
    sets = {"coco": _COCO, "imagenet": _IMAGENET}
    parts = [metric.partition("-") for metric in metrics]
    return {f"{metric}-{name}": _fit(metric, sets[name]) for metric, _, name in parts}


def _sizes(part: str) -> dict[str, Fit]:
    """Reconstruction laws in the size of the encoder or the decoder."""
    x = f"{part}_parameters"
    return {name: _fit(name, _IMAGENET, x=x) for name in ("rfid", "ris", "ssim", "psnr")}


def _generation(part: str) -> dict[str, Fit]:
    """Generation laws in the size of the encoder or the decoder, at both guidance scales."""
    x = f"{part}_parameters"
    return {
        f"{metric}-cfg{cfg:g}": _fit(metric, _GENERATED, x=x, where={"cfg": cfg})
        for cfg in (1.5, 3.0)
        for metric in ("gfid", "gis")
    }


def _curves() -> dict[str, Fit]:
    """Generation over E, all patch sizes together, as plotted in figure 4."""
    return {
        f"{metric}-cfg{cfg:g}": _fit(metric, _GENERATED, form="quadratic", where={"cfg": cfg})
        for cfg in (1.5, 3.0)
        for metric in ("gfid", "gis")
    }


def _by_patch() -> dict[str, Fit]:
    return {
        f"gfid-p{p}": _fit("gfid", _GENERATED, form="quadratic", where={"cfg": 1.5, "p": p})
        for p in (8, 16, 32)
    }


def _losses() -> dict[str, Fit]:
    return {
        f"{metric}-{x}": _fit(metric, _IMAGENET, x=x, form="linear")
        for metric in ("rfid", "ris")
        for x in ("ssim", "psnr")
    }


def _videos(*metrics: str) -> dict[str, Fit]:
    return {
        f"{metric}-{name}": _fit(metric, on) for metric in metrics for name, on in _VIDEOS.items()
    }


def _printed(fits: Mapping[str, Fit], *values: float) -> dict[str, float]:
    return dict(zip(fits, values, strict=True))


def _line(name: str, fit: str, slope: str, r2: str | None = None) -> SlopeClaim:
    return SlopeClaim.model_validate({"name": name, "fit": fit, "slope": slope, "r2": r2})


def _nothing(name: str, metric: str, on: str, factor: str, given: str, **where: Any) -> FactorClaim:
    return FactorClaim.model_validate(
        {
            "name": name,
            "metric": metric,
            "on": on,
            "factor": factor,
            "given": given,
            "margin": _MARGINS.get(metric, "10%"),
            "where": where,
        }
    )


def _against(metric: str, on: str, against: str, against_on: str, **where: Any) -> TradeoffClaim:
    words = {"name": f"{metric} costs {against}", "metric": metric, "on": on, "against": against}
    return TradeoffClaim.model_validate(words | {"against_on": against_on, "where": where})


def _studies() -> dict[str, PaperStudy]:
    images = _reconstruction(
        *("rfid-coco", "rfid-imagenet", "ris-imagenet", "ssim-coco", "ssim-imagenet"),
        *("psnr-coco", "psnr-imagenet"),
    )
    larger = _reconstruction(
        *("rfid-imagenet", "rfid-coco", "ris-imagenet", "ssim-imagenet", "ssim-coco"),
        *("psnr-imagenet", "psnr-coco"),
    )
    videos = _videos("rfid", "rfvd", "ssim", "psnr")
    curves, losses = _curves(), _losses()
    return {
        "figure-3": PaperStudy(
            about="Reconstruction of 256-pixel images over E.",
            figures=("3",),
            fits=images,
            printed=_printed(images, 0.92, 0.94, 0.91, 0.98, 0.98, 0.93, 0.92),
            claims=(_line("E predicts rFID", "rfid-imagenet", "negative", ">= 0.9"),),
        ),
        "figure-4": PaperStudy(
            about="Generation by a DiT-L over E, at two guidance scales.",
            figures=("4",),
            fits=curves,
            printed=_printed(curves, 0.75, 0.58, 0.13, 0.68),
            claims=(
                OptimumClaim(name="gFID has a best E", fit="gfid-cfg1.5", optimum="minimum"),
                OptimumClaim(name="and with strong guidance", fit="gfid-cfg3", optimum="minimum"),
            ),
        ),
        "figure-5": PaperStudy(
            about="Reconstruction over the size of the encoder, E fixed.",
            figures=("5/6",),
            fits=_sizes("encoder"),
            printed=_printed(_sizes("encoder"), 0.0, 0.04, 0.05, 0.07),
        ),
        "figure-6": PaperStudy(
            about="Reconstruction over the size of the decoder, E fixed.",
            figures=("5/6",),
            fits=_sizes("decoder"),
            printed=_printed(_sizes("decoder"), 0.63, 0.48, 0.71, 0.83),
        ),
        "figure-7": PaperStudy(
            about="Generation over the size of the encoder, E fixed.",
            figures=("7/8",),
            fits=_generation("encoder"),
            printed=_printed(_generation("encoder"), 0.24, 0.23, 0.13, 0.28),
        ),
        "figure-8": PaperStudy(
            about="Generation over the size of the decoder, E fixed.",
            figures=("7/8",),
            fits=_generation("decoder"),
            printed=_printed(_generation("decoder"), 0.03, 0.03, 0.35, 0.01),
        ),
        "figure-9": PaperStudy(
            about="Sharpness against fidelity, over six training losses.",
            figures=("9",),
            fits=losses,
            printed=_printed(losses, 0.92, 0.56, 0.82, 0.46),
        ),
        "figure-10": PaperStudy(
            about="Reconstruction of clips of 16 frames over E.",
            figures=("10",),
            fits=videos,
            printed=_printed(
                videos,
                *(0.98, 0.98, 0.98, 0.98, 0.98, 0.99),
                *(0.97, 0.97, 0.98, 0.99, 0.98, 0.98),
            ),
        ),
        "figure-12": PaperStudy(
            about="Reconstruction of 512-pixel images over E.",
            figures=("12",),
            fits=larger,
            printed=_printed(larger, 0.99, 0.99, 0.88, 1.0, 1.0, 0.99, 0.99),
        ),
        **_findings_on_codes(images, videos, curves),
        **_findings_on_sizes_and_losses(losses),
    }


def _findings_on_codes(
    images: Mapping[str, Fit], videos: Mapping[str, Fit], curves: Mapping[str, Fit]
) -> dict[str, PaperStudy]:
    return {
        "finding-1": PaperStudy(
            about="Reconstruction is decided by E, the number of floating points in the code; the "
            "shape of the code and the compute hardly matter. Clips behave like images.",
            figures=("3", "10"),
            fits={name: images[name] for name in ("rfid-imagenet", "rfid-coco", "psnr-imagenet")}
            | {"rfvd-kinetics": videos["rfvd-kinetics"]},
            claims=(
                _line("E predicts rFID", "rfid-imagenet", "negative", ">= 0.9"),
                _line("E predicts PSNR", "psnr-imagenet", "positive", ">= 0.9"),
                _line("E predicts rFVD of clips", "rfvd-kinetics", "negative", ">= 0.9"),
                MonotoneClaim(
                    name="more E never hurts", metric="rfid", on=_IMAGENET, monotone="falling"
                ),
                _nothing("p adds nothing to rFID", "rfid", _IMAGENET, "p", "E"),
                _nothing("p adds nothing to PSNR", "psnr", _IMAGENET, "p", "E"),
                HoldoutClaim.model_validate(
                    {"name": "the law predicts larger codes", "fit": "rfid-imagenet"}
                    | {"holdout": "> 8192", "margin": "25%"}
                ),
            ),
        ),
        "finding-2": PaperStudy(
            about="Generation does not simply get better with E: there is a best E, which depends "
            "on the channels, because a large code is harder to generate.",
            figures=("3", "4"),
            fits={"gfid-cfg1.5": curves["gfid-cfg1.5"], "gfid-cfg3": curves["gfid-cfg3"]}
            | _by_patch(),
            claims=(
                MonotoneClaim.model_validate(
                    {"name": "more E never hurts gFID", "metric": "gfid", "on": _GENERATED}
                    | {"monotone": "falling", "where": {"cfg": 1.5}}
                ),
                OptimumClaim(name="gFID has a best E", fit="gfid-cfg1.5", optimum="minimum"),
                OptimumClaim(name="also with guidance 3", fit="gfid-cfg3", optimum="minimum"),
                *(
                    OptimumClaim(name=f"also at p = {p}", fit=f"gfid-p{p}", optimum="minimum")
                    for p in (8, 16, 32)
                ),
                _nothing("p adds nothing to gFID", "gfid", _GENERATED, "p", "E", cfg=1.5),
                _against("gfid", _GENERATED, "rfid", _IMAGENET, cfg=1.5),
            ),
        ),
    }


def _findings_on_sizes_and_losses(losses: Mapping[str, Fit]) -> dict[str, PaperStudy]:
    encoder, decoder = _generation("encoder"), _generation("decoder")
    return {
        "finding-3": PaperStudy(
            about="A larger encoder does nothing for reconstruction and may hurt generation.",
            figures=("5/6", "7/8"),
            fits={"rfid": _sizes("encoder")["rfid"], "psnr": _sizes("encoder")["psnr"]} | encoder,
            claims=(
                _nothing("no gain in rFID", "rfid", _IMAGENET, "encoder", "decoder_parameters"),
                _nothing("no gain in PSNR", "psnr", _IMAGENET, "encoder", "decoder_parameters"),
                _line("a larger encoder raises gFID", "gfid-cfg1.5", "positive"),
                _line("also with guidance 3", "gfid-cfg3", "positive"),
            ),
        ),
        "finding-4": PaperStudy(
            about="A larger decoder helps reconstruction, but hardly generation.",
            figures=("5/6", "7/8"),
            fits={"rfid": _sizes("decoder")["rfid"], "psnr": _sizes("decoder")["psnr"]} | decoder,
            claims=(
                _line("a larger decoder lowers rFID", "rfid", "negative"),
                _line("a larger decoder raises PSNR", "psnr", "positive"),
                _nothing(
                    *("no gain in gFID", "gfid", _GENERATED, "decoder", "encoder_parameters"),
                    cfg=1.5,
                ),
            ),
        ),
        "finding-5": PaperStudy(
            about="Fidelity (PSNR, SSIM) is traded for realism (rFID, rIS) by the choice of the "
            "loss: the decoder is in part a generator.",
            figures=("9",),
            fits=losses,
            claims=tuple(
                _against(metric, _IMAGENET, other, _IMAGENET)
                for metric in ("rfid", "ris")
                for other in ("ssim", "psnr")
            ),
        ),
    }


def paper_names() -> tuple[str, ...]:
    """Names that `paper_study` knows: paper/figure-3 ... paper/finding-5."""
    return tuple(f"paper/{name}" for name in _studies())


def paper_study(name: str) -> PaperStudy:
    """What the paper shows under a name.

    Raises:
        UsageError: there is no such figure or finding.
    """
    studies = _studies()
    short = name.removeprefix("paper/")
    if short in studies:
        return studies[short]
    near = difflib.get_close_matches(short, studies, n=1)
    meant = f"; did you mean 'paper/{near[0]}'?" if near else ""
    raise UsageError(
        f"the paper's points have no {name!r}{meant}", hint=f"one of: {', '.join(paper_names())}"
    )


def paper_frame(study: PaperStudy) -> pd.DataFrame:
    """The published points of a figure or finding, as `fit_study` takes them."""
    frame = reference_points()
    return frame[frame["figure"].isin(study.figures)].reset_index(drop=True)
