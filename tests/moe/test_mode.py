"""Evaluation mode for a while leaves every module as it was."""

import pytest
from torch import nn

from vmoe.moe import evaluating


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_is_in_its_own_mode_again(fails):
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1][0].eval()  # frozen by its owner
    before = [module.training for module in model.modules()]
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert [module.training for module in model.modules()] == before
