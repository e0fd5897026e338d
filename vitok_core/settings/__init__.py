"""The settings of stages, losses, optimisers, stored latents and samplers.

Each setting is said once: its name, default, bounds and a line about it. From these come the study
file's keys, its JSON Schema, the checks at plan time, the identity of a task and the arguments of
the trainers. `check` raises for what cannot be used, `mistakes` says all of it with the config path
of the setting to change, `flops` counts operations. No torch here: a plan reads these ten thousand
times.

A term of the loss is a weight in `Loss` whose annotation holds a `Term`. Everything else about it
(the pretrained files it needs, its operations, the smallest image, its place in identities) is read
from there; what it computes is in `vitok_core.losses`, under the same name.

A setting that was added to the format later is marked by `AddedLater` with the value in force
before: identities leave it out at that value, so that older results stay valid.

    _fields    what an annotation says: bounds, remarks, reading from plain data
    _losses    AdamW and its schedule, the terms of the loss, the discriminator's terms
    _stages    stage 1, stage 2, stored latents, the DiT; how a training is run
    _sampling  how samples are drawn
"""

from vitok_core.settings._fields import (
    AddedLater,
    Count,
    Elsewhere,
    Mistake,
    PerBatch,
    ShareOrCount,
    Term,
    Weight,
    before_added,
    check_bounds,
    from_plain,
    group_in,
    hints,
    said_of,
)
from vitok_core.settings._losses import (
    CONSTANT_FINAL_LR,
    DETERMINISTIC,
    LR_RULE,
    SSIM_SMALLEST,
    Adversarial,
    Loss,
    Optimiser,
    terms,
)
from vitok_core.settings._sampling import (
    DIFFUSION_STEPS,
    SamplerName,
    Sampling,
    Spacing,
    stride_of,
)
from vitok_core.settings._stages import (
    INITIAL_SHARE,
    DiT,
    DiTTraining,
    Latents,
    Run,
    Stage1,
    Stage2,
    Stages,
    StoredType,
    following,
    rates,
    whole_steps,
)

__all__ = [
    "CONSTANT_FINAL_LR",
    "DETERMINISTIC",
    "DIFFUSION_STEPS",
    "INITIAL_SHARE",
    "LR_RULE",
    "SSIM_SMALLEST",
    "AddedLater",
    "Adversarial",
    "Count",
    "DiT",
    "DiTTraining",
    "Elsewhere",
    "Latents",
    "Loss",
    "Mistake",
    "Optimiser",
    "PerBatch",
    "Run",
    "SamplerName",
    "Sampling",
    "ShareOrCount",
    "Spacing",
    "Stage1",
    "Stage2",
    "Stages",
    "StoredType",
    "Term",
    "Weight",
    "before_added",
    "check_bounds",
    "following",
    "from_plain",
    "group_in",
    "hints",
    "rates",
    "said_of",
    "stride_of",
    "terms",
    "whole_steps",
]
