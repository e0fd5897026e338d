"""LPIPS with its published trunks and heads: how different two images look.

The trunks are pickles of plain arrays in the layout of jax; they go through an unpickler that knows
three names of numpy and no others. The network is built on torch's meta device and then given the
file's tensors, so that no time is spent on random numbers for the 60 million weights that AlexNet's
unused classifier would have.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from vitok_core.protocols import Backbone
from vitok_core.weights import weights_path


def lpips_network(backbone: Backbone) -> nn.Module:
    """LPIPS v0.1 with its real trunk and heads, frozen.

    Returns:
        A module that maps two batches of images (B, 3, H, W) in [-1, 1] to distances (B, 1, 1, 1);
        gradients flow to the images. Sides of at least `backbone.smallest` pixels.

    Raises:
        WeightsError: see `weights_path`.
    """
    trunk_file, heads_file = (weights_path(name) for name in backbone.weights)
    heads = torch.load(heads_file, weights_only=True, map_location="cpu")
    with warnings.catch_warnings(), torch.device("meta"):
        # lpips calls torchvision by a keyword that torchvision has renamed.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        import lpips

        network = lpips.LPIPS(
            net=backbone.name, pnet_rand=True, pretrained=False, lpips=True, verbose=False
        )
    # Constants of the published network: mean and scale of ImageNet for images in [-1, 1].
    state = {
        "scaling_layer.shift": torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1),
        "scaling_layer.scale": torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1),
        **_trunk(trunk_file, _TRUNK_KEY[backbone.name], network.net),
        **heads,
        **{name.replace("lin", "lins.", 1): value for name, value in heads.items()},
    }
    network.load_state_dict(state, assign=True)
    frozen: nn.Module = network.eval().requires_grad_(False)
    return frozen


def _trunk(path: Path, key: str, network: nn.Module) -> dict[str, Tensor]:
    """State dict of the trunk's convolutions, kernels turned from (H, W, in, out) to torch's order.

    The file numbers its convolutions from the image on, as the modules of the network are ordered.
    """
    with path.open("rb") as file:
        layers = _ArraysOnly(file).load()[key]
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    state = {}
    for index, name in enumerate(names):
        layer = layers[f"Conv_{index}"]
        kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1)
        state[f"net.{name}.weight"] = kernel.contiguous()
        state[f"net.{name}.bias"] = torch.from_numpy(layer["bias"])
    return state


_TRUNK_KEY: dict[str, str] = {"alex": "AlexNet_0", "vgg": "VGG16_0"}


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain numpy arrays and containers; every other name is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        import numpy
        from numpy._core.multiarray import _reconstruct

        # numpy 2 moved the module; old pickles name the old place.
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): numpy.ndarray,
            ("numpy", "dtype"): numpy.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")
        return allowed[module, name]
