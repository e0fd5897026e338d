"""What was measured on what? Published numbers and cells of one's own, told by the same factors.

A factor is a setting under the name that people use for it: encoder, p, c, LPIPS weight. The paper
does not print a config beside each point; what a figure's labels, its caption and the training
section (2.3, appendix A) say of a point is put together here, with the misprints read as the study
files in studies/paper say. A cell's config gives the same factors, so that the two can be held
against each other one by one. What the paper leaves open is no factor: absent, not guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweepctl.paper._points import PROTOCOL, reference_points
from vitok_core.protocols import METRICS

DATA_SETS: Mapping[str, Mapping[str, str]] = {
    "reconstruction": {
        "imagenet-val": "ImageNet-1K val",
        "coco-val": "COCO-2017 val",
        "kinetics-700-val": "Kinetics-700 val",
        "ucf101-train": "UCF-101 train",
        "shutterstock-val": "Shutterstock val",
    },
    "generation": {
        "imagenet-train": "ImageNet-1K",
        "imagenet-val": "ImageNet-1K",
        "ucf101-train": "UCF-101",
    },
}
"""Names of data sets in studies/paper -> what the paper calls them."""

_VIDEO_BATCH, _IMAGE_BATCH, _STEPS = 256, 1024, 100_000
_STAGE2_STEPS, _GAN_WEIGHT, _DISCRIMINATOR_LR = 100_000, 0.05, 2e-5
_MASK_LENGTHS = (32, 64, 128, 256)
_TABLE_CHANNELS = 16
"""The tables print no c; their tokens and E (section 4) are those of c = 16."""

_Settings = Mapping[str, tuple[str, Any]]
"""Setting -> its place in a config, and the only value that the paper's studies have of it."""

_STAGE1_RECIPE: _Settings = {
    "norm": ("tokenizer.norm", "layernorm"),
    "QK norm": ("tokenizer.qk_norm", False),
    "causal": ("tokenizer.causal", False),
    "flip": ("stages.stage1.flip", True),
    "EMA": ("stages.stage1.ema", None),
    "pixel weight": ("stages.stage1.loss.pixel_weight", 1.0),
    "SSIM weight": ("stages.stage1.loss.ssim", 0.0),
    "DINO weight": ("stages.stage1.loss.dino", 0.0),
}
_STAGE2_RECIPE: _Settings = {
    "stage 2 batch": ("stages.stage2.batch", 256),
    "stage 2 lr": ("stages.stage2.optimiser.lr", 1e-4),
    "stage 2 flip": ("stages.stage2.flip", True),
    "stage 2 EMA": ("stages.stage2.ema", 0.9999),
    "stage 2 pixel loss": ("stages.stage2.loss.pixel", "l2"),
    "stage 2 pixel weight": ("stages.stage2.loss.pixel_weight", 1.0),
    "stage 2 LPIPS weight": ("stages.stage2.loss.lpips", 1.0),
    "stage 2 LPIPS network": ("stages.stage2.loss.lpips_net", "vgg"),
    "stage 2 KL weight": ("stages.stage2.loss.kl", 1e-3),
    "stage 2 SSIM weight": ("stages.stage2.loss.ssim", 0.0),
    "stage 2 DINO weight": ("stages.stage2.loss.dino", 0.0),
}
_ADVERSARY: _Settings = {
    "discriminator width": ("stages.stage2.discriminator_width", 1.0),
    "GAN start": ("stages.stage2.adversarial.start", 0),
    "GAN ramp": ("stages.stage2.adversarial.ramp", 25_000),
    "R1": ("stages.stage2.adversarial.r1", 0.0),
    "LeCam": ("stages.stage2.adversarial.lecam", 0.0),
    "adaptive GAN weight": ("stages.stage2.adversarial.adaptive", False),
}
_DIT_RECIPE: _Settings = {
    "latents": ("stages.latents.normalisation", "none"),
    "latents flip": ("stages.latents.flip", True),
    "target": ("stages.dit.target", "eps"),
    "learnt sigma": ("stages.dit.learn_sigma", True),
    "generator QK norm": ("stages.dit.qk_norm", False),
    "class dropout": ("stages.dit.class_dropout", 0.1),
    "generator lr": ("stages.dit.optimiser.lr", 1e-4),
    "generator EMA": ("stages.dit.ema", 0.9999),
    "cfg interval": ("evaluate.generation.cfg_interval", None),
}


