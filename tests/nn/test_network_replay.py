"""A step that is recorded and replayed gives what the network gives, for each shape, and gives way where it cannot."""

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.nn.replay import AFTER, Replayed


class Machine:
    """Records as a GPU does: what ran is run again on the same tensors, into the same result."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        output = torch.full_like(run(), torch.nan)  # nothing is computed while it is recorded

        def replay() -> None:
            output.copy_(run())

        return replay, output


def network(x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor | None) -> Tensor:
    return x * timestep.view(-1, 1) + context.sum(1) + (0 if pooled is None else pooled)


def inputs(number: int, batch: int, *, pooled: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(number)
    x, context = torch.randn(batch, 3, generator=generator), torch.randn(batch, 2, 3, generator=generator)
    return x, torch.full((batch,), float(number)), context, torch.ones(batch, 3) * number if pooled else None


@torch.no_grad()
def test_every_call_gives_the_network_s_own_answer() -> None:
    machine = Machine()
    replayed = Replayed(network, machine.record)
    kept = []
    for number in range(AFTER + 4):
        for batch, pooled in ((1, False), (2, False), (2, True)):
            given = inputs(number, batch, pooled=pooled)
            kept.append((replayed(*given), network(*given)))
    assert machine.recorded == 3  # one of each shape
    assert all(torch.equal(found, expected) for found, expected in kept)  # also the ones before the last


@torch.no_grad()
def test_a_short_run_is_not_recorded() -> None:
    machine = Machine()
    replayed = Replayed(network, machine.record)
    for number in range(AFTER):
        replayed(*inputs(number, 1, pooled=False))
    assert machine.recorded == 0


def test_what_is_learnt_from_is_not_recorded() -> None:
    machine = Machine()
    replayed = Replayed(network, machine.record)
    for number in range(2 * AFTER):
        x, *others = inputs(number, 1, pooled=False)
        replayed(x.requires_grad_(), *others).sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
    assert machine.recorded == 0


@torch.no_grad()
def test_without_memory_for_a_recording_it_runs_as_it_comes() -> None:
    def refuse(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        raise torch.OutOfMemoryError("no memory left")

    replayed = Replayed(network, refuse)
    for number in range(2 * AFTER + 2):
        given = inputs(number, 1, pooled=False)
        assert torch.equal(replayed(*given), network(*given))
