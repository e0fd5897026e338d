"""Which GPUs does a machine offer? Shapes of machines as folders and a real program nvidia-smi."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from sweepctl.cluster import _devices, open_pool
from sweepctl.cluster._devices import Found, Gpu, child_variables, find_gpus, torch_build
from sweepctl.runs import FAILURES, AttemptOutcome, AttemptRequest, write_json
from sweepctl.tasks import TASKS, Made, Work
from sweepctl.tasks._device import device_of

A, B, C, D = (f"GPU-{letter * 8}-0000-1111-2222-333333333333" for letter in "abcd")
H100 = "NVIDIA H100 80GB HBM3"
GIB = 2**30


class Machine:
    """A folder that looks like / of a machine, and a folder for PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "bin"
        for folder in ("bin", "dev", "proc", "sys"):
            (root / folder).mkdir()

    def write(self, name: str, text: str = "") -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def files(self, *numbers: int) -> None:
        for name in (*map(str, numbers), "ctl", "-uvm"):
            self.write(f"dev/nvidia{name}")

    def driver(self, *uuids: str, model: str = H100) -> None:
        self.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX 580\n")
        for number, uuid in enumerate(uuids):
            self.write(
                f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0/information",
                f"Model: \t\t {model}\nIRQ:   \t\t 1{number}\nGPU UUID: \t {uuid}\n"
                f"Bus Location: \t 0000:{number:02x}:00.0\nDevice Minor: \t {number}\n",
            )

    def smi(self, rows: Sequence[str], *, instances: str = "", code: int = 0) -> None:
        text = "\n".join(rows)
        self.write(
            "bin/nvidia-smi",
            f"#!/bin/sh\ncase $1 in\n-L) cat <<'END'\n{instances}\nEND\n;;\n"
            f"*) cat <<'END'\n{text}\nEND\n;;\nesac\nexit {code}\n",
        )
        (self.path / "nvidia-smi").chmod(0o755)

    def gpus(self, build: _devices.Build = "cuda", **allowed: str) -> Found:
        path = f"{self.path}:/usr/bin:/bin"
        return find_gpus({"PATH": path, **allowed}, build=build, root=self.root)

    def ids(self, **allowed: str) -> list[str]:
        return [gpu.id for gpu in self.gpus(**allowed).gpus]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def row(uuid: str, name: str = H100, free: int = 80000, mig: str = "Disabled") -> str:
    return f"{uuid}, {name}, 81559, {free}, {mig}"


def test_machine_without_a_gpu(machine: Machine) -> None:
    assert machine.gpus() == Found()
    assert machine.gpus("rocm") == Found()
    # An image for GPUs on a machine without one: nvidia-smi is there and has nothing to talk to.
    machine.smi(["NVIDIA-SMI has failed because it could not talk to the driver"], code=9)
    assert machine.gpus() == Found()


def test_node_with_nvidia_smi(machine: Machine) -> None:
    machine.files(0, 1, 2, 3)
    machine.driver(A, B, C, D)
    machine.smi([row(A), row(B, free=12), row(C), row(D)])
    found = machine.gpus()
    assert found.notices == ()
    assert [gpu.id for gpu in found.gpus] == [A, B, C, D]
    assert found.gpus[1] == Gpu(id=B, name=H100, memory_bytes=81559 * 2**20, free_bytes=12 * 2**20)


def test_container_without_nvidia_smi(machine: Machine) -> None:
    machine.files(0, 1)
    machine.driver(A, B)
    assert machine.gpus().gpus == (Gpu(id=A, name=H100), Gpu(id=B, name=H100))


def test_container_with_one_file_of_four(machine: Machine) -> None:
    # The kernel's list is the host's; the number of the file means nothing to CUDA.
    machine.files(3)
    machine.driver(A, B, C, D)
    assert machine.ids() == [D]
    machine.smi([row(A), row(B), row(C), row(D)])
    assert machine.ids() == [D]


def test_container_with_one_file_and_nothing_else(machine: Machine) -> None:
    machine.files(3)
    assert machine.ids() == ["0"]
    assert machine.ids(CUDA_VISIBLE_DEVICES="0") == ["0"]
    wrong = machine.gpus(CUDA_VISIBLE_DEVICES="3")
    assert wrong.gpus == ()
    assert wrong.notices == ("CUDA_VISIBLE_DEVICES names 3, and this machine has 1 GPU",)


