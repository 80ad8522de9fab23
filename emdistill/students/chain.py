"""A chain of operators as a student: halves of an encoder's layers, and convolutions that do nothing at first.

    operator i, the k-th of n of its kind  <-  that half of the encoder's layer ⌊k N / n⌋ − 1      (evenly spaced)
    a convolution gives 0 at first, and its LayerNorm  (γ, β) = (sqrt(mean γ'² + var β'), mean β')  of the one before

Behind a LayerNorm (γ', β') that is the identity, but for how much the variance of a token's state differs from the
mean. A chain af repeated is the encoder with those layers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from emdistill.errors import ModelError
from emdistill.models.chain import HEADS, ChainConfig, ChainModel, Convolution
from emdistill.models.encoder import encoder_layers
from emdistill.models.families import family_of
from emdistill.models.families.bert import BERT
from emdistill.models.inputs import first_position, longest_text, token_types
from emdistill.states import CLASSES, Predictions
from emdistill.students.shape import complete_shape, name_predictions, shape_of

GIVE_OPERATORS = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")  # their halves of a layer are BERT's
# The same modules under BERT's names, where another family calls them otherwise.
OF_BERT = {
    "classifier.dense": "pooler.dense",
    "classifier.out_proj": "classifier",
    "lm_head.dense": "cls.predictions.transform.dense",
    "lm_head.layer_norm": "cls.predictions.transform.LayerNorm",
    "lm_head.decoder": "cls.predictions.decoder",
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
    if not fresh and encoder.config.model_type not in GIVE_OPERATORS:
        raise ModelError(
            f"the layers of a {encoder.config.model_type!r} model are no operators of a chain: those of "
            f"{', '.join(GIVE_OPERATORS)} are; name such an encoder, --student-source DIR, or begin fresh, "
            "--student-birth fresh"
        )
    config = _config(encoder, operators, width)
    name_predictions(config, labels, predictions)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        student: PreTrainedModel
        if predictions.of_task:
            student = HEADS[predictions.head](config)
        else:
            student = ChainModel(config) if predictions.link is None else HEADS["MaskedLM"](config)
    if not fresh:
        with torch.no_grad():
            _take_what_is_outside(student, encoder)
            _take_operators(student, encoder)
            _begin_as_identity(student)
    return student


def _config(encoder: PreTrainedModel, operators: Sequence[str], width: int | None) -> ChainConfig:
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
    for name in ("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"):
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
    """The parameters outside the layers, by their names without the base model's."""
    family, prefix = family_of(model), f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        layer, below = family.place(name.removeprefix(prefix))
        if layer is None:
            yield below, parameter


def _take_operators(student: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """The k-th operator of its kind has the half of a layer that lies as deep among the encoder's."""
    layers, layer = encoder_layers(encoder), family_of(encoder).layer
    operators: list[str] = student.config.operators
    assert BERT.layer is not None
    assert layer is not None  # of all that GIVE_OPERATORS names
    roles = list(zip(BERT.layer.roles, layer.roles, strict=True))
    halves = {"a": roles[:5], "f": roles[5:]}
    for kind, modules in halves.items():
        own = [part for part, name in zip(encoder_layers(student), operators, strict=True) if name == kind]
        for number, operator in enumerate(own, start=1):
            source = layers[max(0, number * len(layers) // len(own) - 1)]
            for ours, theirs in modules:
                operator.get_submodule(ours).load_state_dict(source.get_submodule(theirs).state_dict())


def _begin_as_identity(student: PreTrainedModel) -> None:
    """Convolutions give 0, and their LayerNorms what comes in."""
    before: nn.Module = student.base_model.get_submodule("embeddings.LayerNorm")
    for operator in encoder_layers(student):
        norm = next(part for part in operator.modules() if isinstance(part, nn.LayerNorm))
        if isinstance(operator, Convolution):
            for parameter in operator.get_submodule("convolution.dense").parameters():
                parameter.zero_()
            scale, shift = before.get_parameter("weight"), before.get_parameter("bias")
            norm.weight.fill_((scale.square().mean() + shift.var(correction=0)).sqrt())
            norm.bias.fill_(shift.mean())
        before = norm
