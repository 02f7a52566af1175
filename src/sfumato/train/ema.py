"""An exponential moving average of weights, with the warm-up that CompVis' LitEma uses."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """Averages of the parameters of some networks, float32, updated once a step."""

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.weights = {name: {k: p.detach().clone() for k, p in n.named_parameters()} for name, n in networks.items()}

    @torch.no_grad()
    def update(self, networks: Mapping[str, nn.Module], step: int) -> None:
        """Moves towards the current weights by 1 - min(decay, (1 + step) / (10 + step))."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, network in networks.items():
            weights = [parameter.detach() for parameter in network.parameters()]  # in the order of named_parameters
            torch._foreach_lerp_(list(self.weights[name].values()), weights, rate)

    @torch.no_grad()
    def swap(self, networks: Mapping[str, nn.Module]) -> None:
        """Exchanges averages and weights in place; the second call undoes the first."""
        for name, network in networks.items():
            for key, parameter in network.named_parameters():
                held = parameter.detach().clone()
                parameter.copy_(self.weights[name][key])
                self.weights[name][key].copy_(held)

    def state(self) -> dict[str, Tensor]:
        """All averages under `network/parameter`."""
        return {f"{name}/{key}": value for name, part in self.weights.items() for key, value in part.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores what `state` gave."""
        for name, part in self.weights.items():
            for key, value in part.items():
                value.copy_(state[f"{name}/{key}"])
