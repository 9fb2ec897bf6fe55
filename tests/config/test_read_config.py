"""Reading a config: YAML, bases, overrides; and that nothing is guessed on the way."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe.config import ConfigError, dump_config, load_config, override_config, parse_moe
from vmoe.moe.spec import Dense, Glu, LowRankGlu, Mlp, MoESpec, Random, RoutingFree, SelfRouting, TopK

BASE = """
output: runs/x
model: {name: vit_tiny_patch16_224}
data: {train: digits, val: digits}
"""


@pytest.fixture
def write(tmp_path):
    """Write a config file and return its path."""

    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def base(write):
    return write(BASE, "base.yaml")


# --- round trip ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["moe.gate=topk", "moe.gate.k=1", "moe.experts={kind: mlp, hidden: host}", "moe.init=upcycle"],
        ["moe.gate={kind: self, k: 3, offset: 5}", "moe.layers=[0, 3]", "moe.experts=glu"],
        ["moe.gate={kind: random, source: hash}", "moe.layers=last2"],
        ["moe.gate={kind: routing_free, norm: linf, balance_start: 1e-8}", "moe.experts={kind: lowrank_glu, rank: 8}"],
        ["optimizer.lr=1e-3", "optimizer.eps=1e-30", "optimizer.betas=[0.8, 0.9]", "optimizer.clip_grad=1"],
        ["model.kwargs={depth: 2, embed_dim: 32, class_token: false, names: [a, '1', null, 0.5]}"],
        ["train.ema_decay=0.999", "train.evaluate=ema", "schedule.max_steps=3", "data.workers=2"],
    ],
)
def test_a_dumped_config_reads_back_equal(base, write, overrides):
    config = load_config(base, overrides)
    assert load_config(write(dump_config(config))) == config
    assert override_config(config.model_dump(mode="json"), [], "stored") == config


AWKWARD = [
    "1e-3",
    "010",
    "1:30",
    "1_000",
    "2024-01-01",
    "null",
    "~",
    "true",
    "no",
    "0x10",
    ".inf",
    "a: b",
    "# x",
    "*a",
    "é",
]


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from(AWKWARD) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
)
def test_any_text_reads_back_as_that_text(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "run.yaml"
    path.write_text(BASE, encoding="utf-8")
    stored = load_config(path).model_dump(mode="json")
    stored["model"]["kwargs"] = {"text": text}
    config = override_config(stored, [], "stored")
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path).model.kwargs == {"text": text}


@settings(max_examples=60, deadline=None)
@given(lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False), seed=st.integers(0, 2**31 - 1))
def test_any_number_reads_back_exactly(tmp_path_factory, lr, seed):
    path = tmp_path_factory.mktemp("numbers") / "run.yaml"
    path.write_text(BASE, encoding="utf-8")
    config = load_config(path, [f"optimizer.lr={lr!r}", f"seed={seed}"])
    assert (config.optimizer.lr, config.seed) == (lr, seed)
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


# --- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 1e-3),
        ("1E-3", 1e-3),
        ("1.e-3", 1e-3),
        (".5e1", 5),
        ("+1e2", 100),
        ("0.01", 0.01),
        ("2", 2),
        (".5", 0.5),
    ],
)
def test_numbers(base, write, written, value):
    assert load_config(base, [f"optimizer.lr={written}"]).optimizer.lr == value
    assert load_config(write(f"{BASE}optimizer: {{lr: {written}}}\n")).optimizer.lr == value


@pytest.mark.parametrize(
    "written", ["010", "0224", "1:30", "1_000", "0x10", "0b11", "'8'", "8.0", "1e2", "true", "null", "[8]"]
)
def test_what_is_no_whole_number(base, written):
    with pytest.raises(ConfigError, match=r"schedule.epochs is .*; allowed: a valid integer"):
        load_config(base, [f"schedule.epochs={written}"])


@pytest.mark.parametrize("written", ["'0.1'", "1_0.5", "1:30.5", "false", "0x1p3", "one"])
def test_what_is_no_number(base, written):
    with pytest.raises(ConfigError, match=r"optimizer.lr is .*; allowed: a valid number"):
        load_config(base, [f"optimizer.lr={written}"])


@pytest.mark.parametrize("written", ["1", "0", "'true'", "null", "ja", "yes", "no", "on", "off"])
def test_what_is_no_truth_value(base, written):
    with pytest.raises(ConfigError, match=r"model.pretrained is .*; allowed: a valid boolean"):
        load_config(base, [f"model.pretrained={written}"])


def test_a_date_is_text(base):
    assert str(load_config(base, ["output=2024-01-01"]).output) == "2024-01-01"


# --- gates -----------------------------------------------------------------------------------------------

FULL = BASE + "moe: {gate: {kind: topk, k: 1, balance: 0.1}, num_experts: 4, layers: last2}\n"


@pytest.mark.parametrize(
    ("override", "gate", "experts"),
    [
        ("moe.gate=dense", Dense(), None),
        ("moe.gate=topk", TopK(k=1, balance=0.1), Mlp()),  # the same kind keeps what the file says
        ("moe.gate=self", SelfRouting(), Mlp()),
        ("moe.gate=random", Random(), Mlp()),
        ("moe.gate=routing_free", RoutingFree(), LowRankGlu()),
        ("moe.gate={kind: self, k: 1}", SelfRouting(k=1), Mlp()),
        ("moe.gate={kind: topk, balance: 0}", TopK(k=1, balance=0), Mlp()),
        ("moe.gate.k=3", TopK(k=3, balance=0.1), Mlp()),
    ],
)
def test_one_override_swaps_the_gate(write, override, gate, experts):
    assert load_config(write(FULL), [override]).moe == MoESpec(
        gate=gate, experts=experts, num_experts=4, layers="last2"
    )


@pytest.mark.parametrize(("written", "experts"), [("mlp", Mlp()), ("glu", Glu()), ("lowrank_glu", LowRankGlu())])
def test_experts_by_their_kind(write, written, experts):
    assert load_config(write(FULL), [f"moe.experts={written}"]).moe.experts == experts
    assert load_config(write(f"{FULL}".replace("layers:", f"experts: {written}, layers:"))).moe.experts == experts


def test_without_a_moe_section_the_model_is_dense(base):
    assert load_config(base).moe.gate == Dense()


@pytest.mark.parametrize(
    "spec",
    [
        MoESpec(gate=Dense()),
        MoESpec(gate=TopK(k=3, renormalize=False, z_loss=0.1), experts=Glu(hidden=32, activation="silu"), layers="all"),
        MoESpec(gate=SelfRouting(offset=3), num_experts=5, layers=(0, 2)),
        MoESpec(gate=Random(source="uniform"), experts=Mlp(hidden="host"), init="upcycle", dispatch="reference"),
        MoESpec(gate=RoutingFree(norm="l1", start=3.0), experts=LowRankGlu(rank=4)),
    ],
)
def test_specs_travel_as_plain_values(spec):
    assert parse_moe(dataclasses.asdict(spec)) == spec
    assert parse_moe(spec) is spec


# --- bases -----------------------------------------------------------------------------------------------


def test_a_child_stands_on_its_bases(write):
    write(BASE + "seed: 1\nschedule: {epochs: 10, warmup_epochs: 2}\n", "bases/bottom.yaml")
    write("base: bottom.yaml\nseed: 2\nschedule: {epochs: 20}\n", "bases/middle.yaml")
    config = load_config(write("base: bases/middle.yaml\nschedule: {min_lr: 0}\n"), ["schedule.epochs=30"])
    assert config.seed == 2
    assert (config.schedule.epochs, config.schedule.warmup_epochs, config.schedule.min_lr) == (30, 2, 0)


@pytest.mark.parametrize("child", ["gate: self", "gate: {kind: self}"])
def test_a_gate_of_another_kind_replaces_the_bases(write, child):
    """balance and z_loss are no keys of the self gate."""
    write(BASE + "moe: {gate: {kind: topk, k: 1, balance: 0.3, z_loss: 0.1}, num_experts: 4}\n", "base.yaml")
    config = load_config(write(f"base: base.yaml\nmoe: {{{child}}}\n"))
    assert config.moe == MoESpec(gate=SelfRouting(), num_experts=4)


@pytest.mark.parametrize("child", ["gate: {k: 3}", "gate: {kind: topk, k: 3}"])
def test_a_gate_of_the_same_kind_adds_to_the_bases(write, child):
    write(BASE + "moe: {gate: {kind: topk, k: 1, balance: 0.3}}\n", "base.yaml")
    assert load_config(write(f"base: base.yaml\nmoe: {{{child}}}\n")).moe.gate == TopK(k=3, balance=0.3)


@pytest.mark.parametrize("section", ["{kind: adamw, lr: 3e-4, weight_decay: 0.3}", "{lr: 3e-4, weight_decay: 0.3}"])
@pytest.mark.parametrize("kind", ["adamw", "lamb"])
def test_another_optimizer_keeps_the_rate_that_was_written(write, section, kind):
    """Every optimizer has the same keys, so nothing that a file says is dropped."""
    config = load_config(write(f"{BASE}optimizer: {section}\n"), [f"optimizer.kind={kind}"])
    assert (config.optimizer.kind, config.optimizer.lr, config.optimizer.weight_decay) == (kind, 3e-4, 0.3)


def test_later_overrides_win(base):
    config = load_config(base, ["seed=1", "moe.gate=topk", "moe.gate.k=1", "seed=2", "moe.gate=self"])
    assert (config.seed, config.moe.gate) == (2, SelfRouting())


def test_lists_are_replaced_whole(write):
    config = load_config(write(BASE + "moe: {gate: topk, layers: [0, 1, 2]}\n"), ["moe.layers=[3]"])
    assert config.moe.layers == (3,)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"run.yaml": "base: run.yaml"}, r"base leads back to itself: .*run.yaml -> .*run.yaml"),
        (
            {"run.yaml": "base: b.yaml", "b.yaml": "base: sub/../run.yaml", "sub/x.yaml": ""},
            "base leads back to itself",
        ),
        ({"run.yaml": "base: missing.yaml"}, r"missing.yaml: no such config file"),
        ({"run.yaml": "base: [a.yaml, b.yaml]"}, r"base is \['a.yaml', 'b.yaml'\]; allowed: the path of a YAML file"),
        ({"run.yaml": "base: .."}, "cannot be read"),
    ],
)
def test_bases_that_lead_nowhere(write, files, message):
    for name, text in files.items():
        write(text, name)
    with pytest.raises(ConfigError, match=message):
        load_config(write(files["run.yaml"]))


# --- files that are no config ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds NoneType; allowed: a mapping of keys"),
        ("- 1", "holds list"),
        ("seed: 1\nseed: 2\n", "key seed stands twice, near line 1"),
        ("model: {name: a, name: a}", "key name stands twice"),
        ("a: &x 1\nb: *x\n", "an alias in line 2; write the value out"),
        ("a: &x {c: 1}\nb: {<<: *x}\n", "an alias in line 2"),
        ("1: a", "key 1 in line 1 is no text"),
        ("true: a", "key True in line 1 is no text"),
        ("? [a, b]\n: c", "is no text"),
        ("a: [", "not the YAML of a config"),
        ("a: b: c", "not the YAML of a config"),
        ("a: !!python/object/apply:os.getcwd []", "not the YAML of a config"),
        ("a: 1\n---\nb: 2\n", "not the YAML of a config"),
        ("\x00", "not the YAML of a config"),
        ("a: " + "[" * 1500, "not the YAML of a config"),
        ("x: " + "a" * 2**17, "has more than 131,072 bytes; allowed: at most so many"),
    ],
)
def test_what_is_not_the_yaml_of_a_config(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("value", ["!!timestamp 2024-01-01", "!!binary aGk=", "!!set {a, b}"])
def test_values_that_are_not_plain(write, value):
    with pytest.raises(ConfigError):
        load_config(write(f"{BASE}seed: {value}\n"))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for path, message in [
        ("run.yaml", "cannot be read"),
        ("none.yaml", "no such config file"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / path)


@pytest.mark.parametrize(
    "override", ["seed", "=3", "seed =3", "Seed=3", "a..b=1", ".a=1", "a.=1", "1a=2", "a-b=1", "--seed=3"]
)
def test_overrides_that_name_no_key(base, override):
    with pytest.raises(ConfigError, match=r"allowed: key=value or section\.key=value"):
        load_config(base, [override])


@pytest.mark.parametrize("override", ["seed=[", "seed={a: 1, a: 2}", "seed=*x", "seed=}"])
def test_overrides_that_are_no_yaml(base, override):
    with pytest.raises(ConfigError, match="not the YAML of a config"):
        load_config(base, [override])


def test_plain_yaml_reads_a_dump_alike(base):
    """Other tools may read `config.yaml` of a run folder with any YAML library."""
    config = load_config(base, ["optimizer.lr=1e-5", "output=1e3/x"])
    assert yaml.safe_load(dump_config(config)) == config.model_dump(mode="json")
