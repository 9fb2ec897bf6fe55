"""Experts dealt out: over rows of processes, each row holds all experts of a model between its processes."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from vmoe.moe import ExpertPlace, moe_layers

from ..distributed import Processes


class DealtExperts:
    """A mesh of processes, ("replicas", "experts"): those of neighbouring ranks hold all experts between them, and
    processes of the same place in their rows hold the same ones.

    names: of the parameters that are dealt out, once a model is.
    """

    def __init__(self, count: int, processes: Processes):
        self.world = processes.world
        mesh = init_device_mesh(
            processes.device.type, (processes.world // count, count), mesh_dim_names=("replicas", "experts")
        )
        self.place = ExpertPlace(mesh.get_group("experts"))
        self.replicas = mesh.get_group("replicas")
        self.count = count
        self.shapes: dict[str, torch.Size] = {}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.shapes)

    def deal_out(self, model: nn.Module) -> None:
        """Keep of a whole model the experts that lie here."""
        for _, layer in moe_layers(model):
            layer.hold_part(self.place)
        dealt = {id(parameter) for parameter in self.parameters(model)}
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters() if id(parameter) in dealt}

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """Those that are dealt out."""
        return [parameter for _, layer in moe_layers(model) for _, _, parameter in layer.pair_parameters()]

    @torch.no_grad()
    def reduce_gradients(self, model: nn.Module) -> None:
        """An expert's gradient is a sum over the processes of its row, whose rows of tokens it served. Sum it over the
        rows too, and divide by all processes, as the other parameters' gradients are.
        """
        gradients = []
        for parameter in self.parameters(model):
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        if self.count < self.world:
            works = [
                torch.distributed.all_reduce(gradient, group=self.replicas, async_op=True) for gradient in gradients
            ]
            for work in works:
                work.wait()
        for gradient in gradients:
            gradient.div_(self.world)

    def is_part(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor of this process is its part of that parameter, or has its shape."""
        return self.shapes.get(name) == tensor.shape

    def is_whole(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor is the whole of that parameter, or has its shape."""
        part = self.shapes.get(name)
        return part is not None and tensor.shape == (part[0] * self.count, *part[1:])

    def gather(self, part: Tensor) -> Tensor:
        """The whole, of which each process of a row gives its part."""
        whole = part.new_empty(part.shape[0] * self.count, *part.shape[1:])
        torch.distributed.all_gather_into_tensor(whole, part.detach().contiguous(), group=self.place.group)
        return whole

    def part(self, whole: Tensor) -> Tensor:
        """What lies here of the whole."""
        return whole.chunk(self.count)[self.place.part].clone()
