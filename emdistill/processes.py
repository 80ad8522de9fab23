"""One of several processes of a training: which one writes, and where all of them wait for each other."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What gloo, NCCL and the store by which processes meet say of one that is there no more.
LOST = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote server shutdown or crash",
    "remote process exited",
)  # fmt: skip


def is_first_process() -> bool:
    """Whether this process writes files and speaks; of a training by several processes only one does."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train here together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def has_lost_another(error: BaseException) -> bool:
    """Whether an error is what torch says to a process of a training of which another one has ended."""
    return process_count() > 1 and any(sign in str(error) for sign in LOST)


def wait_for_all() -> None:
    """Return once every process of the training has come here."""
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def mean_over_processes(values: "Tensor") -> "Tensor":
    """The mean of these values over the processes of the training, in place; as they are where there is one."""
    import torch.distributed as distributed

    if _are_several():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values


def any_process(says: bool, device: "torch.device") -> bool:
    """Whether any process of the training says so; all of them come here. `device` is where tensors are exchanged."""
    import torch

    return says if not _are_several() else bool(mean_over_processes(torch.tensor(float(says), device=device)) > 0)


def of_all_processes(values: "Tensor") -> "Tensor":
    """The mean of these values over the processes, with the gradient of this process's own.

    Gradients are averaged over the processes, so that together they get the gradient of the mean.
    """
    if not _are_several():
        return values
    return values + (mean_over_processes(values.detach().clone()) - values.detach())


def shared_count(count: "Tensor") -> "Tensor":
    """What a process divides its sum by, so that the mean over the processes is the mean over all their entries.

    Σ_p (S_p / c) / P = Σ_p S_p / Σ_p n_p  with c = Σ_p n_p / P, the mean of the counts n_p; n_p where there is one
    """
    return mean_over_processes(count.float()) if _are_several() else count


def mean_of_entries(values: "Tensor") -> "Tensor":
    """This process's part of the mean over the entries of all processes: its sum over `shared_count`."""
    if not _are_several():
        return values.mean()
    return values.sum() / shared_count(values.new_tensor(values.numel()))


def _are_several() -> bool:
    import torch.distributed as distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
