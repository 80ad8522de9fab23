"""A supernet over chains of operators: for each place of each of the teacher's blocks every operator once.

    L_n(A) = mean (f(Y_{n-1}; A) - Y_n)² / Var Y_n        block n, a candidate A, over the tokens of a batch

Y_n are the teacher's states behind its block n, so that blocks are learned apart from each other: a step draws a
candidate per block and teaches it alone. All states are as wide as the teacher's. Var is of some texts
once and for all, so that a loss of 1 is that of the mean, and blocks weigh alike.

Source: NAS-BERT (Xu et al., KDD 2021, arXiv 2105.14444), section 3.2; there losses are plain squared differences.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from typing import Any

import torch
from torch import Tensor, nn

from emdistill.errors import TrainingError
from emdistill.mapping import layer_costs
from emdistill.mapping.two_level import even_blocks
from emdistill.models.chain import ChainModel, Convolution, attended_mask
from emdistill.models.encoder import encoder_layers
from emdistill.models.teacher import Teacher
from emdistill.search.chains import BlockCandidate
from emdistill.students.chain import begin_as_identity, chain_config, last_norm, take_half

LARGEST_GRADIENT = 1.0  # norm


@dataclass(frozen=True)
class BlockStates:
    """A batch at the teacher's blocks: states [B, L, d] before the first and behind each, and the mask [B, L]."""

    states: tuple[Tensor, ...]
    mask: Tensor


