"""Every config in the tree is valid, says what it claims, builds, and writes to a folder of its own.

A file whose name begins with _ is no run: a base alone, which says so.
"""

import re
from pathlib import Path

import pytest
import torch

from vmoe.cli.tasks import assembly_of
from vmoe.config import ConfigError, load_config

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
CONFIGS = [path for path in FILES if not path.name.startswith("_")]
BASES = [path for path in FILES if path.name.startswith("_")]

# Parameters that are trained, by the papers. DeiT-III's are DeiT's, two scales of 384 a block, and no position of the
# class token: 22,050,664 + 12 · 2 · 384 - 384. The plain ViT trains neither class token nor positions: 198 · 384 fewer.
PUBLISHED = {
    "deit_tiny_dense.yaml": 5_717_416,
    "deit_small_dense.yaml": 22_050_664,
    "deit_base_dense.yaml": 86_567_656,
    "deit3_small_dense.yaml": 22_059_496,
    "vit_small_dense.yaml": 22_050_664 - 198 * 384,
    "small_topk.yaml": 520_809_216,
    "small_self.yaml": 520_735_488,
}
IMAGENET = re.compile(r"(?P<host>deit|deit3|vit)_(?P<size>tiny|small|base)_(?P<gate>[a-z_]+?)(_300|_regularised)?")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def header(path: Path) -> str:
    return re.split(r"^[a-z]", path.read_text(), maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_states_its_claim_and_how_to_run_it(path):
    assert all(line.startswith("#") for line in header(path).splitlines())
    assert "not yet run" in header(path) or "Claim:" in header(path)
    assert f"configs/{name(path)}" in header(path)


@pytest.mark.parametrize("path", BASES, ids=name)
def test_a_base_says_that_it_is_no_run_and_is_used(path):
    assert header(path).startswith("# No run of its own")
    assert any(f"base: {path.name}" in other.read_text() for other in path.parent.glob("*.yaml"))
    with pytest.raises(ConfigError, match="model"):
        load_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_builds_the_gate_it_is_named_after(path):
    config = load_config(path)
    entry = {"classes": [""] * 1000, "vocab_size": 50257 if "demo" not in path.parent.name else 257}
    with torch.device("meta"):
        model = assembly_of(config).build_model(entry)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if path.parent.name == "imagenet":
        named = IMAGENET.fullmatch(path.stem)
        assert config.moe.gate.kind == named["gate"]
        assert config.model.name == f"{named['host']}_{named['size']}_patch16_224"
    if path.parent.name == "gpt2":
        assert path.stem.endswith(f"_{config.moe.gate.kind}")
    if path.name in PUBLISHED:
        assert parameters == PUBLISHED[path.name]


def test_no_two_configs_share_an_output_folder():
    outputs = [load_config(path).output for path in CONFIGS]
    assert len(set(outputs)) == len(outputs)
