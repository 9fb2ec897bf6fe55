"""What a checkpoint holds of a model and its optimizer: whole tensors by name, which go into any layout.

All processes gather together, and the first one alone gets something: copies on the CPU, which further training does
not touch. A tensor that has two names, such as tied embeddings, stays one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .layout import Layout, names_of

OptimizerState = dict[str, Any]
"""state: by the parameter's name, then as the optimizer calls it; groups: its groups with `names` for `params`"""


def gather_weights(model: nn.Module, layout: Layout, *, first: bool) -> dict[str, Tensor]:
    """The model's state dictionary. first: whether this process keeps it."""
    seen: dict[int, Tensor | None] = {}
    weights = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen[id(tensor)] = whole_at_first(name, tensor, layout, first=first)
        whole = seen[id(tensor)]
        if whole is not None:
            weights[name] = whole
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], layout: Layout) -> None:
    """The reverse, on every process, of weights that each has whole."""
    model.load_state_dict({name: layout.part(name, tensor) for name, tensor in weights.items()})


def gather_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, layout: Layout, *, first: bool
) -> OptimizerState:
    """The optimizer's state. first: whether this process keeps it."""
    names = names_of(model)
    state: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name, values = names[parameter], optimizer.state.get(parameter, {})
            state[name] = {
                key: whole_at_first(name, value, layout, first=first) if isinstance(value, Tensor) else value
                for key, value in values.items()
            }
    if not first:
        return {}
    return {"state": {name: values for name, values in state.items() if values}, "groups": groups_of(optimizer, model)}


def groups_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's groups with the names of their parameters."""
    names = names_of(model)
    return [
        {key: value for key, value in group.items() if key != "params"}
        | {"names": [names[parameter] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Any], layout: Layout
) -> None:
    """The reverse of `gather_optimizer`, on every process. saved: may be torch's own state dictionary too, of an
    optimizer over the same parameters in the same order, on one process.

    Raises `ValueError` for the state of other parameters, or of other groups of them.
    """
    groups = groups_of(optimizer, model)
    if "param_groups" in saved:
        saved = by_name(saved, groups)
    then, now = ([group["names"] for group in each] for each in (saved["groups"], groups))
    if then != now:
        raise ValueError(
            "the checkpoint's optimizer has other groups of parameters: it is of another model, or of other decay;"
            " allowed: model.weights, which starts a new run from it"
        )
    numbers = {name: number for number, name in enumerate(name for group in groups for name in group["names"])}
    optimizer.load_state_dict(
        {
            "state": {
                numbers[name]: {
                    key: layout.part(name, value) if isinstance(value, Tensor) else value
                    for key, value in values.items()
                }
                for name, values in saved["state"].items()
            },
            "param_groups": [
                {key: value for key, value in group.items() if key != "names"}
                | {"params": [numbers[name] for name in group["names"]]}
                for group in saved["groups"]
            ],
        }
    )


def by_name(saved: Mapping[str, Any], groups: list[dict[str, Any]]) -> OptimizerState:
    """torch's state dictionary of an optimizer with these groups, by the names of its parameters.

    Raises `ValueError` where their numbers differ.
    """
    then = saved["param_groups"]
    if [len(group["params"]) for group in then] != [len(group["names"]) for group in groups]:
        raise ValueError("the checkpoint's optimizer has another number of parameters; allowed: that of the same model")
    names = {
        number: name
        for old, new in zip(then, groups, strict=True)
        for number, name in zip(old["params"], new["names"], strict=True)
    }
    return {
        "state": {names[number]: values for number, values in saved["state"].items()},
        "groups": [
            {key: value for key, value in old.items() if key != "params"} | {"names": new["names"]}
            for old, new in zip(then, groups, strict=True)
        ],
    }


def whole_at_first(name: str, tensor: Tensor, layout: Layout, *, first: bool) -> Tensor | None:
    """The whole tensor on the first process, None on the others, which only give what they hold."""
    if not first and not layout.spreads(name):
        return None
    whole = layout.whole(name, tensor)
    return whole if first else None
