"""How large is a model, and what does it cost? Shapes and closed-form counts; no torch here.

    _sizes      the widths, depths and heads that have names
    _counts     parameters and multiply-accumulates of the parts that models share
    _tokenizer  one tokenizer: encoder, decoder, tubelet, code, sample, and every option
    _dit        one generator: the grid and the channels of the codes it makes, and what it predicts

A spec is the paper's vocabulary: encoder and decoder size, tubelet q x p x p, c channels a token,
and the shape of one sample (frames x resolution x resolution). From these follow the number of
tokens L, the number of floating points in the code E = L * c, the parameters and the
multiply-accumulates (MACs). Plans ask for them ten thousand times, so they are integer arithmetic
cached by shape; a test holds them equal to what the built model counts.

The paper (Learnings from Scaling Visual Tokenizers, ICML 2025) prints MACs under the heading
"GFLOPs", attention matmuls, tubelet embedding and output convolution included; so do we, under
their own name.
"""

from vitok_core.spec._dit import (
    TIME_FEATURES,
    DiTPositions,
    DiTSpec,
    Target,
    dit_training_flops,
)
from vitok_core.spec._sizes import DIT_SIZES, SIZES, Norm, Positions, Size
from vitok_core.spec._tokenizer import (
    IMAGE_CHANNELS,
    Bottleneck,
    TokenizerSpec,
    Variant,
    parse_variant,
    training_flops,
)

__all__ = [
    "DIT_SIZES",
    "IMAGE_CHANNELS",
    "SIZES",
    "TIME_FEATURES",
    "Bottleneck",
    "DiTPositions",
    "DiTSpec",
    "Norm",
    "Positions",
    "Size",
    "Target",
    "TokenizerSpec",
    "Variant",
    "dit_training_flops",
    "parse_variant",
    "training_flops",
]
