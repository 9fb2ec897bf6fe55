"""Every config in the tree is valid, says what it claims, builds, and writes to a folder of its own."""

import re
from pathlib import Path

import pytest
import torch

from vmoe.cli.tasks import assembly_of
from vmoe.config import load_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


# Parameters that are trained, by the papers.
PUBLISHED = {"deit_small_dense.yaml": 22_050_664, "small_topk.yaml": 520_809_216, "small_self.yaml": 520_735_488}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_states_its_claim_and_how_to_run_it(path):
    header = re.split(r"^[a-z]", path.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "not yet run" in header or "Claim:" in header
    assert f"configs/{name(path)}" in header


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_builds_the_gate_it_is_named_after(path):
    config = load_config(path)
    entry = {"classes": [""] * 1000, "vocab_size": 50257 if "demo" not in path.parent.name else 257}
    with torch.device("meta"):
        model = assembly_of(config).build_model(entry)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if path.parent.name == "imagenet":
        _, size, gate = path.stem.split("_", 2)
        assert config.moe.gate.kind == gate
        assert config.model.name == f"deit_{size}_patch16_224"
    if path.parent.name == "gpt2":
        assert path.stem.endswith(f"_{config.moe.gate.kind}")
    if path.name in PUBLISHED:
        assert parameters == PUBLISHED[path.name]


def test_no_two_configs_share_an_output_folder():
    outputs = [load_config(path).output for path in CONFIGS]
    assert len(set(outputs)) == len(outputs)
