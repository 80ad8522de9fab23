"""One forward pass → EncoderStates, recording only what is needed.

Queries, keys, values and attention scores are read where transformers hands the first three to its attention function.
For the length of one captured pass the model's implementation, say `sdpa`, is renamed to `sdpa+emdistill`: a function
that keeps what is asked for of the layers asked for. Where scores are, it computes q·kᵀ·scaling and goes on from there
to the output; all else runs on `sdpa` as before. Outputs are the same up to rounding.

Scores are what the softmax is taken of, before the mask: a bias by position is part of them (MPNet, DeBERTa), queries
and keys are rotated where the family rotates them (ModernBERT), and a window over the text counts as mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from emdistill.errors import CaptureError, LayerCountError
from emdistill.models.attention import attending, attention_implementation
from emdistill.models.families import require
from emdistill.models.masked_lm import has_masked_lm_head, masked_word_logits
from emdistill.states import EncoderStates

OF_ATTENTION = ("attention", "queries", "keys", "values")
STATES = frozenset({"hidden", "embeddings", *OF_ATTENTION})
NOT_FOR_THE_MODEL = frozenset({"labels", "row"})  # row: the number of an example in its data set
SUFFIX = "+emdistill"


def capture(
    model: nn.Module, inputs: Mapping[str, Tensor], needs: Collection[str], layers: Collection[int] | None = None
) -> EncoderStates:
    """Run one forward pass and keep its states: logits and mask always, the rest as `needs` and `layers` say.

    model   a sequence classifier, masked-LM or bare encoder of transformers, a classifier also inside a wrapper
            (DistributedDataParallel)
    inputs  the tokenizer's tensors, [B, L]; `labels` and `row` are not passed on; without `attention_mask` all are
            tokens. The logits of a masked-LM are those at the positions whose label is not -100: [P, V]
    needs   any of "hidden", "embeddings", "attention", "queries", "keys", "values"
    layers  the numbers of the layers to keep; None: all

    Gradients flow through all states. The output is that of an uncaptured pass, up to rounding.
    Raises CaptureError where a state cannot be had from this model.
    """
    encoder = _encoder(model)
    if unknown := sorted(set(needs) - STATES):
        raise CaptureError(f"there is no state {unknown[0]!r} to capture; the states are {', '.join(sorted(STATES))}")
    require(encoder, *{"attention" if need in OF_ATTENTION else "hidden" for need in needs})
    arguments = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
    wanted = _wanted_layers(encoder, layers)
    with_hidden = "hidden" in needs or "embeddings" in needs
    runs = encoder.base_model if has_masked_lm_head(encoder) else model
    forward = partial(runs, **arguments, output_hidden_states=with_hidden, return_dict=True)
    recorder = _Recorder(frozenset(encoder.modules()), wanted, frozenset(needs) & {*OF_ATTENTION})
    outputs = _forward_recorded(encoder, forward, recorder) if recorder.needs else forward()
    hidden = _hidden_states(encoder, outputs) if with_hidden else ()
    return EncoderStates(
        logits=_logits(encoder, outputs, inputs),
        mask=_mask(arguments),
        embeddings=hidden[0] if "embeddings" in needs else None,
        hidden=_only(wanted, hidden[1:]) if "hidden" in needs else (),
        attention_scores=tuple(recorder.kept["attention"]),
        queries=tuple(recorder.kept["queries"]),
        keys=tuple(recorder.kept["keys"]),
        values=tuple(recorder.kept["values"]),
    )


def check_capture(model: nn.Module, needs: Collection[str]) -> None:
    """Raise CaptureError, before any work is done, where the model cannot give these states; it reads four tokens."""
    encoder = _encoder(model)
    tokens = torch.full((1, 4), encoder.config.vocab_size - 1, device=encoder.device)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        capture(encoder, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, needs)


def _logits(encoder: PreTrainedModel, outputs: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> Tensor:
    """What the encoder's head gives; of a masked-LM only where a word is asked for, of a bare encoder nothing."""
    if "logits" in outputs:
        logits: Tensor = outputs["logits"]
        return logits
    hidden: Tensor = outputs["last_hidden_state"]
    if has_masked_lm_head(encoder) and "labels" in inputs:
        return masked_word_logits(encoder, hidden, inputs["labels"])
    return hidden.new_zeros(len(hidden), 0)


