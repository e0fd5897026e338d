"""Which tasks does a cell need? Kinds, their identities, their parents and what they cost.

    prepare(train) ──────────► stage1 ─────────┐
    prepare(eval) ──► reference(protocol) ──► reconstruct
          └────────────────────────────────────┘

Each kind reads exactly the part of the config that changes its numbers; that part is its identity,
so cells that agree on it share the task, within a study and between studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweepctl.plan._expand import Point
from sweepctl.plan._identity import DataSet, canonical, fingerprint
from vitok_core.protocols import FEATURE_WIDTHS, PROTOCOLS, references
from vitok_core.spec import TokenizerSpec, training_flops
from vitok_core.weights import weights_sha256

STAGE_VERSIONS: dict[str, int] = {"prepare": 2, "reference": 1, "stage1": 1, "reconstruct": 1}
"""Bumped by hand when a kind's code changes what it computes; part of each identity."""

STAGE_ORDER = ("prepare", "reference", "stage1", "reconstruct")
"""Kinds in the order in which a cell goes through them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a task takes, in closed form.

    Attributes:
        parameters: of the model, 0 where there is none.
        macs: multiply-accumulates of one forward pass of one sample.
        flops: floating point operations of the whole task; 0 where they are not counted.
        disk_bytes: what stays on disk when it is done.
    """

    parameters: int = 0
    macs: int = 0
    flops: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One node of the graph.

    Attributes:
        fingerprint: "s1:" and 32 hex digits; equal for tasks with equal numbers.
        kind: key into `STAGE_VERSIONS` and `sweepctl.tasks.TASKS`.
        label: for people, for example "nano-nano/8 c16 seed 0".
        identity: the canonical JSON behind the fingerprint.
        parents: (role, fingerprint) of each parent, sorted by role.
        cost: what it takes.
    """

    fingerprint: str
    kind: str
    label: str
    identity: str
    parents: tuple[tuple[str, str], ...]
    cost: Cost

    @property
    def id(self) -> str:
        """Name of the task and of its folder: the kind and 16 of the hex digits."""
        return f"{self.kind}-{self.fingerprint[3:19]}"


class TaskMaker:
    """Makes the tasks of cells, each distinct one once.

    Args:
        data: the data sets by name.
    """

    def __init__(self, data: Mapping[str, DataSet]) -> None:
        self.data = data
        self.tasks: dict[str, Task] = {}
        self._known: dict[object, str] = {}
        self._protocols: dict[str, Mapping[str, Any]] = {}

    def of_cell(self, point: Point) -> dict[str, str]:
        """Stage -> fingerprint for one cell; stages with a data set are named "kind:data set"."""
        config, spec = point.lasting, point.spec
        stages: dict[str, str] = {}
        if "stage1" in point.stages_left_out:
            return stages
        data, how = config["data"], config["evaluate"]["reconstruction"]
        train = self.prepare(data["train"], data["images"], data)
        stages[f"prepare:{data['train']}"] = train
        stages["stage1"] = self.stage1(config, spec, train)
        if "reconstruct" in point.stages_left_out:
            return stages
        metrics = tuple(sorted(set(how["metrics"])))
        compared, own = references(metrics), PROTOCOLS[how["protocol"]].features
        for dataset in how["on"]:
            images = self.prepare(dataset, how["images"], data)
            stages[f"prepare:{dataset}"] = images
            known = {}
            for features in compared:
                # The protocol's own backbone needs no name: so it was when there was no other.
                named = "" if features == own else features
                count = how["images"] * (1 if features == "i3d" else spec.frames)
                task = self.reference(dataset, how["protocol"], images, named, count)
                stages[":".join(filter(None, ("reference", dataset, named)))] = task
                known[f"reference-{named}" if named else "reference"] = task
            stages[f"reconstruct:{dataset}"] = self.reconstruct(
                spec, metrics, how, dataset, stages["stage1"], images, known
            )
        return stages

    def prepare(self, dataset: str, images: int, data: Mapping[str, Any]) -> str:
        """Crops of a data set in an on-disk array.

        Args:
            dataset: name of the data set.
            images: number of samples, images or clips.
            data: the lasting config's part of that name: resolution, frames, fps.
        """
        shape = {name: data[name] for name in ("resolution", "frames", "fps") if name in data}
        key = ("prepare", dataset, images, *shape.items())
        if key not in self._known:
            resolution, frames, fps = shape["resolution"], shape.get("frames", 1), shape.get("fps")
            size = f"{resolution}px" if frames == 1 else f"{frames}x{resolution}px"
            rate = "" if fps is None else f" at {fps:g}/s"
            self._known[key] = self._add(
                "prepare",
                f"{dataset} {size}{rate} x {images}",
                {"dataset": dataset, "images": images, **shape},
                parents={},
                extra={"data": self.data[dataset].identity},
                cost=Cost(disk_bytes=images * (3 * frames * resolution**2 + 8)),
            )
        return self._known[key]

    def reference(self, dataset: str, protocol: str, images: str, features: str, count: int) -> str:
        """Features of the originals under a protocol, shared by every cell.

        Args:
            dataset: name of the data set.
            protocol: name of the protocol.
            images: the task that prepares the originals.
            features: the backbone, "" for the protocol's own.
            count: number of images or clips whose features are kept.
        """
        key = ("reference", protocol, images, features)
        if key not in self._known:
            self._known[key] = self._add(
                "reference",
                f"{dataset} features, {protocol}{f', {features}' if features else ''}",
                {"features": features} if features else {},
                parents={"images": images},
                extra={"protocol": self._protocol(protocol)},
                cost=Cost(
                    disk_bytes=4 * count * FEATURE_WIDTHS[features or PROTOCOLS[protocol].features]
                ),
            )
        return self._known[key]

    def stage1(self, config: Mapping[str, Any], spec: TokenizerSpec, images: str) -> str:
        """The training of an auto-encoder."""
        stage1 = config["stages"]["stage1"]
        # The perceptual networks' weights change the trained weights.
        loss, networks = stage1["loss"], []
        if loss["lpips"] > 0:
            networks += [f"lpips-{loss['lpips_net']}-{part}" for part in ("trunk", "heads")]
        if loss.get("dino", 0.0) > 0:
            networks += ["dinov2-s14"]
        extra = {}
        if networks:
            extra = {"pretrained": {name: weights_sha256(name) for name in networks}}
        weights = 4 * spec.parameters
        return self._add(
            "stage1",
            f"{_described(spec)} seed {config['seed']}",
            {
                "tokenizer": config["tokenizer"],
                "resolution": spec.resolution,
                "frames": spec.frames,
                "stage1": stage1,
                "seed": config["seed"],
            },
            parents={"images": images},
            extra=extra,
            cost=Cost(
                parameters=spec.parameters,
                macs=spec.macs,
                flops=training_flops(spec, stage1["steps"] * stage1["batch"]),
                # Weights, and two checkpoints of weights, both AdamW moments and their average.
                disk_bytes=(7 if stage1.get("ema") is None else 9) * weights,
            ),
        )

    def reconstruct(
        self,
        spec: TokenizerSpec,
        metrics: tuple[str, ...],
        how: Mapping[str, Any],
        dataset: str,
        tokenizer: str,
        images: str,
        known: Mapping[str, str],
    ) -> str:
        """The evaluation of a tokenizer on one data set; `known` are its references by role."""
        parents = {"tokenizer": tokenizer, "images": images, **known}
        length = {"length": how["length"]} if "length" in how else {}
        cut = f" at {how['length']} tokens" if length else ""
        return self._add(
            "reconstruct",
            f"{_described(spec)}{cut} on {dataset}",
            {"dataset": dataset, "metrics": list(metrics), **length},
            parents=parents,
            extra={"protocol": self._protocol(how["protocol"])},
            cost=Cost(
                parameters=spec.parameters,
                macs=spec.macs,
                flops=2 * spec.macs * how["images"],
                disk_bytes=2 * 16 * 3 * spec.frames * spec.resolution**2,
            ),
        )

    def _protocol(self, name: str) -> Mapping[str, Any]:
        if name not in self._protocols:
            self._protocols[name] = PROTOCOLS[name].record()
        return self._protocols[name]

    def _add(
        self,
        kind: str,
        label: str,
        config: Mapping[str, Any],
        *,
        parents: Mapping[str, str],
        extra: Mapping[str, Any],
        cost: Cost,
    ) -> str:
        identity = canonical(
            {
                "kind": kind,
                "version": STAGE_VERSIONS[kind],
                "config": config,
                "parents": parents,
                **extra,
            }
        )
        name = fingerprint(identity)
        if name not in self.tasks:
            # Parents are made before their children, so this order is topological.
            self.tasks[name] = Task(
                fingerprint=name,
                kind=kind,
                label=label,
                identity=identity,
                parents=tuple(sorted(parents.items())),
                cost=cost,
            )
        return name


def _described(spec: TokenizerSpec) -> str:
    """A tokenizer in a few words; options only where they are not the paper's plain ones."""
    said = [
        spec.variant,
        f"c{spec.c}",
        "" if spec.latent_tokens is None else f"l{spec.latent_tokens}",
        "masked" if spec.lengths else "",
        f"{spec.bottleneck} code" if spec.bottleneck != "kl" else "",
        spec.norm if spec.norm != "layernorm" else "",
        "qk-norm" if spec.qk_norm else "",
        f"{spec.positions} positions" if spec.positions != "axial" else "",
        "causal" if spec.causal else "",
        f"{spec.resolution}px" if spec.frames == 1 else f"{spec.frames}x{spec.resolution}px",
    ]
    return " ".join(word for word in said if word)