class Supernet(nn.Module):
    """Operators [block][place][operator], born as a chain's are: halves of the layers at their depth, and identities.

    operators   their names, as read_operators gives them
    blocks      the teacher's layers are cut into so many, as even as can be
    A block has two places per layer of the teacher. Buffer variances [blocks]: Var, 1 until `scale_by`. The same seed
    gives the same weights.
    """

    variances: Tensor

    def __init__(self, teacher: Teacher, operators: Sequence[str], blocks: int, *, seed: int = 0) -> None:
        super().__init__()
        layers = encoder_layers(teacher.model)
        self.names = list(operators)
        sizes = even_blocks(len(layers), blocks)
        self.ends = [sum(sizes[: number + 1]) - 1 for number in range(len(sizes))]
        self.places = [2 * size for size in sizes]
        config: Any = replace(
            chain_config(teacher.model, self.names * sum(self.places)), vocab_size=1, pad_token_id=None
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = ChainModel(config, add_pooling_layer=False)
        self.config: Any = model.config
        self.operators = model.operators
        self.register_buffer("variances", torch.ones(blocks))
        self.eval()  # dropout would be noise on what is to be met exactly
        embeddings = teacher.model.base_model.get_submodule("embeddings")
        for block, size in enumerate(sizes):
            first = self.ends[block] + 1 - size
            before = last_norm(layers[first - 1] if first else embeddings)
            for place in range(2 * size):
                for name in self.names:
                    operator = self.operator(block, place, name)
                    if isinstance(operator, Convolution):
                        begin_as_identity(operator, before)
                    else:
                        take_half(operator, name, teacher.model, layers[first + place // 2])

    def operator(self, block: int, place: int, name: str) -> nn.Module:
        """One operator."""
        return self.operators[(sum(self.places[:block]) + place) * len(self.names) + self.names.index(name)]

    def chosen(self, blocks: Sequence[BlockCandidate]) -> Iterator[nn.Module]:
        """The operators of a chain, in order."""
        for block, candidate in enumerate(blocks):
            yield from (self.operator(block, place, name) for place, name in enumerate(candidate))

    def scale_by(self, batches: Sequence[BlockStates]) -> None:
        """Take the variances of the states behind the blocks, a mean over their width, from these texts."""
        for block in range(len(self.ends)):
            tokens = torch.cat([batch.states[block + 1][batch.mask.bool()] for batch in batches])
            self.variances[block] = tokens.var(dim=0, correction=0).mean()

    def error(self, block: int, states: Tensor, batch: BlockStates) -> Tensor:
        """How far states are from those behind a block, as a share of their variance."""
        return layer_costs([states], [batch.states[block + 1]], batch.mask)[0, 0] / self.variances[block]

    def block_loss(self, block: int, candidate: BlockCandidate, batch: BlockStates) -> Tensor:
        """L of a candidate of a block."""
        states = batch.states[block]
        attended = attended_mask(self.config, states, batch.mask)
        for place, name in enumerate(candidate):
            states, _ = self.operator(block, place, name)(states, attended, batch.mask[..., None])
        return self.error(block, states, batch)

    @torch.no_grad()
    def end_error(self, blocks: Sequence[BlockCandidate], batches: Sequence[BlockStates]) -> float:
        """The mean error of a whole chain's last states, its blocks reading each other's."""
        errors = []
        for batch in batches:
            states = batch.states[0]
            attended = attended_mask(self.config, states, batch.mask)
            for operator in self.chosen(blocks):
                states, _ = operator(states, attended, batch.mask[..., None])
            errors.append(self.error(len(self.ends) - 1, states, batch))
        return float(torch.stack(errors).mean())

    @torch.no_grad()
    def block_losses(
        self, block: int, candidates: Iterable[BlockCandidate], batches: Sequence[BlockStates]
    ) -> dict[BlockCandidate, float]:
        """The mean L over the batches of every candidate; what candidates begin with alike is computed once."""
        losses = dict.fromkeys(sorted(candidates), 0.0)
        for batch in batches:
            attended = attended_mask(self.config, batch.states[block], batch.mask)
            path: list[Tensor] = [batch.states[block]]
            before: BlockCandidate = ()
            for candidate in losses:
                alike = [*map(eq, before, candidate), False].index(False)
                del path[1 + alike :]
                for place in range(len(path) - 1, len(candidate)):
                    operator = self.operator(block, place, candidate[place])
                    path.append(operator(path[-1], attended, batch.mask[..., None])[0])
                losses[candidate] += float(self.error(block, path[-1], batch)) / len(batches)
                before = candidate
        return losses


def block_states(teacher: Teacher, supernet: Supernet, batch: Mapping[str, Tensor]) -> BlockStates:
    """What the teacher's blocks read and give for a batch."""
    states = teacher(batch, {"embeddings", "hidden"}, supernet.ends)
    behind = [states.hidden[end] for end in supernet.ends]
    return BlockStates(tuple(state for state in (states.embeddings, *behind) if state is not None), states.mask)


def train(
    supernet: Supernet,
    batches: Iterable[BlockStates],
    survivors: Sequence[Sequence[BlockCandidate]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: str,
) -> list[float]:
    """A step per batch, a survivor of each block drawn for it; the mean loss of each block.

    The draws are a function of the seed. Raises TrainingError where a loss is NaN or infinite.
    """
    generator, sums, steps = random.Random(seed), [0.0] * len(survivors), 0
    for batch in batches:
        chosen = [generator.choice(own) for own in survivors]
        losses = torch.stack([supernet.block_loss(block, name, batch) for block, name in enumerate(chosen)])
        values = losses.tolist()
        for block, (name, value) in enumerate(zip(chosen, values, strict=True), start=1):
            if not math.isfinite(value):
                raise TrainingError(
                    f"block {block} as {''.join(name)}: the loss is {value} at step {steps + 1} of this round; "
                    "start anew with a lower --learning-rate"
                )
        losses.sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(supernet.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)  # what is not drawn stays as it is
        sums = [total + value for total, value in zip(sums, values, strict=True)]
        steps += 1
    return [total / max(1, steps) for total in sums]


@torch.no_grad()
def take_over(student: Any, supernet: Supernet, blocks: Sequence[BlockCandidate]) -> None:
    """Give a chain the supernet's weights, operator by operator, in place."""
    for own, learned in zip(encoder_layers(student), supernet.chosen(blocks), strict=True):
        own.load_state_dict(learned.state_dict())
