"""Operators of a chain against plain loops in float64, and what the config says of them."""

import pytest
import torch
from messages import names
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForMaskedLM

from emdistill.errors import ConfigError
from emdistill.models import load_classifier, save_student
from emdistill.models.chain import ChainConfig, Convolution, make_operator, read_operators
from emdistill.models.encoder import load_encoder
from emdistill.models.masked_lm import has_masked_lm_head

LENGTHS = (7, 2)
WIDTH, HEADS = 8, 2
CONFIG = ChainConfig(hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=16, hidden_dropout_prob=0.0)


def operator(name: str) -> Convolution:
    torch.manual_seed(0)
    made = make_operator(name, CONFIG).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    assert isinstance(made, Convolution)
    return made


def around(module: torch.nn.Module, text: Tensor) -> Tensor:
    """The depthwise convolution of one text [L, d], token by token."""
    weight, bias = module.depthwise.weight.detach()[:, 0], module.depthwise.bias.detach()
    reach = weight.shape[1] // 2
    return torch.stack(
        [
            bias
            + sum(
                weight[:, place] * text[token + place - reach]
                for place in range(weight.shape[1])
                if 0 <= token + place - reach < len(text)
            )
            for token in range(len(text))
        ]
    )


def separable(branch: torch.nn.Module, text: Tensor) -> Tensor:
    return functional.gelu(branch.dense(around(branch.around, text)))


def dynamic(branch: torch.nn.Module, text: Tensor) -> Tensor:
    values = branch.value(text) * torch.sigmoid(branch.gate(text))
    scores = branch.weights(branch.pointwise(around(branch.around, values)))
    reach, size = branch.kernel // 2, WIDTH // HEADS
    mixed = torch.zeros_like(values)
    for token in range(len(text)):
        for head in range(HEADS):
            shares = torch.softmax(scores[token, head * branch.kernel : (head + 1) * branch.kernel], dim=0)
            units = slice(head * size, (head + 1) * size)
            for place, share in enumerate(shares):
                if 0 <= (there := token + place - reach) < len(text):
                    mixed[token, units] += share * values[there, units]
    return branch.dense(mixed)


@pytest.mark.parametrize(("name", "branch"), [("c3", separable), ("c7", separable), ("d3", dynamic), ("d9", dynamic)])
@torch.no_grad()
def test_a_convolution_is_what_its_equation_says_of_each_text_alone(name: str, branch) -> None:
    made = operator(name)
    states = torch.randn(2, max(LENGTHS), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    states[~mask] = 1e6  # what padding holds is not seen
    found, _ = made(states, None, mask.long()[..., None])
    for row, length in enumerate(LENGTHS):
        text = states[row, :length]
        torch.testing.assert_close(found[row, :length], made.LayerNorm(text + branch(made.convolution, text)))


def test_operators_are_read_from_a_word() -> None:
    assert read_operators("afcd") == ["a", "f", "c3", "d9"]
    assert read_operators("c5d13a") == ["c5", "d13", "a"]
    for word in ("", "b", "a3", "a f", "ca-"):
        with names(ConfigError, repr(word)):
            read_operators(word)
    with names(ConfigError, "c4"):
        read_operators("ac4")


def test_a_config_counts_its_operators() -> None:
    assert ChainConfig(num_hidden_layers=3).operators == ["a", "f", "a"]
    assert ChainConfig(operators=["c3", "a"]).num_hidden_layers == 2
    again = ChainConfig.from_dict(ChainConfig(operators=["c3", "a"]).to_dict())
    assert (again.operators, again.num_hidden_layers) == (["c3", "a"], 2)


def test_heads_of_tags_and_of_words_are_stored_and_loaded(tiny_encoder, tiny_tokenizer, tmp_path) -> None:
    batch = dict(tiny_tokenizer(["a good movie", "bad"], padding=True, return_tensors="pt"))
    tagger = tiny_encoder("chain", operators=["a", "c3", "f"], labels=5, head="TokenClassification")
    save_student(tagger, tiny_tokenizer, tmp_path / "tags")
    assert torch.equal(load_classifier(tmp_path / "tags")(**batch).logits, tagger(**batch).logits)
    words = AutoModelForMaskedLM.from_config(tagger.config).eval()
    assert words.cls.predictions.decoder.weight is words.get_input_embeddings().weight
    save_student(words, tiny_tokenizer, tmp_path / "words")
    loaded = load_encoder(tmp_path / "words")
    assert has_masked_lm_head(loaded)
    assert torch.equal(loaded(**batch).logits, words(**batch).logits)
