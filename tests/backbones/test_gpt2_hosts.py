"""GPT-2 as a host: what is built, what is refused, and which names and models are whose."""

import subprocess
import sys

import pytest
import timm
import torch
from hosts import TINY, TINY_GPT2, tiny_gpt2
from torch import nn
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

import vmoe.backbones.timm as timm_backbone
from vmoe.backbones import backbone_of_model, backbone_of_name, gpt2

TOKENS = torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(0))
SIZES = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 97, "n_positions": 16}


def transformers_own(**kwargs):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=96, eos_token_id=96, **kwargs))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# --- what is built ---------------------------------------------------------------------------------------


def test_the_host_is_transformers_own():
    """The same keys, the same weights of one seed, and the same function: its activation in one operator."""
    own, host = transformers_own().eval(), tiny_gpt2().eval()
    assert list(host.state_dict()) == list(own.state_dict())
    assert_close(dict(host.state_dict()), dict(own.state_dict()), rtol=0, atol=0)
    assert_close(host(TOKENS).logits, own(TOKENS).logits)
    assert own.config.activation_function == "gelu_new"
    assert host.training is False
    assert tiny_gpt2().training


def test_without_biases_nothing_is_one_dimensional_but_the_gains_of_norms():
    host = tiny_gpt2(bias=False)
    flat = {name for name, parameter in host.named_parameters() if parameter.ndim == 1}
    assert flat == {f"transformer.h.{i}.{norm}.weight" for i in range(2) for norm in ("ln_1", "ln_2")} | {
        "transformer.ln_f.weight"
    }
    with_biases = dict(tiny_gpt2().named_parameters())
    for name, parameter in host.named_parameters():
        assert parameter.equal(with_biases[name])  # of one seed, biases or not
    assert {type(m).__name__ for m in host.modules() if isinstance(m, Conv1D)} == {"Conv1DWithoutBias"}
    with torch.no_grad():  # with biases of 0 it is the same function
        assert_close(host(TOKENS).logits, tiny_gpt2()(TOKENS).logits)


@pytest.mark.parametrize("bias", [True, False])
def test_residual_projections_start_smaller(bias):
    """N(0, 0.02), and 0.02/√(2·8) where a branch joins the residual stream."""
    host = tiny_gpt2(n_layer=8, n_embd=64, bias=bias)
    for name, parameter in host.named_parameters():
        if parameter.ndim == 2 and parameter.numel() >= 4096:  # of so many draws the deviation is within 5 % by 4 σ
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name
    assert (host.transformer.ln_f.weight == 1).all()


def test_parameters_of_nanogpts_model_by_hand():
    embeddings = (97 + 16) * 32
    attention, mlp, norms = 32 * 96 + 32 * 32, 2 * 32 * 128, 2 * 32
    without = embeddings + 2 * (attention + mlp + norms) + 32
    assert count(tiny_gpt2(bias=False)) == without
    biases = 2 * (96 + 32 + 128 + 32 + 2 * 32) + 32  # attention's two, the MLP's two, both norms; the last norm
    assert count(tiny_gpt2()) == without + biases
    assert count(tiny_gpt2(bias=False, tie_word_embeddings=False)) == without + 97 * 32


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads"),
    [("gpt2", 12, 768, 12), ("gpt2-medium", 24, 1024, 16), ("gpt2-large", 36, 1280, 20), ("gpt2-xl", 48, 1600, 25)],
)
def test_published_sizes_on_the_meta_device(name, layers, width, heads):
    with torch.device("meta"):
        host = gpt2.create_host(name)
    assert {parameter.device.type for parameter in host.parameters()} == {"meta"}
    assert (len(host.transformer.h), host.config.n_embd, host.config.n_head) == (layers, width, heads)
    block = 12 * width**2 + 13 * width  # weights 3 + 1 + 4 + 4; biases 3 + 1 + 4 + 1, norms 4
    assert count(host) == (50257 + 1024) * width + layers * block + 2 * width
    assert host.transformer.wpe.num_embeddings == 1024


