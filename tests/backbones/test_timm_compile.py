"""torch.compile of whole models."""

import pytest
import torch
from hosts import GATES, tiny_vit
from torch._dynamo import config as dynamo_config
from torch.testing import assert_close

from vmoe.backbones.timm import add_moe
from vmoe.moe import MoESpec

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WHOLE = ["topk"]  # the others take as long, and stand in the slow set


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in WHOLE else [pytest.mark.slow]) for name in GATES]
)
def test_the_whole_model_is_one_graph(name):
    model = add_moe(tiny_vit(), MoESpec(gate=GATES[name])).eval()
    torch._dynamo.reset()
    with dynamo_config.patch(capture_dynamic_output_shape_ops=name in ("relu", "routing_free")):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(IMAGES)
    compiled.sum().backward()
    assert_close(compiled, model(IMAGES))
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
