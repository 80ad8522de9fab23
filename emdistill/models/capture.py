"""One forward pass → EncoderStates, recording only what is needed.

Queries, keys, values and attention scores are read where transformers hands the first three to its attention function.
During a captured pass the model's implementation, say `sdpa`, is renamed to `sdpa+emdistill`: a function that records
the states needed of the layers needed. Where scores are, it computes q·kᵀ·scaling and goes on from there to the output;
all else runs on `sdpa` as before. Outputs are the same up to rounding.

Scores are the softmax's argument before the mask: a bias by position is part of them (MPNet, DeBERTa), queries and keys
are rotated where the family rotates them (ModernBERT), and a window over the text counts as mask.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from emdistill.models.encoder import encoder_shape, head_logits, head_of
from emdistill.models.families import require
from emdistill.models.masked_lm import has_masked_lm_head, word_logits
from emdistill.models.multi_task import head_end, task_model
from emdistill.models.task_head import TaskHead
from emdistill.states import (
    ANSWERS,
    ASKED,
    ENDS,
    NOT_MASKED,
    TASK,
    TEACHER_LOGITS,
    WINDOW,
    WORDS_OF_TOKENS,
    EncoderStates,
    student_part,
)
from emdistill.tasks import kind_of_head

OF_ATTENTION = ("attention", "queries", "keys", "values")
OF_LAYERS = ("hidden", *OF_ATTENTION)
STATES = frozenset({"embeddings", "features", *OF_LAYERS})
# row: the number of an example in its data set
NOT_FOR_THE_MODEL = frozenset({"labels", "row", TASK, WORDS_OF_TOKENS, TEACHER_LOGITS, ASKED, ANSWERS, ENDS, WINDOW})
SUFFIX = "+emdistill"


def capture(
    model: nn.Module, inputs: Mapping[str, Tensor], needs: Collection[str], layers: Collection[int] | None = None
) -> EncoderStates:
    """The states of one forward pass: logits and mask always, the rest by `needs` and `layers`.

    model   a model with the head of a kind of task, masked-LM or bare encoder of transformers; with such a head also
            inside a wrapper (DistributedDataParallel); of a MultiTaskModel the model of the batch's task
    inputs  the tokenizer's tensors, [B, L]; `labels`, `row`, `words`, `answers` and the teacher's part are not passed
            on; without `attention_mask` all are tokens. The logits are those of the answers (TaskKind.pick): [A, C];
            of a masked-LM those at the positions whose label is not -100, or of ASKED where the batch has them: [P, V]
    needs   any of "hidden", "embeddings", "attention", "queries", "keys", "values", "features" (of a head)
    layers  the numbers of the layers to keep; None: all
    Gradients flow through all states. The output is that of an uncaptured pass, up to rounding.
    Raises CaptureError for a state that cannot be had from this model, LayerCountError for a layer it does not have.
    """
    model = task_model(model, inputs)
    encoder = _encoder(model)
    check_states(needs)
    require(encoder, *{"attention" if need in OF_ATTENTION else "hidden" for need in needs})
    arguments = {name: value for name, value in student_part(inputs).items() if name not in NOT_FOR_THE_MODEL}
    chosen = chosen_layers(layers, encoder.config.num_hidden_layers)
    with_hidden = "hidden" in needs or "embeddings" in needs
    runs = encoder.base_model if has_masked_lm_head(encoder) else model
    forward = partial(runs, **arguments, output_hidden_states=with_hidden, return_dict=True)
    attending = encoder_shape(encoder).attending_layers
    recorder = _Recorder(frozenset(encoder.modules()), attending, frozenset(chosen), frozenset(needs) & {*OF_ATTENTION})
    with _features(encoder, "features" in needs) as features:
        outputs = _forward_recorded(encoder, forward, recorder) if recorder.needs else forward()
    hidden = _hidden_states(encoder, outputs) if with_hidden else ()
    return EncoderStates(
        logits=_logits(encoder, outputs, inputs),
        mask=arguments["attention_mask"] if "attention_mask" in arguments else _all_tokens(arguments),
        embeddings=hidden[0] if "embeddings" in needs else None,
        hidden=tuple(s if i in chosen else None for i, s in enumerate(hidden[1:])) if "hidden" in needs else (),
        **{field_of(kind): recorder.by_layer(kind, encoder.config.num_hidden_layers) for kind in recorder.needs},
        features=(features.get("shared"), features.get("private")) if "features" in needs else (),
    )


def field_of(kind: str) -> str:
    """The field of EncoderStates that holds a kind of state."""
    return "attention_scores" if kind == "attention" else kind


def check_states(needs: Collection[str]) -> None:
    """Raise CaptureError for a state that no encoder has."""
    if unknown := sorted(set(needs) - STATES):
        raise CaptureError(f"there is no state {unknown[0]!r}; the states are {', '.join(sorted(STATES))}")


def chosen_layers(layers: Collection[int] | None, count: int) -> list[int]:
    """These layers of `count` (None: all), in order; raises LayerCountError for one that is not there."""
    chosen = sorted(set(range(count) if layers is None else layers))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < count:
        raise LayerCountError(f"layers {chosen} are not all in this encoder of {count} layers (0..{count - 1})")
    return chosen


def check_capture(model: nn.Module, needs: Collection[str]) -> None:
    """Raise CaptureError, on four tokens and before any work, where the model cannot give these states."""
    encoder = _encoder(model)
    tokens = torch.full((1, 4), encoder.config.vocab_size - 1, device=encoder.device)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        capture(encoder, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, needs)


def _logits(encoder: PreTrainedModel, outputs: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> Tensor:
    """The logits of the head's answers; of a masked-LM only where a word is asked for, of a bare encoder none."""
    if "last_hidden_state" not in outputs:
        return kind_of_head(head_of(encoder)).pick(head_logits(outputs), inputs)
    hidden: Tensor = outputs["last_hidden_state"]
    if has_masked_lm_head(encoder) and "labels" in inputs:
        answered = inputs[ASKED] if ASKED in inputs else inputs["labels"] != NOT_MASKED
        return word_logits(encoder, hidden, answered)
    return hidden.new_zeros(len(hidden), 0)