def test_arguments_are_passed_on():
    host = tiny_gpt2(dropout=0.3, activation_function="relu", layer_norm_epsilon=1e-3, n_inner=48, eos_token_id=5)
    drops = {name: module.p for name, module in host.named_modules() if isinstance(module, nn.Dropout)}
    assert set(drops.values()) == {0.3}
    assert len(drops) == 1 + 2 * 3  # of the embeddings; of attention, its output and the MLP's
    block = host.transformer.h[0]
    assert isinstance(block.mlp.act, nn.ReLU)
    assert block.ln_1.eps == 1e-3
    assert block.mlp.c_fc.weight.shape == (32, 48)
    assert host.generation_config.eos_token_id == 5


@pytest.mark.parametrize(("vocab_size", "last"), [(97, 96), (257, 256), (50257, 50256), (50304, 50256)])
def test_the_end_of_text_is_the_last_token_or_gpt2s(vocab_size, last):
    with torch.device("meta"):
        config = tiny_gpt2(vocab_size=vocab_size).config
    assert (config.bos_token_id, config.eos_token_id) == (last, last)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_layers": 3}, "model.kwargs holds n_layers, which GPT-2 does not take; did you mean n_layer$"),
        ({"hidden_size": 3}, "holds hidden_size, which GPT-2 does not take; did you mean n_embd"),
        ({"n_positions": 8}, "model.kwargs holds n_positions; it is set by block_size"),
        ({"max_position_embeddings": 8}, "holds max_position_embeddings; it is set by block_size"),
        *(({f"{part}_pdrop": 0.1}, f"holds {part}_pdrop; it is set by dropout") for part in ("resid", "embd", "attn")),
        ({"add_cross_attention": True}, "holds add_cross_attention; allowed: GPT-2 without"),
        ({"n_embd": 33}, "n_embd is 33; allowed: a multiple of n_head, which is 2"),
        ({"n_layer": 0}, "n_layer is 0; allowed: 1 or more"),
        ({"block_size": 0}, "block_size is 0; allowed: 1 or more"),
        ({"n_layer": "2"}, "model.kwargs is .*'n_layer' expected int, got str"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed: 0 or more, less than 1"),
        ({"activation_function": "gelo"}, "activation_function is 'gelo'; allowed: gelu, "),
        ({"eos_token_id": 97}, "eos_token_id is 97; allowed: 0 to 96, within vocab_size"),
        ({"eos_token_id": [96, 97]}, r"eos_token_id is \[96, 97\]; allowed: 0 to 96"),
    ],
)
def test_arguments_that_cannot_be_say_what_can(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny_gpt2(**kwargs)


def test_names_that_are_no_size_of_gpt2():
    with pytest.raises(ValueError, match=r"model.name is 'gpt3'; allowed: gpt2, gpt2-medium, gpt2-large, gpt2-xl"):
        gpt2.create_host("gpt3")


# --- published weights -----------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder by the name of a model stands for the hub's: transformers looks there first."""
    monkeypatch.chdir(tmp_path)
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 1}
    monkeypatch.setitem(gpt2.SIZES, "gpt2", sizes)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.save_pretrained("gpt2")
    return model.eval()


def test_published_weights(published):
    host = gpt2.create_host("gpt2", pretrained=True)
    assert host.training
    assert_close(dict(host.state_dict()), dict(published.state_dict()), rtol=0, atol=0)
    assert_close(host.eval()(TOKENS).logits, published(TOKENS).logits)


def test_published_weights_with_more_tokens_and_fewer_positions(published):
    host = gpt2.create_host("gpt2", pretrained=True, vocab_size=50304, block_size=16).eval()
    assert host.lm_head.weight is host.transformer.wte.weight
    assert host.lm_head.weight.shape == (50304, 8)
    assert (
        host.lm_head.weight[50257:].std() < 0.05
    )  # drawn as others are at a start; the published ones here from N(0, 1)
    assert host.transformer.wpe.weight.shape == (16, 8)
    assert host.config.n_positions == 16
    assert gpt2.count_tokens(host, gpt2.host_blocks(host)) == [16]
    assert_close(host(TOKENS).logits[..., :50257], published(TOKENS).logits)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bias": False}, "model.pretrained is true for 'gpt2', and bias is false; allowed: true"),
        ({"vocab_size": 257}, "and vocab_size is 257; allowed: 50257 or more"),
        ({"block_size": 2048}, "and block_size is 2048; allowed: at most 1024"),
        ({"n_layer": 2}, "and n_layer is 2; allowed: 1"),
        ({"tie_word_embeddings": False}, "and tie_word_embeddings is False; allowed: True"),
    ],
)
def test_published_weights_have_one_shape(published, kwargs, message):
    with pytest.raises(ValueError, match=message):
        gpt2.create_host("gpt2", pretrained=True, **kwargs)


