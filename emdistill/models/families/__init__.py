"""FAMILIES: one value per model family, by its config's `model_type`. A new family is a file and a line here."""

from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.errors import CaptureError, ModelError
from emdistill.models.families.albert import ALBERT
from emdistill.models.families.bag import BAG
from emdistill.models.families.bert import BERT
from emdistill.models.families.bilstm import BILSTM
from emdistill.models.families.chain import CHAIN
from emdistill.models.families.deberta_v2 import DEBERTA_V2
from emdistill.models.families.distilbert import DISTILBERT
from emdistill.models.families.electra import ELECTRA
from emdistill.models.families.family import Family
from emdistill.models.families.mobilebert import MOBILEBERT
from emdistill.models.families.modernbert import MODERNBERT
from emdistill.models.families.mpnet import MPNET
from emdistill.models.families.roberta import ROBERTA

FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "mpnet": MPNET,
    "albert": ALBERT,
    "deberta-v2": DEBERTA_V2,
    "modernbert": MODERNBERT,
    "mobilebert": MOBILEBERT,
    "bilstm": BILSTM,
    "bag": BAG,
    "chain": CHAIN,
}


class Capability(NamedTuple):
    """Something that a family carries or not: its name in messages, the mend where it is missing, the error."""

    what: str
    mend: str
    error: type[ModelError] = ModelError


CAPABILITIES = {
    "hidden": Capability(
        "teach or learn by hidden states",
        "switch these losses off: --objective.hidden_states 0 --objective.embeddings 0; or take a method without them: "
        "--method soft-targets",
        CaptureError,
    ),
    "attention": Capability(
        "teach or learn by attention scores, queries, keys and values",
        "switch these losses off: --objective.attention_scores 0; or take a method without them: --method soft-targets",
        CaptureError,
    ),
    "keep": Capability("give a student some of its layers", "name a pretrained student: --student DIR"),
    "cut": Capability(
        "have a student cut out of it",
        "keep whole layers (--student 3), or start from fresh weights: --student-birth fresh",
    ),
    "fresh": Capability("have a student of another shape", "name a pretrained student: --student DIR"),
    "export": Capability(
        "be exported to ONNX", f"distil it into a student of a family that can: {', '.join(FAMILIES)}"
    ),
}


def family_of(model: PreTrainedModel | PreTrainedConfig) -> Family:
    """The model's family; of an unknown one, a value that carries logits and hidden states alone."""
    config = model.config if isinstance(model, PreTrainedModel) else model
    unknown = f"its modules are not known (those of {', '.join(FAMILIES)} are)"
    return FAMILIES.get(config.model_type) or Family(
        config.model_type, without={name: unknown for name in CAPABILITIES if name != "hidden"}
    )


def require(model: PreTrainedModel | PreTrainedConfig, *capabilities: str) -> Family:
    """The model's family; raises ModelError, or CaptureError for states, where it lacks one of these CAPABILITIES."""
    family = family_of(model)
    config = model.config if isinstance(model, PreTrainedModel) else model
    for name in capabilities:
        if name in family.without:
            capability = CAPABILITIES[name]
            raise capability.error(
                f"this {config.model_type!r} model cannot {capability.what}: {family.without[name]}; {capability.mend}"
            )
    return family
