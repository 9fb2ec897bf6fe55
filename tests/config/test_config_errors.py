"""What a wrong config is answered: the full path of the key, its value, what is allowed, the nearest known name."""

import pytest

from vmoe.config import ConfigError, load_config

KINDS = "aoe, dense, expert_choice, random, relu, routing_free, self, soft, topk"
TOPK_KEYS = "balance, bias_rate, jitter, k, kind, renormalize, z_loss"

BASE = """
output: runs/x
model: {name: vit_tiny_patch16_224}
data: {train: digits, val: digits}
moe: {gate: {kind: topk, k: 2}, experts: {kind: glu}, num_experts: 8}
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE, encoding="utf-8")
    return path


def message_of(base, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(base, overrides)
    return str(error.value)


UNKNOWN_KEYS = [
    ("sede=1", ["sede is not a known key; did you mean seed?"]),
    ("optimiser.lr=1", ["optimiser is not a known key; did you mean optimizer?"]),
    ("data.batchsize=1", ["data.batchsize is not a known key; did you mean batch_size?"]),
    ("moe.gates=topk", ["moe.gates is not a known key; did you mean gate?"]),
    (
        "moe.gate.kk=1",
        ["moe.gate.kk is not a known key; did you mean k?", TOPK_KEYS],
    ),
    ("moe.gate.offset=1", ["moe.gate.offset is not a known key"]),  # of another gate
    (
        "moe.experts.hiden=8",
        ["moe.experts.hiden is not a known key; did you mean hidden?", "activation, dropout, hidden, kind"],
    ),
    ("moe.experts.rank=8", ["moe.experts.rank is not a known key"]),
    ("moe.gate={kind: routing_free, tau: 1}", ["moe.gate.tau is not a known key", "target_density, temperature"]),
    ("base=x.yaml", ["base is not a known key"]),
    ("zzz=1", ["zzz is not a known key (known: augment, checkpoint, data,"]),
]
WRONG_TYPES = [
    ("seed=true", ["seed is True; allowed: a valid integer"]),
    ("seed='8'", ["seed is '8'; allowed: a valid integer"]),
    ("moe.num_experts=true", ["moe.num_experts is True; allowed: a valid integer"]),
    ("moe.num_experts='8'", ["moe.num_experts is '8'; allowed: a valid integer"]),
    ("moe.num_experts=8.0", ["moe.num_experts is 8.0; allowed: a valid integer"]),
    ("moe.gate.k=true", ["moe.gate.k is True; allowed: a valid integer"]),
    ("moe.gate.renormalize=1", ["moe.gate.renormalize is 1; allowed: a valid boolean"]),
    ("moe.gate.balance='0.1'", ["moe.gate.balance is '0.1'; allowed: a valid number"]),
    ("moe.layers=3", ["moe.layers is 3; allowed: a valid string, or a valid array"]),
    ("moe.layers=[1, two]", ["moe.layers.1 is 'two'; allowed: a valid integer"]),
    ("moe.experts.hidden=wide", ["moe.experts.hidden is 'wide'; allowed: a valid integer, or 'match' or 'host'"]),
    ("moe=self", ["moe is 'self'"]),
    ("model=vit_tiny_patch16_224", ["model is 'vit_tiny_patch16_224'"]),
    ("model.kwargs=3", ["model.kwargs is 3"]),
    ("output=1e-3", ["output is 0.001; allowed: a valid string"]),
    ("data.crop_scale=[0.1]", ["data.crop_scale.1 is missing"]),
    ("data.mean=[0, 0, 0, 0]", ["data.mean is [0, 0, 0, 0]"]),
    ("optimizer.betas=0.9", ["optimizer.betas is 0.9"]),
    ("data=", ["data is None"]),
]
IMPOSSIBLE_VALUES = [
    (
        "moe.gate=slef",
        [
            "moe.gate.kind is 'slef'; did you mean self?",
            KINDS,
        ],
    ),
    ("moe.experts={kind: swiglu}", ["moe.experts.kind is 'swiglu'; did you mean glu?"]),
    ("moe.gate={kind: 3}", ["moe.gate.kind is '3' (known: aoe,"]),
    ("moe.gate.k=0", ["moe.gate.k is 0; allowed: 1 or more"]),
    ("moe.gate.k=9", ["moe.gate.k is 9; allowed: 1 to 8, which is num_experts"]),
    ("moe.num_experts=0", ["moe.num_experts is 0; allowed: 1 or more"]),
    ("moe.num_experts=1", ["moe.gate.k is 2; allowed: 1 to 1"]),
    ("moe.gate.balance=-1", ["moe.gate.balance is -1.0; allowed: 0 or more"]),
    ("moe.gate.balance=.inf", ["moe.gate.balance is inf; allowed: 0 or more, finite"]),
    ("moe.gate={kind: self, offset: -1}", ["moe.gate.offset is -1; allowed: 0 or more, a list of such"]),
    ("moe.gate={kind: random, source: gauss}", ["moe.gate.source is 'gauss'", "'fixed', 'uniform' or 'hash'"]),
    ("moe.gate=routing_free", ["moe.experts.kind is 'glu'; allowed: lowrank_glu"]),
    ("moe.experts.hidden=0", ["moe.experts.hidden is 0; allowed: 1 or more, match, host"]),
    ("moe.init=upcycled", ["moe.init is 'upcycled'; allowed: 'fresh' or 'upcycle'"]),
    ("moe.capacity=0", ["moe.capacity is 0", "more than 0 and up to 1"]),
    ("moe.recompute=some", ["moe.recompute is 'some'"]),
    ("moe.dispatch=fast", ["moe.dispatch is 'fast'; allowed: ", "'auto'", "'reference'"]),
    ("train.device=tpu", ["train.device is 'tpu'; allowed: 'auto', 'cpu' or 'cuda'"]),
    ("train.evaluate=ema", ["train.evaluate is 'ema'; allowed: raw, or ema together with ema_decay"]),
    ("train.ema_decay=1", ["train.ema_decay is 1; allowed: less than 1"]),
    ("train.accumulate=3", ["data.batch_size is 1024; allowed: a multiple of train.accumulate, 3"]),
    ("optimizer.lr=0", ["optimizer.lr is 0; allowed: greater than 0"]),
    ("optimizer.lr=.nan", ["optimizer.lr is nan; allowed: a finite number"]),
    ("optimizer.clip_grad=-1", ["optimizer.clip_grad is -1; allowed: greater than 0"]),
    ("schedule.epochs=5", ["schedule.warmup_epochs is 5.0; allowed: less than epochs, 5"]),
    ("data.crop_scale=[0.5, 0.1]", ["data.crop_scale is [0.5, 0.1]; allowed: [low, high] with 0 < low <= high <= 1"]),
    ("data.crop_ratio=[0, 1]", ["data.crop_ratio is [0.0, 1.0]; allowed: [low, high] with 0 < low <= high"]),
    ("data.std=[1, 0, 1]", ["data.std is [1.0, 0.0, 1.0]; allowed: more than 0 in each channel"]),
    ("data.loader=folders", ["data.loader is 'folders'; allowed: 'ffcv' or 'folder'"]),
    ("data.workers=0", ["data.workers is 0; allowed: greater than or equal to 1"]),
    ("data.eval_crop=1.1", ["data.eval_crop is 1.1; allowed: less than or equal to 1"]),
    ("seed=2147483648", ["seed is 2147483648; allowed: less than 2147483648"]),
    ("augment.mixup=-0.1", ["augment.mixup is -0.1; allowed: greater than or equal to 0"]),
]


@pytest.mark.parametrize(("override", "fragments"), UNKNOWN_KEYS + WRONG_TYPES + IMPOSSIBLE_VALUES)
def test_the_message_names_key_value_and_what_is_allowed(base, override, fragments):
    message = message_of(base, override)
    assert message.startswith(f"{base}: ")
    for fragment in fragments:
        assert fragment in message


def test_a_known_name_is_not_called_near_when_nothing_is(base):
    assert "did you mean" not in message_of(base, "zzz=1")


def test_every_mistake_is_told_at_once(base):
    message = message_of(base, "sede=1", "moe.gate.k=x", "train.device=tpu")
    for key in ["sede is not", "moe.gate.k is 'x'", "train.device is 'tpu'"]:
        assert key in message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("missing", ["output", "model", "data"])
def test_missing_sections(tmp_path, missing):
    lines = [line for line in BASE.strip().splitlines() if not line.startswith(missing)]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert message_of(path) == f"{path}: {missing} is missing"


@pytest.mark.parametrize(("text", "missing"), [("model: {}", "model.name"), ("data: {train: x}", "data.val")])
def test_missing_keys(tmp_path, text, missing):
    section = text.partition(":")[0]
    lines = [line for line in BASE.strip().splitlines() if not line.startswith(section)]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join([*lines, text]), encoding="utf-8")
    assert message_of(path) == f"{path}: {missing} is missing"


def test_a_gate_without_a_kind(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(BASE.replace("kind: topk, ", ""), encoding="utf-8")
    assert "moe.gate needs a kind, or the kind's name alone" in message_of(path)


def test_a_mistake_in_a_base_is_found_from_the_child(base, tmp_path):
    child = tmp_path / "child.yaml"
    child.write_text("base: base.yaml\nmoe: {gate: {kind: topk, kk: 2}}\n", encoding="utf-8")
    assert message_of(child) == (f"{child}: moe.gate.kk is not a known key; did you mean k? (known: {TOPK_KEYS})")
