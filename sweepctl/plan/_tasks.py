"""The tasks of a cell: per kind a planner with the kind's identity, its parents and its cost.

    prepare(train) ─┬─► stage1 ─► stage2 ─┬──────────► reconstruct
                    ├─────────────────────┴► latents ─► dit ─► generate
    prepare(eval) ──┴─► reference(protocol) ─────────► both

The final tokenizer, that of stage 2 where there is one, is measured and gives the latents. Where
the training data are a stream, stages 1 and 2 read the data set itself and hold its identity. Each
kind reads exactly the part of the config that changes its numbers; that part is its identity, so
cells that agree on it share the task, within a study and between studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sweepctl.kinds import KINDS
from sweepctl.plan._identity import DataSet, canonical, fingerprint, settings_of
from sweepctl.plan._model import Point, Task
from sweepctl.plan._operations import (
    Cost,
    of_dit,
    of_generate,
    of_latents,
    of_reconstruct,
    of_stage1,
    of_stage2,
)
from vitok_core.protocols import FILES, PROTOCOLS, Unpinned, networks, references
from vitok_core.settings import Loss, Sampling, hints
from vitok_core.spec import TokenizerSpec
from vitok_core.weights import weights_sha256

_STREAMED = ("resolution", "frames", "fps", "crop")
"""Settings of data that decide how the samples of a stream are made."""


class TaskMaker:
    """Makes the tasks of cells, each distinct one once.

    Args:
        data: the data sets by name.
    """

    def __init__(self, data: Mapping[str, DataSet]) -> None:
        self.data = data
        self.tasks: dict[str, Task] = {}
        self.known: dict[object, str] = {}
        self._rules: dict[tuple[str, frozenset[str], str], dict[str, Any]] = {}

    def of_cell(self, point: Point) -> dict[str, str]:
        """Stage -> fingerprint for one cell; stages with a data set are named "kind:data set"."""
        cell = CellTasks(self, point)
        for kind in KINDS.values():
            if kind.name not in PLANNERS or not cell.has(kind.group):
                continue
            if kind.name not in point.stages_left_out:
                PLANNERS[kind.name](cell)
            elif kind.weights:
                cell.weights.pop(kind.weights, None)  # nothing is made from earlier ones instead
        return cell.stages

    def add(
        self,
        kind: str,
        label: str,
        config: Mapping[str, Any],
        *,
        parents: Mapping[str, str],
        extra: Mapping[str, Any],
        cost: Cost,
    ) -> str:
        """The fingerprint of a task, which is made if there is none like it."""
        identity = canonical(
            {
                "kind": kind,
                "version": KINDS[kind].version,
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

    def rules(self, name: str, metrics: Iterable[str] = (), features: str = "") -> dict[str, Any]:
        """The protocol of a task that measures some metrics, or extracts some features.

        Where nobody publishes a hash of a file, the protocol cannot hold it: it stands next to it.
        """
        key = (name, frozenset(metrics), features)
        if key not in self._rules:
            rules = PROTOCOLS[name]
            used = networks(metrics, name)
            if features and (backbone := rules.backbone(features)):
                used[features] = backbone
            record: dict[str, Any] = {"protocol": rules.record(metrics, filter(None, [features]))}
            files = {file for backbone in used.values() for file in backbone.weights}
            if unpinned := sorted(file for file in files if isinstance(FILES[file], Unpinned)):
                record["pretrained"] = {file: weights_sha256(file) for file in unpinned}
            self._rules[key] = record
        return self._rules[key]


class CellTasks:
    """The tasks of one cell while they are made; what a planner reads and adds to.

    Args:
        maker: makes each distinct task once.
        point: the cell.

    Attributes:
        config: the cell's lasting config.
        stages: name of the stage -> fingerprint of its task, in the order in which they were added.
        weights: role -> task with the newest weights of that role, for example of the tokenizer.
    """

    def __init__(self, maker: TaskMaker, point: Point) -> None:
        self.maker = maker
        self.point = point
        self.config = point.lasting
        self.stages: dict[str, str] = {}
        self.weights: dict[str, str] = {}

    def has(self, group: str) -> bool:
        """Whether the cell has the settings of a group, for example "stages.stage2"; of "" yes."""
        lead, _, name = group.partition(".")
        return not group or name in self.config[lead]

    def add(
        self,
        kind: str,
        label: str,
        config: Mapping[str, Any],
        *,
        dataset: str = "",
        parents: Mapping[str, str],
        extra: Mapping[str, Any] | None = None,
        cost: Cost,
    ) -> None:
        """Add a task as a stage of the cell.

        Args:
            kind: of the task.
            label: for people.
            config: what its numbers depend on besides its parents.
            dataset: which the stage is named by, where there is one task per data set.
            parents: role -> task that it reads.
            extra: more of its identity.
            cost: what it takes.
        """
        task = self.maker.add(
            kind, label, config, parents=parents, extra={} if extra is None else extra, cost=cost
        )
        self.stages[f"{kind}:{dataset}" if dataset else kind] = task
        if role := KINDS[kind].weights:
            self.weights[role] = task

    def prepared(self, dataset: str, images: int, by: str) -> str:
        """The task that makes crops of a data set in an array on disk.

        Args:
            dataset: name of the data set.
            images: number of samples, images or clips.
            by: kind that asks for it.
        """
        data = self.config["data"]
        shape = {name: data[name] for name in ("resolution", "frames", "fps") if name in data}
        key = ("prepare", dataset, images, *shape.items())
        known = self.maker.known
        if key not in known:
            resolution, frames, fps = shape["resolution"], shape.get("frames", 1), shape.get("fps")
            size = f"{resolution}px" if frames == 1 else f"{frames}x{resolution}px"
            rate = "" if fps is None else f" at {fps:g}/s"
            known[key] = self.maker.add(
                "prepare",
                f"{dataset} {size}{rate} x {images}",
                {"dataset": dataset, "images": images, **shape},
                parents={},
                extra={"data": self.maker.data[dataset].identity},
                cost=Cost(samples=images, disk_bytes=images * (3 * frames * resolution**2 + 8)),
            )
        self._name(f"prepare:{dataset}", known[key], by)
        return known[key]

    def references(
        self, dataset: str, how: Mapping[str, Any], images: str, count: int, by: str
    ) -> dict[str, str]:
        """Features of the originals that a measurement compares with, by role.

        Args:
            dataset: name of the data set.
            how: settings of the measurement; its metrics and its protocol are read.
            images: the task that prepares the originals.
            count: number of samples whose features are kept.
            by: kind that asks for them.
        """
        rules, found = PROTOCOLS[how["protocol"]], {}
        for features in references(how["metrics"]):
            # The protocol's own backbone needs no name: so it was when there was no other.
            named = "" if features == rules.features else features
            backbone = rules.backbone(features)
            assert backbone is not None, "a metric without a rule is a mistake of the cell"
            key = ("reference", rules.name, images, named)
            known = self.maker.known
            if key not in known:
                seen = count * (1 if backbone.sees == "clips" else self.point.spec.frames)
                known[key] = self.maker.add(
                    "reference",
                    f"{dataset} features, {rules.name}{f', {named}' if named else ''}",
                    {"features": named} if named else {},
                    parents={"images": images},
                    extra=self.maker.rules(rules.name, features=backbone.features),
                    cost=Cost(samples=seen, disk_bytes=4 * seen * backbone.width),
                )
            found[f"reference-{named}" if named else "reference"] = known[key]
            self._name(":".join(filter(None, ("reference", dataset, named))), known[key], by)
        return found

    def _name(self, name: str, task: str, by: str) -> None:
        """Name a shared task among the stages; next to another of that name, with who asks."""
        if task not in self.stages.values():
            self.stages[name if name not in self.stages else f"{name}:{by}"] = task


# --- one planner per kind ---------------------------------------------------------------------


def _stage1(cell: CellTasks) -> None:
    """The training of an auto-encoder, on prepared samples or on a stream."""
    config, spec = cell.config, cell.point.spec
    part = config["stages"]["stage1"]
    how = cell.point.stages.stage1
    seen, parents, data = _trained_on(cell, "stage1")
    cell.add(
        "stage1",
        f"{_described(spec)} seed {config['seed']}",
        {
            "tokenizer": config["tokenizer"],
            "resolution": spec.resolution,
            "frames": spec.frames,
            "stage1": part,
            "seed": config["seed"],
            **seen,
        },
        parents=parents,
        extra=data | _judges(how.loss),
        cost=of_stage1(spec, how),
    )


def _stage2(cell: CellTasks) -> None:
    """The training of a tokenizer against a discriminator, on what stage 1 was trained on."""
    if "tokenizer" not in cell.weights:
        return
    config, spec = cell.config, cell.point.spec
    part = config["stages"]["stage2"]
    how = cell.point.stages.stage2
    seen, parents, data = _trained_on(cell, "stage2")
    cell.add(
        "stage2",
        f"{_described(spec)} seed {config['seed']} stage 2",
        {"stage2": part, "seed": config["seed"], **seen},
        parents={"tokenizer": cell.weights["tokenizer"], **parents},
        extra=data | _judges(how.loss),
        cost=of_stage2(spec, how),
    )


def _latents(cell: CellTasks) -> None:
    """The codes of the training data by the final tokenizer."""
    if "tokenizer" not in cell.weights or "dit" in cell.point.stages_left_out:
        return
    data, how, spec = cell.config["data"], cell.point.stages.latents, cell.point.spec
    assert not data.get("stream"), "a DiT with a stream is a mistake of the cell"
    cell.add(
        "latents",
        f"{_described(spec)} codes, {how.normalisation}",
        cell.config["stages"]["latents"],
        parents={
            "tokenizer": cell.weights["tokenizer"],
            "images": cell.prepared(data["train"], data["images"], "latents"),
        },
        cost=of_latents(spec, data["images"], how),
    )


def _dit(cell: CellTasks) -> None:
    """The training of a generator of codes."""
    if "latents" not in cell.stages:
        return
    config, dit = cell.config, cell.point.dit
    assert dit is not None, "a cell with settings of a DiT has one"
    cell.add(
        "dit",
        f"DiT-{dit.size} of {_described(cell.point.spec)} seed {config['seed']}",
        {
            "dit": config["stages"]["dit"],
            "classes": dit.classes,
            "flip": config["stages"]["latents"]["flip"],
            "seed": config["seed"],
        },
        parents={"latents": cell.stages["latents"]},
        cost=of_dit(dit, cell.point.stages.dit),
    )


def _reconstruct(cell: CellTasks) -> None:
    """The evaluation of the final tokenizer on each data set."""
    if "tokenizer" not in cell.weights:
        return
    how, spec = cell.config["evaluate"]["reconstruction"], cell.point.spec
    length = {"length": how["length"]} if "length" in how else {}
    cut = f" at {how['length']} tokens" if length else ""
    for dataset in how["on"]:
        images = cell.prepared(dataset, how["images"], "reconstruct")
        known = cell.references(dataset, how, images, how["images"], "reconstruct")
        cell.add(
            "reconstruct",
            f"{_described(spec)}{cut} on {dataset}",
            {
                "dataset": dataset,
                "metrics": sorted(set(how["metrics"])),
                **length,
                **({"bootstrap": how["bootstrap"]} if "bootstrap" in how else {}),
            },
            dataset=dataset,
            parents={"tokenizer": cell.weights["tokenizer"], "images": images, **known},
            extra=cell.maker.rules(how["protocol"], how["metrics"]),
            cost=of_reconstruct(spec, how["images"]),
        )


def _generate(cell: CellTasks) -> None:
    """Making samples by the DiT and measuring them against each data set."""
    if "dit" not in cell.weights:
        return
    config, spec, dit = cell.config, cell.point.spec, cell.point.dit
    assert dit is not None, "a cell with settings of a DiT has one"
    how, known = config["evaluate"]["generation"], dict[str, str]()
    count = how["images"] if how["originals"] is None else how["originals"]
    bootstrap = how.get("bootstrap")
    for dataset in how["on"]:
        if references(how["metrics"]):
            images = cell.prepared(dataset, count, "generate")
            known = cell.references(dataset, how, images, count, "generate")
        cell.add(
            "generate",
            f"DiT-{dit.size} of {_described(spec)} cfg {how['cfg']:g} on {dataset}",
            {
                "dataset": dataset,
                "metrics": sorted(set(how["metrics"])),
                "images": how["images"],
                "sampling": {name: how[name] for name in hints(Sampling)},
                "seed": config["seed"],
                **({} if bootstrap is None else {"bootstrap": bootstrap}),
            },
            dataset=dataset,
            # The latents' folder holds the tokenizer with the statistics of its codes.
            parents={"dit": cell.weights["dit"], "latents": cell.stages["latents"], **known},
            extra=cell.maker.rules(how["protocol"], how["metrics"]),
            cost=of_generate(spec, dit, settings_of(Sampling, how), how["images"]),
        )


Planner = Callable[[CellTasks], None]
"""Adds the tasks of one kind to a cell, or none when what they read is not there."""

PLANNERS: dict[str, Planner] = {
    "stage1": _stage1,
    "stage2": _stage2,
    "latents": _latents,
    "dit": _dit,
    "reconstruct": _reconstruct,
    "generate": _generate,
}
"""Kind -> its planner, called in the order of `KINDS` for cells that have the kind's settings.
Kinds without one are made when another one asks for them."""


def _trained_on(cell: CellTasks, by: str) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """What a training of a tokenizer sees: as a part of its config, its parents and the rest.

    A prepared copy is a parent. A stream is not a task: the data set's own identity is held.
    """
    data = cell.config["data"]
    if not data.get("stream"):
        return {}, {"images": cell.prepared(data["train"], data["images"], by)}, {}
    how = {name: data[name] for name in _STREAMED if name in data}
    stream = {"dataset": data["train"], **how}
    return {"stream": stream}, {}, {"data": cell.maker.data[data["train"]].identity}


def _judges(loss: Loss) -> dict[str, Any]:
    """Pretrained networks of a loss, whose weights change what is trained."""
    files = [file for one in loss.networks.values() for file in one.weights]
    return {"pretrained": {name: weights_sha256(name) for name in files}} if files else {}


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
