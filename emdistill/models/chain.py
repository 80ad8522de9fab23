"""A chain of operators as a transformers model: BERT's sub-layers and convolutions, in any order.

    h_0 = embeddings,    h_i = LayerNorm(h_{i-1} + operator_i(h_{i-1}))       after dropout, all of one width [B, L, d]

    a   self-attention and   f   feed-forward: the halves of BERT's layer, so that a, f, a, f is a BERT of two layers
    c   separable convolution (NAS-BERT):  gelu(W · depthwise(h)),  a depthwise convolution over k tokens
    d   dynamic convolution (LV-BERT):     W_o · Σ_j K[t, j] v_{t+j},   v = W_1 h ⊙ σ(W_2 h),
                                           K[t] = softmax over k places of W_k · W_p · depthwise(v)[t], per head

The k tokens lie around token t; what lies beyond the text, padding too, counts as 0. Embeddings, pooler and heads are
BERT's, and so are the names of all weights that BERT has too.

Sources: Xu et al., NAS-BERT, KDD 2021 (arXiv 2105.14444); Yu et al., LV-BERT, Findings of ACL 2021 (arXiv 2106.11740).
"""

import re
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.models.bert.modeling_bert import (
    BertAttention,
    BertEmbeddings,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertIntermediate,
    BertOutput,
    BertPooler,
    BertPreTrainedModel,
)

from emdistill.errors import ConfigError

WORD = re.compile(r"[af]|[cd]\d*")
KERNELS = {"c": 3, "d": 9}  # of LV-BERT's code; NAS-BERT tries 3, 5 and 7


def read_operators(word: str) -> list[str]:
    """'acf' -> ['a', 'c3', 'f']: a convolution names its tokens, c5, or has those of KERNELS.

    Raises ConfigError for a word that is none, or a convolution over an even number of tokens.
    """
    if not re.fullmatch(rf"({WORD.pattern})+", word):
        raise ConfigError(f"{word!r} is no chain of operators: a (attention), f (feed-forward), c or c5, d or d9")
    operators = [name + str(KERNELS[name]) if name in KERNELS else name for name in WORD.findall(word)]
    for name in operators:
        if name[1:] and int(name[1:]) % 2 == 0:
            raise ConfigError(f"{name} in {word!r}: a convolution lies around its token, so over 1, 3, 5 … tokens")
    return operators


class ChainConfig(BertConfig):  # type: ignore[no-untyped-call]
    """operators: their names in order, as read_operators gives them; a and f in turn, num_hidden_layers of them."""

    model_type = "chain"

    operators: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.name_operators(self.operators or ["af"[place % 2] for place in range(self.num_hidden_layers)])
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    def name_operators(self, operators: Sequence[str]) -> None:
        """These operators, each of which counts as a layer."""
        self.operators, self.num_hidden_layers = list(operators), len(operators)


