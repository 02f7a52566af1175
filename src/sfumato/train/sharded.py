"""Training with weights, gradients and optimizer divided among processes: FSDP2, and its checkpoints."""

import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from sfumato.errors import CheckpointError


def shard(networks: Mapping[str, nn.Module]) -> None:
    """Divides each network among the processes, block by block, in place."""
    from torch.distributed.fsdp import fully_shard

    # Heads return parts of one tensor; nothing is written over them while gradients are recorded.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for network in networks.values():
        for part in network.modules():
            if isinstance(part, nn.ModuleList):
                for block in part:
                    if any(True for _ in block.parameters()):
                        fully_shard(block)
        fully_shard(network)


def write(path: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup) -> "Future[object]":
    """Starts writing tensors that are divided among the processes, all of which call this; they may change meanwhile.

    The result is there when this process has written its part. `group` is used for nothing else: the training goes on
    talking meanwhile.
    """
    return async_save(dict(tensors), checkpoint_id=path, process_group=group)  # type: ignore[return-value]


def read(path: Path, into: Mapping[str, Tensor]) -> None:
    """Fills tensors in place, whatever they are divided into. Raises CheckpointError where names or shapes differ."""
    reader = FileSystemReader(path)
    found = {
        name: tuple(held.size)
        for name, held in reader.read_metadata().state_dict_metadata.items()
        if isinstance(held, TensorStorageMetadata)
    }
    wanted = {name: tuple(tensor.shape) for name, tensor in into.items()}
    if found != wanted:
        odd = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise CheckpointError(f"{path} belongs to another run: {len(odd)} tensors differ, first {odd[0]!r}.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # which is meant here
        load(dict(into), storage_reader=reader, no_dist=not dist.is_initialized())


def verify(path: Path) -> None:
    """Raises CheckpointError unless every part that a checkpoint's table names is there in full."""
    for index, held in FileSystemReader(path).read_metadata().storage_data.items():
        file = path / held.relative_path
        if not file.is_file() or file.stat().st_size < held.offset + held.length:
            raise CheckpointError(f"{path} lacks a part of {index.fqn}; is the disk full?")
