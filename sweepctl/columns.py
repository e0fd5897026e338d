"""The columns of a cell: each value said once, with its type, its unit and where it comes from.

What a study can match and fit against (`DERIVED`), the record that a plan makes (`Derived`), the
columns of the results database and the words about them are all read from the fields here. Which
metrics are columns is read from their records.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vitok_core.protocols import METRICS, MetricGroup


def _value(meaning: str, source: str, *, small: bool = False, **more: Any) -> Any:
    metadata = {"meaning": meaning, "source": source, "small": small}
    return field(metadata=metadata, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The typed values of a cell that become columns.

    Attributes: see `COLUMNS`, which says what each one is. Those of the DiT are None without one.
    """

    p: int = _value("spatial patch size, pixels", "tokenizer.p", small=True)
    q: int = _value("temporal stride, frames", "tokenizer.q", small=True)
    c: int = _value("channels of the code", "tokenizer.c", small=True)
    encoder: str = _value("size of the encoder", "tokenizer.encoder")
    decoder: str = _value("size of the decoder", "tokenizer.decoder")
    resolution: int = _value(
        "height and width of the images, pixels", "data.resolution", small=True
    )
    frames: int = _value("frames of a sample, 1 for images", "data.frames", small=True)
    seed: int = _value("seed of training", "seed")
    tokens: int = _value(
        "tokens of a code, L; of a masked tokenizer the length it is measured at", "code:tokens"
    )
    E: int = _value("floating point numbers of a code, E = L * c", "code:E")
    compression: float = _value("numbers of a sample over numbers of its code", "code:compression")
    parameters: int = _value("parameters of the tokenizer", "tokenizer:parameters")
    macs: int = _value("multiply-accumulates of one sample", "tokenizer:macs")
    encoder_parameters: int = _value("parameters of the encoder", "tokenizer:encoder_parameters")
    decoder_parameters: int = _value("parameters of the decoder", "tokenizer:decoder_parameters")
    encoder_macs: int = _value(
        "multiply-accumulates of the encoder, one sample", "tokenizer:encoder_macs"
    )
    decoder_macs: int = _value(
        "multiply-accumulates of the decoder, one sample", "tokenizer:decoder_macs"
    )
    dit_parameters: int | None = _value(
        "parameters of the DiT, NULL without one", "dit:parameters", default=None
    )
    dit_macs: int | None = _value(
        "multiply-accumulates of one prediction of the DiT, one sample", "dit:macs", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What is known of one value of a cell.

    Attributes:
        name: of the value and of its column.
        type: int, float or str.
        nullable: whether a cell may be without it.
        small: of whole numbers, whether 32 bits hold it.
        meaning: one line for people, with the unit.
        source: a dotted config path; or "of:attribute" of the code, the tokenizer or the DiT.
    """

    name: str
    type: type[int] | type[float] | type[str]
    nullable: bool
    small: bool
    meaning: str
    source: str

    @property
    def is_derived(self) -> bool:
        """Whether it follows from the config, in contrast to standing there."""
        return ":" in self.source

    def read(self, counted: Mapping[str, object]) -> Any:
        """A derived value of a cell, from its code, tokenizer and DiT by these names."""
        of, _, attribute = self.source.partition(":")
        return None if counted[of] is None else getattr(counted[of], attribute)


COLUMNS: dict[str, Column] = {
    one.name: Column(
        name=one.name,
        type={"int": int, "float": float, "str": str}[str(one.type).removesuffix(" | None")],
        nullable=str(one.type).endswith(" | None"),
        **one.metadata,
    )
    for one in fields(Derived)
}
"""Name -> column, in the order of tables."""

DERIVED = tuple(column.name for column in COLUMNS.values() if column.is_derived)
"""Values that follow from the config by `vitok_core.spec`; usable in matches and as x of a fit.
Those of the DiT are null in cells without one."""


def metric_columns(group: MetricGroup) -> tuple[str, ...]:
    """Metrics that are columns of a cell, of its final tokenizer or of the samples of its DiT.

    All others are rows of `v_metric`.
    """
    return tuple(
        name
        for name, metric in METRICS.items()
        if metric.group == group and group in metric.column_of
    )


def derive(config: Mapping[str, Any], counted: Mapping[str, object]) -> Derived:
    """The values of one cell.

    Args:
        config: the cell's config.
        counted: what the derived ones are read from: "code", "tokenizer" and "dit", None without.
    """
    values: dict[str, Any] = {}
    for name, keys in _IN_CONFIG:
        here: Any = config
        for key in keys:
            here = here[key]
        values[name] = here
    for of, names, read in _COUNTED:
        if counted[of] is not None:
            values.update(zip(names, read(counted[of]), strict=True))
    return Derived(**values)


_IN_CONFIG = [
    (name, column.source.split(".")) for name, column in COLUMNS.items() if not column.is_derived
]
_COUNTED = [
    (of, names, operator.attrgetter(*(COLUMNS[name].source.partition(":")[2] for name in names)))
    for of in ("code", "tokenizer", "dit")
    if (names := [name for name in DERIVED if COLUMNS[name].source.startswith(f"{of}:")])
]
"""Looked up once: a plan derives the values of ten thousand cells."""
