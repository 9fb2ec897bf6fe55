"""Kernels of the fused path for CUDA, in Triton: they gather rows, multiply, activate and scatter without copies.

Nothing here waits for the device: a group's length stays there, and every grid is the largest that the number of rows
allows (`plan`). A forward is five launches:

1. `plan`, two launches: which rows make a tile of one expert, and which rows are a token's;
2. `in_products`: ``hidden = act(gate) ⊙ up`` of rows gathered while they are read;
3. `out_products`: each row's ``w · (down(hidden) + b)``;
4. `combine`: every token's sum over its rows, in the order of the experts.

A backward takes the same way back: `hidden_gradients`, the sums of what its tiles left (`sums`), `weight_gradients`,
`out_products` and `combine`. There are no atomic additions, so two runs give the same bits.

Sorted rows that are multiplied group by group without padding: MegaBlocks (arXiv 2211.15841). Gathering while reading,
so that no copy of the gathered rows exists: ScatterMoE (arXiv 2403.08245).
"""

from .launch import backward, forward

__all__ = ["backward", "forward"]
