"""Several processes learn what one does from all their rows: real ones, by gloo, in which rows differ in length."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Each process has rows of its own, and one that is alone has them all. They are forked, so that imports are paid once.
PROCESSES = """
import os, signal, sys, torch, torch.distributed as dist
from emdistill.losses import EmbeddingLoss, HardLabels, HiddenStateCosts, LayerLoss, SoftTargets
from emdistill.losses.attention_scores import AttentionScoreCosts
from emdistill.mapping import EmdMapping
from emdistill.processes import is_first_process
from emdistill.states import EncoderStates
from emdistill.training.gradient_norms import gradient_norms

torch.set_num_threads(1)
folder, children = sys.argv[1], []
for rank, count in ((0, 1), (0, 2), (1, 2)):
    child = os.fork()
    if not child:
        break
    children.append(child)
signal.alarm(240)  # one that waits for another in vain
if child:
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256 for child in children))
if count > 1:
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", count), rank=rank, world_size=count)

ROWS, LENGTH, WIDTH, HEADS = 4, 7, 6, 2
draw = torch.Generator().manual_seed(0)
own = slice(rank * ROWS // count, (rank + 1) * ROWS // count)
mask = (torch.arange(LENGTH) < torch.tensor([[7], [2], [3], [1]])).long()[own]
scale = torch.nn.Parameter(torch.ones(()))

def states(layers, of=1.0):
    hidden = [of * torch.randn(ROWS, LENGTH, WIDTH, generator=draw)[own] for _ in range(layers + 1)]
    scores = [of * torch.randn(ROWS, HEADS, LENGTH, LENGTH, generator=draw)[own] for _ in range(layers)]
    logits = of * torch.randn(ROWS, 3, generator=draw)[own]
    return EncoderStates(logits, mask, hidden[0], tuple(hidden[1:]), tuple(scores))

losses = [
    LayerLoss([HiddenStateCosts("relative"), AttentionScoreCosts()], EmdMapping(2, 3), cost_memory=0.5),
    EmbeddingLoss("relative"), SoftTargets(), SoftTargets(loss="squared"), HardLabels(),
]
labels = torch.tensor([0, 2, 1, 1])[own]
found = {}
for step in range(3):
    student, teacher = states(2, scale), states(3)
    for place, loss in enumerate(losses):
        terms = loss(student, teacher, {"labels": labels})
        for name, value in terms.items():
            gradient, = torch.autograd.grad(value, scale, retain_graph=True)
            module = torch.nn.Module()
            module.scale = scale
            norm = gradient_norms({name: value}, module)[name]
            found[f"{step} {place} {name}"] = torch.stack([value.detach(), gradient, torch.tensor(norm)])
found |= {name: value for name, value in losses[0].state_dict().items()}
torch.save(found, f"{folder}/{rank}-of-{count}.pt")
if count > 1:
    dist.destroy_process_group()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_losses_gradients_and_layer_weights_are_those_of_one_process(tmp_path: Path) -> None:
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([sys.executable, "-c", PROCESSES, str(tmp_path)], env=environment, timeout=300, check=False)
    assert done.returncode == 0
    whole, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    assert whole.keys() == first.keys() == second.keys()
    for name, expected in whole.items():
        mean = (first[name] + second[name]) / 2  # as DistributedDataParallel averages gradients
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        if " " not in name:  # a state of the mapping or of the memory: the same in every process
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
