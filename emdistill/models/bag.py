"""A bag of word pieces and of hashed n-grams of them as a transformers model: tables, two means, a small head.

    u = 1/n (Σ_t exp(w[p_t]) E[p_t] + Σ_t G[h(p_{t-1}, p_t)])    p_t the n pieces of a text; longer n-grams likewise
    h(p, q, ..) = (code[p] · 31ᵏ⁻¹ + code[q] · 31ᵏ⁻² + ..) mod buckets
    logits = W_2 · relu(W_1 · [u; v; |u − v|; u ∘ v])      u of the first text, v of the second; 0 where there is none

Two texts of a pair are told apart by the separator between them: no n-gram reaches over it. The hash is computed of the
ids, in the graph; codes belong to pieces and not to ids, so that a pruned vocabulary leaves all n-grams where they are.
Source: Iyyer et al., ACL 2015 (deep averaging networks); Joulin et al., EACL 2017 (hashed n-grams); Ye et al., NAACL
2022 (Sparse Distillation, arXiv 2110.08536).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from emdistill.models.pairs import ReluHead, compared, of_texts

BASE = 31  # of the hash, a polynomial in it


class BagConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """hidden_size: d, the width of both tables. sep_token_id: the piece that ends a text. longest_ngram: at least 2."""

    model_type = "bag"

    vocab_size: int = 30522
    longest_ngram: int = 2
    ngram_buckets: int = 2**16
    hidden_size: int = 128
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    hidden_dropout_prob: float = 0.1
    piece_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    pad_token_id: int | None = 0
    sep_token_id: int | None = None


class WordPieces(nn.Embedding):
    """The table of pieces, [V, d]; the weight of each one, [V, 1]; the number it has in hashes, [V]."""

    codes: Tensor

    def __init__(self, pieces: int, width: int) -> None:
        super().__init__(pieces, width)
        self.log_weights = nn.Parameter(torch.zeros(pieces, 1))
        self.register_buffer("codes", scattered(torch.arange(pieces)))


class BagPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """How weights begin: rows of variance 1, n-grams and weights at 0, Glorot's for matrices."""

    config_class = BagConfig
    base_model_prefix = "bag"
    _input_embed_layer = "word_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, WordPieces):
            nn.init.normal_(module.weight)
            nn.init.zeros_(module.log_weights)
            module.codes.copy_(scattered(torch.arange(module.num_embeddings)))
        elif isinstance(module, nn.Embedding):
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


class BagModel(BagPreTrainedModel):
    """The vectors of the first and of the second text, [B, 2, d]."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.word_embeddings = WordPieces(config.vocab_size, config.hidden_size)
        self.ngram_embeddings = nn.Embedding(config.ngram_buckets, config.hidden_size)
        self.dropout = nn.Dropout(config.piece_dropout_prob)  # of whole pieces and n-grams
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pieces = self.word_embeddings
        codes, weights = pieces.codes[input_ids], pieces.log_weights[input_ids, 0].exp()
        inside = of_texts(input_ids, mask, self.config.sep_token_id).to(weights.dtype)
        grams, whole = ngrams(codes, inside, self.config.longest_ngram, self.config.ngram_buckets)
        sums = self.dropout(inside * weights[:, None]) @ pieces(input_ids)
        sums = sums + self.dropout(whole) @ self.ngram_embeddings(grams)
        return BaseModelOutput(last_hidden_state=sums / inside.sum(dim=-1, keepdim=True).clamp(min=1))


class BagForSequenceClassification(BagPreTrainedModel):
    """Logits per text or pair, [B, C]."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.bag = BagModel(config)
        self.classifier = ReluHead(config, 4 * config.hidden_size, config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SequenceClassifierOutput:
        vectors = self.bag(input_ids, attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(compared(vectors)))


def ngrams(codes: Tensor, inside: Tensor, longest: int, buckets: int) -> tuple[Tensor, Tensor]:
    """The buckets [B, K·L] of all n-grams, each at its last piece, and where they lie whole in a text, [B, 2, K·L].

    codes    [B, L] of the pieces
    inside   [B, 2, L], 1 where a piece belongs to a text
    """
    grams, whole, hashes, reach = [], [], codes, inside
    for length in range(2, longest + 1):
        before = length - 1
        hashes = hashes + BASE**before * pad(codes, (before, 0))[..., :-before]
        reach = reach * pad(inside, (before, 0))[..., :-before]
        grams.append(hashes % buckets)
        whole.append(reach)
    return torch.cat(grams, dim=-1), torch.cat(whole, dim=-1)


def scattered(numbers: Tensor) -> Tensor:
    """Numbers below 2³¹, one for each, in which nothing is left of their order: MurmurHash3's last steps."""
    bits = numbers * 0x9E3779B1 % 2**31
    bits = (bits ^ (bits >> 15)) * 0x5BD1E995 % 2**31
    return bits ^ (bits >> 13)


HEADS: dict[str, type[BagPreTrainedModel]] = {"SequenceClassification": BagForSequenceClassification}
"""The models by what stands on them (TaskKind.head)."""
