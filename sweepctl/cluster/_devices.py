"""Which GPUs may attempts on this machine use? Found without touching one of them.

A CUDA context costs hundreds of MB on a GPU and does not survive a fork, so neither a worker nor
its fork server may ask CUDA. They ask, in this order, what is there:

    NVIDIA   nvidia-smi; /proc/driver/nvidia/gpus; the number of files /dev/nvidia<number>
    AMD      /sys/class/kfd/kfd/topology/nodes

An id is what the vendor's variable takes: a UUID wherever one is known, because a number means
another GPU to CUDA (the fastest is 0) than to nvidia-smi (by PCI bus), and because the number in
the name of a device file means nothing to CUDA: in a container with only /dev/nvidia3, CUDA's GPU
is 0. Numbers that the user has set are passed on as they are; CUDA knows what they mean to it.

What the user allows is read as CUDA reads it: the list ends at the first entry that names nothing,
and an entry that is there twice leaves none. CUDA does so without a word; here it is a notice.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

Build = Literal["cuda", "rocm", "cpu"]
"""What torch was built for."""

_ANSWER_S = 30.0  # without persistence mode the driver of eight GPUs takes ten seconds to load
_QUERY = "uuid,name,memory.total,memory.free,mig.mode.current"
_NONE = ("", "-1", "void", "none", "NoDevFiles")  # the last is Slurm's


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU, or a MIG instance of one.

    Attributes:
        id: what CUDA_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES takes.
        name: as torch calls it; empty where it is not known.
        memory_bytes: its memory; None where it is not known.
        free_bytes: what of it was free when we looked; None where it is not known.
    """

    id: str
    name: str = ""
    memory_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The GPUs that attempts on a machine may use.

    Attributes:
        gpus: in the order in which they are given away.
        notices: what the user should know, each a sentence.
    """

    gpus: tuple[Gpu, ...] = ()
    notices: tuple[str, ...] = ()


def torch_build() -> Build | None:
    """What the installed torch was built for, without importing it; None without torch."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    said = (Path(found.origin).parent / "version.py").read_text()
    if re.search(r"^hip\b.*=\s*['\"]", said, re.M):
        return "rocm"
    return "cuda" if re.search(r"^cuda\b.*=\s*['\"]", said, re.M) else "cpu"


def find_gpus(
    environment: Mapping[str, str], *, build: Build | None = None, root: Path = Path("/")
) -> Found:
    """GPUs that attempts on this machine may use; none where torch cannot use any.

    Args:
        environment: its PATH leads to nvidia-smi; its CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES
            and HIP_VISIBLE_DEVICES are what the user allows.
        build: what torch was built for; None to look.
        root: folder that holds dev, proc and sys.
    """
    build = build or torch_build() or "cpu"
    if build == "rocm":
        return _allowed_amd(environment, _amd(root))
    if build == "cuda":
        return _allowed_nvidia(environment, _nvidia(environment, root))
    there = _nvidia(environment, root).gpus or _amd(root)
    if not there or environment.get("CUDA_VISIBLE_DEVICES", "unset").strip() in _NONE:
        return Found()
    return Found(
        notices=(
            f"this machine has {_counted(there)}, but its torch is a build for CPUs only: "
            "everything runs on the CPU; install a torch that is built for the GPU",
        )
    )


