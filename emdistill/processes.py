"""One of several processes of a training: which one writes, and where all of them wait for each other."""

import os


def is_first_process() -> bool:
    """Whether this process writes files and speaks; of a training by several processes only one does."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """Return once every process of the training has come here."""
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
