"""Where tokens lie in the image: disturbing one place of it moves the token that is said to be there most."""

from __future__ import annotations

import pytest
import timm
import torch
from hosts import TINY

from vmoe.backbones.grid import token_grid
from vmoe.backbones.timm import host_blocks

SIDE = 4  # the image is disturbed in one of SIDE × SIDE places
TWO_BLOCKS = TINY | {"depth": 2}

# (arguments that make it small, image size, grids of its MLPs: None where it should be None)
HOSTS = {
    "vit_tiny_patch16_224": (TWO_BLOCKS, 32, [(1, 4, 4)] * 2),
    "vit_base_patch16_siglip_224": (TWO_BLOCKS, 32, [(0, 4, 4)] * 2),
    "vit_small_patch14_reg4_dinov2": (TWO_BLOCKS, 32, [(5, 4, 4)] * 2),
    "vit_base_patch16_clip_224": (TWO_BLOCKS, 32, [(1, 4, 4)] * 2),
    "vit_medium_patch16_rope_reg1_gap_256": (TWO_BLOCKS, 32, [(1, 4, 4)] * 2),
    "deit_tiny_distilled_patch16_224": (TWO_BLOCKS, 32, [(2, 4, 4)] * 2),
    "deit3_small_patch16_224": (TWO_BLOCKS, 32, [(1, 4, 4)] * 2),
    "beit_base_patch16_224": (TWO_BLOCKS, 32, [(1, 4, 4)] * 2),
    "cait_xxs24_224": (TWO_BLOCKS, 32, [(0, 4, 4)] * 2 + [None] * 2),
    "xcit_nano_12_p16_224": ({"embed_dim": 24, "depth": 2, "num_heads": 2}, 64, [(0, 4, 4)] * 2 + [None] * 2),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 32, "embed_dim": 12, "depths": (1, 1, 1), "num_heads": (2, 2, 2), "window_size": 4},
        32,
        [(0, 8, 8), (0, 4, 4), (0, 2, 2)],
    ),
    "swinv2_tiny_window8_256": (
        {"img_size": 32, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
        32,
        [(0, 8, 8), (0, 4, 4)],
    ),
    "twins_pcpvt_small": (
        {
            **{"img_size": 32, "embed_dims": (8, 16), "num_heads": (1, 2)},
            **{"mlp_ratios": (4, 4), "depths": (1, 1), "sr_ratios": (2, 1)},
        },
        32,
        [(0, 8, 8), (0, 4, 4)],
    ),
    "volo_d1_224": ({"img_size": 64}, 64, [(0, 8, 8)] * 4 + [(0, 4, 4)] * 14 + [None] * 2),
    "test_convnext3": ({}, 160, [(0, 40, 40), (0, 20, 20), (0, 10, 10), (0, 5, 5)]),
    "pit_xs_224": (
        {"img_size": 64, "patch_size": 8, "stride": 8},
        64,
        [(1, 8, 8)] * 2 + [(1, 4, 4)] * 6 + [(1, 2, 2)] * 4,
    ),
}  # fmt: skip
SPREAD = {"xcit_nano_12_p16_224", "volo_d1_224", "test_convnext3", "pit_xs_224"}  # to next tokens, by convolutions


def mlp_inputs(model, image):
    """What each MLP is given for one image, without the batch."""
    seen = {}
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, given, name=block.name: seen.update({name: given[0][0]}))
        for block in host_blocks(model)
    ]
    with torch.no_grad():
        model(image[None])
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", HOSTS)
def test_the_token_of_a_disturbed_place_moves_most(name):
    arguments, size, grids = HOSTS[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **arguments).eval()
    image = torch.randn(3, size, size)
    before = mlp_inputs(model, image)
    found = [token_grid(model, tuple(tokens.shape[:-1]), size) for tokens in before.values()]
    assert found == grids
    for row, column in ((0, 3), (2, 1), (3, 0)):
        step = size // SIDE
        disturbed = image.clone()
        disturbed[:, row * step : (row + 1) * step, column * step : (column + 1) * step] += 5 * torch.randn(
            3, step, step
        )
        after = mlp_inputs(model, disturbed)
        for layer, grid in zip(before, grids, strict=True):
            if grid is None:
                continue
            prefix, rows, columns = grid
            moved = (after[layer] - before[layer]).norm(dim=-1).flatten()[prefix:]
            cells = min(SIDE, rows)
            for at, place in zip(divmod(int(moved.argmax()), columns), (row, column), strict=True):
                assert abs(at * cells // rows - place * cells // SIDE) <= (name in SPREAD), layer


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("hiera_tiny_224", (3136,)),  # in the order of its pooling windows
        ("nest_tiny", (16, 196)),  # blocks, and patches in them
        ("mobilevit_xxs", (256,)),  # patches folded into the batch
        ("resnet18", (7, 7)),
    ],
)
def test_nothing_is_said_of_other_orders(name, shape):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert token_grid(model, shape, 224) is None


def test_a_grid_follows_the_size_of_the_images():
    """Models without a fixed size: 64 pixels of patches of 8."""
    model = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, **TWO_BLOCKS)
    assert token_grid(model, (1 + 8 * 8,), 64) == (1, 8, 8)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 4, 4)])
def test_shapes_that_are_no_grid(shape):
    model = timm.create_model("vit_tiny_patch16_224", **TWO_BLOCKS)
    assert token_grid(model, shape, 32) is None