@dataclass(frozen=True)
class _Recorder:
    """What is kept of one captured pass, in the order of the layers; only this model's modules may add to it."""

    modules: frozenset[nn.Module]
    wanted: frozenset[int]
    needs: frozenset[str]
    kept: dict[str, list[Tensor | None]] = field(default_factory=lambda: {name: [] for name in OF_ATTENTION})

    @property
    def layers(self) -> int:
        """How many layers have passed."""
        return max(map(len, self.kept.values()))

    def note(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, bias: Tensor | None = None
    ) -> Tensor | None:
        """Keep what is needed of the layer whose turn it is, if it is wanted; its scores, where they are computed."""
        wanted = self.layers in self.wanted
        # Scaling the query first keeps half-precision products small.
        with_scores = bias is not None or (wanted and "attention" in self.needs)
        scores = torch.matmul(query * scaling, key.transpose(-1, -2)) if with_scores else None
        if scores is not None and bias is not None:
            scores = scores + bias
        found = {"attention": scores, "queries": query, "keys": key, "values": value}
        for name in self.needs:
            state = found[name] if wanted else None
            # [B, h, L, head size] -> [B, L, d]
            in_one = state if state is None or name == "attention" else state.transpose(1, 2).flatten(2)
            self.kept[name].append(in_one)
        return scores


_recorder: ContextVar[_Recorder | None] = ContextVar("emdistill_recorder", default=None)


def _forward_recorded(encoder: PreTrainedModel, forward: Callable[[], Any], recorder: _Recorder) -> Any:
    if encoder.training and torch.is_grad_enabled() and _is_checkpointed(encoder):
        # The recomputation in the backward pass runs outside the capture and would lose the states' gradient.
        raise CaptureError(
            "states of the attention cannot be captured with gradient checkpointing; "
            "switch that off, or the loss: --objective.attention_scores 0"
        )
    token = _recorder.set(recorder)
    try:
        with attending(encoder, _recording):
            outputs = forward()
    finally:
        _recorder.reset(token)
    if recorder.layers != encoder.config.num_hidden_layers:
        raise CaptureError(
            f"the attention scores of this {encoder.config.model_type!r} model cannot be had: "
            f"{recorder.layers} of its {encoder.config.num_hidden_layers} layers use transformers' attention "
            "interface; switch off the attention_scores loss: --objective.attention_scores 0"
        )
    return outputs


def _recording(name: str) -> str:
    """The recording twin of an attention implementation, registered."""
    name = name.removesuffix(SUFFIX)
    AttentionInterface.register(name + SUFFIX, partial(_recording_attention, name))
    # An implementation without an entry gets no mask from transformers; its twin then gets none either.
    if name in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name + SUFFIX, ALL_MASK_ATTENTION_FUNCTIONS[name])
    return name + SUFFIX


def _recording_attention(
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **further: Any,
) -> Any:
    """The model's own attention; of a captured model, what it is given goes to the recorder first."""
    recorder = _recorder.get()
    if recorder is not None and module in recorder.modules:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = recorder.note(query, key, value, scaling, further.get("position_bias"))
        if scores is not None and implementation in ("sdpa", "eager"):
            return _attend_by(scores, value, attention_mask, dropout if module.training else 0.0)
    attend = ALL_ATTENTION_FUNCTIONS.get(implementation) or _eager_attention(module)
    config: Any = module.config
    with attention_implementation(config, implementation):  # flash attention reads its own name from the config
        return attend(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **further)


def _attend_by(scores: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """softmax(scores, masked) · value, [B, L, h, head size]; mask is added, or True where keys are attended to."""
    if mask is not None:
        boolean = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if boolean else scores + mask
    probabilities = torch.dropout(scores.softmax(dim=-1), dropout, dropout > 0).to(value.dtype)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


def _eager_attention(module: nn.Module) -> Callable[..., Any]:
    """Eager attention is in no table: each model file has its own, which its attention's forward sees as a global."""
    attend: Callable[..., Any] = inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]
    return attend


def _hidden_states(encoder: PreTrainedModel, outputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    hidden: tuple[Tensor, ...] = tuple(outputs.get("hidden_states") or ())
    layers = encoder.config.num_hidden_layers
    if len(hidden) != layers + 1:
        raise CaptureError(
            f"this {encoder.config.model_type!r} model of {layers} layers returns {len(hidden)} hidden states instead "
            f"of {layers + 1}; switch off the losses on them: --objective.hidden_states 0 --objective.embeddings 0"
        )
    return hidden


def _wanted_layers(encoder: PreTrainedModel, layers: Collection[int] | None) -> frozenset[int]:
    count = encoder.config.num_hidden_layers
    wanted = frozenset(range(count) if layers is None else layers)
    if wanted and not 0 <= min(wanted) <= max(wanted) < count:
        raise LayerCountError(f"layers {sorted(wanted)} are asked for, but this encoder has {count} (0..{count - 1})")
    return wanted


def _only(wanted: Collection[int], states: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return tuple(state if layer in wanted else None for layer, state in enumerate(states))


def _mask(inputs: Mapping[str, Tensor]) -> Tensor:
    if "attention_mask" in inputs:
        return inputs["attention_mask"]
    tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    return torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)


def _encoder(model: nn.Module) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise CaptureError(f"{type(model).__name__} holds no transformers model; pass one, or a wrapper around one")


def _is_checkpointed(encoder: PreTrainedModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in encoder.modules())
