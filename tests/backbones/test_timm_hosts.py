"""timm models with MoE layers in them: which hosts, which blocks, and what stays as it was."""

import copy
import pickle

import pytest
import timm
import torch
from hosts import GATES, TINY, tiny_vit
from torch.testing import assert_close

import vmoe
from vmoe.backbones.host import choose_blocks
from vmoe.backbones.timm import add_moe
from vmoe.moe import Dense, Glu, LowRankGlu, Mlp, MoE, MoESpec, Random, RoutingFree, SelfRouting, TopK, moe_layers

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def upcycled(gate, **values):
    return MoESpec(gate=gate, experts=Mlp(hidden="host"), init="upcycle", layers="all", **values)


# --- hosts -----------------------------------------------------------------------------------------------

# (arguments that make it small, image size, its MLPs' names)
HOSTS = {
    "vit_tiny_patch16_224": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),
    "deit_tiny_distilled_patch16_224": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),
    "deit3_small_patch16_224": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),
    "vit_small_patch14_reg4_dinov2": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),
    "vit_base_patch16_siglip_224": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),
    "beit_base_patch16_224": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),
    "vit_medium_patch16_rope_reg1_gap_256": (TINY, 32, [f"blocks.{i}.mlp" for i in range(4)]),  # eva's class
    "cait_xxs24_224": (
        TINY | {"depth": 2},
        32,
        ["blocks.0.mlp", "blocks.1.mlp", "blocks_token_only.0.mlp", "blocks_token_only.1.mlp"],
    ),
    "xcit_nano_12_p16_224": (
        {"embed_dim": 24, "depth": 2, "num_heads": 2},
        32,
        ["blocks.0.mlp", "blocks.1.mlp", "cls_attn_blocks.0.mlp", "cls_attn_blocks.1.mlp"],
    ),
    "vit_small_patch16_18x2_224": (TINY | {"depth": 1}, 32, ["blocks.0.ffns.0.mlp", "blocks.0.ffns.1.mlp"]),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 32, "embed_dim": 12, "depths": (1, 2), "num_heads": (2, 2), "window_size": 4},
        32,
        ["layers.0.blocks.0.mlp", "layers.1.blocks.0.mlp", "layers.1.blocks.1.mlp"],
    ),
    "hiera_tiny_224": (
        {"img_size": (64, 64), "embed_dim": 12, "num_heads": 1, "stages": (1, 1, 1, 1)},
        64,
        [f"blocks.{i}.mlp" for i in range(4)],
    ),
    "twins_pcpvt_small": (
        {
            **{"img_size": 32, "embed_dims": (8, 16), "num_heads": (1, 2)},
            **{"mlp_ratios": (4, 4), "depths": (1, 1), "sr_ratios": (2, 1)},
        },
        32,
        ["blocks.0.0.mlp", "blocks.1.0.mlp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("gate", ["topk", "routing_free"])
def test_hosts_train_with_moe_in_every_block(name, gate):
    kwargs, size, names = HOSTS[name]
    torch.manual_seed(0)
    model = vmoe.create_model(name, {"gate": gate, "num_experts": 4, "layers": "all"}, num_classes=5, **kwargs)
    assert [layer for layer, _ in moe_layers(model)] == names
    with vmoe.record(model) as routings:
        logits = model(torch.randn(2, 3, size, size))
    assert type(logits) is torch.Tensor
    assert logits.shape == (2, 5)
    assert list(routings) == names
    assert all(routing.shape[0] == 2 for routing in routings.values())  # images first, as statistics expect
    logits.square().sum().backward()
    for layer in names:
        assert all(p.grad is not None for p in model.get_submodule(layer).parameters())


@pytest.mark.parametrize("name", HOSTS)
def test_routing_free_starts_dense_in_every_host(name):
    """Of the tokens that the block's norm brought to mean square 1: a norm's eps leaves a class token that starts at
    1e-6 as good as 0, and it activates nothing."""
    kwargs, size, names = HOSTS[name]
    torch.manual_seed(0)
    model = vmoe.create_model(name, {"gate": "routing_free", "num_experts": 4, "layers": "all"}, **kwargs).eval()
    inputs = {}
    for layer, module in moe_layers(model):
        module.register_forward_pre_hook(lambda _, args, layer=layer: inputs.update({layer: args[0].flatten(0, -2)}))
    with vmoe.record(model) as routings, torch.no_grad():
        model(torch.randn(2, 3, size, size))
    for layer in names:
        normed = inputs[layer].square().mean(1) > 0.5
        assert normed.any()
        assert routings[layer].active[normed].float().mean() >= 0.9, layer


LARGE = {
    "vit_base_patch16_224": "blocks.11.mlp",
    "vit_small_patch16_36x1_224": "blocks.35.mlp",
    "swin_tiny_patch4_window7_224": "layers.3.blocks.1.mlp",
    "volo_d1_224": "post_network.1.mlp",
    "nest_tiny": "levels.2.transformer_encoder.7.mlp",
    "vit_base_patch16_dinov3": "blocks.11.mlp",
}


@pytest.mark.parametrize("name", LARGE)
def test_full_sizes_on_the_meta_device(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    add_moe(model, MoESpec(layers="last1"))
    assert {layer: next(moe.parameters()).device.type for layer, moe in moe_layers(model)} == {LARGE[name]: "meta"}


def refused_models():
    def meta(name, **kwargs):
        with torch.device("meta"):
            return timm.create_model(name, **kwargs)

    def in_already():
        return vmoe.create_model("vit_tiny_patch16_224", "self", **TINY)

    def narrowing():
        model = tiny_vit()
        model.blocks[0].mlp = timm.layers.Mlp(24, 96, out_features=12)
        return model

    def half_biased():
        model = tiny_vit()
        model.blocks[0].mlp = timm.layers.Mlp(24, 96, bias=(True, False))
        return model

    return {
        "eva02": (lambda: meta("eva02_tiny_patch14_224"), "mlp is a GluMlp"),
        "dinov2 giant": (lambda: meta("vit_giant_patch14_dinov2"), "mlp is a GluMlp"),
        "mixer": (lambda: meta("mixer_s32_224"), "no numbered blocks with an `mlp`"),
        "resnet": (lambda: meta("resnet18"), "no numbered blocks with an `mlp`"),
        "parallel scaling": (
            lambda: tiny_vit(block_fn=timm.models.vision_transformer.ParallelScalingBlock),
            "no numbered blocks with an `mlp`",
        ),
        "poolformer": (lambda: meta("poolformer_s12"), r"convolutional \(use_conv\)"),
        "scale_mlp_norm": (lambda: tiny_vit(scale_mlp_norm=True), "norm between its layers"),
        "narrowing": (narrowing, "changes the width from 24 to 12"),
        "half biased": (half_biased, "bias in one layer only"),
        "converted": (in_already, "MoE layers already"),
    }


@pytest.mark.parametrize("which", refused_models())
def test_refused_hosts_say_why_and_stay_as_they_are(which):
    make, reason = refused_models()[which]
    model = make()
    before = [(name, type(module), id(module)) for name, module in model.named_modules()]
    with pytest.raises(ValueError, match=reason):
        vmoe.add_moe(model, "topk")
    assert [(name, type(module), id(module)) for name, module in model.named_modules()] == before
    assert "no_weight_decay" not in vars(model) or which == "converted"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MoESpec(layers="last5"), "moe.layers is 'last5'"),
        (MoESpec(layers=(0, 4)), r"moe.layers is \[0, 4\]"),
        (MoESpec(gate=SelfRouting(), num_experts=25), "num_experts is 25; allowed: at most the width, 24"),
        (MoESpec(gate=SelfRouting(offset=17)), "gate.offset is 17; allowed: 0 to 16"),
        (
            MoESpec(gate=RoutingFree(), experts=LowRankGlu(rank=24)),
            "experts.rank is 24; allowed with hidden: match: less than 24",
        ),
        (MoESpec(experts=Mlp(activation="nonsense")), "experts.activation is 'nonsense'; allowed: timm's activations"),
        (MoESpec(experts=Mlp(activation="")), "experts.activation is ''; allowed: timm's activations"),
    ],
)
def test_refused_specs_leave_the_host_as_it_is(spec, message):
    model = tiny_vit()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        add_moe(model, spec)
    assert not any(moe_layers(model))
    assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_a_later_block_that_does_not_fit_leaves_the_earlier_ones_alone():
    model = tiny_vit()
    model.blocks[3].mlp = timm.layers.Mlp(6, 24)
    with pytest.raises(ValueError, match="num_experts is 8; allowed: at most the width, 6"):
        add_moe(model, MoESpec(gate=SelfRouting(), layers="all"))
    assert not any(moe_layers(model))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vit_tinny_patch16_224", {}, r"model.name is 'vit_tinny_patch16_224'.*near: \['vit_tiny_patch16_224'"),
        ("vit_tiny_patch16_224", {"colour": 3}, "timm cannot create 'vit_tiny_patch16_224' with model.kwargs"),
    ],
)
def test_names_and_arguments_that_timm_does_not_know(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        vmoe.create_model(name, "topk", **kwargs)


# --- blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("every1", [0, 1, 2, 3, 4, 5]),
        ("every2", [1, 3, 5]),
        ("every4", [3]),
        ("every6", [5]),
        ("last1", [5]),
        ("last2", [4, 5]),
        ("last6", [0, 1, 2, 3, 4, 5]),
        ((0,), [0]),
        ((4, 1), [1, 4]),
    ],
)
def test_blocks_of_six(layers, chosen):
    assert choose_blocks(layers, 6) == chosen


