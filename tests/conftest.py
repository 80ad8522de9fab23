"""Tiny random models for all tests: `tiny_encoder(family, ...)` makes one, `tiny_tokenizer` reads any ASCII text."""

import gc
import os
import string
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
import transformers
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from emdistill.ship import latency
from emdistill.states import SEQUENCE

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "a", "good", "bad", "movie", "book", "was", "is", "not", "very", "it", "and", "of", "to", "in")
CHARACTERS = string.ascii_lowercase + string.digits
VOCABULARY = (
    *SPECIAL_TOKENS,
    *string.punctuation,
    *CHARACTERS,
    *(f"##{character}" for character in CHARACTERS),
    *(word for word in WORDS if len(word) > 1),
)
POSITIONS = 128
# What makes a family what it is, where its config's defaults do not.
OF_A_FAMILY: dict[str, dict[str, object]] = {
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
    "modernbert": {"local_attention": 8},
    "mobilebert": {
        "embedding_size": 24,
        "intra_bottleneck_size": 16,
        "num_feedforward_networks": 2,
        "initializer_range": 0.1,  # nothing keeps its states small
    },
}


def make_tokenizer(vocabulary: tuple[str, ...] = VOCABULARY) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer in BERT's manner: [CLS] a [SEP] b [SEP]."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    wordpiece = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=POSITIONS - 2,  # RoBERTa spends two positions on padding
    )


def make_encoder(
    family: str = "bert",
    *,
    layers: int = 2,
    width: int = 32,
    heads: int = 4,
    labels: int = 2,
    seed: int = 0,
    head: str = SEQUENCE,
    **options: object,
) -> PreTrainedModel:
    """A random classifier in eval mode; `options` go to its config. labels=1 makes a regression model."""
    shared = {
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": POSITIONS,
        "num_labels": labels,
        "problem_type": "regression" if labels == 1 else "single_label_classification",
        "pad_token_id": 0,
        "initializer_range": 0.2,  # large enough for attention to differ between tokens
    }
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
    }
    if family == "bert":
        config = BertConfig(**shared | sizes | options)
    elif family == "roberta":
        config = RobertaConfig(**shared | sizes | {"type_vocab_size": 2} | options)
    elif family == "electra":
        config = ElectraConfig(**shared | sizes | {"embedding_size": width // 2} | options)
    elif family == "distilbert":
        sizes = {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": 2 * width}
        config = DistilBertConfig(**shared | sizes | options)
    else:
        config = AutoConfig.for_model(family, **shared | sizes | OF_A_FAMILY.get(family, {}) | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto_class = getattr(transformers, f"AutoModelFor{head}")
        return auto_class.from_config(config).eval()  # type: ignore[no-any-return]


@pytest.fixture(autouse=True, scope="module")
def _imports_are_no_garbage() -> None:
    """Every training collects garbage, two thirds of its time where that goes through all that imports have left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and one thread adds in one order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_hub() -> Iterator[None]:
    """Tests have no network, and ask for none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(autouse=True, scope="session")
def _short_turns() -> Iterator[None]:
    """Tiny models would be called hundreds of times until a turn is as long as it should be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "LEAST_TURN", 0.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What is written whole is flushed to the disk, milliseconds a file; no power fails here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def onnx_operators_are_listed_once() -> Iterator[None]:
    """For tests that trace graphs: the exporter lists the operators of ONNX anew for each, a fifth of its time."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # a later PyTorch
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)), raising=False)
        yield


@pytest.fixture(scope="session")
def tiny_encoder() -> Callable[..., PreTrainedModel]:
    """Factory: tiny_encoder("bert", layers=2, width=32, heads=4, labels=2, seed=0), or another family."""
    return make_encoder


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer over VOCABULARY with BERT's special tokens; its ids fit every tiny_encoder."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_factory() -> Callable[..., PreTrainedTokenizerFast]:
    """Factory: tokenizer_factory(vocabulary) for tokenizers that differ from tiny_tokenizer."""
    return make_tokenizer