def memory_takers(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Id of a GPU -> the processes that hold memory of it, each as "python 4242: 40.1 GiB".

    Empty where nvidia-smi does not say; a container sees no names of processes outside.
    """
    query = "gpu_uuid,pid,process_name,used_memory"
    answer, _ = _smi(environment, f"--query-compute-apps={query}", "--format=csv,noheader,nounits")
    takers: dict[str, list[str]] = {}
    for line in answer.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[1].isdecimal():
            used = _mib(cells[3])
            memory = "" if used is None else f": {used / 2**30:.1f} GiB"
            name = Path(cells[2]).name or "process"
            takers.setdefault(cells[0], []).append(f"{name} {cells[1]}{memory}")
    return takers


def child_variables(
    ids: Sequence[str], environment: Mapping[str, str], *, build: Build | None = None
) -> dict[str, str]:
    """An environment whose process sees these GPUs, in this order, and no others.

    Args:
        ids: of `find_gpus`; none for no GPU.
        environment: what to begin with.
        build: what torch was built for; None to look.
    """
    chosen = dict(environment)
    if (build or torch_build()) != "rocm":
        return chosen | {"CUDA_VISIBLE_DEVICES": ",".join(ids)}
    # These two count within what ROCR_VISIBLE_DEVICES leaves, which are the ids already.
    for name in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        chosen.pop(name, None)
    return chosen | {"ROCR_VISIBLE_DEVICES": ",".join(ids) or "-1"}


def _counted(gpus: Sequence[Gpu]) -> str:
    names = sorted({gpu.name for gpu in gpus if gpu.name})
    count = f"{len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"
    return f"{count} ({', '.join(names)})" if names else count


# -- NVIDIA ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Nvidia:
    """What was found of NVIDIA's; `numbered` whether ids are CUDA's numbers, for lack of UUIDs."""

    gpus: list[Gpu] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    numbered: bool = False
    notices: tuple[str, ...] = ()


def _nvidia(environment: Mapping[str, str], root: Path) -> _Nvidia:
    minors = _minors(root)
    files = [path.name for path in (root / "dev").glob("nvidia[0-9]*")]
    answer, notices = _smi(environment, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits")
    found = _Nvidia(notices=notices)
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    for row in rows:
        # nvidia-smi lists what the driver knows; a container may hold the files of fewer.
        if len(row) != 5 or not row[0].startswith("GPU-") or not _is_there(row[0], minors, files):
            continue
        gpu = Gpu(id=row[0], name=row[1], memory_bytes=_mib(row[2]), free_bytes=_mib(row[3]))
        found.uuids.append(gpu.id)
        found.gpus += _instances(environment, gpu) if row[4] == "Enabled" else [gpu]
    if not found.uuids:
        found.gpus = [
            Gpu(id=uuid, name=name)
            for uuid, (name, _) in minors.items()
            if _is_there(uuid, minors, files)
        ]
        found.uuids = [gpu.id for gpu in found.gpus]
    if not found.uuids and files:
        # CUDA counts what it can open, from 0, whatever the files are called.
        found.gpus, found.numbered = [Gpu(id=str(n)) for n in range(len(files))], True
    if not found.gpus and not found.uuids and not _has_driver(root):
        found.notices = ()  # nvidia-smi of an image, on a machine without a GPU
    return found


def _is_there(uuid: str, minors: Mapping[str, tuple[str, str]], files: Sequence[str]) -> bool:
    """Whether a GPU's device file is there, as far as that can be said."""
    return uuid not in minors or not files or f"nvidia{minors[uuid][1]}" in files


def _has_driver(root: Path) -> bool:
    return (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidiactl").exists()


def _minors(root: Path) -> dict[str, tuple[str, str]]:
    """UUID -> name, number of the device file; by PCI bus, as the kernel's driver says."""
    found = {}
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        said = dict(re.findall(r"^([^:]+):[ \t]*(.*?)[ \t]*$", path.read_text(), re.M))
        if said.get("GPU UUID", "").startswith("GPU-") and "?" not in said["GPU UUID"]:
            found[said["GPU UUID"]] = (said.get("Model", ""), said.get("Device Minor", ""))
    return found


def _smi(environment: Mapping[str, str], *words: str) -> tuple[str, tuple[str, ...]]:
    """What nvidia-smi prints, and what is wrong with it; both empty where there is none."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH", ""))
    if program is None:
        return "", ()
    try:
        done = subprocess.run(
            [program, *words],
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
            env={**environment, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return "", (f"nvidia-smi gave no answer within {_ANSWER_S:.0f} s",)
    except OSError as error:
        return "", (f"nvidia-smi cannot be run: {error.strerror}",)
    if done.returncode == 0:
        return done.stdout, ()
    said = " ".join((done.stdout + " " + done.stderr).split())[:300]
    # Of several GPUs one may be lost; the lines of the others are there.
    return done.stdout, (f"nvidia-smi ended with {done.returncode}: {said}",)


def _instances(environment: Mapping[str, str], gpu: Gpu) -> Iterator[Gpu]:
    """The MIG instances of a GPU; CUDA can use the GPU only through them."""
    answer, _ = _smi(environment, "-L")
    inside = False
    for line in answer.splitlines():
        if line.startswith("GPU "):
            inside = gpu.id in line
        said = re.search(r"\bMIG\s+(\S+)\s+Device\s+\d+:\s+\(UUID:\s+(MIG-\S+)\)", line)
        if inside and said:
            size = re.search(r"\.(\d+)gb", said[1])
            memory = None if size is None else int(size[1]) * 10**9
            yield Gpu(id=said[2], name=f"{gpu.name} MIG {said[1]}", memory_bytes=memory)


def _mib(cell: str) -> int | None:
    """MiB as nvidia-smi prints them; a GPU that shares the machine's memory has none."""
    return int(cell) * 2**20 if cell.isdecimal() else None


def _allowed_nvidia(environment: Mapping[str, str], there: _Nvidia) -> Found:
    said = environment.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        notices = there.notices
        for uuid in there.uuids:
            if not there.gpus and not notices:
                notices = (f"{uuid} is in MIG mode and has no instance: create one, or leave MIG",)
        return Found(gpus=tuple(there.gpus), notices=notices)
    if said.strip() in _NONE:
        return Found()
    return _cut(
        "CUDA_VISIBLE_DEVICES",
        [one.strip() for one in said.split(",")],
        lambda entry: _named(entry, there, environment.get("CUDA_DEVICE_ORDER", "")),
        there.gpus,
        there.notices,
    )


def _named(entry: str, there: _Nvidia, order: str) -> Gpu | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES means; None for none."""
    nothing_known = not there.gpus and not there.uuids
    if entry.isdecimal():
        number = int(entry)
        count = len(there.uuids) or len(there.gpus)
        if nothing_known:
            return Gpu(id=entry)
        if number >= count:
            return None
        if count == 1 or order == "PCI_BUS_ID":
            physical = [gpu for gpu in there.gpus if gpu.id in there.uuids]
            if len(physical) == count:
                return physical[number]
        # Which one that is only CUDA can say; of what all have in common nothing is in doubt.
        same = len({(gpu.name, gpu.memory_bytes) for gpu in there.gpus}) == 1
        return replace(there.gpus[0], id=entry, free_bytes=None) if same else Gpu(id=entry)
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    if nothing_known or there.numbered:
        return Gpu(id=entry)
    fits = [gpu for gpu in there.gpus if gpu.id.startswith(entry)]
    if len(fits) == 1:
        return fits[0]
    # A whole GPU in MIG mode is its first instance to CUDA.
    whole = [uuid for uuid in there.uuids if uuid.startswith(entry)]
    if not fits and len(whole) == 1:
        return Gpu(id=entry)
    # /proc knows of no instances.
    listed = any(gpu.id.startswith("MIG-") for gpu in there.gpus)
    return Gpu(id=entry) if entry.startswith("MIG-") and not listed else None


# -- AMD -------------------------------------------------------------------------------------------


def _amd(root: Path) -> list[Gpu]:
    """AMD's GPUs in the order of the kernel's topology, which is ROCm's."""
    if not (root / "dev/kfd").exists():
        return []
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("[0-9]*")
    found: list[Gpu] = []
    for node in sorted(nodes, key=lambda path: int(path.name)):
        try:
            facts = _facts(node / "properties")
        except OSError:  # of another container
            continue
        if facts.get("simd_count", 0) == 0:
            continue  # a CPU
        minor = facts.get("drm_render_minor", 0)
        if minor > 0 and not (root / f"dev/dri/renderD{minor}").exists():
            continue
        unique = facts.get("unique_id", 0)
        memory = 0
        for bank in node.glob("mem_banks/*/properties"):
            said = _facts(bank)
            if said.get("heap_type") in (1, 2):  # the GPU's own memory
                memory += said.get("size_in_bytes", 0)
        found.append(
            Gpu(
                # Some cards have no number of their own; then ROCm takes their place in the list.
                id=f"GPU-{unique:016x}" if unique else str(len(found)),
                name=_product(root, minor),
                memory_bytes=memory or None,
            )
        )
    return found


def _facts(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _product(root: Path, minor: int) -> str:
    try:
        path = root / f"sys/class/drm/renderD{minor}/device/product_name"
        return path.read_text().strip()
    except OSError:
        return ""


def _allowed_amd(environment: Mapping[str, str], there: list[Gpu]) -> Found:
    """ROCR_VISIBLE_DEVICES chooses first; HIP's, or else CUDA's, counts within what that leaves."""
    found = Found(gpus=tuple(there))
    second = "HIP" if "HIP_VISIBLE_DEVICES" in environment else "CUDA"
    for variable in ("ROCR_VISIBLE_DEVICES", f"{second}_VISIBLE_DEVICES"):
        said = environment.get(variable)
        if said is None:
            continue
        if said.strip() in _NONE:
            return Found(notices=found.notices)
        left = found.gpus

        def named(entry: str, left: tuple[Gpu, ...] = left) -> Gpu | None:
            if entry.isdecimal():
                return left[int(entry)] if int(entry) < len(left) else None
            fits = [gpu for gpu in left if entry.startswith("GPU-") and gpu.id == entry]
            return fits[0] if fits else None

        entries = [one.strip() for one in said.split(",")]
        found = _cut(variable, entries, named, left, found.notices)
    return found


# -- what the user allows --------------------------------------------------------------------------


def _cut(
    variable: str,
    entries: Sequence[str],
    named: Callable[[str], Gpu | None],
    there: Sequence[Gpu],
    notices: tuple[str, ...],
) -> Found:
    """What a variable allows, up to the first entry that names nothing."""
    gpus: list[Gpu] = []
    for entry in entries:
        gpu = named(entry)
        if gpu is None:
            if entry not in _NONE:
                has = _counted(there) if there else "no GPU"
                said = f"{variable} names {entry}, and this machine has {has}"
                rest = "; what follows it is left out as well" if entry != entries[-1] else ""
                notices += (f"{said}{rest}",)
            break
        if any(gpu.id == one.id for one in gpus):
            said = f"{variable} names {entry} twice: no process then sees any GPU"
            return Found(notices=(*notices, said))
        gpus.append(gpu)
    return Found(gpus=tuple(gpus), notices=notices)