class Attending(nn.Module):
    """Self-attention, as BERT's: the first half of its layer."""

    def __init__(self, config: ChainConfig, kernel: int) -> None:
        super().__init__()
        self.attention = BertAttention(config)  # type: ignore[no-untyped-call]

    def forward(self, states: Tensor, attended: Any, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """states [B, L, d], the mask of transformers' attention, tokens [B, L, 1] -> states, probabilities."""
        made: tuple[Tensor, Tensor | None] = self.attention(states, attended)
        return made


class FeedForward(nn.Module):
    """Two matrices and an activation, as BERT's: the second half of its layer."""

    def __init__(self, config: ChainConfig, kernel: int) -> None:
        super().__init__()
        self.intermediate = BertIntermediate(config)  # type: ignore[no-untyped-call]
        self.output = BertOutput(config)  # type: ignore[no-untyped-call]

    def forward(self, states: Tensor, attended: Any, tokens: Tensor) -> tuple[Tensor, None]:
        return self.output(self.intermediate(states), states), None


class Around(nn.Module):
    """x [B, L, d] -> Σ_j w[j] ⊙ x_{t+j} + b over the k tokens around t: a depthwise convolution."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, states: Tensor) -> Tensor:
        convolved: Tensor = self.depthwise(states.transpose(1, 2)).transpose(1, 2)
        return convolved


class SeparableConvolution(nn.Module):
    """gelu(W · depthwise(h))."""

    def __init__(self, config: ChainConfig, kernel: int) -> None:
        super().__init__()
        self.around = Around(config.hidden_size, kernel)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        return functional.gelu(self.dense(self.around(states * tokens)))


class DynamicConvolution(nn.Module):
    """W_o · Σ_j K[t, j] v_{t+j}: each token says, head by head, how the k tokens around it are weighted."""

    def __init__(self, config: ChainConfig, kernel: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.kernel = config.num_attention_heads, kernel
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.around = Around(width, kernel)
        self.pointwise = nn.Linear(width, width)
        self.weights = nn.Linear(width, self.heads * kernel)
        self.dense = nn.Linear(width, width)

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        values = self.value(states) * self.gate(states).sigmoid() * tokens
        scores: Tensor = self.weights(self.pointwise(self.around(values)))
        weights = scores.view(*values.shape[:2], self.heads, self.kernel).softmax(dim=-1)
        reach, length = self.kernel // 2, values.shape[1]
        padded = functional.pad(values.view(*values.shape[:2], self.heads, -1), (0, 0, 0, 0, reach, reach))
        shifted = (weights[..., place, None] * padded[:, place : place + length] for place in range(self.kernel))
        mixed: Tensor = self.dense(reduce(torch.add, shifted).flatten(2))
        return mixed


class Convolution(nn.Module):
    """LayerNorm(h + dropout(branch(h))), of h [B, L, d] without its padding."""

    def __init__(self, branch: type[nn.Module], config: ChainConfig, kernel: int) -> None:
        super().__init__()
        self.convolution = branch(config, kernel)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, attended: Any, tokens: Tensor) -> tuple[Tensor, None]:
        return self.LayerNorm(states + self.dropout(self.convolution(states, tokens.to(states)))), None


OPERATORS: dict[str, Callable[[ChainConfig, int], nn.Module]] = {
    "a": Attending,
    "f": FeedForward,
    "c": partial(Convolution, SeparableConvolution),
    "d": partial(Convolution, DynamicConvolution),
}


def make_operator(name: str, config: ChainConfig) -> nn.Module:
    """A fresh operator of this name: OPERATORS by its letter, and the tokens of a convolution."""
    return OPERATORS[name[0]](config, int(name[1:] or 1))


class ChainPreTrainedModel(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """How weights begin: as BERT's; those of a depthwise convolution with the variance 1/k², as in LV-BERT."""

    config_class = ChainConfig
    supports_gradient_checkpointing = False
    _input_embed_layer = "word_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, Around):
            init.normal_(module.depthwise.weight, std=1 / module.depthwise.kernel_size[0])


def attended_mask(config: BertConfig, states: Tensor, attention_mask: Tensor | None) -> Any:
    """The mask [B, L], 1 = token, as the operator a takes it for states [B, L, d]."""
    return create_bidirectional_mask(config, inputs_embeds=states, attention_mask=attention_mask)


class ChainModel(ChainPreTrainedModel):  # type: ignore[no-untyped-call]
    """The encoder without a head."""

    def __init__(self, config: ChainConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings: Any = BertEmbeddings(config)  # type: ignore[no-untyped-call]
        self.operators = nn.ModuleList(make_operator(name, config) for name in config.operators or ())
        self.pooler = BertPooler(config) if add_pooling_layer else None  # type: ignore[no-untyped-call]
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """All states are given, whatever is asked for; attentions of the operators a, where they are computed."""
        states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        tokens = torch.ones_like(states[..., 0]) if attention_mask is None else attention_mask
        attended = attended_mask(self.config, states, attention_mask)
        hidden, attentions = [states], []
        for operator in self.operators:
            states, probabilities = operator(states, attended, tokens[..., None])
            hidden.append(states)
            attentions += [] if probabilities is None else [probabilities]
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=states,
            pooler_output=None if self.pooler is None else self.pooler(states),
            hidden_states=tuple(hidden),
            attentions=tuple(attentions),
        )


class ChainWithHead(ChainPreTrainedModel):  # type: ignore[no-untyped-call]
    """One of BERT's heads around another encoder; the one that the head's class builds first is thrown away."""

    bert: Any

    def __init__(self, config: ChainConfig) -> None:
        super().__init__(config)
        self.bert = ChainModel(config, add_pooling_layer=self.bert.pooler is not None)
        self.post_init()  # type: ignore[no-untyped-call]


class ChainForSequenceClassification(ChainWithHead, BertForSequenceClassification):  # type: ignore[no-untyped-call]
    """Logits per text, [B, C]."""


class ChainForTokenClassification(ChainWithHead, BertForTokenClassification):  # type: ignore[no-untyped-call]
    """Logits per token, [B, L, C]."""


class ChainForQuestionAnswering(ChainWithHead, BertForQuestionAnswering):  # type: ignore[no-untyped-call]
    """Logits of a span's two ends, [B, L] each."""


class ChainForMaskedLM(ChainWithHead, BertForMaskedLM):  # type: ignore[no-untyped-call]
    """Logits of words, [B, L, V]."""


HEADS: dict[str, type[ChainPreTrainedModel]] = {
    "SequenceClassification": ChainForSequenceClassification,
    "TokenClassification": ChainForTokenClassification,
    "QuestionAnswering": ChainForQuestionAnswering,
    "MaskedLM": ChainForMaskedLM,
}
"""The models by what stands on them (TaskKind.head), and that of masked words."""
