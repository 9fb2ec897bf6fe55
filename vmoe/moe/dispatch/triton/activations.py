"""The activations of `vmoe.moe.activations` and their derivatives, elementwise on float32 tiles.

Each is ``a · S(a)`` with a step S from 0 to 1: Φ for GELU, a sigmoid for its approximations and for SiLU, the unit step
for ReLU. So its derivative is ``S(a) + a · S'(a)``, and a kernel that needs only the value pays for nothing else.
"""

import triton
import triton.language as tl

from ...activations import QUICK as QUICK_GELU

QUICK = tl.constexpr(QUICK_GELU)
SQRT_HALF = tl.constexpr(0.7071067811865476)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)
TANH_LINEAR = tl.constexpr(1.5957691216057308)  # 2 sqrt(2/π): (1 + tanh u) / 2 is the sigmoid of 2 u
TANH_CUBIC = tl.constexpr(0.07135481282630357)  # … · 0.044715


@triton.jit
def step(a, NAME: tl.constexpr):
    """(S, S') at a."""
    if NAME == "relu":
        value = (a > 0).to(tl.float32)
        slope = tl.zeros_like(a)
    elif NAME == "gelu":
        value = 0.5 + 0.5 * tl.erf(a * SQRT_HALF)
        slope = INV_SQRT_2PI * tl.exp(-0.5 * a * a)
    else:
        if NAME == "silu":
            value = tl.sigmoid(a)
            inner = 1.0
        elif NAME == "quick_gelu":
            value = tl.sigmoid(a * QUICK)
            inner = QUICK
        else:
            tl.static_assert(NAME == "gelu_tanh")
            value = tl.sigmoid(a * (TANH_LINEAR + TANH_CUBIC * a * a))
            inner = TANH_LINEAR + 3 * TANH_CUBIC * a * a
        slope = value * (1 - value) * inner
    return value, slope
