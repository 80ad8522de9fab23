"""One of several processes of a training: which one writes, and where all of them wait for each other."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def is_first_process() -> bool:
    """Whether this process writes files and speaks; of a training by several processes only one does."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train here together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Return once every process of the training has come here."""
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def mean_over_processes(values: "Tensor") -> "Tensor":
    """The mean of these values over the processes of the training, in place; as they are where there is one."""
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values
