"""The host's side: memory, grids, and the order of the kernels.

Shapes: T tokens, D width, E experts, F hidden width, I gate inputs (D, or R, the rank of z), P rows of the list of
pairs, B blocks of F.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..network import Gradients, Hidden, Inputs, Network
from .blocks import Blocks, fit, fit_whole, outer_blocks, product_blocks, row_block
from .gradients import hidden_gradients, weight_gradients
from .plan import Plan, make_plan
from .products import in_products, out_products
from .sums import combine, sum_blocks, sum_tiles

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def forward(inputs: Inputs, keep: bool) -> tuple[Tensor, Hidden]:
    with torch.cuda.device_of(inputs.x_TD):
        run = Run(inputs)
        hidden, hidden_PF = run.hidden(keep=keep, activate=True)
        assert hidden_PF is not None
        return run.combine(run.down(hidden_PF)), hidden


def backward(grad_TD: Tensor, inputs: Inputs, hidden: Hidden) -> Gradients:
    with torch.cuda.device_of(inputs.x_TD):
        run = Run(inputs)
        if len(hidden.gate_PF) < len(inputs.tokens_P):
            hidden, _ = run.hidden(keep=True, activate=False)
        return run.backward(grad_TD.contiguous(), hidden)


class Run:
    """The kernels on one set of inputs."""

    def __init__(self, inputs: Inputs):
        x_TD, z_PR, weights_P, tokens_P, ends_E, network, self.activation = inputs
        if x_TD.dtype not in TYPES:
            raise ValueError(f"the triton kernels compute in one of {TYPES}, not in {x_TD.dtype}")
        self.x_TD = x_TD.contiguous()
        self.z_PR = None if z_PR is None else z_PR.contiguous()
        self.weights_P = weights_P.contiguous()
        self.tokens_P = tokens_P.contiguous()
        self.ends_E = ends_E.contiguous()
        self.network = network.map(Tensor.contiguous)
        self.rows = len(tokens_P)
        self.experts, self.inner, self.gate_inputs = network.gate_EFI.shape
        self.width = x_TD.shape[1]
        self.precision = precision_of(x_TD.dtype)
        block_m = row_block(self.rows, self.experts, x_TD.dtype, self.precision)
        self.plan: Plan = make_plan(self.tokens_P, self.ends_E, len(x_TD), block_m)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.x_TD.new_empty(shape, dtype=dtype)

    def hidden(self, *, keep: bool, activate: bool) -> tuple[Hidden, Tensor | None]:
        """What a backward pass wants of the hidden rows (`keep`), and themselves (`activate`)."""
        network, rows, inner = self.network, self.rows, self.inner
        has_up = network.up_EFD is not None
        kept = rows if keep else 0
        hidden = Hidden(self.empty(kept, inner), self.empty(kept if has_up else 0, inner))
        hidden_PF = self.empty(rows, inner) if activate else None
        blocks = self.product_blocks(inner, self.width, accumulators=2 if has_up else 1)
        in_products[self.grid(inner, blocks.n)](
            self.x_TD,
            self.z_PR,
            self.tokens_P,
            network.gate_EFI,
            network.gate_bias_EF,
            network.up_EFD,
            self.plan.tiles,
            hidden.gate_PF if keep else None,
            hidden.up_PF if keep and has_up else None,
            hidden_PF,
            D=self.width,
            F=inner,
            INPUTS=self.gate_inputs,
            ACTIVATION=self.activation,
            PRECISION=self.precision,
            BLOCK_I=fit_whole(self.gate_inputs, blocks.k),
            **blocks.options(),
        )
        return hidden, hidden_PF

    def down(self, hidden_PF: Tensor) -> Tensor:
        """(P, D): each row's output, times its weight."""
        network = self.network
        return self.out(
            hidden_PF, network.down_EDF, bias_EN=network.down_bias_ED, weights_P=self.weights_P, transposed=True
        )

    def out(
        self,
        a_PK: Tensor,
        a_weight: Tensor,
        b_PK: Tensor | None = None,
        b_weight: Tensor | None = None,
        *,
        bias_EN: Tensor | None = None,
        weights_P: Tensor | None = None,
        transposed: bool = False,
        out_PN: Tensor | None = None,
    ) -> Tensor:
        inner = a_PK.shape[1]
        outer = a_weight.shape[1 if transposed else 2]
        if out_PN is None:
            out_PN = self.empty(self.rows, outer)
        blocks = self.product_blocks(outer, inner)
        out_products[self.grid(outer, blocks.n)](
            a_PK,
            a_weight,
            b_PK,
            b_weight,
            bias_EN,
            weights_P,
            self.plan.tiles,
            out_PN,
            K=inner,
            N=outer,
            TRANSPOSED=transposed,
            PRECISION=self.precision,
            **blocks.options(),
        )
        return out_PN

    def combine(self, rows_PD: Tensor) -> Tensor:
        y_TD = torch.empty_like(self.x_TD)
        block_t, block_d = 16, fit(self.width, 128)
        grid = (triton.cdiv(len(y_TD), block_t), triton.cdiv(self.width, block_d))
        combine[grid](
            rows_PD,
            self.plan.places_ET,
            y_TD,
            len(y_TD),
            E=self.experts,
            D=self.width,
            BLOCK_T=block_t,
            BLOCK_D=block_d,
            enable_fp_fusion=True,
        )
        return y_TD

    def backward(self, grad_TD: Tensor, hidden: Hidden) -> Gradients:
        network, rows, inner, width = self.network, self.rows, self.inner, self.width
        has_up = network.up_EFD is not None
        tiles = len(self.plan.tiles)
        blocks = self.product_blocks(inner, width)
        num_blocks = triton.cdiv(inner, blocks.n)
        hidden_PF, grad_gate_PF = self.empty(rows, inner), self.empty(rows, inner)
        grad_up_PF = self.empty(rows, inner) if has_up else None
        weight_parts_BP = self.empty(num_blocks, rows, dtype=torch.float32)
        gate_parts = None if network.gate_bias_EF is None else self.empty(tiles, inner, dtype=torch.float32)
        down_parts = None if network.down_bias_ED is None else self.empty(tiles, width, dtype=torch.float32)
        hidden_gradients[self.grid(inner, blocks.n)](
            grad_TD,
            self.weights_P,
            self.tokens_P,
            network.down_EDF,
            network.down_bias_ED,
            hidden.gate_PF,
            hidden.up_PF if has_up else None,
            self.plan.tiles,
            grad_gate_PF,
            grad_up_PF,
            hidden_PF,
            weight_parts_BP,
            gate_parts,
            down_parts,
            rows,
            D=width,
            F=inner,
            ACTIVATION=self.activation,
            PRECISION=self.precision,
            **blocks.options(),
        )
        grad_weights = torch.empty_like(self.weights_P)
        sum_blocks[(triton.cdiv(rows, 256),)](
            weight_parts_BP,
            self.ends_E,
            grad_weights,
            rows,
            E=self.experts,
            B=num_blocks,
            BLOCK=256,
            enable_fp_fusion=True,
        )
        grads = network.map(torch.empty_like)
        self.sum_bias_parts(gate_parts, down_parts, grads)
        self.weight_gradients(grad_TD, hidden_PF, grad_gate_PF, grad_up_PF, grads)
        del hidden_PF
        if self.z_PR is None:
            rows_PD = self.out(grad_gate_PF, network.gate_EFI, grad_up_PF, network.up_EFD)
            return Gradients(self.combine(rows_PD), None, grad_weights, grads)
        grad_z = self.out(grad_gate_PF, network.gate_EFI, out_PN=torch.zeros_like(self.z_PR))
        if grad_up_PF is None or network.up_EFD is None:
            return Gradients(torch.zeros_like(self.x_TD), grad_z, grad_weights, grads)
        grad_x = self.combine(self.out(grad_up_PF, network.up_EFD))
        return Gradients(grad_x, grad_z, grad_weights, grads)

    def sum_bias_parts(self, gate_parts: Tensor | None, down_parts: Tensor | None, grads: Network) -> None:
        parts = [part for part in (gate_parts, down_parts) if part is not None]
        if not parts:
            return
        block_n = 64
        grid = (sum(triton.cdiv(part.shape[1], block_n) for part in parts), self.experts)
        sum_tiles[grid](
            gate_parts,
            down_parts,
            self.plan.tiles,
            grads.gate_bias_EF,
            grads.down_bias_ED,
            len(self.plan.tiles),
            F=self.inner,
            D=self.width,
            BLOCK_T=32,
            BLOCK_N=block_n,
            enable_fp_fusion=True,
        )

    def weight_gradients(
        self, grad_TD: Tensor, hidden_PF: Tensor, grad_gate_PF: Tensor, grad_up_PF: Tensor | None, grads: Network
    ) -> None:
        """By gate, up and down: in one launch where the gate reads x."""
        gate, up = (grad_gate_PF, grads.gate_EFI), (grad_up_PF, grads.up_EFD)
        down = (hidden_PF, grad_TD, grads.down_EDF)
        if self.z_PR is None:
            self.outer_products(self.x_TD, self.tokens_P, a=gate, b=up, down=down)
        else:
            self.outer_products(self.x_TD, self.tokens_P, a=up, down=down)
            self.outer_products(self.z_PR, None, a=gate)

    def outer_products(
        self,
        x_TN: Tensor,
        tokens_P: Tensor | None,
        *,
        a: tuple[Tensor | None, Tensor | None],
        b: tuple[Tensor | None, Tensor | None] = (None, None),
        down: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None),
    ) -> None:
        """The sums of the kernel `weight_gradients`: of each its (P, F) and its output; for down, ∂L/∂y too."""
        (a_PF, a_out_EFN), (b_PF, b_out_EFN), (hidden_PF, grad_TN, down_out_ENF) = a, b, down
        inner, outer = self.inner, x_TN.shape[1]
        blocks = outer_blocks(inner, outer, self.x_TD.dtype, self.precision)
        num_sums = sum(rows is not None for rows in (a_PF, b_PF, hidden_PF))
        weight_gradients[num_sums * triton.cdiv(inner, blocks.m) * triton.cdiv(outer, blocks.n), self.experts](
            hidden_PF,
            a_PF,
            b_PF,
            grad_TN,
            x_TN,
            tokens_P,
            self.ends_E,
            down_out_ENF,
            a_out_EFN,
            b_out_EFN,
            F=inner,
            N=outer,
            PRECISION=self.precision,
            **blocks.options(),
        )

    def product_blocks(self, n: int, k: int, *, accumulators: int = 1) -> Blocks:
        return product_blocks(self.plan.block_m, n, k, self.x_TD.dtype, self.precision, accumulators=accumulators)

    def grid(self, columns: int, block_n: int) -> tuple[int]:
        return (len(self.plan.tiles) * triton.cdiv(columns, block_n),)


def precision_of(dtype: torch.dtype) -> str:
    """Of float32 products; others have but one."""
    tf32 = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if tf32 else "ieee"