def test_windows_subsystem_has_no_files(machine: Machine) -> None:
    machine.smi([row(A, "NVIDIA GeForce RTX 4090")])
    machine.write("dev/dxg")
    assert machine.ids() == [A]


def test_shared_memory_has_no_size(machine: Machine) -> None:
    machine.files(0)
    machine.smi([f"{A}, NVIDIA GB10, [N/A], [N/A], [N/A]"])
    assert machine.gpus().gpus == (Gpu(id=A, name="NVIDIA GB10"),)


def test_instances_stand_for_their_gpu(machine: Machine) -> None:
    machine.files(0, 1)
    machine.driver(A, B)
    machine.smi(
        [row(A, mig="Enabled"), row(B)],
        instances=f"GPU 0: {H100} (UUID: {A})\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-1111)\n"
        "  MIG 1g.10gb+me  Device  1: (UUID: MIG-1222)\n"
        f"GPU 1: {H100} (UUID: {B})",
    )
    assert machine.ids() == ["MIG-1111", "MIG-1222", B]
    assert machine.gpus().gpus[0] == Gpu(
        id="MIG-1111", name=f"{H100} MIG 3g.40gb", memory_bytes=40 * 10**9
    )
    assert machine.ids(CUDA_VISIBLE_DEVICES="MIG-12") == ["MIG-1222"]
    assert machine.ids(CUDA_VISIBLE_DEVICES=A) == [A]  # CUDA takes its first instance
    assert machine.ids(CUDA_VISIBLE_DEVICES="MIG-9") == []
    machine.smi([row(A, mig="Enabled")], instances=f"GPU 0: {H100} (UUID: {A})")
    empty = machine.gpus()
    assert empty.gpus == ()
    assert "MIG mode and has no instance" in empty.notices[0]


def test_lost_gpu_does_not_take_the_others_along(machine: Machine) -> None:
    machine.files(0, 1)
    lost = "Unable to determine the device handle for GPU1: 0000:41:00.0: GPU is lost."
    machine.smi([row(A), lost], code=15)
    found = machine.gpus()
    assert [gpu.id for gpu in found.gpus] == [A]
    assert "nvidia-smi ended with 15" in found.notices[0]
    assert "GPU is lost" in found.notices[0]


def test_driver_of_another_version_is_a_notice(machine: Machine) -> None:
    machine.files(0)
    machine.driver("GPU-????????-????-????-????-????????????")
    machine.smi(["Failed to initialize NVML: Driver/library version mismatch"], code=18)
    found = machine.gpus()
    assert [gpu.id for gpu in found.gpus] == ["0"]
    assert "version mismatch" in found.notices[0]


