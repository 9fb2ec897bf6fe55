"""Every config in the tree is valid, says what it claims, builds, and writes to a folder of its own."""

from pathlib import Path

import pytest
import torch

from vmoe.cli.assemble import build_model
from vmoe.config import load_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_states_its_claim_and_how_to_run_it(path):
    header = path.read_text().split("\noutput:")[0].split("\nbase:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "not yet run" in header or "Claim:" in header
    assert f"configs/{name(path)}" in header


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_builds_the_gate_it_is_named_after(path):
    config = load_config(path)
    with torch.device("meta"):
        model = build_model(config, num_classes=1000)
    if path.parent.name == "imagenet":
        _, size, gate = path.stem.split("_", 2)
        assert config.moe.gate.kind == gate
        assert config.model.name == f"deit_{size}_patch16_224"
    if path.stem == "deit_small_dense":
        assert sum(parameter.numel() for parameter in model.parameters()) == 22_050_664  # the published DeiT-S


def test_no_two_configs_share_an_output_folder():
    outputs = [load_config(path).output for path in CONFIGS]
    assert len(set(outputs)) == len(outputs)
