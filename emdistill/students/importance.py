"""The importance of each unit of an encoder: first-order Taylor scores from one pass over a small sample.

    I(a) = Σ over texts |Σ over unpadded positions a · ∂L/∂a|

a · ∂L/∂a is, to first order, the change of the loss L if activation a were 0. A unit that leaves is 0 at all positions
of a text, whose gains and losses cancel (benchmarks/importance.py measures what the sum is worth). L is the model's own
loss where it has a head and the sample has labels: cross-entropy of classes, of several labels each by itself, of the
masked words; squared error of scores. Elsewhere it is ⟨last hidden states, r⟩ with random signs r, in several draws:
the sensitivity of the encoder's output.

Sources: Extract Then Distill (Chen et al., ICANN 2021); Molchanov et al., CVPR 2019; for heads, Michel et al.,
NeurIPS 2019.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.capture import NOT_FOR_THE_MODEL
from emdistill.models.encoder import encoder_layers, head_logits
from emdistill.models.families import require
from emdistill.models.masked_lm import has_masked_lm_head, word_logits
from emdistill.models.teacher import kind_of
from emdistill.states import NOT_MASKED, labels_of_answers, over_answers
from emdistill.students.shape import shape_of

EXAMPLES = 256
DRAWS = 4  # of random signs, where there is no loss
Per = Literal["text", "position"]


@dataclass(frozen=True)
class Importance:
    """A score per unit that a student may drop; it keeps the highest.

    residual       [d], the stream that all layers read and write
    heads          [h] per layer
    query_key      [d] per layer, the neurons of queries and keys, all heads side by side
    value          [d] per layer, the neurons of values, all heads side by side
    feed_forward   [d_ff] per layer
    """

    residual: Tensor
    heads: tuple[Tensor, ...]
    query_key: tuple[Tensor, ...]
    value: tuple[Tensor, ...]
    feed_forward: tuple[Tensor, ...]


def random_importance(encoder: PreTrainedModel, seed: int) -> Importance:
    """Uniform random scores from `seed`: the highest of them are units drawn at random."""
    shape = shape_of(encoder.config)
    generator = torch.Generator().manual_seed(seed)

    def each_layer(size: int) -> tuple[Tensor, ...]:
        return tuple(torch.rand(shape.layers, size, generator=generator).unbind())

    return Importance(
        residual=torch.rand(shape.width, generator=generator),
        heads=each_layer(shape.heads),
        query_key=each_layer(shape.width),
        value=each_layer(shape.width),
        feed_forward=each_layer(shape.feed_forward),
    )


def taylor_importance(
    encoder: PreTrainedModel,
    sample: Iterable[Mapping[str, Tensor]],
    *,
    examples: int = EXAMPLES,
    seed: int = 0,
    per: Per = "text",
) -> Importance:
    """The score Σ |Σ a · ∂L/∂a| of every unit, over at most `examples` texts of `sample` (see the head of this file).

    residual       summed over the inputs of all attentions and feed-forward layers, and the last hidden states
    heads          |Σ over the head's neurons c · ∂L/∂c|, c the head's output before the output projection
    query_key      |q · ∂L/∂q| + |k · ∂L/∂k|
    value          |c · ∂L/∂c|
    feed_forward   after the activation

    sample   batches of the tokenizer's tensors, [B, L], with `labels` where L is the model's loss
    per      what each absolute value is taken of: the effect on a text, or at a position, as published
    The encoder's weights, mode and gradients, and torch's random state stay as they were.
    Raises ConfigError for an empty sample, ModelError for an unsupported family.
    """
    require(encoder, "cut")
    layers = range(len(encoder_layers(encoder)))
    generator = torch.Generator().manual_seed(seed)
    sums: dict[tuple[str, int], Tensor] = {}
    left = examples
    with in_eval_mode(encoder), torch.enable_grad():
        for batch in sample:
            if left <= 0:
                break
            texts = {name: values[:left].to(encoder.device) for name, values in batch.items()}
            left -= len(texts["input_ids"])
            for kind, layer, effects in _effects(encoder, texts, generator):
                apart = effects.sum(dim=1) if per == "text" else effects.flatten(0, 1)
                total = apart.abs().sum(dim=0, dtype=torch.float64).cpu()
                sums[kind, layer] = sums[kind, layer] + total if (kind, layer) in sums else total
    if not sums:
        raise ConfigError("there is no text to score the teacher's units on; give some, or --student-birth random")

    def each_layer(*kinds: str) -> tuple[Tensor, ...]:
        return tuple(torch.stack([sums[kind, layer] for kind in kinds]).sum(dim=0) for layer in layers)

    streams = each_layer("layer input", "feed-forward input")
    return Importance(
        residual=torch.stack([*streams, sums["last state", layers[-1]]]).sum(dim=0),
        heads=each_layer("head"),
        query_key=each_layer("query", "key"),
        value=each_layer("context"),
        feed_forward=each_layer("neuron"),
    )


def _effects(
    encoder: PreTrainedModel, batch: Mapping[str, Tensor], generator: torch.Generator
) -> Iterator[tuple[str, int, Tensor]]:
    """Kind, layer and a · ∂L/∂a of all activations with a score, [B, L, units], 0 where there is no token."""
    with _recording(encoder) as activations:
        losses = list(_losses(encoder, batch, generator))
    padding = ~token_mask(batch).bool()[..., None]
    heads = encoder.config.num_attention_heads
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(activations.values()), retain_graph=loss is not losses[-1])
        for ((kind, layer), activation), gradient in zip(activations.items(), gradients, strict=True):
            effects = (activation.detach() * gradient).masked_fill(padding, 0)
            yield kind, layer, effects
            if kind == "context":
                yield "head", layer, effects.reshape(*effects.shape[:-1], heads, -1).sum(dim=-1)


def _losses(encoder: PreTrainedModel, batch: Mapping[str, Tensor], generator: torch.Generator) -> Iterator[Tensor]:
    """The loss, summed over the texts so that batches of any size weigh alike; several where it is random."""
    inputs = model_inputs(batch)
    labels = batch.get("labels")
    if labels is None or encoder.base_model is encoder:
        hidden = encoder.base_model(**inputs).last_hidden_state
        for _ in range(DRAWS):
            signs = torch.randint(0, 2, hidden.shape, generator=generator) * 2 - 1
            yield (hidden * signs.to(hidden) * token_mask(batch)[..., None]).sum()
    elif has_masked_lm_head(encoder):
        hidden = encoder.base_model(**inputs).last_hidden_state
        masked = labels != NOT_MASKED
        yield functional.cross_entropy(word_logits(encoder, hidden, masked), labels[masked], reduction="sum")
    else:
        kind = kind_of(encoder)
        logits, labels = kind.pick(head_logits(encoder(**inputs)), batch), labels_of_answers(batch)
        if kind.link in ("identity", "sigmoid"):
            numbers = labels.float().view_as(logits)
            there = ~numbers.isnan()
            loss = functional.mse_loss if kind.link == "identity" else functional.binary_cross_entropy_with_logits
            yield loss(logits[there], numbers[there], reduction="sum")
        else:
            logits = over_answers(logits, batch) if kind.link == "positions" else logits
            yield functional.cross_entropy(logits, labels, reduction="sum")


@contextmanager
def _recording(encoder: PreTrainedModel) -> Iterator[dict[tuple[str, int], Tensor]]:
    """The activations of the forward pass made meanwhile, with a graph that begins at the embeddings."""
    activations: dict[tuple[str, int], Tensor] = {}
    layers = encoder_layers(encoder)
    names = require(encoder, "cut").layer
    assert names is not None

    def record(kind: str, layer: int, name: str, *, output: bool = False) -> None:
        """The input or output of a module; of DeBERTa's projections the first, for they then take positions, too."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], *outputs: Tensor) -> None:
            activations.setdefault((kind, layer), outputs[0] if output else inputs[0])

        module = layers[layer].get_submodule(name)
        register = module.register_forward_hook if output else module.register_forward_pre_hook
        stack.callback(register(hook).remove)

    def begin_graph(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.detach().requires_grad_()

    with ExitStack() as stack:
        embeddings = encoder.base_model.get_submodule("embeddings")
        stack.callback(embeddings.register_forward_hook(begin_graph).remove)
        for layer in range(len(layers)):
            record("layer input", layer, names.query)
            record("query", layer, names.query, output=True)
            record("key", layer, names.key, output=True)
            record("context", layer, names.attention_output)
            record("feed-forward input", layer, names.feed_forward_input)
            record("neuron", layer, names.feed_forward_output)
        record("last state", len(layers) - 1, names.output_norm, output=True)
        yield activations


@contextmanager
def in_eval_mode(encoder: PreTrainedModel) -> Iterator[None]:
    """No dropout meanwhile; every module gets its own mode back."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def token_mask(batch: Mapping[str, Tensor]) -> Tensor:
    """1 for tokens, 0 for padding, [B, L]."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]) if mask is None else mask


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a batch that an encoder takes."""
    return {name: values for name, values in batch.items() if name not in NOT_FOR_THE_MODEL}
