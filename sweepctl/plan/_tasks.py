"""Which tasks does a cell need? Kinds, their identities, their parents and what they cost.

    prepare(train) ─┬─► stage1 ─► stage2 ─┬──────────► reconstruct
                    ├─────────────────────┴► latents ─► dit ─► generate
    prepare(eval) ──┴─► reference(protocol) ─────────► both

The final tokenizer, that of stage 2 where there is one, is measured and gives the latents. Where
the training data are a stream, stages 1 and 2 read the data set itself and hold its identity. Each
kind reads exactly the part of the config that changes its numbers; that part is its identity, so
cells that agree on it share the task, within a study and between studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweepctl.kinds import KINDS
from sweepctl.plan._expand import Point
from sweepctl.plan._identity import DataSet, canonical, fingerprint
from sweepctl.plan._operations import (
    Cost,
    of_dit,
    of_generate,
    of_latents,
    of_reconstruct,
    of_stage1,
    of_stage2,
)
from vitok_core.protocols import FILES, PROTOCOLS, Unpinned, loss_networks, networks, references
from vitok_core.spec import DiTSpec, TokenizerSpec
from vitok_core.weights import weights_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One node of the graph.

    Attributes:
        fingerprint: "s1:" and 32 hex digits; equal for tasks with equal numbers.
        kind: key into `sweepctl.kinds.KINDS`.
        label: for people, for example "nano-nano/8 c16 seed 0".
        identity: the canonical JSON behind the fingerprint.
        parents: (role, fingerprint) of each parent, sorted by role.
        cost: what it takes.
        continues: (id of a task, share of this one's operations it has done) of trainings of the
            same settings and fewer steps, whose end this one can go on from; the furthest first.
            No part of the identity: the weights are the same.
    """

    fingerprint: str
    kind: str
    label: str
    identity: str
    parents: tuple[tuple[str, str], ...]
    cost: Cost
    continues: tuple[tuple[str, float], ...] = ()

    @property
    def cost_left(self) -> Cost:
        """What it takes when it goes on from the furthest of those."""
        if not self.continues:
            return self.cost
        return self.cost.scaled(1 - self.continues[0][1])

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
        self._rules: dict[tuple[str, frozenset[str], str], dict[str, Any]] = {}

    def of_cell(self, point: Point) -> dict[str, str]:
        """Stage -> fingerprint for one cell; stages with a data set are named "kind:data set".

        Where a cell has a second one of such a name, of another number of samples, the kind that
        asks for it is added, for example ":generate".
        """
        config, spec, left_out = point.lasting, point.spec, point.stages_left_out
        stages: dict[str, str] = {}
        if "stage1" in left_out:
            return stages
        data, trained, evaluated = config["data"], config["stages"], config["evaluate"]
        train = None
        if not data.get("stream"):
            train = self.prepare(data["train"], data["images"], data)
            stages[f"prepare:{data['train']}"] = train
        final = stages["stage1"] = self.stage1(config, spec, train)
        if "stage2" in trained:
            if "stage2" in left_out:
                return stages
            final = stages["stage2"] = self.stage2(config, spec, final, train)
        if point.dit is not None and "dit" not in left_out:
            assert train is not None, "a DiT with a stream is a mistake of the cell"
            latents = self.latents(spec, trained["latents"], final, train, data["images"])
            stages["latents"] = latents
            stages["dit"] = self.dit(config, spec, point.dit, latents)
        if "reconstruct" not in left_out:
            how = evaluated["reconstruction"]
            for dataset in how["on"]:
                images = self.prepare(dataset, how["images"], data)
                _put(stages, f"prepare:{dataset}", images, "reconstruct")
                known = self._references(dataset, how, images, how["images"], spec)
                for role, task in known.items():
                    _put(stages, _reference_stage(role, dataset), task, "reconstruct")
                stages[f"reconstruct:{dataset}"] = self.reconstruct(
                    spec, how, dataset, final, images, known
                )
        if "generation" in evaluated and "dit" in stages and "generate" not in left_out:
            assert point.dit is not None
            how, known = evaluated["generation"], {}
            count = how["images"] if how["originals"] is None else how["originals"]
            for dataset in how["on"]:
                if references(how["metrics"]):
                    images = self.prepare(dataset, count, data)
                    _put(stages, f"prepare:{dataset}", images, "generate")
                    known = self._references(dataset, how, images, count, spec)
                    for role, task in known.items():
                        _put(stages, _reference_stage(role, dataset), task, "generate")
                stages[f"generate:{dataset}"] = self.generate(
                    config, (spec, point.dit), dataset, stages, known
                )
        return stages

    def _references(
        self,
        dataset: str,
        how: Mapping[str, Any],
        images: str,
        count: int,
        spec: TokenizerSpec,
    ) -> dict[str, str]:
        """Features of the originals that a measurement compares with, by role."""
        own, known = PROTOCOLS[how["protocol"]].features, {}
        for features in references(how["metrics"]):
            # The protocol's own backbone needs no name: so it was when there was no other.
            named = "" if features == own else features
            backbone = PROTOCOLS[how["protocol"]].backbone(features)
            seen = count * (1 if backbone and backbone.sees == "clips" else spec.frames)
            known[f"reference-{named}" if named else "reference"] = self.reference(
                dataset, how["protocol"], images, named, seen
            )
        return known

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
                cost=Cost(samples=images, disk_bytes=images * (3 * frames * resolution**2 + 8)),
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
            rules = PROTOCOLS[protocol]
            backbone = rules.backbone(features or rules.features)
            assert backbone is not None, "a metric without a rule is a mistake of the cell"
            self._known[key] = self._add(
                "reference",
                f"{dataset} features, {protocol}{f', {features}' if features else ''}",
                {"features": features} if features else {},
                parents={"images": images},
                extra=self._protocol(protocol, features=backbone.features),
                cost=Cost(
                    samples=count,
                    disk_bytes=4 * count * backbone.width,
                ),
            )
        return self._known[key]

    def _trained_on(
        self, data: Mapping[str, Any], images: str | None
    ) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """What a training of a tokenizer sees: as a part of its config, its parents and the rest.

        A prepared copy is a parent. A stream is no task: the data set's own identity is held.
        """
        if images is not None:
            return {}, {"images": images}, {}
        how = {name: data[name] for name in _STREAMED if name in data}
        stream = {"dataset": data["train"], **how}
        return {"stream": stream}, {}, {"data": self.data[data["train"]].identity}

    def stage1(self, config: Mapping[str, Any], spec: TokenizerSpec, images: str | None) -> str:
        """The training of an auto-encoder, on prepared samples or (None) on a stream."""
        seen, parents, data = self._trained_on(config["data"], images)
        stage1 = config["stages"]["stage1"]
        return self._add(
            "stage1",
            f"{_described(spec)} seed {config['seed']}",
            {
                "tokenizer": config["tokenizer"],
                "resolution": spec.resolution,
                "frames": spec.frames,
                "stage1": stage1,
                "seed": config["seed"],
                **seen,
            },
            parents=parents,
            extra=data | _judges(stage1["loss"]),
            cost=of_stage1(spec, stage1),
        )

    def stage2(
        self, config: Mapping[str, Any], spec: TokenizerSpec, tokenizer: str, images: str | None
    ) -> str:
        """The training of a tokenizer against a discriminator, on what stage 1 was trained on."""
        seen, parents, data = self._trained_on(config["data"], images)
        stage2 = config["stages"]["stage2"]
        return self._add(
            "stage2",
            f"{_described(spec)} seed {config['seed']} stage 2",
            {"stage2": stage2, "seed": config["seed"], **seen},
            parents={"tokenizer": tokenizer, **parents},
            extra=data | _judges(stage2["loss"]),
            cost=of_stage2(spec, stage2),
        )

    def latents(
        self, spec: TokenizerSpec, how: Mapping[str, Any], tokenizer: str, images: str, count: int
    ) -> str:
        """The codes of the training data, `count` samples, by the final tokenizer."""
        return self._add(
            "latents",
            f"{_described(spec)} codes, {how['normalisation']}",
            {"normalisation": how["normalisation"], "flip": how["flip"]},
            parents={"tokenizer": tokenizer, "images": images},
            extra={},
            cost=of_latents(spec, count, flip=how["flip"]),
        )

    def dit(
        self, config: Mapping[str, Any], spec: TokenizerSpec, dit: DiTSpec, latents: str
    ) -> str:
        """The training of a generator of codes."""
        how = config["stages"]["dit"]
        return self._add(
            "dit",
            f"DiT-{dit.size} of {_described(spec)} seed {config['seed']}",
            {
                "dit": how,
                "classes": dit.classes,
                "flip": config["stages"]["latents"]["flip"],
                "seed": config["seed"],
            },
            parents={"latents": latents},
            extra={},
            cost=of_dit(dit, how),
        )

    def generate(
        self,
        config: Mapping[str, Any],
        models: tuple[TokenizerSpec, DiTSpec],
        dataset: str,
        stages: Mapping[str, str],
        known: Mapping[str, str],
    ) -> str:
        """Making samples and measuring them against one data set.

        Args:
            config: the cell's lasting config.
            models: the tokenizer and the generator.
            dataset: whose originals they are compared with.
            stages: the cell's tasks; its DiT and its latents, which hold the decoder.
            known: features of the originals by role.
        """
        how, (spec, dit) = config["evaluate"]["generation"], models
        bootstrap = how.get("bootstrap")
        return self._add(
            "generate",
            f"DiT-{dit.size} of {_described(spec)} cfg {how['cfg']:g} on {dataset}",
            {
                "dataset": dataset,
                "metrics": sorted(set(how["metrics"])),
                "images": how["images"],
                "sampling": {name: how[name] for name in _SAMPLING},
                "seed": config["seed"],
                **({} if bootstrap is None else {"bootstrap": bootstrap}),
            },
            parents={"dit": stages["dit"], "latents": stages["latents"], **known},
            extra=self._protocol(how["protocol"], how["metrics"]),
            cost=of_generate(spec, dit, how),
        )

    def reconstruct(
        self,
        spec: TokenizerSpec,
        how: Mapping[str, Any],
        dataset: str,
        tokenizer: str,
        images: str,
        known: Mapping[str, str],
    ) -> str:
        """The evaluation of a tokenizer on one data set; `known` are its references by role."""
        length = {"length": how["length"]} if "length" in how else {}
        cut = f" at {how['length']} tokens" if length else ""
        return self._add(
            "reconstruct",
            f"{_described(spec)}{cut} on {dataset}",
            {
                "dataset": dataset,
                "metrics": sorted(set(how["metrics"])),
                **length,
                **({"bootstrap": how["bootstrap"]} if "bootstrap" in how else {}),
            },
            parents={"tokenizer": tokenizer, "images": images, **known},
            extra=self._protocol(how["protocol"], how["metrics"]),
            cost=of_reconstruct(spec, how["images"]),
        )

    def _protocol(
        self, name: str, metrics: Iterable[str] = (), features: str = ""
    ) -> dict[str, Any]:
        """The rules of a task that measures some metrics, or extracts some features.

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


_SAMPLING = ("cfg", "cfg_interval", "steps", "sampler", "spacing", "eta", "precision")
"""Settings of generation that say how samples are made."""


_STREAMED = ("resolution", "frames", "fps", "crop")
"""Settings of data that say how the samples of a stream are made."""


def _reference_stage(role: str, dataset: str) -> str:
    """The name of a reference among a cell's stages."""
    kind, _, features = role.partition("-")
    return ":".join(filter(None, (kind, dataset, features)))


def _put(stages: dict[str, str], name: str, task: str, by: str) -> None:
    """Name a task of a cell; beside another one that has the name, with who asks for it."""
    if task not in stages.values():
        stages[name if name not in stages else f"{name}:{by}"] = task


def _judges(loss: Mapping[str, Any]) -> dict[str, Any]:
    """Perceptual networks of a loss, whose weights change what is trained."""
    files = [file for one in loss_networks(loss).values() for file in one.weights]
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
