"""From a tokenizer or generated samples to measured numbers.

_reconstruct   all metrics of one tokenizer on one set of samples, and pairs for a picture
_generation    all metrics of one set of generated samples, and a samples grid by class
_reference     features of originals, computed once for every model measured against them
_codes         metrics that look at codes: statistics, and how codes answer to transformations
_batches       which samples a process gets, and how processes put their parts together
"""

from __future__ import annotations

from vitok_core.evaluate._batches import EvaluateProgress
from vitok_core.evaluate._codes import code_metrics
from vitok_core.evaluate._generation import measure_generation, write_class_sheet
from vitok_core.evaluate._reconstruct import reconstruct
from vitok_core.evaluate._reference import reference_features

__all__ = [
    "EvaluateProgress",
    "code_metrics",
    "measure_generation",
    "reconstruct",
    "reference_features",
    "write_class_sheet",
]
