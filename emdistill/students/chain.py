"""A chain of operators as a student: halves of an encoder's layers, and convolutions that do nothing at first.

    operator i, the k-th of n of its kind  <-  that half of the encoder's layer ⌊k N / n⌋ − 1      (evenly spaced)
                                               ⌈k N / n⌉ − 1 where they are more than the layers
    a convolution gives 0 at first, and its LayerNorm  (γ, β) = (sqrt(mean γ'² + var β'), mean β')  of the one before

Behind a LayerNorm (γ', β') that is the identity, but for how much the variance of a token's state differs from the
mean. A chain af repeated is the encoder with those layers.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from emdistill.errors import ModelError
from emdistill.models.chain import HEADS, ChainConfig, ChainModel, Convolution
from emdistill.models.encoder import encoder_layers
from emdistill.models.families import FAMILIES, family_of
from emdistill.models.families.bert import BERT
from emdistill.models.inputs import first_position, longest_text, token_types
from emdistill.states import CLASSES, Predictions
from emdistill.students.shape import complete_shape, drawn, shape_of

ATTENTION_ROLES = 5  # of Layer.roles, the first ones
# The same modules under BERT's names, where another family calls them otherwise.
OF_BERT = {
    "classifier.dense": "pooler.dense",
    "classifier.out_proj": "classifier",
    "lm_head.dense": "cls.predictions.transform.dense",
    "lm_head.layer_norm": "cls.predictions.transform.LayerNorm",
    "lm_head.decoder": "cls.predictions.decoder",
    "lm_head": "cls.predictions",
}


def chain_student(
    encoder: PreTrainedModel,
    operators: Sequence[str],
    width: int | None = None,
    *,
    labels: Sequence[str] = (),
    predictions: Predictions = CLASSES,
    fresh: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """These operators (read_operators) in order, with a head for the predictions, that read the encoder's tokens.

    width   of fresh operators; None: the encoder's
    fresh   whether all weights are drawn, and none taken from the encoder
    What the encoder does not give (a head of other outputs) is fresh. The same seed gives the same weights; torch's
    random state stays. Raises ModelError for an encoder whose layers are not BERT's, ConfigError for impossible sizes.
    """
    if not fresh:
        check_gives_operators(encoder)
    config = chain_config(encoder, operators, width)
    head = predictions.head if predictions.of_task else "MaskedLM"
    kind = ChainModel if predictions.link is None else HEADS[head]
    student = drawn(kind, config, labels, predictions, seed)
    if not fresh:
        with torch.no_grad():
            _take_what_is_outside(student, encoder)
            _take_operators(student, encoder)
            _begin_as_identity(student)
    return student


INSTEAD = "name such an encoder, --student-source DIR, or begin fresh, --student-birth fresh"


def check_gives_operators(encoder: PreTrainedModel, mend: str = INSTEAD) -> None:
    """Raise ModelError, with the mend, for an encoder whose layers are not BERT's."""
    if not family_of(encoder).gives_operators:
        names = [name for name, family in FAMILIES.items() if family.gives_operators]
        raise ModelError(
            f"the layers of a {encoder.config.model_type!r} model are no operators of a chain: those of "
            f"{', '.join(names)} are; {mend}"
        )


def chain_config(encoder: PreTrainedModel, operators: Sequence[str], width: int | None = None) -> ChainConfig:
    """These operators in the encoder's sizes, but for a width of their own; raises ConfigError for impossible ones."""
    own: Any = encoder.config
    shape = shape_of(own) if width is None else complete_shape(own, 1, width)
    config = ChainConfig(
        operators=list(operators),
        vocab_size=own.vocab_size,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=longest_text(encoder),
        type_vocab_size=max(1, token_types(own)),
        pad_token_id=own.pad_token_id,
    )
    dropout = "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"
    for name in ("hidden_act", "layer_norm_eps", *dropout):
        setattr(config, name, getattr(own, name, getattr(config, name)))
    return config


def _take_what_is_outside(student: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Embeddings, pooler and head, where the encoder has them in these sizes; of RoBERTa's positions those in use."""
    theirs = dict(_named_as_berts(encoder))
    positions = theirs["embeddings.position_embeddings.weight"]
    theirs["embeddings.position_embeddings.weight"] = positions[first_position(encoder) :]
    for name, parameter in _outside(student):
        if name in theirs and theirs[name].shape == parameter.shape:
            parameter.copy_(theirs[name])
        elif name == "embeddings.token_type_embeddings.weight":
            parameter.zero_()


def _named_as_berts(encoder: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in _outside(encoder):
        module, _, weight = name.rpartition(".")
        yield f"{OF_BERT.get(module, module)}.{weight}", parameter


def _outside(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The parameters outside the layers, by all their names, of tied ones too, without the base model's."""
    family, prefix = family_of(model), f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer, below = family.place(name.removeprefix(prefix))
        if layer is None:
            yield below, parameter


def _take_operators(student: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """The k-th operator of its kind has the half of a layer that lies as deep among the encoder's."""
    layers = encoder_layers(encoder)
    for kind in "af":
        own = [part for part, name in _named_operators(student) if name == kind]
        for number, operator in enumerate(own, start=1):
            depth = number * len(layers) / len(own)
            place = max(1, math.floor(depth)) if len(own) <= len(layers) else math.ceil(depth)
            take_half(operator, kind, encoder, layers[place - 1])


def take_half(operator: nn.Module, kind: str, encoder: PreTrainedModel, layer: nn.Module) -> None:
    """The weights of this half, a or f, of one of the encoder's layers."""
    theirs = family_of(encoder).layer
    assert BERT.layer is not None
    assert theirs is not None  # of all that give operators
    roles = list(zip(BERT.layer.roles, theirs.roles, strict=True))
    for own, name in roles[:ATTENTION_ROLES] if kind == "a" else roles[ATTENTION_ROLES:]:
        operator.get_submodule(own).load_state_dict(layer.get_submodule(name).state_dict())


def _begin_as_identity(student: PreTrainedModel) -> None:
    """Convolutions give 0, and their LayerNorms what comes in."""
    before = student.base_model.get_submodule("embeddings.LayerNorm")
    for operator, _ in _named_operators(student):
        if isinstance(operator, Convolution):
            begin_as_identity(operator, before)
        before = last_norm(operator)


@torch.no_grad()
def begin_as_identity(operator: Convolution, before: nn.Module) -> None:
    """A convolution that gives 0, and a LayerNorm of the scale and the mean of the one before it."""
    for parameter in operator.get_submodule("convolution.dense").parameters():
        parameter.zero_()
    scale, shift = before.get_parameter("weight"), before.get_parameter("bias")
    operator.LayerNorm.weight.fill_((scale.square().mean() + shift.var(correction=0)).sqrt())
    operator.LayerNorm.bias.fill_(shift.mean())


def last_norm(module: nn.Module) -> nn.Module:
    """The LayerNorm that a layer or an operator ends with."""
    return [part for part in module.modules() if isinstance(part, nn.LayerNorm)][-1]


def _named_operators(student: PreTrainedModel) -> list[tuple[nn.Module, str]]:
    config: Any = student.config
    return list(zip(encoder_layers(student), config.operators, strict=True))
