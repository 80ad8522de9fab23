"""A BiLSTM as a transformers model: word pieces, layers that read forwards and backwards, a head over two of them.

    e_t = W · LayerNorm(table[token t])                                 the embeddings, [B, L, d]
    h_t = [→h_t ; ←h_t]      →h_t = LSTM(→h_{t-1}, x_t),  ←h_t = LSTM(←h_{t+1}, x_t)     each d/2 wide
    logits = W_2 · relu(W_1 · [h^1 ; h^N])         of the first and the last layer, token by token;
    u = max_t [h^1_t ; h^N_t]                      of a text: the greatest values over its tokens
    logits = W_2 · relu(W_1 · [u; v; |u − v|; u ∘ v])     u of the first text, v of the second; 0 where there is none

Where the config names the separator, special tokens have the state 0 in every layer, and so has the cell: what is read
behind one knows nothing of what stands before it. So each text of a pair is encoded as if it stood alone, in one pass,
and a text's vector is the same in a pair, alone, and on raw text. Configs of earlier versions name none: there all that
is read is one text, and a head reads u alone.
Each direction is an LSTM of its own, and the second one reads the text reversed within its length, so that padding,
which stands on the right, changes no token's states, and the first layer's directions can be read apart.
Source: Wu et al., AACL 2020 (arXiv 2004.03097), for pairs encoded apart.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput

from emdistill.models.pairs import ReluHead, compared, of_texts

CLOSED = -1e4  # added before a sigmoid it gives 0, in half precision too


class BiLstmConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """hidden_size: d, of both directions together. embedding_size: width of the table of word pieces.

    sep_token_id   the token that ends a text: texts are encoded apart; None: all that is read is one text
    cls_token_id   the token that begins one
    """

    model_type = "bilstm"

    vocab_size: int = 30522
    embedding_size: int = 256
    hidden_size: int = 512
    num_hidden_layers: int = 2
    num_attention_heads: int = 0
    hidden_dropout_prob: float = 0.3
    layer_norm_eps: float = 1e-12
    max_position_embeddings: int = 512
    pad_token_id: int | None = 0
    cls_token_id: int | None = None
    sep_token_id: int | None = None

    @property
    def apart(self) -> bool:
        """Whether texts are encoded apart."""
        return self.sep_token_id is not None


class BiLstmLayer(nn.Module):
    """x [B, L, d] -> h [B, L, d], the first half of which has read from the left, the second from the right.

    apart   x has one more number, [B, L, d + 1]: 1 at a token that shuts the gates of input and memory, so that its
            state and cell are 0, else 0. Its weights are fixed: no gradient passes a shut gate.
    """

    def __init__(self, width: int, *, apart: bool = False) -> None:
        super().__init__()
        self.forwards = nn.LSTM(width + apart, width // 2, batch_first=True)
        self.backwards = nn.LSTM(width + apart, width // 2, batch_first=True)

    def forward(self, states: Tensor, reversal: Tensor, closing: Tensor | None = None) -> Tensor:
        """reversal [B, L]: the place that each token has in its text reversed. closing [B, L, 1], of texts apart."""
        if closing is not None:
            states = torch.cat([states, closing.to(states.dtype)], dim=-1)
        from_left, _ = self.forwards(states)
        from_right, _ = self.backwards(_at(states, reversal))
        return torch.cat([from_left, _at(from_right, reversal)], dim=-1)


class BiLstmPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """How weights begin: Glorot's for matrices, orthogonal ones from state to state, rows of variance 1."""

    config_class = BiLstmConfig
    base_model_prefix = "bilstm"
    _input_embed_layer = "word_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.LSTM):
            for name, weight in module.named_parameters():
                if weight.ndim == 1:
                    nn.init.zeros_(weight)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(weight)
                else:
                    nn.init.xavier_uniform_(weight)
            if isinstance(module, nn.LSTM) and self.config.apart:
                gates = module.get_parameter("weight_ih_l0")[:, -1]  # of input, memory, cell and output
                gates.zero_()[: gates.numel() // 2] = CLOSED


class BiLstmModel(BiLstmPreTrainedModel):
    """The encoder without a head."""

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_norm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.embedding_projection = nn.Linear(config.embedding_size, config.hidden_size)
        layers = (BiLstmLayer(config.hidden_size, apart=config.apart) for _ in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """All states are given, whatever is asked for: the head reads two of them."""
        states = self.embedding_projection(self.embedding_norm(self.word_embeddings(input_ids)))
        reversal = _reversal(torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        closing = self._special(input_ids)[..., None] if self.config.apart else None
        hidden = [states]
        for layer in self.layers:
            hidden.append(layer(self.dropout(hidden[-1]), reversal, closing))
        return BaseModelOutput(last_hidden_state=hidden[-1], hidden_states=tuple(hidden))

    def _special(self, ids: Tensor) -> Tensor:
        """[B, L]: where a text begins or ends."""
        ends: Tensor = ids == self.config.sep_token_id
        return ends if self.config.cls_token_id is None else ends | (ids == self.config.cls_token_id)


class BiLstmForTokenClassification(BiLstmPreTrainedModel):
    """Logits per token, [B, L, C]."""

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLstmModel(config)
        self.classifier = ReluHead(config, 2 * config.hidden_size, config.hidden_size // 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> TokenClassifierOutput:
        hidden = self.bilstm(input_ids, attention_mask).hidden_states
        return TokenClassifierOutput(logits=self.classifier(first_and_last(hidden[1:])), hidden_states=hidden)


class BiLstmForSequenceClassification(BiLstmPreTrainedModel):
    """Logits per text or pair, [B, C]."""

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLstmModel(config)
        self.classifier = ReluHead(config, (8 if config.apart else 2) * config.hidden_size, config.hidden_size // 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SequenceClassifierOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.bilstm(input_ids, mask).hidden_states
        states = first_and_last(hidden[1:])
        if self.config.apart:
            texts = of_texts(input_ids, mask, self.config.sep_token_id).unbind(dim=1)
            # Every text has a token of state 0 at its end; one that is not there has that alone.
            features = compared(torch.stack([greatest(states, text).clamp(min=0) for text in texts], dim=1))
        else:
            features = greatest(states, mask)
        return SequenceClassifierOutput(logits=self.classifier(features), hidden_states=hidden)


def first_and_last(layers: Sequence[Tensor | None]) -> Tensor:
    """[B, L, 2d]: the states [B, L, d] of the first layer and those of the last."""
    first, last = layers[0], layers[-1]
    assert first is not None
    assert last is not None
    return torch.cat([first, last], dim=-1)


def greatest(states: Tensor, mask: Tensor) -> Tensor:
    """[B, L, d] -> [B, d]: each unit's greatest value over the tokens of a text."""
    return states.masked_fill(mask[..., None] == 0, torch.finfo(states.dtype).min).amax(dim=1)


HEADS: dict[str, type[BiLstmPreTrainedModel]] = {
    "SequenceClassification": BiLstmForSequenceClassification,
    "TokenClassification": BiLstmForTokenClassification,
}
"""The models by what stands on them (TaskKind.head)."""


def _reversal(mask: Tensor) -> Tensor:
    """[B, L]: token t of n goes to place n - 1 - t, padding stays. Twice, it is the order as it was."""
    places = torch.arange(mask.shape[1], device=mask.device)
    reversed_places = mask.sum(dim=1, keepdim=True) - 1 - places
    return torch.where(reversed_places >= 0, reversed_places, places)


def _at(states: Tensor, places: Tensor) -> Tensor:
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
