"""Files of weights: tensors, and one record of what they are and where they come from.

safetensors, because reading one cannot run code. The record is JSON under a single metadata key,
the kind of model: the library writes several keys in no fixed order, and the same model shall give
the same bytes. Files are written under a temporary name, fsynced and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitok_core.errors import WeightsError
from vitok_core.files import replacing


def write_artefact(
    path: Path, kind: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]
) -> None:
    """Write tensors and record: whole or not at all.

    Args:
        path: where; replaced if it exists, its folder must.
        kind: the metadata key that says what this is, for example "vitok_tokenizer".
        tensors: by name, on any device.
        record: plain data.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(on_cpu, temporary, metadata={kind: json.dumps(record, sort_keys=True)})


def read_artefact(
    path: Path, kind: str, *, what: str, needs: tuple[str, ...], with_tensors: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and, if asked for, the tensors of a file that `write_artefact` wrote.

    Args:
        path: of the file.
        kind: as it was written.
        what: for messages, "tokenizer" or "DiT".
        needs: keys that the record must have.
        with_tensors: whether the tensors are read; else {}.

    Raises:
        WeightsError: the file is missing, a folder, damaged, of another kind, or its record is not
            whole.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        inside = sorted(one.name for one in Path(path).glob("*.safetensors"))
        there = f"; there are {', '.join(inside)} in it" if inside else ", and none is in it"
        raise WeightsError(
            f"{path} is not a readable {what}: it is a folder; give a file of weights{there}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(kind)
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
        if text is None:
            raise WeightsError(f"{path} holds no {what}: its metadata has no {kind!r}")
        record = json.loads(text)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist; train the {what} first") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable {what}: {error}") from error
    if not isinstance(record, dict) or not record.keys() >= set(needs):
        raise WeightsError(f"{path} is not a readable {what}: its metadata is not whole")
    return record, tensors
