"""How large is a model, and what does it cost? Shapes and closed-form counts; no torch here.

    _sizes      the widths, depths and heads that have names
    _counts     parameters and multiply-accumulates of the parts that models share
    _tokenizer  one tokenizer: encoder, decoder, tubelet, code, sample, and every option
    _dit        one generator: the grid and the channels of the codes it makes, and what it predicts
    _networks   what stands beside them in training: LPIPS, DINOv2, the discriminator
    _training   operations of whole trainings, told apart by precision
    _memory     bytes that trainings keep on a device
    _devices    how fast devices are at most

A spec is the paper's vocabulary: encoder and decoder size, tubelet q x p x p, c channels a token,
and the shape of one sample (frames x resolution x resolution). From these follow the number of
tokens L, the number of floating points in the code E = L * c, the parameters and the
multiply-accumulates (MACs). Plans ask for them ten thousand times, so they are integer arithmetic
cached by shape; a test holds them equal to what the built model counts.

The paper (Learnings from Scaling Visual Tokenizers, ICML 2025) prints MACs under the heading
"GFLOPs", attention matmuls, tubelet embedding and output convolution included; so do we, under
their own name.
"""

from vitok_core.spec._devices import DEVICES, Flops, known_device, least_seconds
from vitok_core.spec._dit import (
    TIME_FEATURES,
    DiTPositions,
    DiTSpec,
    Target,
)
from vitok_core.spec._memory import (
    FRAMES_AT_ONCE,
    Memory,
    chosen,
    decoding_memory,
    dino_memory,
    discriminator_memory,
    dit_memory,
    encoding_memory,
    lpips_memory,
    reconstruction_memory,
    sampling_memory,
    ssim_memory,
    tokenizer_memory,
)
from vitok_core.spec._networks import (
    DINO_PATCH,
    DISCRIMINATOR_LAST,
    LpipsTrunk,
    check_discriminator,
    dino_macs,
    dino_side,
    discriminator_channels,
    discriminator_macs,
    discriminator_parameters,
    lpips_macs,
)
from vitok_core.spec._sizes import DIT_SIZES, SIZES, Norm, Positions, Size
from vitok_core.spec._tokenizer import (
    IMAGE_CHANNELS,
    Bottleneck,
    TokenizerSpec,
    Variant,
    parse_variant,
)
from vitok_core.spec._training import (
    NetworkPrecision,
    Precision,
    dit_training_flops,
    in_precision,
    of_networks,
    training_flops,
)

__all__ = [
    "DEVICES",
    "DINO_PATCH",
    "DISCRIMINATOR_LAST",
    "DIT_SIZES",
    "FRAMES_AT_ONCE",
    "IMAGE_CHANNELS",
    "SIZES",
    "TIME_FEATURES",
    "Bottleneck",
    "DiTPositions",
    "DiTSpec",
    "Flops",
    "LpipsTrunk",
    "Memory",
    "NetworkPrecision",
    "Norm",
    "Positions",
    "Precision",
    "Size",
    "Target",
    "TokenizerSpec",
    "Variant",
    "check_discriminator",
    "chosen",
    "decoding_memory",
    "dino_macs",
    "dino_memory",
    "dino_side",
    "discriminator_channels",
    "discriminator_macs",
    "discriminator_memory",
    "discriminator_parameters",
    "dit_memory",
    "dit_training_flops",
    "encoding_memory",
    "in_precision",
    "known_device",
    "least_seconds",
    "lpips_macs",
    "lpips_memory",
    "of_networks",
    "parse_variant",
    "reconstruction_memory",
    "sampling_memory",
    "ssim_memory",
    "tokenizer_memory",
    "training_flops",
]