def _recipe(*parts: _Settings) -> dict[str, Any]:
    return {name: value for part in parts for name, (_, value) in part.items()}


_DEFAULTS: Mapping[str, Any] = {
    "latent tokens": None,
    "trained lengths": (),
    "length": None,
    "pixel loss": "l2",
    "LPIPS weight": 1.0,
    "LPIPS network": "vgg",
    "KL weight": 1e-3,
    "stage 2 steps": None,
    "positions": "axial",
    "bottleneck": "kl",
    "precision": "bf16",
    "stage 1 lr a batch of 256": 1e-4,
    **_recipe(_STAGE1_RECIPE),
}
_STAGE2: Mapping[str, Any] = {
    "stage 2 steps": _STAGE2_STEPS,
    "GAN weight": _GAN_WEIGHT,
    "discriminator lr": _DISCRIMINATOR_LR,
    "stage 2 trains": "decoder",
    **_recipe(_STAGE2_RECIPE, _ADVERSARY),
}
WITH_STAGE2 = frozenset(_STAGE2) - {"stage 2 steps"}
"""Settings that say nothing where there is no stage 2."""
_LOSSES: Mapping[str, Mapping[str, Any]] = {
    "L2 + 1.0 LPIPS": {},
    "L2 (LPIPS 0)": {"LPIPS weight": 0.0, "LPIPS network": None},
    "L2 + 0.5 LPIPS": {"LPIPS weight": 0.5},
    "L1 (LPIPS 0)": {"pixel loss": "l1", "LPIPS weight": 0.0, "LPIPS network": None},
    "L1 + 1.0 LPIPS": {"pixel loss": "l1"},
    "L2 + LPIPS + GAN (stage 2)": _STAGE2,
}
_ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "F32": {"precision": "fp32"},
    "no VAE": {"bottleneck": "none", "KL weight": 0.0},
    "no position": {"positions": "none"},
    "1D RoPE": {"positions": "1d"},
    "2D axial RoPE": {"positions": "2d axial"},
    "2D mixed RoPE": {"positions": "2d mixed"},
    "sincos 2D": {"positions": "sincos"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredValue:
    """One number and what it was measured on.

    Attributes:
        metric: name of the metric.
        kind: "reconstruction" or "generation".
        on: data set; the paper's name for it where it is one of the paper's.
        protocol: rules it was measured under; "paper" for published numbers.
        n: samples it was measured on; None where that is not known.
        value: the number, in the metric's unit; NaN for what is only planned.
        factors: setting -> value, by the names of this file.
        place: the paper's figure or table; empty for results of one's own.
        cell: number of the cell; of a published point its smallest row.
        training_set: what the tokenizer was trained on, as it is called.
    """

    metric: str
    kind: str
    on: str
    protocol: str
    n: int | None
    value: float
    factors: Mapping[str, Any] = field(hash=False)
    place: str = ""
    cell: int = 0
    training_set: str = ""

    def stands_in(self, place: str) -> bool:
        """Whether it is of the figure or table; "Fig 1" is not the beginning of "Fig 12"."""
        rest = self.place[len(place) :]
        return bool(place) and self.place.startswith(place) and not rest[:1].isdigit()


def figure_or_table(name: str) -> str:
    """The figure or table that a name speaks of, as `ConfiguredValue.place` begins; empty for none.

    Args:
        name: of a study in studies/paper (paper-figure-3), or paper/figure-3.
    """
    named = re.match(r"paper[-/](figure|table)-(\d+)(?!\d)", name)
    if named is None:
        return ""
    if named[1] == "table":
        return f"Table {named[2]}"
    twins = {"5": "5/6", "6": "5/6", "7": "7/8", "8": "7/8", "11": "3"}
    return f"Fig {twins.get(named[2], named[2])}"


# --- published numbers ------------------------------------------------------------------------


@functools.cache
def published() -> tuple[ConfiguredValue, ...]:
    """Every number of a ViTok that the paper plots or prints, in the order of its file.

    Numbers of other tokenizers, sizes, and points whose configuration is not stated are left out.
    """
    frame = reference_points()
    rows = frame[frame["kind"].isin(("reconstruction", "generation"))]
    made = []
    for row in rows.to_dict("records"):
        row = {name: None if _absent(value) else value for name, value in row.items()}
        shape = _shape(row)
        if shape is None or row["metric"] in ("params_M", "GFLOPs", "tokens"):
            continue
        kind = str(row["kind"])
        made.append(
            ConfiguredValue(
                metric=str(row["metric"]),
                kind=kind,
                on=str(row["dataset"]).removesuffix(" (11k)"),
                protocol=PROTOCOL,
                n=None if row["n"] is None else int(row["n"]),
                value=float(row["value"]),
                factors={
                    "q": 1,
                    **_DEFAULTS,
                    **shape,
                    "resolution": int(row["resolution"]),
                    # Table 5 holds images and leaves the column empty.
                    "frames": int(row["frames"] or 1),
                    "stage 1 samples": _stage1_samples(row),
                    **_setting(row),
                    **(_generated(row) if kind == "generation" else {}),
                },
                place=str(row["figure_or_table"]),
                cell=int(row["cell"]),
                training_set="Shutterstock and ImageNet-1K"
                if (row["frames"] or 1) == 1
                else "Shutterstock videos",
            )
        )
    return tuple(made)


def _absent(value: object) -> bool:
    return value is None or value != value or str(value) == "<NA>"


def _shape(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Sizes and patches; None where the row is of no ViTok or does not say."""
    if row["encoder"] is not None and row["p"] is not None:
        return {
            "encoder": row["encoder"],
            "decoder": row["decoder"],
            "q": int(row["q"]),
            "p": int(row["p"]),
            "c": int(row["c"]),
        }
    named = re.match(r"(?:ViTok )?([SBL])-([SBL])/(?:(\d+)x)?(\d+)", str(row["variant"]))
    if named is None:
        return None
    encoder, decoder, q, p = named.groups()
    return {
        "encoder": encoder,
        "decoder": decoder,
        "q": int(q or 1),
        "p": int(p),
        "c": _TABLE_CHANNELS,
    }


def _stage1_samples(row: Mapping[str, Any]) -> int:
    return _STEPS * (_IMAGE_BATCH if (row["frames"] or 1) == 1 else _VIDEO_BATCH)


def _setting(row: Mapping[str, Any]) -> dict[str, Any]:
    """What figures and tables say beside the sizes."""
    setting, variant = str(row["setting"] or ""), str(row["variant"])
    place = str(row["figure_or_table"])
    if place.startswith(("Table 2", "Table 3", "Table 4", "Table 5", "Table 6")):
        return dict(_STAGE2)
    if variant.endswith("float32"):
        return {"precision": "fp32"}
    if setting in _LOSSES:
        return dict(_LOSSES[setting])
    if setting in _ABLATIONS:
        return dict(_ABLATIONS[setting])
    if "stage-2 step" in setting:
        return _adversarial(setting)
    if "mask" in variant:
        tokens = int(row["tokens"])
        latent = max(_MASK_LENGTHS) if "latent" in variant else None
        return {"trained lengths": _MASK_LENGTHS, "length": tokens, "latent tokens": latent}
    if variant.endswith("latent"):
        return {"latent tokens": int(row["tokens"])}
    return {}


def _adversarial(setting: str) -> dict[str, Any]:
    """Figure 13: "disc lr 2e-5, GAN weight 0.05; stage-2 step 10000"."""
    how, _, step = setting.partition("; stage-2 step ")
    steps = {"stage 2 steps": int(step), "stage 2 trains": "decoder", **_recipe(_STAGE2_RECIPE)}
    if how.startswith("no discriminator"):
        return steps | {"GAN weight": 0.0, "discriminator lr": None}
    steps |= _recipe(_ADVERSARY)
    if how.startswith("full finetune"):
        return {**_STAGE2, **steps, "stage 2 trains": "all"}
    lr, weight = re.findall(r"[\d.]+(?:e-?\d+)?", how)
    return steps | {"GAN weight": float(weight), "discriminator lr": float(lr)}


def _generated(row: Mapping[str, Any]) -> dict[str, Any]:
    how = str(row["generator"] or "")
    found = _recipe(_DIT_RECIPE)
    # Tables 5 and 6 name the other papers' guidance, not ViTok's; they say size and steps.
    if row["cfg"] is not None:
        found["cfg"] = float(row["cfg"])
    if size := re.search(r"DiT-([A-Z]+)", how):
        found["generator"] = f"DiT-{size[1]}"
    if steps := re.search(r"([\d.]+)([kM]) steps", how):
        found["generator steps"] = int(float(steps[1]) * {"k": 1e3, "M": 1e6}[steps[2]])
    found["generator batch"] = 256
    found["sampling steps"] = 250
    return found


# --- one's own --------------------------------------------------------------------------------


def configured(
    config: Mapping[str, Any],
    *,
    metric: str,
    dataset: str,
    protocol: str,
    n: int | None,
    value: float,
    cell: int = 0,
) -> ConfiguredValue:
    """A number of a cell, by the factors of its config.

    Args:
        config: the cell's resolved config, plain data.
        metric: name of the metric.
        dataset: data set as the study calls it.
        protocol: protocol it was measured under.
        n: number of samples.
        value: the number.
        cell: number of the cell.
    """
    kind = METRICS[metric].group
    tokenizer, data, stages = config["tokenizer"], config["data"], config["stages"]
    stage1 = stages["stage1"]
    loss = stage1["loss"]
    lengths = tuple(tokenizer.get("lengths") or ())
    length = config["evaluate"]["reconstruction"].get("length")
    if kind == "generation":
        length = None
    factors: dict[str, Any] = {
        **{name: tokenizer[name] for name in ("encoder", "decoder", "q", "p", "c")},
        "latent tokens": tokenizer.get("latent_tokens"),
        "trained lengths": lengths,
        "length": length if length is not None or not lengths else max(lengths),
        "resolution": data["resolution"],
        "frames": data["frames"],
        "stage 1 samples": stage1["steps"] * stage1["batch"],
        "pixel loss": loss["pixel"],
        "LPIPS weight": float(loss["lpips"]),
        "LPIPS network": loss["lpips_net"] if loss["lpips"] > 0 else None,
        "KL weight": float(loss["kl"]),
        "positions": tokenizer["positions"],
        "bottleneck": tokenizer["bottleneck"],
        "precision": stage1["precision"],
        # Printed "1e-4 / 256": a rate goes with its batch.
        "stage 1 lr a batch of 256": stage1["optimiser"]["lr"] * 256 / stage1["batch"],
        **_stated(config, _STAGE1_RECIPE),
        **_own_stage2(config),
    }
    if kind == "generation":
        factors |= _own_generation(config)
    return ConfiguredValue(
        metric=metric,
        kind=kind,
        on=DATA_SETS[kind].get(dataset, dataset),
        protocol=protocol,
        n=n,
        value=value,
        factors=factors,
        cell=cell,
        training_set=data["train"],
    )


def _stated(config: Mapping[str, Any], settings: _Settings) -> dict[str, Any]:
    """The settings as a config has them; one that it is too old to know was not in use."""
    found = {}
    for name, (place, value) in settings.items():
        *blocks, key = place.split(".")
        block = config
        for part in blocks:
            block = block[part]
        stated = block.get(key, value)
        found[name] = tuple(stated) if isinstance(stated, list) else stated
    return found


def _own_stage2(config: Mapping[str, Any]) -> dict[str, Any]:
    stage2 = config["stages"].get("stage2")
    if stage2 is None or stage2.get("steps") is None:
        return {"stage 2 steps": None}
    weight = float(stage2["adversarial"]["weight"])
    rate, own_rate = (  # the paper's are of a batch of 256
        stage2[name]["lr"] * 256 / stage2["batch"] for name in ("optimiser", "discriminator")
    )
    return {
        "stage 2 steps": stage2["steps"],
        "GAN weight": weight,
        "discriminator lr": own_rate if weight > 0 else None,
        "stage 2 trains": stage2["train"],
        **_stated(config, {**_STAGE2_RECIPE, **_ADVERSARY}),
        "stage 2 lr": rate,
    }


def _own_generation(config: Mapping[str, Any]) -> dict[str, Any]:
    dit, how = config["stages"]["dit"], config["evaluate"]["generation"]
    return {
        "cfg": float(how["cfg"]),
        "generator": f"DiT-{dit['size']}",
        "generator steps": dit["steps"],
        "generator batch": dit["batch"],
        "sampling steps": how["steps"],
        "originals": how.get("originals"),
        **_stated(config, _DIT_RECIPE),
    }