@pytest.mark.parametrize(
    "layers", ["", "none", "every", "every0", "last0", "every7", "last7", "last-1", "last2 ", "Last2", "every2.0"]
)
def test_words_that_choose_no_blocks(layers):
    with pytest.raises(ValueError, match=rf"moe.layers is '{layers}'; allowed: all, everyN, lastN with N from 1 to 6"):
        choose_blocks(layers, 6)


@pytest.mark.parametrize("layers", [(), (6,), (-1,), (1, 1), (0, 1, 9)])
def test_numbers_that_choose_no_blocks(layers):
    with pytest.raises(ValueError, match=r"moe.layers is \[.*\]; allowed: .* block numbers from 0 to 5, each once"):
        choose_blocks(layers, 6)


@pytest.mark.parametrize(("layers", "numbers"), [("every2", [1, 3]), ("last1", [3]), ((0, 2), [0, 2])])
def test_other_blocks_keep_their_mlp(layers, numbers):
    dense = tiny_vit()
    model = add_moe(copy.deepcopy(dense), MoESpec(layers=layers))
    for i, (block, old) in enumerate(zip(model.blocks, dense.blocks, strict=True)):
        assert isinstance(block.mlp, MoE if i in numbers else timm.layers.Mlp)
        if i not in numbers:
            assert_close(dict(block.mlp.state_dict()), dict(old.mlp.state_dict()), rtol=0, atol=0)


