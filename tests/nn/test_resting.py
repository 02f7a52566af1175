"""Weights that rest elsewhere: the same numbers, there when they compute, and let go of after that."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.lora import Adapter, Changes, merge, twin
from sfumato.nn.resting import AHEAD, AtOnce, Resting, Room, Weight, is_resting, rest

CPU = torch.device("cpu")


class Watched(AtOnce):
    """Copies, and which weights were brought and sent for."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.brought: list[Weight] = []
        self.sent: list[Weight] = []
        self.received: list[Weight] = []

    def bring(self, weight: Weight) -> Tensor:
        self.brought.append(weight)
        return super().bring(weight)

    def send(self, weight: Weight) -> Tensor:
        self.sent.append(weight)
        return super().bring(weight)

    def receive(self, weight: Weight) -> None:
        self.received.append(weight)


def network(seed: int = 0) -> nn.Sequential:
    """Some layers of each kind."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 25, 4))
    return made.requires_grad_(False).eval()


X = torch.linspace(-1, 1, 2 * 3 * 7 * 7).view(2, 3, 7, 7)


def weights(some: nn.Module) -> list[Weight]:
    return [each.weight for each in some.parameters() if isinstance(each, Resting)]


@pytest.mark.parametrize("by_layers", [False, True])
def test_a_network_whose_weights_rest_answers_the_same_bytes(by_layers: bool) -> None:
    one = network()
    expected = one(X)
    room = Room(CPU)
    room.by_layers = by_layers
    rest(one, room, "one")
    assert is_resting(one) and len(weights(one)) == 6
    assert torch.equal(one(X), expected) and torch.equal(one(X), expected)
    assert torch.equal(copy.deepcopy(one)(X), expected) and torch.equal(twin(one)(X), expected)


def test_the_weights_of_one_network_at_a_time_are_there() -> None:
    one, two, beside = network(), network(1), network(2)
    room = Room(CPU)
    for each, name in ((one, "one"), (two, "two"), (beside, "two")):
        rest(each, room, name)
    size = sum(each.numel() * 4 for each in one.parameters())
    assert room.nbytes == 0
    for run, there in ((one, 1), (one, 1), (two, 1), (beside, 2), (two, 2), (one, 1)):
        run(X)
        assert room.nbytes == there * size
    assert all(each.here is None for each in weights(two) + weights(beside))
    del one, run, each
    gc.collect()
    assert room.nbytes == 0  # a model that is gone is gone there, too


def test_by_layers_what_came_next_last_time_is_sent_for_and_what_is_done_is_let_go() -> None:
    one, watched = network(), Watched()
    room = Room(CPU, watched)
    room.by_layers = True
    rest(one, room, "one")
    every = weights(one)
    one(X)
    assert watched.brought == every and watched.sent == []  # nothing is known yet
    assert [each.here is not None for each in every] == [False] * 5 + [True]
    watched.brought.clear()
    one(X)
    assert watched.brought == every[:1] and watched.sent == every[1:-1]  # the last was there, and all fit
    assert set(watched.received) >= set(every[1:])  # and each is waited for before it computes


def test_no_more_is_sent_for_than_there_is_room_for() -> None:
    half = AHEAD // 4 // 2 // 64
    layers = nn.Sequential(*(nn.Linear(64, half, bias=False, device="meta") for _ in range(6)))
    room = Room(torch.device("meta"), AtOnce(torch.device("meta")))
    room.by_layers = True
    for each in layers:
        each.weight = nn.Parameter(  # type: ignore[assignment]
            Resting(Weight(torch.empty(half, 64, device="meta"), "one"), room), requires_grad=False
        )
    most = []
    for _ in range(2):
        for each in layers:
            each(torch.empty(1, 64, device="meta"))
            most.append(room.nbytes)
    assert max(most[:6]) == AHEAD // 2 and max(most[6:]) == AHEAD // 2 + AHEAD


def test_a_table_is_looked_up_where_it_rests() -> None:
    table = nn.Embedding(100, 4).requires_grad_(False)
    ids = torch.tensor([[3, 99, 0]])
    expected = table(ids)
    room = Room(CPU)
    rest(table, room, "table")
    assert torch.equal(table(ids), expected)
    assert room.nbytes == 0


def test_what_is_changed_rests_too() -> None:
    one = network()
    change = Changes({"3": Adapter(torch.ones(1, 200), torch.ones(4, 1))})
    merge(expected := twin(one), [(change, 0.5)])
    room = Room(CPU)
    rest(one, room, "one")
    second = twin(one)
    merge(second, [(change, 0.5)])
    assert is_resting(second[3]) and second[3].weight.weight.network == "one"  # type: ignore[union-attr, operator]
    assert torch.equal(second(X), expected(X)) and not torch.equal(second(X), one(X))


def test_what_is_asked_without_numbers_brings_nothing() -> None:
    one = network()
    shapes = [each.shape for each in one.parameters()]
    room = Room(CPU)
    rest(one, room, "one", torch.channels_last)
    first = one[0].weight
    assert [each.shape for each in one.state_dict().values()] == shapes
    assert (first.device, first.dtype, first.numel(), first.ndim) == (CPU, torch.float32, 216, 4)
    assert torch.empty_like(first, device="meta").stride() == first.stride() == (27, 1, 9, 3)
    assert room.nbytes == 0
    assert one[0](X).shape == (2, 8, 5, 5)
    assert room.nbytes > 0


def test_nothing_is_written_where_it_would_be_lost() -> None:
    one = network()
    rest(one, Room(CPU), "one")
    for write in (one.half, lambda: one[0].weight.mul_(2), lambda: one[3].weight.__setitem__(0, 1.0)):
        with pytest.raises(TypeError, match="not written to"):
            write()


@pytest.mark.parametrize("device", ["cuda:0", "mps:0"])
def test_weights_come_to_a_device_that_they_do_not_rest_on(device: str) -> None:
    """Without numbers: an operation of tensors on two devices is refused, as on the devices themselves."""
    from torch._subclasses import FakeTensorMode

    there = torch.device(device)
    with FakeTensorMode():
        one = network()
        rest(one, Room(there, AtOnce(there)), "one")
        assert {each.weight.rest.device for each in one.parameters()} == {CPU}  # type: ignore[attr-defined]
        assert {each.device for each in one.parameters()} == {there}
        assert one(torch.empty(2, 3, 7, 7, device=there)).device == there
        with pytest.raises(Exception, match="device"):
            F.linear(torch.empty(1, 200), one[3].weight)  # type: ignore[arg-type]
