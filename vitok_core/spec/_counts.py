"""What do the parts of a transformer count? Parameters and MACs in closed form.

Counted are the multiply-accumulates of matrix products: linear layers and the two products of
attention. Norms, activations, rotations and additions are left out, which is how the numbers the
paper prints as "GFLOPs" come about. Attention counts all L x L pairs also where a mask forbids
some of them, because the masked products are computed and thrown away.

Every function returns (parameters, MACs of one sample).
"""

from __future__ import annotations

from vitok_core.spec._sizes import Norm, Size


def norm_parameters(norm: Norm, width: int) -> int:
    """Parameters of one norm: scale and shift, or only the scale of an RMSNorm."""
    return 2 * width if norm == "layernorm" else width


def linear_counts(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> tuple[int, int]:
    """A linear layer applied to every token."""
    return (inputs + bias) * outputs, inputs * outputs * tokens


def attention_counts(size: Size, tokens: int, qk_norm: Norm | None) -> tuple[int, int]:
    """Attention of `vitok_core.layers`: unbiased qkv, products q k^T and weights v, output."""
    width = size.width
    parameters = 3 * width * width + (width + 1) * width
    if qk_norm is not None:
        parameters += 2 * size.head_width  # a scale for q and one for k, in either norm
    return parameters, 4 * width * width * tokens + 2 * tokens * tokens * width


def swiglu_counts(size: Size, tokens: int) -> tuple[int, int]:
    """The gated MLP of `vitok_core.layers`: gate and up, down, all with bias."""
    width, hidden = size.width, size.hidden
    return 2 * (width + 1) * hidden + (hidden + 1) * width, 3 * width * hidden * tokens


def tower_counts(size: Size, tokens: int, norm: Norm, qk_norm: Norm | None) -> tuple[int, int]:
    """Pre-norm blocks and the final norm over a sequence of `tokens`."""
    attention = attention_counts(size, tokens, qk_norm)
    mlp = swiglu_counts(size, tokens)
    one_norm = norm_parameters(norm, size.width)
    parameters = size.depth * (attention[0] + mlp[0] + 2 * one_norm) + one_norm
    return parameters, size.depth * (attention[1] + mlp[1])
