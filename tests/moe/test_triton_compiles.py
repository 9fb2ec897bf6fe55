"""The Triton kernels as a GPU would get them: every launch of a forward and a backward, compiled without a GPU.

The launches are recorded on meta tensors. These have no values, so nothing on the host's way to a launch can have read
the device.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="the kernels are Triton's")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from vmoe.moe.dispatch.network import Inputs, Network  # noqa: E402
from vmoe.moe.dispatch.triton import backward, blocks, forward  # noqa: E402

NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64"}
CHIPS = {80: 163, 90: 227, 100: 227}  # compute capability, KiB of shared memory
SPILLED = 64  # bytes a thread that may lie in memory for want of registers
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# D, F, R, E, pairs
DEIT_S, DEIT_TI_ODD = (384, 1536, 32, 8, 50176), (192, 100, 6, 12, 900)


@pytest.fixture
def launches(monkeypatch):
    """What is launched: (kernel, arguments by name, options)."""
    found = []

    def record(self, *args, grid, warmup, **kwargs):
        assert not warmup
        assert all(isinstance(side, int) for side in grid)
        given = dict(zip(self.arg_names, args, strict=False))
        given |= {name: value for name, value in kwargs.items() if name in self.arg_names}
        found.append((self, given, {name: value for name, value in kwargs.items() if name not in self.arg_names}))

    monkeypatch.setattr(JITFunction, "run", record)
    return found


def go(kind, dtype, sizes, keep=True):
    """A forward and a backward on tensors without values."""
    (D, F, R, E, P), T = sizes, sizes[-1] // 2

    def empty(*shape, dtype=dtype):
        return torch.empty(*shape, dtype=dtype, device="meta")

    has_z, has_up, has_bias = kind == "lowrank_glu", kind != "mlp", kind == "mlp"
    gate_bias, up, down_bias = empty(E, F), empty(E, F, D), empty(E, D)
    network = Network(
        empty(E, F, R if has_z else D),
        gate_bias if has_bias else None,
        up if has_up else None,
        empty(E, D, F),
        down_bias if has_bias else None,
    )
    pairs = empty(P, dtype=torch.float32), empty(P, dtype=torch.int64), empty(E, dtype=torch.int64)
    inputs = Inputs(empty(T, D), empty(P, R) if has_z else None, *pairs, network, "gelu")
    y_TD, hidden = forward(inputs, keep)
    backward(empty(*y_TD.shape), inputs, hidden)


def compile_for(chip, kernel, given, options):
    signature, constants, aligned = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        name, value = parameter.name, given[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], aligned[(place,)] = NAMES[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)


def resources(compiled):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        listing = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", listing)}


@pytest.mark.parametrize(
    ("kind", "keep", "expected"),
    [("mlp", True, 4 + 7), ("mlp", False, 4 + 8), ("glu", True, 4 + 6), ("lowrank_glu", True, 4 + 8)],
)
def test_the_number_of_launches(kind, keep, expected, launches):
    """Of kernels; the table of places and what is zeroed for z are filled by torch."""
    go(kind, torch.bfloat16, DEIT_S, keep)
    assert len(launches) == expected


@pytest.mark.parametrize("width", [1, 5, 37, 96, 192, 200, 384, 768, 1000])
def test_blocks_fit_widths(width):
    block = blocks.fit(width, 128)
    assert block in (16, 32, 64, 128)
    assert -(-width // block) * block < width + 16 or block > 16
    assert blocks.fit_whole(width, 64) == min(64, max(16, 1 << (width - 1).bit_length()))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sizes", [DEIT_S, DEIT_TI_ODD])
def test_every_kernel_compiles_and_fits(sizes, dtype, chip, launches, monkeypatch):
    monkeypatch.setattr(blocks, "has_large_memory", lambda: chip != 80)
    done = set()
    for kind in ("mlp", "glu", "lowrank_glu"):
        go(kind, dtype, sizes)
    for kernel, given, options in launches:
        shape = {name: value for name, value in given.items() if not isinstance(value, torch.Tensor)}
        if (key := (kernel, str(shape))) in done:
            continue
        done.add(key)
        compiled = compile_for(chip, kernel, given, options)
        used, shared = resources(compiled), compiled.metadata.shared / 1024
        sides = {name: value for name, value in shape.items() if name.startswith("BLOCK")}
        print(f"sm_{chip} {dtype} {kernel.__name__} {sides}", used, f"{shared:.0f} KiB of shared memory")
        assert shared + 1 <= CHIPS[chip], kernel.__name__
        assert used["STACK"] <= SPILLED, kernel.__name__
    assert done
