"""Each check of `vmoe doctor`, on surroundings that are made up."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from world import CONFIG

from vmoe.cli import doctor
from vmoe.cli.doctor import devices as on_devices
from vmoe.cli.doctor import ffcv, planned, resources, software
from vmoe.cli.doctor.ask_devices import Devices, Gpu, Path
from vmoe.cli.doctor.ask_ffcv import Decoded
from vmoe.cli.doctor.ask_run import Model, Prospect, Split
from vmoe.cli.doctor.finding import Finding, Verdict
from vmoe.cli.doctor.machine import Space
from vmoe.config import RunConfig, load_config

GIB = 2**30
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB, 79 * GIB, True, 989.0, None)
CPU = Devices(
    cuda="13.0",
    refused="",
    gpus=(),
    nccl=None,
    gloo=True,
    bfloat16=False,
    paths=(Path("mlp", "cpu", "float32", "tiled (the whole expert is one operator)"),),
    broken={},
)
GPUS = CPU._replace(gpus=(H100, H100), nccl="2.27.3")
MODEL = Model(
    params=22_000_000,
    active=11_000_000,
    device="cpu",
    precision="float32",
    weights=GIB // 2,
    activations=4 * GIB,
    batch=128,
    checkpoint=300 * 2**20,
    steps=1000,
)
SPLITS = (Split("data.train", "train.beton", 1000, 10 * GIB, True), Split("data.val", "val.beton", 100, GIB, False))
PROSPECT = Prospect(SPLITS, "image", "10 classes", model=MODEL)
REQUIREMENTS = ["torch>=2.11", "tqdm>=4", 'ffcv>=1.0.2; extra == "ffcv"', 'wandb>=0.19; extra == "wandb"']
REQUIREMENTS += ['vmoe[ffcv,report]; extra == "demo"']
VERSIONS = {"torch": "2.15.0+cu130", "tqdm": "4.70", "ffcv": "1.0.2", "triton": "3.9.0"}
PROGRAMS = {"g++": "/bin/g++", "gcc": "/bin/gcc", "pkg-config": "/bin/pkg-config"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return load_config(path, ["data.workers=4"])


def situation(**changes):
    """A machine without faults, 8 cores and no GPU, and no config; by the names of `Machine` and `Situation`."""
    facts = {
        "cores": 8,
        "quota": None,
        "memory": Space(64 * GIB, 48 * GIB),
        "shared_memory": Space(32 * GIB, 32 * GIB),
        "open_files": (65536, 2**20),
        "driver": None,
        "requirements": REQUIREMENTS,
        "versions": VERSIONS,
        "programs": PROGRAMS,
        "environment": {},
    }
    asked = {"config": None, "invalid": None, "path": None, "processes": 1, "timeout": 5.0}
    answers = {"devices": CPU, "prospect": PROSPECT, "decoded": None}
    assert set(changes) <= {*facts, *asked, *answers}
    facts, asked, answers = (
        {**given, **{k: v for k, v in changes.items() if k in given}} for given in (facts, asked, answers)
    )
    versions, programs, environment = (facts.pop(name) for name in ("versions", "programs", "environment"))
    machine = SimpleNamespace(
        **{name: (lambda value=value: value) for name, value in facts.items()},
        version=versions.get,
        program=lambda *names: next((programs[name] for name in names if name in programs), None),
        environment=environment,
    )
    once = {
        name: SimpleNamespace(value=None, error=value)
        if isinstance(value, str)
        else SimpleNamespace(value=value, error=None)
        for name, value in answers.items()
    }
    return SimpleNamespace(machine=machine, **asked, **once)


def found(check, **changes) -> Finding:
    """The worst of what a check finds."""
    return max(check(situation(**changes)), key=lambda finding: list(Verdict).index(finding.verdict))


OK, WARNING, PROBLEM = Verdict
WITHOUT_TRITON = {name: version for name, version in VERSIONS.items() if name != "triton"}
ONLY_TORCH = {"torch": "2.15.0"}
MACHINE = [
    (software.check_python, {}, OK, sys.version.split()[0]),
    (software.check_packages, {}, OK, "2.15.0+cu130"),
    (software.check_packages, {"versions": {**VERSIONS, "torch": "2.9.1"}}, PROBLEM, "2.9.1, older than 2.11"),
    (software.check_packages, {"versions": {"torch": "2.11"}}, PROBLEM, "is not installed"),
    (software.check_extras, {}, OK, "1.0.2"),
    (software.check_extras, {"versions": ONLY_TORCH}, WARNING, "ffcv is not installed"),
    (on_devices.check_imports, {}, OK, "torchvision and timm"),
    (on_devices.check_imports, {"devices": "its process ended by SIGSEGV"}, PROBLEM, "ended by SIGSEGV"),
    (on_devices.check_imports, {"devices": CPU._replace(broken={"timm": "no nms"})}, PROBLEM, "imported: no nms"),
    (ffcv.check_build_tools, {"versions": ONLY_TORCH, "programs": {}}, WARNING, "a C++ compiler, pkg-config not found"),
    (resources.check_cores, {}, OK, "8 of"),
    (resources.check_cores, {"quota": 8.0}, OK, "8 of"),
    (resources.check_cores, {"quota": 2.5}, WARNING, "only 2.5 of them"),
    (resources.check_threads, {}, OK, "8 of torch, on 8 cores"),
    (resources.check_threads, {"processes": 8}, OK, "1 of torch in each of 8 processes"),  # by torchrun
    (resources.check_threads, {"environment": {"OMP_NUM_THREADS": "16"}}, WARNING, "16 of torch (OMP_NUM_THREADS)"),
    (resources.check_threads, {"environment": {"OMP_NUM_THREADS": "2"}, "processes": 8}, WARNING, "8 processes"),
    (resources.check_threads, {"processes": 16}, WARNING, "1 of torch in each of 16 processes, on 8 cores"),
    (resources.check_threads, {"environment": {"OMP_NUM_THREADS": "many"}}, PROBLEM, "'many'"),
    (resources.check_memory, {}, OK, "64 GiB, 48 GiB free"),
    (resources.check_memory, {"memory": Space(4 * GIB, GIB)}, WARNING, "1 GiB free"),
    (resources.check_shared_memory, {}, OK, "32 GiB of 32 GiB"),
    (resources.check_shared_memory, {"shared_memory": Space(2**26, 2**26)}, WARNING, "64 MiB of 64 MiB free"),
    (resources.check_open_files, {}, OK, "65536 a process"),
    (resources.check_open_files, {"open_files": (-1, -1)}, OK, "any number"),
    (resources.check_open_files, {"open_files": (256, 4096)}, WARNING, "8 workers may need 640"),  # 512 + 8 × 16
    (resources.check_compiler, {}, OK, "/bin/g++"),
    (resources.check_compiler, {"programs": {}}, WARNING, "a compiler (apt install g++)"),
    (resources.check_compiler, {"devices": GPUS, "versions": WITHOUT_TRITON}, WARNING, "triton (pip install triton)"),
    (on_devices.check_cuda, {}, OK, "no NVIDIA driver"),
    (on_devices.check_cuda, {"devices": GPUS, "driver": "580.1"}, OK, "torch for CUDA 13.0, driver 580.1"),
    (on_devices.check_cuda, {"driver": "470.1"}, WARNING, "no GPU can be used: none is seen"),
    (on_devices.check_cuda, {"driver": "470.1", "devices": CPU._replace(refused="too old")}, WARNING, "used: too old"),
    (on_devices.check_cuda, {"driver": "580.1", "devices": CPU._replace(cuda=None)}, WARNING, "torch without CUDA"),
    (on_devices.check_gpus, {"devices": GPUS}, OK, "compute capability 9.0, 79 GiB of 80 GiB free"),
    (on_devices.check_gpus, {"devices": GPUS, "processes": 4}, PROBLEM, "2 for 4 processes"),
    (
        on_devices.check_gpus,
        {"devices": GPUS._replace(gpus=(H100._replace(free=30 * GIB),))},
        WARNING,
        "30 GiB of 80 GiB free: something else uses it",
    ),
    (
        on_devices.check_gpus,
        {"devices": GPUS._replace(gpus=(H100._replace(fault="no kernel image"),))},
        PROBLEM,
        "it fails: no kernel image",
    ),
    (on_devices.check_gpus, {"devices": GPUS._replace(gpus=(H100, H100._replace(name="A10")))}, WARNING, "they differ"),
    (on_devices.check_precision, {}, OK, "auto is float32 on this CPU"),
    (on_devices.check_precision, {"devices": GPUS}, OK, "TF32 for float32 products; peak 989 TFLOPS"),
    (
        on_devices.check_precision,
        {"devices": GPUS._replace(gpus=(H100._replace(name="V100", capability=(7, 0), bfloat16=False, peak=None),))},
        WARNING,
        "auto is float32; no TF32; peak not known: train.peak_tflops",
    ),
    (on_devices.check_distributed, {}, OK, "gloo there"),
    (on_devices.check_distributed, {"devices": GPUS}, OK, "NCCL 2.27.3"),
    (on_devices.check_distributed, {"devices": GPUS._replace(nccl=None)}, WARNING, "torch has no NCCL"),
    (on_devices.check_distributed, {"devices": GPUS._replace(nccl=None), "processes": 2}, PROBLEM, "no NCCL"),
    (on_devices.check_experts, {}, OK, "mlp, on cpu in float32: tiled (the whole expert is one operator)"),
]
WITH_CONFIG = [
    (
        planned.check_config,
        {"path": "tiny.yaml"},
        OK,
        "tiny.yaml: images, vit_tiny_patch16_224, gate topk, experts mlp",
    ),
    (planned.check_logs, {}, OK, "metrics.jsonl"),
    (planned.check_batch, {"processes": 2}, OK, "8 = 2 processes × 1 (accumulate) × 4"),
    (planned.check_batch, {"processes": 3}, PROBLEM, "data.batch_size is 8; allowed: a multiple of 3"),
    (planned.check_data, {}, WARNING, "val.beton: 100 images an epoch, 1 GiB, no sidecar"),
    (planned.check_data, {"prospect": "no answer within 5 seconds"}, PROBLEM, "no answer within 5 seconds"),
    (planned.check_data, {"prospect": Prospect(no_data="data.train is 'x'")}, PROBLEM, "data.train is 'x'"),
    (
        planned.check_data,
        {"prospect": PROSPECT._replace(splits=SPLITS[:1])},
        OK,
        "1,000 images an epoch, 10 GiB, with a dig",
    ),
    (planned.check_page_cache, {}, OK, "11 GiB of data, 48 GiB of memory free"),
    (planned.check_page_cache, {"memory": Space(16 * GIB, 12 * GIB)}, WARNING, "every epoch reads from the disk"),
    (planned.check_model, {}, OK, "22,000,000 parameters, of them active 11,000,000; 1,000 steps; on cpu in float32"),
    (planned.check_model, {"prospect": PROSPECT._replace(model=None, no_model="no MLPs")}, PROBLEM, "no MLPs"),
    (
        planned.check_memory_of_run,
        {},
        OK,
        "512 MiB of weights, gradients and optimizer + 4 GiB of activations (128 a pro",
    ),
    (planned.check_memory_of_run, {"processes": 12}, WARNING, "of 5.3 GiB"),  # 64 / 12; needed: 4.5
    (planned.check_memory_of_run, {"processes": 16}, PROBLEM, "of 4 GiB"),
    (
        planned.check_memory_of_run,
        {"devices": GPUS, "prospect": PROSPECT._replace(model=MODEL._replace(device="cuda", activations=90 * GIB))},
        PROBLEM,
        "90 GiB of activations (128 a process), of 80 GiB",
    ),
    (planned.check_disk, {}, OK, "4 checkpoints take about 1.2 GiB"),
    (
        planned.check_disk,
        {"prospect": PROSPECT._replace(model=MODEL._replace(checkpoint=2**60))},
        PROBLEM,
        "4 checkpoints take about 4,194,304.0 TiB",
    ),
    (planned.check_disk, {"prospect": "dead"}, OK, "free at"),
    (resources.check_threads, {}, OK, "8 of torch, 4 of the loader, on 8 cores"),
    (resources.check_threads, {"processes": 4}, WARNING, "4 of the loader in each, on 8 cores"),
    # 4 workers × 2 batches ahead × (8 + 4) images of 3 × 8 × 8 bytes
    (resources.check_shared_memory, {}, OK, "the loader's workers take up to 18 KiB"),
    (resources.check_shared_memory, {"shared_memory": Space(2**14, 2**14)}, PROBLEM, "16 KiB of 16 KiB free"),
    (resources.check_open_files, {"open_files": (512, 4096)}, WARNING, "4 workers may need 576"),
]


def name_of(case) -> str:
    return f"{case[0].__name__}: {case[3]}"


def assert_finds(finding: Finding, verdict: Verdict, says: str) -> None:
    assert finding.verdict == verdict, finding
    assert says in finding.found
    assert "\n" not in finding.advice


@pytest.mark.parametrize("case", MACHINE, ids=name_of)
def test_a_check_of_the_machine(case):
    check, changes, verdict, says = case
    finding = found(check, **changes)
    assert_finds(finding, verdict, says)
    assert bool(finding.advice) == (verdict != OK)


@pytest.mark.parametrize("case", WITH_CONFIG, ids=name_of)
def test_a_check_of_a_run(case, config):
    check, changes, verdict, says = case
    assert_finds(found(check, **{"config": config, **changes}), verdict, says)


@pytest.mark.parametrize("check", [check for checks in doctor.CHECKS_OF_A_RUN.values() for check in checks])
def test_without_a_valid_config_only_that_is_said(check):
    findings = check(situation(invalid="data is missing"))
    assert [finding.found for finding in findings] == ["data is missing"] * (check is planned.check_config)


def test_checks_that_need_torch_leave_its_fault_to_one(config):
    every = [check for checks in {**doctor.CHECKS, **doctor.CHECKS_OF_A_RUN}.values() for check in checks]
    broken = [
        finding.name
        for check in every
        for finding in doctor.findings_of_one(check, situation(devices="dead"))
        if "dead" in finding.found
    ]
    assert broken == ["imports"]


def test_extras_that_are_missing_are_information():
    """As well where the installed package, an older one, does not state them: tensorboard."""
    findings = {finding.name: finding for finding in software.check_extras(situation())}
    for name in ("wandb", "tensorboard"):
        finding = findings[f"[{name}]"]
        assert finding.verdict == OK
        assert finding.found == f"{name} is not installed: pip install 'vmoe[{name}]', for train.{name}"


def test_a_gpu_that_the_config_asks_for(config):
    train = config.train.model_copy(update={"device": "cuda", "compile": True})
    config = config.model_copy(update={"train": train})
    for changes in ({}, {"driver": "470.1"}, {"driver": "580.1", "devices": CPU._replace(cuda=None)}):
        assert found(on_devices.check_cuda, config=config, **changes).verdict == PROBLEM
    assert found(resources.check_compiler, config=config, programs={}).verdict == PROBLEM


V100 = H100._replace(name="V100", capability=(7, 0), bfloat16=False, peak=None)


@pytest.mark.parametrize(
    ("precision", "gpus", "verdict", "says"),
    [
        ("tf32", (), PROBLEM, "this CPU does not compute it"),
        ("tf32", (V100,), PROBLEM, "this GPU does not compute it"),
        ("tf32", (H100,), OK, "as train.precision asks"),
        ("bfloat16", (), WARNING, "this CPU has no instructions for it"),
        ("bfloat16", (V100,), WARNING, "this GPU has no instructions for it"),
        ("bfloat16", (H100,), OK, "as train.precision asks"),
        ("float16", (), WARNING, "slow on this CPU"),
        ("float16", (V100,), OK, "as train.precision asks"),
        ("float16", (H100,), OK, "each step waits for the device"),
        ("float32", (), OK, "as train.precision asks"),
    ],
)
def test_the_precision_that_the_config_asks_for(config, precision, gpus, verdict, says):
    train = config.train.model_copy(update={"precision": precision, "device": "auto"})
    config = config.model_copy(update={"train": train})
    findings = on_devices.check_precision(situation(config=config, devices=CPU._replace(gpus=gpus)))
    (finding,) = [finding for finding in findings if finding.name == precision]
    assert_finds(finding, verdict, says)


def test_on_a_cpu_that_is_asked_for_gpus_do_not_count(config):
    assert config.train.device == "cpu"
    assert "on this CPU" in found(on_devices.check_precision, config=config, devices=GPUS).found


def test_ffcv_that_reads_with_fewer_threads(config):
    data = config.data.model_copy(update={"loader": "ffcv"})
    changes = {"config": config.model_copy(update={"data": data}), "environment": {"NUMBA_NUM_THREADS": "2"}}
    finding = resources.check_threads(situation(**changes))[-1]
    assert (finding.name, finding.verdict) == ("NUMBA_NUM_THREADS", WARNING)
    assert "data.workers comes to 4" in finding.found
    assert "takes none" in found(resources.check_shared_memory, **changes).found


@pytest.mark.parametrize(
    ("answer", "verdict", "says"),
    [
        (Decoded(3.2, 0.7, ("libturbojpeg.so.0",)), OK, "wrote and read a JPEG in 3.2 s"),
        (Decoded(3.2, 80.0, ()), PROBLEM, "1.0.2 decodes other colours than were written, 80 of 255"),
        ("its process ended by SIGILL", PROBLEM, "does not work: its process ended by SIGILL"),
    ],
)
def test_ffcv(answer, verdict, says):
    assert_finds(found(ffcv.check_ffcv, decoded=answer), verdict, says)
    assert found(ffcv.check_ffcv, versions=ONLY_TORCH).verdict == WARNING
    assert ffcv.check_build_tools(situation()) == []


def test_ffcv_without_distutils(monkeypatch):
    monkeypatch.setattr(ffcv, "sys", SimpleNamespace(version_info=(3, 12)))
    monkeypatch.setattr(ffcv, "find_spec", lambda name: None)
    assert_finds(found(ffcv.check_ffcv), PROBLEM, "it imports distutils")


def test_what_builds_ffcv(monkeypatch):
    monkeypatch.setattr(ffcv, "_is_known", lambda tool, library: library == "opencv4")
    lacking = {"versions": ONLY_TORCH}
    assert_finds(found(ffcv.check_build_tools, **lacking), WARNING, "libturbojpeg not found")
    monkeypatch.setattr(ffcv, "_is_known", lambda tool, library: True)
    assert_finds(found(ffcv.check_build_tools, **lacking), OK, "/bin/g++, /bin/pkg-config, opencv4, libturbojpeg")


def test_a_check_that_fails_says_so():
    def check_the_weather(at):
        raise OSError("no window")

    (finding,) = doctor.findings_of_one(check_the_weather, situation())
    assert finding == Finding("the weather", WARNING, "could not be looked at: OSError: no window")