# --- what the host keeps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_one_seed_gives_the_same_host_whatever_the_gate(gate):
    dense = tiny_vit(seed=5)
    torch.manual_seed(5)
    model = vmoe.create_model("vit_tiny_patch16_224", MoESpec(gate=gate), num_classes=5, **TINY)
    own = {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(("blocks.1.mlp", "blocks.3.mlp"))
    }
    expected = {name: value for name, value in dense.state_dict().items() if name in own}
    assert_close(own, expected, rtol=0, atol=0)
    assert len(expected) == len(own)
    moved = sum(".mlp.norm." in name for name in model.state_dict())
    assert len(dense.state_dict()) - len(expected) == 8 + moved  # two MLPs of two weights and two biases


def test_dense_leaves_the_model_as_it_is():
    model = tiny_vit()
    before = copy.deepcopy(model)
    assert add_moe(model, MoESpec(gate=Dense())) is model
    assert str(model) == str(before)
    assert "no_weight_decay" not in vars(model)


@pytest.mark.parametrize(
    "gate", [TopK(k=1), TopK(k=3), SelfRouting(k=1), SelfRouting(k=2), Random(k=2), Random(k=2, source="hash")]
)
def test_an_upcycled_model_is_its_source(gate):
    """Every expert is the dense MLP and a token's weights sum to 1, whatever k."""
    dense = tiny_vit().eval()
    moe = add_moe(copy.deepcopy(dense), upcycled(gate))
    assert len(list(moe_layers(moe))) == 4
    with torch.no_grad():
        assert_close(moe(IMAGES), dense(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_gate_that_does_not_renormalise_is_not_its_source():
    dense = tiny_vit().eval()
    moe = add_moe(copy.deepcopy(dense), upcycled(TopK(k=1, renormalize=False)))
    assert not torch.allclose(moe(IMAGES), dense(IMAGES), atol=1e-3)


def test_upcycling_from_a_checkpoint_on_disk(tmp_path):
    dense = tiny_vit().eval()
    torch.save(dense.state_dict(), tmp_path / "dense.pth")
    moe = vmoe.create_model(
        "vit_tiny_patch16_224", upcycled(TopK(k=1)), num_classes=5, checkpoint_path=tmp_path / "dense.pth", **TINY
    ).eval()
    assert_close(moe(IMAGES), dense(IMAGES), rtol=1e-4, atol=1e-5)


def test_fresh_experts_have_the_deviations_of_the_host():
    dense = tiny_vit()
    with torch.no_grad():
        dense.blocks[1].mlp.fc1.weight.normal_(std=0.3)
        dense.blocks[1].mlp.fc2.weight.normal_(std=0.7)
    experts = add_moe(dense, MoESpec()).blocks[1].mlp.experts
    assert experts.fc1.weight.std().item() == pytest.approx(0.3, rel=0.05)  # 24 · 48 · 8 = 9216 draws
    assert experts.fc2.weight.std().item() == pytest.approx(0.7, rel=0.05)
    assert not experts.fc1.bias.any()
    assert not experts.fc2.bias.any()


def test_the_activation_is_the_hosts_or_the_one_asked_for():
    assert isinstance(add_moe(tiny_vit(), MoESpec()).blocks[1].mlp.experts.activation, torch.nn.GELU)
    silu = add_moe(tiny_vit(), MoESpec(experts=Glu(activation="silu"))).blocks[1].mlp.experts.activation
    assert_close(silu(torch.tensor([-2.0, 3.0])), torch.nn.functional.silu(torch.tensor([-2.0, 3.0])))


def test_dropout_rates_are_the_hosts():
    model = add_moe(tiny_vit(proj_drop_rate=0.3), MoESpec())
    layer = model.blocks[1].mlp
    assert (layer.experts.dropout, layer.dropout) == (0.3, 0.3)


@pytest.mark.parametrize("mode", [True, False])
def test_training_mode_and_type_are_the_hosts(mode):
    model = add_moe(tiny_vit().double().train(mode), MoESpec(layers="all"))
    assert all(module.training is mode for module in model.modules())
    assert {value.dtype for value in model.parameters()} == {torch.float64}
    assert model(IMAGES.double()).dtype == torch.float64


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_state_dicts_go_round(gate):
    spec = MoESpec(gate=gate)
    first, second = add_moe(tiny_vit(seed=0), spec).eval(), add_moe(tiny_vit(seed=1), spec).eval()
    assert not second(IMAGES).equal(first(IMAGES))
    second.load_state_dict(first.state_dict(), strict=True)
    assert second(IMAGES).equal(first(IMAGES))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_copies_after_a_forward(gate, duplicate):
    model = add_moe(tiny_vit(), MoESpec(gate=gate)).eval()
    expected = model(IMAGES)
    copied = duplicate(model)
    assert copied(IMAGES).equal(expected)
    assert copied.no_weight_decay() == model.no_weight_decay()
    assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in model.parameters()}


# --- features --------------------------------------------------------------------------------------------


def test_features_are_those_of_the_dense_model_when_upcycled():
    dense = tiny_vit().eval()
    moe = add_moe(copy.deepcopy(dense), upcycled(TopK(k=2)))
    with torch.no_grad():
        assert_close(moe.forward_features(IMAGES), dense.forward_features(IMAGES), rtol=1e-4, atol=1e-5)
        final, between = moe.forward_intermediates(IMAGES, indices=[0, 2, 3])
        dense_final, dense_between = dense.forward_intermediates(IMAGES, indices=[0, 2, 3])
    assert_close(final, dense_final, rtol=1e-4, atol=1e-5)
    assert len(between) == 3
    assert_close(between, dense_between, rtol=1e-4, atol=1e-5)


def test_features_only():
    model = vmoe.create_model("vit_tiny_patch16_224", "topk", features_only=True, out_indices=(1, 3), **TINY)
    with vmoe.record(model) as routings:
        features = model(IMAGES)
    assert [feature.shape for feature in features] == [(2, 24, 4, 4)] * 2
    assert [name.rpartition("blocks.")[2] for name in routings] == ["1.mlp", "3.mlp"]


def test_another_head_keeps_the_layers():
    model = vmoe.create_model("vit_tiny_patch16_224", "topk", **TINY)
    model.reset_classifier(3)
    assert model(IMAGES).shape == (2, 3)
    assert len(list(moe_layers(model))) == 2


# --- what users write ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moe",
    [
        "self",
        {"gate": "self"},
        {"gate": {"kind": "self"}},
        {"gate": {"kind": "self", "k": 2}, "num_experts": 8, "layers": "every2"},
        {"gate": "self", "layers": (1, 3)},
        {"gate": "self", "layers": [3, 1]},
        MoESpec(gate=SelfRouting()),
    ],
)
def test_a_spec_is_a_word_a_mapping_or_itself(moe):
    created = vmoe.create_model("vit_tiny_patch16_224", moe, num_classes=5, **TINY)
    added = vmoe.add_moe(tiny_vit(), moe)
    for model in (created, added):
        assert [name for name, _ in moe_layers(model)] == ["blocks.1.mlp", "blocks.3.mlp"]
        assert {layer.gate.spec for _, layer in moe_layers(model)} == {SelfRouting()}


@pytest.mark.parametrize(
    ("moe", "message"),
    [
        ("slef", "moe: gate.kind is 'slef'; did you mean self"),
        ({"gate": "self", "experts": "glu", "expert": 3}, "moe: expert is not a known key; did you mean experts"),
        ({"gate": {"kind": "topk", "k": "2"}}, "moe: gate.k is '2'; allowed: a valid integer"),
        ({"gate": {"kind": "topk", "k": 0}}, "moe: gate.k is 0; allowed: 1 or more"),
        ({"num_experts": 1}, "moe: gate.k is 2; allowed: 1 to 1"),
    ],
)
def test_mistakes_in_python_read_as_in_yaml(moe, message):
    with pytest.raises(ValueError, match=message):
        vmoe.create_model("vit_tiny_patch16_224", moe)
