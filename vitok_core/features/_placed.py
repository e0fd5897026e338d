"""Where and how a pretrained network or a discriminator computes: device, layout, convolutions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import nn

from vitok_core.spec import NetworkPrecision

Network = TypeVar("Network", bound=nn.Module)


def placed(network: Network, device: str | torch.device) -> Network:
    """The network on a device; on a GPU its convolutions are laid out channels last.

    That is the layout of the fast kernels there. It changes the order of sums, so on a CPU weights
    stay as they are.
    """
    device = torch.device(device)
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if device.type == "cuda" else network


def compiled(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network compiled for one shape of its input; on a CPU as it is.

    There compiling a trunk takes minutes and gives little. What is compiled has one derivative:
    a gradient of a gradient needs the network itself.
    """
    if torch.device(device).type != "cuda":
        return network
    return cast(nn.Module, torch.compile(network, dynamic=False))


@contextlib.contextmanager
def convolutions(precision: NetworkPrecision) -> Iterator[None]:
    """Whether float32 convolutions of GPUs may use TF32 while this is entered: not with fp32.

    A setting of the process, because backward passes read it, too. On CPUs it means nothing.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
