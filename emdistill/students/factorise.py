"""Factorised embeddings: narrow tables and one matrix, in place of tables as wide as the layers.

    BERT:     LN_d(e)·γ + β,  e = w + p + t     rows of its word, position and token-type tables, d wide
    ALBERT:   LN_R(x)·C + β                     x the sum of such rows of tables R wide,  C [R, d]

LayerNorm removes the mean over the units, so the rows e may be centred. With V [d, R-1] orthonormal directions, and
Q [R, R-1] orthonormal columns that sum to 0 each,

    x = √(R/d)·e V Qᵀ,    C = √(d/R)·Q Vᵀ diag(γ)    give    LN_R(x)·C + β = LN_d(e V Vᵀ)·γ + β

for x has mean 0 and the variance of e V Vᵀ, so that even the LayerNorms' ε agree. It is BERT but for what e loses
outside V: nothing at R = d, for centred rows have at most d-1 directions. V are the main directions of the tokens read,
S = Σ e eᵀ over the sample, and to a lesser part of the tables' rows, T:

    V = the R-1 leading eigenvectors of  S / tr S + TABLES_SHARE · T / tr T

Without a sample it is the singular value decomposition of the stacked tables, most of whose words hardly ever occur.

In all else an ALBERT whose layers share no weights is BERT without the dropout behind the feed-forward layers, so the
student is a stock transformers model.

Sources: the form is ALBERT's (Lan et al., ICLR 2020, section 3.1); a decomposition weighted by the inputs that occur is
DRONE's (Chen et al., NeurIPS 2021).
"""

import math
from collections.abc import Mapping, Sequence

import torch
import transformers
from torch import Tensor, nn
from transformers import AlbertConfig, BertConfig, PreTrainedModel

from emdistill.errors import ConfigError
from emdistill.models.encoder import encoder_layers
from emdistill.models.families import family_of
from emdistill.students.importance import token_mask

TABLES_SHARE = 0.1  # of 0.01 to 3, tried on students of MRPC, STS-B and SST-2; below 0.3 it matters little
CLASSES: dict[type[PreTrainedModel], type[PreTrainedModel]] = {
    transformers.BertForSequenceClassification: transformers.AlbertForSequenceClassification,
    transformers.BertForTokenClassification: transformers.AlbertForTokenClassification,
    transformers.BertForQuestionAnswering: transformers.AlbertForQuestionAnswering,
    transformers.BertForMaskedLM: transformers.AlbertForMaskedLM,
    transformers.BertModel: transformers.AlbertModel,
}
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def factorise_embeddings(
    student: PreTrainedModel, rank: int, sample: Sequence[Mapping[str, Tensor]] = (), *, seed: int = 0
) -> PreTrainedModel:
    """The same encoder with embedding tables of width `rank` and a matrix behind them (see the head of this file).

    student   a BERT: classifier of texts or words, one of spans, masked-LM or bare encoder; it stays as it was
    rank      R, from 2 to the student's width d: R numbers per word instead of d
    sample    batches of the tokenizer's tensors, [B, L]; without them all words count alike
    seed      of the fresh weights: the layers between a masked-LM's last states and its narrow words
    Random tables, as of fresh weights, give random tables and a random orthogonal matrix.
    Raises ConfigError for another family and a rank out of range.
    """
    check_factorisable(student, rank)
    albert = _fresh_albert(student, rank, seed)
    with torch.no_grad():
        _fill_embeddings(albert, student, sample)
        _fill_layers_and_head(albert, student)
    albert.train(student.training)
    return albert


def check_factorisable(student: PreTrainedModel, rank: int) -> None:
    """Raise ConfigError unless the encoder is a BERT whose tables can be `rank` wide."""
    if type(student) not in CLASSES:
        raise ConfigError(
            f"--embedding-rank {rank}: the embeddings of this {type(student).__name__} cannot be factorised, only "
            f"those of the family bert ({', '.join(kind.__name__ for kind in CLASSES)}); leave the option out"
        )
    width = student.config.hidden_size
    if not 2 <= rank <= width:
        raise ConfigError(
            f"--embedding-rank {rank}: the embedding tables of a student of width {width} can be 2 to {width} wide; "
            f"try {max(2, width // 4)}"
        )


