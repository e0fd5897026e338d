"""Errors of models, data and training, in words a user can act on.

VitokError
├── SpecError        a model that cannot be built: sizes that do not divide, unknown names
├── DataError        a data set that is unknown, missing or not what it should be
├── WeightsError     a pretrained part that is missing or whose SHA-256 is not the pinned one
├── MetricError      a measured value that its metric cannot have
├── NonFiniteError   the loss or a gradient stopped being a number; nothing was updated
├── CheckpointError  no checkpoint could be written or read
└── Stopped          training was asked to stop and has written a checkpoint
"""

from __future__ import annotations


class VitokError(Exception):
    """Base of everything vitok_core raises on purpose."""


class SpecError(VitokError):
    """A model that cannot be built; the message names the value and what is allowed.

    Args:
        field: name of the offending field of the spec, for example "p".
        message: what was given and what is allowed.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[SpecError], tuple[str, str]]:
        """Errors travel between processes, pickled."""
        return type(self), (self.field, self.message)


class DataError(VitokError):
    """A data set that is unknown, missing or not what it should be."""


class WeightsError(VitokError):
    """A pretrained part that is missing or whose SHA-256 differs from the pinned one."""


class NonFiniteError(VitokError):
    """The loss or a gradient stopped being a number; the update was not made."""


class MetricError(VitokError):
    """A measured value that its metric cannot have; nothing is recorded of it."""


class CheckpointError(VitokError):
    """A checkpoint that could not be written, or none that could be read."""


class Stopped(VitokError):
    """Training was asked to stop and has written a checkpoint first."""
