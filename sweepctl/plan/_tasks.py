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
from sweepctl.plan._identity import canonical, fingerprint
from vitok_core.protocols import METRICS, PROTOCOLS
from vitok_core.spec import TokenizerSpec, training_flops
from vitok_core.weights import WEIGHTS

STAGE_VERSIONS: dict[str, int] = {"prepare": 1, "reference": 1, "stage1": 1, "reconstruct": 1}
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
        data: data set name -> its content identity (plain data).
    """

    def __init__(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        self.data = data
        self.tasks: dict[str, Task] = {}
        self._known: dict[object, str] = {}
        self._protocols: dict[str, Mapping[str, Any]] = {}

    def of_cell(self, point: Point) -> dict[str, str]:
        """Stage -> fingerprint for one cell; stages with a data set are named "kind:data set"."""
        config, spec = point.config, point.spec
        stages: dict[str, str] = {}
        if "stage1" in point.stages_left_out:
            return stages
        data, how = config["data"], config["evaluate"]["reconstruction"]
        train = self.prepare(data["train"], data["resolution"], data["images"])
        stages[f"prepare:{data['train']}"] = train
        stages["stage1"] = self.stage1(config, spec, train)
        if "reconstruct" in point.stages_left_out:
            return stages
        metrics = tuple(sorted(set(how["metrics"])))
        features = any(METRICS[name].features == "lite0" for name in metrics)
        for dataset in how["on"]:
            images = self.prepare(dataset, data["resolution"], how["images"])
            stages[f"prepare:{dataset}"] = images
            reference = None
            if features:
                reference = self.reference(dataset, how["protocol"], images, how["images"])
                stages[f"reference:{dataset}"] = reference
            stages[f"reconstruct:{dataset}"] = self.reconstruct(
                spec, metrics, how, dataset, stages["stage1"], images, reference
            )
        return stages

    def prepare(self, dataset: str, resolution: int, images: int) -> str:
        """Crops of a data set in an on-disk array."""
        key = ("prepare", dataset, resolution, images)
        if key not in self._known:
            self._known[key] = self._add(
                "prepare",
                f"{dataset} {resolution}px x {images}",
                {"dataset": dataset, "resolution": resolution, "images": images},
                parents={},
                extra={"data": self.data[dataset]},
                cost=Cost(disk_bytes=images * (3 * resolution**2 + 8)),
            )
        return self._known[key]

    def reference(self, dataset: str, protocol: str, images: str, count: int) -> str:
        """Features of the originals under a protocol, shared by every cell."""
        key = ("reference", protocol, images)
        if key not in self._known:
            self._known[key] = self._add(
                "reference",
                f"{dataset} features, {protocol}",
                {},
                parents={"images": images},
                extra={"protocol": self._protocol(protocol)},
                cost=Cost(disk_bytes=count * 1280 * 4),
            )
        return self._known[key]

    def stage1(self, config: Mapping[str, Any], spec: TokenizerSpec, images: str) -> str:
        """The training of an auto-encoder."""
        stage1 = config["stages"]["stage1"]
        extra = {}
        if stage1["loss"]["lpips"] > 0:
            # The perceptual network's weights change the trained weights.
            net = stage1["loss"]["lpips_net"]
            extra = {
                "pretrained": {
                    name: WEIGHTS[name].sha256
                    for name in (f"lpips-{net}-trunk", f"lpips-{net}-heads")
                }
            }
        weights = 4 * spec.parameters
        return self._add(
            "stage1",
            f"{spec.variant} c{spec.c} {spec.resolution}px seed {config['seed']}",
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
                # Weights, and two checkpoints of weights and both AdamW moments.
                disk_bytes=7 * weights,
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
        reference: str | None,
    ) -> str:
        """The evaluation of a tokenizer on one data set."""
        parents = {"tokenizer": tokenizer, "images": images}
        if reference is not None:
            parents["reference"] = reference
        return self._add(
            "reconstruct",
            f"{spec.variant} c{spec.c} {spec.resolution}px on {dataset}",
            {"dataset": dataset, "metrics": list(metrics)},
            parents=parents,
            extra={"protocol": self._protocol(how["protocol"])},
            cost=Cost(
                parameters=spec.parameters,
                macs=spec.macs,
                flops=2 * spec.macs * how["images"],
                disk_bytes=2 * 16 * 3 * spec.resolution**2,
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
