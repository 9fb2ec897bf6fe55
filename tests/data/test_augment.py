from __future__ import annotations

import torch
from torchvision.transforms import functional

from vmoe.data import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalisation_is_torchvisions() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8)
    normalized = Normalize(MEAN, STD)(images)
    assert normalized.dtype == torch.float32
    torch.testing.assert_close(normalized, functional.normalize(images / 255, list(MEAN), list(STD)), rtol=0, atol=2e-6)


def test_normalisation_leaves_no_trace_in_checkpoints() -> None:
    assert not Normalize(MEAN, STD).state_dict()