def test_slow_nvidia_smi_is_a_notice(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_devices, "_ANSWER_S", 0.2)
    machine.files(0)
    machine.smi([])
    machine.write("bin/nvidia-smi", "#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    found = machine.gpus()
    assert time.monotonic() - started < 30
    assert [gpu.id for gpu in found.gpus] == ["0"]
    assert "no answer" in found.notices[0]


@pytest.mark.parametrize(
    ("said", "order", "ids"),
    [
        ("", "", []),
        ("-1", "", []),
        ("NoDevFiles", "", []),
        ("1", "", ["1"]),  # the fastest is CUDA's 0: only CUDA knows which that is
        ("1,0", "PCI_BUS_ID", [B, A]),
        (f"{C}, {A}", "", [C, A]),
        ("GPU-b,GPU-c", "", [B, C]),
        ("2,-1,0", "PCI_BUS_ID", [C]),
    ],
)
def test_what_the_user_allows(machine: Machine, said: str, order: str, ids: list[str]) -> None:
    machine.files(0, 1, 2)
    machine.smi([row(A), row(B, "NVIDIA A100-SXM4-80GB"), row(C)])
    found = machine.gpus(CUDA_VISIBLE_DEVICES=said, CUDA_DEVICE_ORDER=order)
    assert [gpu.id for gpu in found.gpus] == ids
    assert found.notices == ()


@pytest.mark.parametrize(
    ("said", "ids", "notice"),
    [
        (
            "0,7,1",
            [A],
            "CUDA_VISIBLE_DEVICES names 7, and this machine has 3 GPUs (NVIDIA H100 80GB",
        ),
        ("0,7,1", [A], "; what follows it is left out as well"),
        ("GPU-z", [], "names GPU-z"),
        ("H100", [], "names H100"),
        ("1,GPU-b", [], "names GPU-b twice: no process then sees any GPU"),
    ],
)
def test_what_the_user_allows_and_is_not_there(
    machine: Machine, said: str, ids: list[str], notice: str
) -> None:
    machine.files(0, 1, 2)
    machine.smi([row(A), row(B), row(C)])
    found = machine.gpus(CUDA_VISIBLE_DEVICES=said, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert [gpu.id for gpu in found.gpus] == ids
    assert notice in found.notices[0]


def test_numbers_of_equal_gpus_keep_their_names(machine: Machine) -> None:
    machine.files(0, 1)
    machine.smi([row(A), row(B)])
    found = machine.gpus(CUDA_VISIBLE_DEVICES="1").gpus
    assert found == (Gpu(id="1", name=H100, memory_bytes=81559 * 2**20),)


def test_where_nothing_is_known_the_user_is_believed(machine: Machine) -> None:
    assert machine.ids(CUDA_VISIBLE_DEVICES="4,7") == ["4", "7"]
    assert machine.ids(CUDA_VISIBLE_DEVICES="MIG-5f,GPU-5f") == ["MIG-5f", "GPU-5f"]


def amd(machine: Machine, *unique: int) -> None:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    machine.write("dev/kfd")
    machine.write(f"{nodes}/0/properties", "cpu_cores_count 64\nsimd_count 0\n")
    for number, one in enumerate(unique):
        machine.write(
            f"{nodes}/{number + 1}/properties",
            f"simd_count 1216\nunique_id {one}\ndrm_render_minor {128 + number}\n",
        )
        machine.write(
            f"{nodes}/{number + 1}/mem_banks/0/properties",
            f"heap_type 1\nsize_in_bytes {192 * GIB}\nflags 0\n",
        )
        machine.write(f"dev/dri/renderD{128 + number}")
        machine.write(
            f"sys/class/drm/renderD{128 + number}/device/product_name", "AMD Instinct MI300X\n"
        )


def test_amd(machine: Machine) -> None:
    amd(machine, 0xAB, 0xCD, 0xEF)
    found = machine.gpus("rocm")
    assert [gpu.id for gpu in found.gpus] == [
        "GPU-00000000000000ab",
        "GPU-00000000000000cd",
        "GPU-00000000000000ef",
    ]
    assert found.gpus[0].name == "AMD Instinct MI300X"
    assert found.gpus[0].memory_bytes == 192 * GIB
    assert machine.gpus("cuda") == Found()
    # A container sees the whole topology and may open some of it.
    (machine.root / "dev/dri/renderD128").unlink()
    assert [gpu.id[-2:] for gpu in machine.gpus("rocm").gpus] == ["cd", "ef"]
    (machine.root / "dev/kfd").unlink()
    assert machine.gpus("rocm") == Found()


def test_amd_variables_count_within_each_other(machine: Machine) -> None:
    amd(machine, 0xAB, 0xCD, 0xEF)

    def ids(**allowed: str) -> list[str]:
        return [gpu.id[-2:] for gpu in machine.gpus("rocm", **allowed).gpus]

    assert ids(ROCR_VISIBLE_DEVICES="2,GPU-00000000000000ab") == ["ef", "ab"]
    assert ids(ROCR_VISIBLE_DEVICES="1,2", HIP_VISIBLE_DEVICES="1") == ["ef"]
    assert ids(ROCR_VISIBLE_DEVICES="1,2", CUDA_VISIBLE_DEVICES="0") == ["cd"]
    assert ids(HIP_VISIBLE_DEVICES="0", CUDA_VISIBLE_DEVICES="1") == ["ab"]
    assert ids(HIP_VISIBLE_DEVICES="") == []
    wrong = machine.gpus("rocm", ROCR_VISIBLE_DEVICES="1,2", HIP_VISIBLE_DEVICES="2")
    assert wrong.gpus == ()
    assert "HIP_VISIBLE_DEVICES names 2" in wrong.notices[0]


def test_amd_card_without_a_number_of_its_own_has_its_place(machine: Machine) -> None:
    amd(machine, 0xAB, 0)
    assert [gpu.id for gpu in machine.gpus("rocm").gpus] == ["GPU-00000000000000ab", "1"]


def test_torch_for_cpus_on_a_machine_with_gpus_is_a_notice(machine: Machine) -> None:
    machine.files(0, 1)
    machine.smi([row(A), row(B)])
    found = machine.gpus("cpu")
    assert found.gpus == ()
    assert found.notices == (
        f"this machine has 2 GPUs ({H100}), but its torch is a build for CPUs only: everything "
        "runs on the CPU; install a torch that is built for the GPU",
    )
    assert machine.gpus("cpu", CUDA_VISIBLE_DEVICES="") == Found()


def test_torch_says_what_it_was_built_for() -> None:
    expected = "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"
    assert torch_build() == expected


def test_a_child_sees_what_it_was_given() -> None:
    before = {"HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "5", "HIP_VISIBLE_DEVICES": "1"}
    assert child_variables([B, A], before, build="cuda") == {
        **before,
        "CUDA_VISIBLE_DEVICES": f"{B},{A}",
    }
    assert child_variables([], before, build="cuda")["CUDA_VISIBLE_DEVICES"] == ""
    assert child_variables(["GPU-0f"], before, build="rocm") == {
        "HOME": "/home/me",
        "ROCR_VISIBLE_DEVICES": "GPU-0f",
    }
    assert child_variables([], {}, build="rocm") == {"ROCR_VISIBLE_DEVICES": "-1"}


# -- what an attempt makes of it -------------------------------------------------------------------


@pytest.fixture
def attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., AttemptOutcome]]:
    """Runs an attempt of a kind whose work is given, through a pool; how it ended."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = torch.are_deterministic_algorithms_enabled()

    def made(device: str, work: Callable[[Work], Made] | None = None) -> AttemptOutcome:
        folder = tmp_path / "stage1-0f"
        task = {"fingerprint": "s1:0f", "kind": "stage1", "label": "a test"}
        write_json(folder / "task.json", {**task, "identity": {"config": {}}, "parents": {}})
        monkeypatch.setitem(TASKS, "stage1", work or (lambda _: Made(files=(), values={})))
        with open_pool("inline", entry="sweepctl.tasks:run") as pool:
            pool.submit(
                AttemptRequest(
                    task_id=folder.name,
                    kind="stage1",
                    folder=str(folder),
                    attempt=1,
                    threads=torch.get_num_threads(),
                    device=device,
                )
            )
            [outcome] = pool.completed(1.0)
        return outcome

    yield made
    torch.use_deterministic_algorithms(before)


def test_a_gpu_that_was_assigned_and_is_not_there_is_an_error(
    attempt: Callable[..., AttemptOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", A)
    outcome = attempt("auto")
    assert (outcome.state, outcome.failure) == ("failed", "no_device")
    assert outcome.message.startswith("worker inline on ")
    assert f": its GPU {A} cannot be used (--device cpu does without); torch says: " in (
        outcome.message
    )
    assert FAILURES["no_device"].is_retried
    assert FAILURES["no_device"].is_reset
    assert attempt("cpu").state == "done"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert attempt("auto").state == "done"
    outcome = attempt("cuda")
    assert outcome.failure == "no_device"
    assert ": device cuda cannot be used" in outcome.message


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`", "no_device"),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "no_device"),
        ("CUDA error: uncorrectable ECC error encountered", "no_device"),
        ("CUDA error: no kernel image is available for execution on the device", "no_device"),
        ("HIP error: invalid device ordinal", "no_device"),
        ("CUDA error: device-side assert triggered", "error"),
        ("CUDA error: an illegal memory access was encountered", "error"),
        ("an unknown error of something else", "error"),
    ],
)
def test_a_gpu_that_is_lost_while_it_is_used(
    attempt: Callable[..., AttemptOutcome], said: str, failure: str
) -> None:
    def work(_: Work) -> Made:
        raise RuntimeError(said)

    outcome = attempt("cpu", work)
    assert outcome.failure == failure
    if failure == "no_device":
        assert ": its GPU was lost while it was used; torch says: " in outcome.message
        assert outcome.message.endswith(said.split("\n")[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="here torch can use the GPU")
def test_auto_on_a_machine_with_a_gpu_that_torch_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_of("auto", files=tmp_path) == "cpu"
    (tmp_path / "nvidia3").touch()
    if torch.version.cuda is None:
        assert device_of("auto", files=tmp_path) == "cpu"
        return
    with pytest.raises(Exception, match=r"^the GPU of the machine cannot be used .*torch says: "):
        device_of("auto", files=tmp_path)