def test_published_weights_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    with pytest.raises(ValueError, match=r"the pretrained weights of 'gpt2' cannot be had: .* Allowed: a network"):
        gpt2.create_host("gpt2", pretrained=True)


# --- blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu", "silu", "relu"])
def test_a_block_is_described_by_linear_layers_that_are_its_mlp(activation, bias):
    host = tiny_gpt2(activation_function=activation, dropout=0.3, bias=bias).eval()
    for parameter in host.parameters():
        nn.init.normal_(parameter)
    names = {name for name, _ in host.named_parameters()}
    x = torch.randn(3, 32)
    blocks = gpt2.host_blocks(host)
    for number, block in enumerate(blocks):
        assert block.name == f"transformer.h.{number}.mlp"
        assert host.get_submodule(block.name) is block.mlp
        assert_close(block.dense.fc2(block.activation(block.dense.fc1(x))), block.mlp(x))
        assert block.dense.fc1.weight.data_ptr() == block.mlp.c_fc.weight.data_ptr()
        assert block.norm is gpt2.norm_before(block.block) is host.transformer.h[number].ln_2
        assert (block.dropout_hidden, block.dropout_out) == (0, 0.3)
        assert type(block.activation).__module__.startswith("torch.nn")
    assert {name for name, _ in host.named_parameters()} == names
    assert gpt2.count_tokens(host, blocks) == [16, 16]


def test_models_without_gpt2s_blocks_are_refused():
    with pytest.raises(ValueError, match=r"Linear is no GPT-2. Allowed: transformers' GPT2LMHeadModel"):
        gpt2.host_blocks(nn.Linear(2, 2))
    host = tiny_gpt2()
    host.transformer.h[1].mlp = nn.Linear(32, 32)
    with pytest.raises(ValueError, match=r"its transformer.h.1.mlp is a Linear. Allowed: transformers' GPT2MLP"):
        gpt2.host_blocks(host)


# --- whose is it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", gpt2.SIZES)
def test_names_of_gpt2(name):
    assert backbone_of_name(name) is gpt2
    assert gpt2.architecture(name) == name


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_224.augreg_in21k", "gpt", "GPT2", ""])
def test_every_other_name_is_timms(name):
    assert backbone_of_name(name) is timm_backbone


def test_models_are_told_apart():
    class Derived(GPT2LMHeadModel):
        pass

    assert backbone_of_model(tiny_gpt2()) is gpt2
    assert backbone_of_model(Derived(GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0))) is gpt2
    assert backbone_of_model(timm.create_model("vit_tiny_patch16_224", **TINY)) is timm_backbone
    assert backbone_of_model(nn.Linear(2, 2)) is timm_backbone


def test_adapters_have_the_same_functions():
    shared = (
        *("create_host", "create_model", "add_moe", "architecture", "host_blocks", "norm_before", "count_tokens"),
        "enable_checkpointing",
    )
    for adapter in (gpt2, timm_backbone):
        assert [name for name in shared if not callable(getattr(adapter, name, None))] == []


def test_transformers_is_not_imported_before_a_gpt2_is_built():
    code = """
import sys
from vmoe.backbones import backbone_of_model, backbone_of_name
print(*{"timm", "transformers"} & set(sys.modules))
backbone_of_name("gpt2-xl")
print(*{"timm", "transformers"} & set(sys.modules))
model = backbone_of_name("vit_tiny_patch16_224").create_host("vit_tiny_patch16_224")
backbone_of_model(model)
print(*{"timm", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["", "", "timm"]


def test_without_transformers_a_gpt2_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "vmoe.backbones.gpt2_host", raising=False)
    monkeypatch.delattr("vmoe.backbones.gpt2_host", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"model.name is 'gpt2', and transformers cannot be imported \(.*vmoe\[lm\]"):
        gpt2.create_host("gpt2", **TINY_GPT2)