def _fresh_albert(student: PreTrainedModel, rank: int, seed: int) -> PreTrainedModel:
    """An ALBERT of the student's kind and sizes, no layer shared; torch's random state stays."""
    bert = student.config
    of_bert_alone = BertConfig().to_dict().keys() - AlbertConfig().to_dict().keys()
    left_out = {*of_bert_alone, "model_type", "architectures", "transformers_version"}
    dropout = bert.hidden_dropout_prob if bert.classifier_dropout is None else bert.classifier_dropout
    config = AlbertConfig(
        **{name: value for name, value in bert.to_dict().items() if name not in left_out},
        embedding_size=rank,
        num_hidden_groups=bert.num_hidden_layers,
        inner_group_num=1,
        classifier_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(student, transformers.BertModel) and student.pooler is None:
            return transformers.AlbertModel(config, add_pooling_layer=False)
        return CLASSES[type(student)](config)


def _fill_embeddings(albert: PreTrainedModel, student: PreTrainedModel, sample: Sequence[Mapping[str, Tensor]]) -> None:
    """The narrow tables x and the matrix C; their LayerNorm scales by 1 and adds 0, as a fresh ALBERT's."""
    rank, width = albert.config.embedding_size, student.config.hidden_size
    wide = student.base_model.get_submodule("embeddings")
    narrow = albert.base_model.get_submodule("embeddings")
    tables = [wide.get_parameter(f"{name}.weight").double() for name in TABLES]
    tables = [table - table.mean(dim=1, keepdim=True) for table in tables]
    basis = math.sqrt(width / rank) * _principal_directions(tables, sample, rank - 1) @ _zero_sum_basis(rank).T
    for name, table in zip(TABLES, tables, strict=True):
        narrow.get_parameter(f"{name}.weight").copy_(table @ basis * (rank / width))
    mapping = albert.base_model.get_submodule("encoder.embedding_hidden_mapping_in")
    mapping.get_parameter("weight").copy_(wide.get_parameter("LayerNorm.weight")[:, None] * basis)
    mapping.get_parameter("bias").copy_(wide.get_parameter("LayerNorm.bias"))


def _fill_layers_and_head(albert: PreTrainedModel, student: PreTrainedModel) -> None:
    """All that both families have: the layers, the pooler, a classifier; of a masked-LM's head the words' biases."""
    bert_layer, albert_layer = family_of(student).layer, family_of(albert).layer
    assert bert_layer is not None
    assert albert_layer is not None
    for wide, narrow in zip(encoder_layers(student), encoder_layers(albert), strict=True):
        for of_bert, of_albert in zip(bert_layer.roles, albert_layer.roles, strict=True):
            _copy(wide.get_submodule(of_bert), narrow.get_submodule(of_albert))
    if student.base_model.pooler is not None:
        _copy(student.base_model.get_submodule("pooler.dense"), albert.base_model.get_submodule("pooler"))
    if isinstance(student, transformers.BertForSequenceClassification | transformers.BertForTokenClassification):
        _copy(student.get_submodule("classifier"), albert.get_submodule("classifier"))
    if isinstance(student, transformers.BertForQuestionAnswering):
        _copy(student.get_submodule("qa_outputs"), albert.get_submodule("qa_outputs"))
    if isinstance(student, transformers.BertForMaskedLM):
        albert.get_parameter("predictions.bias").copy_(student.get_parameter("cls.predictions.bias"))


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def _principal_directions(tables: Sequence[Tensor], sample: Sequence[Mapping[str, Tensor]], count: int) -> Tensor:
    """The leading directions of the sample's tokens and the tables' rows, orthonormal columns, [d, count]."""
    moment = _second_moment(torch.cat(list(tables)))
    if sample:
        read = _second_moment(torch.cat([_sums_of_rows(tables, batch) for batch in sample]))
        moment = read + TABLES_SHARE * moment
    vectors: Tensor = torch.linalg.eigh(moment).eigenvectors  # eigenvalues come in increasing order
    return vectors[:, -count:]


def _second_moment(rows: Tensor) -> Tensor:
    """Σ e eᵀ over the rows e, of trace 1, [d, d]."""
    moment = rows.T @ rows
    return moment / moment.trace()


def _sums_of_rows(tables: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """e = w + p + t of every token of a batch, [tokens, d]."""
    words, positions, types = tables
    tokens = batch["input_ids"].to(words.device)
    segments = batch.get("token_type_ids", torch.zeros_like(tokens)).to(words.device)
    sums = words[tokens] + positions[: tokens.shape[1]] + types[segments]
    return sums[token_mask(batch).to(words.device).bool()]


def _zero_sum_basis(rank: int) -> Tensor:
    """Orthonormal columns that sum to 0 each, [R, R-1]."""
    with_ones = torch.eye(rank, dtype=torch.float64)
    with_ones[:, 0] = 1
    columns: Tensor = torch.linalg.qr(with_ones).Q
    return columns[:, 1:]
