"""What are mean and variance of drawn codes? Accumulated batch by batch, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from vitok_core.tokenizer import Mode, Normalisation, Posterior


class Statistics:
    """Mean and variance of drawn codes per channel, merged batch by batch (Chan et al. 1983)."""

    _TENSORS = ("mean_C", "squares_C", "variances_C")

    def __init__(self, c: int) -> None:
        self.count = 0
        self.mean_C = torch.zeros(c, dtype=torch.float64)
        self.squares_C = torch.zeros(c, dtype=torch.float64)  # of means around their mean
        self.variances_C = torch.zeros(c, dtype=torch.float64)  # sum of posterior variances

    def add(self, posterior: Posterior) -> None:
        values_NC = posterior.mean.flatten(0, 1).double().cpu()
        count, mean_C = len(values_NC), values_NC.mean(dim=0)
        apart_C, total = mean_C - self.mean_C, self.count + count
        self.squares_C += (values_NC - mean_C).square().sum(dim=0)
        self.squares_C += apart_C.square() * self.count * count / total
        self.mean_C += apart_C * count / total
        self.count = total
        if posterior.logvar is not None:
            self.variances_C += posterior.logvar.flatten(0, 1).double().exp().sum(dim=0).cpu()

    def plain(self) -> dict[str, Any]:
        """As plain data; float64 survives JSON's decimal text exactly."""
        tensors = {name: getattr(self, name).tolist() for name in self._TENSORS}
        return {"count": self.count, **tensors}

    @classmethod
    def loaded(cls, plain: Mapping[str, Any]) -> Statistics:
        """What `plain` described."""
        statistics = cls(len(plain["mean_C"]))
        statistics.count = plain["count"]
        for name in cls._TENSORS:
            setattr(statistics, name, torch.tensor(plain[name], dtype=torch.float64))
        return statistics

    def normalisation(self, mode: Mode, *, samples: int) -> Normalisation:
        variance_C = (self.squares_C + self.variances_C) / self.count
        mean = float(self.mean_C.mean())
        # Over all values: the channels' own variance, and that between their means.
        std = math.sqrt(float((variance_C + (self.mean_C - mean).square()).mean()))
        return Normalisation(
            mode=mode,
            mean_C=self.mean_C.float(),
            std_C=variance_C.sqrt().float(),
            mean=mean,
            std=std,
            samples=samples,
        )
