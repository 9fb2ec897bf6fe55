"""Arguments that timm does not have: fixed positions, one drop-path rate."""

import math

import pytest
import timm
import torch
from hosts import TINY
from timm.layers import DropPath, build_sincos2d_pos_embed

import vmoe
from vmoe.backbones.timm import create_host
from vmoe.backbones.timm_arguments import sincos_positions
from vmoe.config import OptimizerConfig
from vmoe.train.optim import build_optimizer

FIXED = {"class_token": False, "global_pool": "avg", "pos_embed": "sincos2d"}


def tiny(**kwargs):
    torch.manual_seed(0)
    return create_host("vit_tiny_patch16_224", num_classes=5, **TINY, **kwargs)


def test_positions_by_hand():
    """Width 8: ω is 1 and 1/10000. The patch of row 1 and column 2 has x = 2, y = 1."""
    table = sincos_positions(2, 3, 8)
    assert table.shape == (6, 8)
    wave = [f(place * w) for place in (2, 1) for f in (math.sin, math.cos) for w in (1, 1e-4)]
    assert table[1 * 3 + 2].tolist() == pytest.approx(wave)
    assert table[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_waves_are_spaced_from_one_to_a_ten_thousandth():
    """sin of the smallest x: the frequencies themselves, in equal ratios, both ends among them."""
    frequencies = sincos_positions(1, 2, 384)[1, :96].arcsin()
    assert frequencies[0].item() == pytest.approx(1)
    assert frequencies[-1].item() == pytest.approx(1e-4)
    ratios = frequencies[1:] / frequencies[:-1]
    assert ratios.tolist() == pytest.approx([1e-4 ** (1 / 95)] * 95)


def test_timms_own_table_holds_the_same_numbers_but_for_its_frequencies():
    """timm's stop one step before 1/temperature; with a temperature that makes up for it, the numbers are these, as
    sin y, sin x, cos y, cos x."""
    timms = build_sincos2d_pos_embed([4, 5], dim=4 * 7, temperature=10_000 ** (7 / 6))
    rows_first = timms.view(20, 2, 2, 7)  # sin or cos, y or x
    assert torch.allclose(
        rows_first.flip(2).transpose(1, 2).flatten(1).double(), sincos_positions(4, 5, 4 * 7), atol=1e-6
    )


def test_a_model_with_fixed_positions_has_them_and_does_not_train_them():
    model = tiny(**FIXED)
    assert torch.equal(model.pos_embed[0], sincos_positions(4, 4, 24).float())
    assert not model.pos_embed.requires_grad
    images = torch.randn(2, 3, 32, 32)
    model(images).sum().backward()
    assert model.pos_embed.grad is None
    with_moe = vmoe.add_moe(model, "topk")
    grouped = {id(p) for group in build_optimizer(with_moe, OptimizerConfig()).param_groups for p in group["params"]}
    assert id(with_moe.pos_embed) not in grouped
    assert grouped == {id(p) for p in with_moe.parameters() if p.requires_grad}


def test_tokens_before_the_patches_get_no_position():
    with_class = tiny(pos_embed="sincos2d")
    assert with_class.pos_embed.shape == (1, 17, 24)
    assert not with_class.pos_embed[0, 0].any()
    assert torch.equal(with_class.pos_embed[0, 1:], sincos_positions(4, 4, 24).float())


def test_the_rest_of_the_model_is_timms():
    """Neither argument draws random numbers or changes a weight."""
    own = tiny(**FIXED, drop_path_uniform=True, drop_path_rate=0.1).state_dict()
    torch.manual_seed(0)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY, class_token=False, global_pool="avg")
    for key, value in plain.state_dict().items():
        assert key == "pos_embed" or value.equal(own[key]), key


def test_every_branch_drops_at_the_same_rate():
    def rates(**kwargs):
        model = vmoe.add_moe(tiny(**kwargs), "self")
        return [round(getattr(b, n).drop_prob, 6) for b in model.blocks for n in ("drop_path1", "drop_path2")]

    assert rates(drop_path_rate=0.3, drop_path_uniform=True) == [0.3] * 8
    assert not any(isinstance(m, DropPath) for m in tiny(drop_path_uniform=True).modules())
    with pytest.raises(AttributeError):  # timm's own first block has none
        rates(drop_path_rate=0.3)


def test_a_checkpoints_arguments_make_the_same_model():
    """As `vmoe.load` does it: arguments and weights, whatever positions another version might compute."""
    arguments = {"num_classes": 5, **TINY, **FIXED, "drop_path_uniform": True, "drop_path_rate": 0.1}
    source = vmoe.create_model("vit_tiny_patch16_224", "topk", **arguments)
    source.pos_embed.data.mul_(2)
    copy = vmoe.create_model("vit_tiny_patch16_224", "topk", **arguments)
    copy.load_state_dict(source.state_dict())
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(source.eval()(images), copy.eval()(images))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vit_tiny_patch16_224", {"pos_embed": "sincos2d", "pretrained": True}, "pretrained: false"),
        (
            "vit_tiny_patch16_224",
            {"pos_embed": "sincos2d", **TINY, "embed_dim": 26},
            "width 26; allowed: a multiple of 4",
        ),
        ("swin_tiny_patch4_window7_224", {"pos_embed": "sincos2d"}, "'sincos2d'; allowed for SwinTransformer"),
        ("resnet18", {"drop_path_uniform": True}, "drop_path_uniform is true, but ResNet"),
        ("vit_tiny_patch16_224", {"drop_path_uniform": 1}, "drop_path_uniform is 1; allowed: true or false"),
    ],
)
def test_what_cannot_be_is_refused(name, kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_host(name, **kwargs)