@contextmanager
def _features(encoder: PreTrainedModel, wanted: bool) -> Iterator[dict[str, Tensor]]:
    """While open, what the last matrix of the head reads is noted, and the private features of a TaskHead."""
    features: dict[str, Tensor] = {}
    handles = []
    if wanted:
        head = head_end(encoder)
        handles.append(head.register_forward_pre_hook(lambda _, given: features.update(shared=given[0])))
        if isinstance(head, TaskHead) and head.private is not None:
            handles.append(head.private.register_forward_hook(lambda _, given, made: features.update(private=made)))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Recorder:
    """The states of one captured pass, one attending layer after another; only this model's modules may add to them."""

    modules: frozenset[nn.Module]
    attending: tuple[int, ...]
    chosen: frozenset[int]
    needs: frozenset[str]
    states: dict[str, list[Tensor | None]] = field(default_factory=lambda: {name: [] for name in OF_ATTENTION})

    @property
    def passed(self) -> int:
        """The number of attending layers that have passed."""
        return max(map(len, self.states.values()))

    def by_layer(self, kind: str, layers: int) -> tuple[Tensor | None, ...]:
        """The states of this kind of so many layers, None where there are none."""
        states = dict(zip(self.attending, self.states[kind], strict=True))
        return tuple(states.get(layer) for layer in range(layers))

    def note(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, bias: Tensor | None = None
    ) -> Tensor | None:
        """Record what is needed of the next layer, if it is chosen; give its scores, where they are computed."""
        chosen = self.passed < len(self.attending) and self.attending[self.passed] in self.chosen
        # Scaling the query first keeps half-precision products small.
        with_scores = bias is not None or (chosen and "attention" in self.needs)
        scores = torch.matmul(query * scaling, key.transpose(-1, -2)) if with_scores else None
        if scores is not None and bias is not None:
            scores = scores + bias
        states = {"attention": scores, "queries": query, "keys": key, "values": value}
        for name in self.needs:
            state = states[name] if chosen else None
            if state is not None and name != "attention":
                state = state.transpose(1, 2).flatten(2)  # [B, h, L, head size] -> [B, L, d]
            self.states[name].append(state)
        return scores


_recorder: ContextVar[_Recorder | None] = ContextVar("emdistill_recorder", default=None)


def _forward_recorded(encoder: PreTrainedModel, forward: Callable[[], Any], recorder: _Recorder) -> Any:
    with _recorded(encoder, recorder), _computed_again_alike(encoder, recorder):
        outputs = forward()
    if recorder.passed != len(recorder.attending):
        raise CaptureError(
            f"the attention scores of this {encoder.config.model_type!r} model cannot be had: "
            f"{recorder.passed} of its {len(recorder.attending)} layers with attention use transformers' attention "
            "interface; switch off the attention_scores loss: --objective.attention_scores 0"
        )
    return outputs


@contextmanager
def _recorded(encoder: PreTrainedModel, recorder: _Recorder) -> Iterator[None]:
    """While open, the model attends by the recording twin of its implementation, for this recorder."""
    token = _recorder.set(recorder)
    try:
        with attending(encoder, _recording):
            yield
    finally:
        _recorder.reset(token)


class _MadeAnew(AbstractContextManager[None]):
    """A context that can be entered again once it is left: one backward pass per gradient norm enters it."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._context = self._make()
        self._context.__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        return self._context.__exit__(*raised)


@contextmanager
def _computed_again_alike(encoder: PreTrainedModel, recorder: _Recorder) -> Iterator[None]:
    """While open, gradient checkpointing computes a layer again, in the backward pass, as it is computed now.

    States keep their gradient: what a layer records when it is computed again is not used.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        ahead = recorder.attending[recorder.passed :]  # this layer first
        again = partial(_Recorder, recorder.modules, ahead, recorder.chosen, recorder.needs)
        return nullcontext(), _MadeAnew(lambda: _recorded(encoder, again()))

    layers: list[Any] = [layer for layer in encoder.modules() if getattr(layer, "gradient_checkpointing", False)]
    before = [layer._gradient_checkpointing_func for layer in layers]
    try:
        for layer, function in zip(layers, before, strict=True):
            layer._gradient_checkpointing_func = partial(function, use_reentrant=False, context_fn=contexts)
        yield
    finally:
        for layer, function in zip(layers, before, strict=True):
            layer._gradient_checkpointing_func = function


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
    """The model's own attention; the arguments of a captured model go to the recorder first."""
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
    """softmax(scores, masked) · value, [B, L, h, head size]; the mask is added, or True where keys are attended to."""
    if mask is not None:
        boolean = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if boolean else scores + mask
    probabilities = torch.dropout(scores.softmax(dim=-1), dropout, dropout > 0).to(value.dtype)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


def _eager_attention(module: nn.Module) -> Callable[..., Any]:
    """Eager attention is in no table: each model file has its own, a global of its attention's forward."""
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


def _all_tokens(inputs: Mapping[str, Tensor]) -> Tensor:
    tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    return torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)


def _encoder(model: nn.Module) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise CaptureError(f"{type(model).__name__} holds no transformers model; pass one, or a wrapper around one")
