"""Do importance scores order units as really removing them does? Per text, and per position as published.

    python benchmarks/importance.py --teacher runs/sst2/teacher --data sst2.jsonl --output importance.json

Removes units one by one (0 at every token), in the order of the layers: feed-forward neurons, value neurons and heads.
Spearman's rank correlation of both scores with Σ over texts |change of the text's loss| and with |change of the mean
loss|, per layer; printed as the mean and the least over the layers.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from emdistill.data.read import read_task_data
from emdistill.models.arithmetic import fast_float32
from emdistill.models.encoder import encoder_layers, load_classifier, load_tokenizer
from emdistill.models.families import require
from emdistill.students.importance import Importance, model_inputs, taylor_importance
from emdistill.training.splits import sample_batches


def main(teacher: str, data: str, output: str, task: str | None = None, texts: int = 96, units: int = 200) -> None:
    """Print a line per kind of unit and way of scoring, and write OUTPUT.

    Args:
        teacher: a fine-tuned classifier.
        data: its data.
        output: the JSON file to write.
        task: the task's name, if it has one.
        texts: so many texts.
        units: so many units of each layer, drawn at random; all heads.
    """
    model, tokenizer = load_classifier(teacher), load_tokenizer(teacher)
    examples = read_task_data(data, task=task)
    batches = sample_batches(examples, tokenizer, select="held-out", max_length=128, count=texts)
    scores = {per: taylor_importance(model, batches, per=per) for per in ("text", "position")}
    found: dict[str, Any] = {}
    with fast_float32():
        for kind in ("feed_forward", "value", "heads"):
            removed = [removals(model, batches, kind, layer, units) for layer in range(len(encoder_layers(model)))]
            for per, importance in scores.items():
                for change in ("per text", "of the mean"):
                    of_layers = [
                        correlation(importance, kind, layer, chosen, losses, change)
                        for layer, (chosen, losses) in enumerate(removed)
                    ]
                    found[f"{kind}, scored per {per}, change {change}"] = of_layers
                    print(f"{kind:12s} scored per {per:8s} change {change:11s} mean {statistics.mean(of_layers):.3f} "
                          f"least {min(of_layers):.3f}", flush=True)  # fmt: skip
    Path(output).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def correlation(
    importance: Importance, kind: str, layer: int, units: Sequence[int], losses: Tensor, change: str
) -> float:
    """Spearman's correlation of the scores of a layer's units with what removing them did, [units, texts]."""
    effects = losses.abs().sum(dim=1) if change == "per text" else losses.sum(dim=1).abs()
    return float(spearmanr(getattr(importance, kind)[layer][list(units)], effects).statistic)


@torch.no_grad()
def removals(
    model: PreTrainedModel, batches: list[dict[str, Tensor]], kind: str, layer: int, count: int
) -> tuple[list[int], Tensor]:
    """Units of a layer, and what removing each changes of every text's loss, [units, texts]."""
    names = require(model, "cut").layer
    assert names is not None
    reader = names.feed_forward_output if kind == "feed_forward" else names.attention_output
    module: Any = encoder_layers(model)[layer].get_submodule(reader)
    size = module.in_features // model.config.num_attention_heads if kind == "heads" else 1
    every = np.random.default_rng(layer).permutation(module.in_features // size)[:count].tolist()
    whole = losses(model, batches)
    return every, torch.stack([without(model, batches, module, unit * size, size) - whole for unit in every])


def without(
    model: PreTrainedModel, batches: list[dict[str, Tensor]], module: nn.Module, start: int, size: int
) -> Tensor:
    """The texts' losses where `module` reads 0 from `size` of its inputs."""

    def remove(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = inputs[0].clone()
        states[..., start : start + size] = 0
        return (states, *inputs[1:])

    handle = module.register_forward_pre_hook(remove)
    try:
        return losses(model, batches)
    finally:
        handle.remove()


def losses(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> Tensor:
    """The cross-entropy of every text, in float64."""
    model.train(False)
    return torch.cat(
        [
            functional.cross_entropy(model(**model_inputs(batch)).logits.double(), batch["labels"], reduction="none")
            for batch in batches
        ]
    )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
