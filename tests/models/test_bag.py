"""The bag against a plain reading of its equation in float64, pairs, the hash, and the graph that is shipped."""

import numpy as np
import pytest
import torch
from torch import Tensor

from emdistill.models import load_classifier, load_tokenizer, save_student
from emdistill.models.bag import BASE, BagConfig, BagForSequenceClassification, scattered
from emdistill.students import make_student

FIRST, SEPARATOR, PADDING, LONGEST = 2, 3, 0, 3
A, B = [10, 11, 12, 11], [20, 21, 10]
PAIR, ALONE, SHORT = [FIRST, *A, SEPARATOR, *B, SEPARATOR], [FIRST, *A, SEPARATOR], [FIRST]
OF_ROBERTA = [FIRST, *A, SEPARATOR, SEPARATOR, *B, SEPARATOR]
LABELS = ("bad", "good")


@pytest.fixture
def model() -> BagForSequenceClassification:
    """A bag in float64, no weight of which is at its beginning."""
    sizes = {"vocab_size": 40, "hidden_size": 6, "ngram_buckets": 64, "num_labels": 2}
    config = BagConfig(**sizes, longest_ngram=LONGEST, sep_token_id=SEPARATOR)
    torch.manual_seed(0)
    made = BagForSequenceClassification(config).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight))
    return made


def batch(*texts: list[int]) -> dict[str, Tensor]:
    longest = max(map(len, texts))
    return {
        "input_ids": torch.tensor([text + [PADDING] * (longest - len(text)) for text in texts]),
        "attention_mask": torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts]),
    }


def vector(model: BagForSequenceClassification, pieces: list[int]) -> Tensor:
    """The mean over one text, summand by summand."""
    table, grams = model.bag.word_embeddings, model.bag.ngram_embeddings.weight
    total = sum((table.log_weights[piece].exp() * table.weight[piece] for piece in pieces), torch.zeros(6).double())
    for length in range(2, LONGEST + 1):
        for start in range(len(pieces) - length + 1):
            gram = [int(table.codes[piece]) for piece in pieces[start : start + length]]
            total = total + grams[sum(code * BASE**place for place, code in enumerate(reversed(gram))) % 64]
    return total / max(1, len(pieces))


def answer(model: BagForSequenceClassification, first: list[int], second: list[int]) -> Tensor:
    u, v, head = vector(model, first), vector(model, second), model.classifier
    return head.out_proj(head.dense(torch.cat([u, v, (u - v).abs(), u * v])).relu())


def test_it_is_its_equation(model) -> None:
    expected = [
        answer(model, [FIRST, *A, SEPARATOR], [*B, SEPARATOR]),
        answer(model, ALONE, []),
        answer(model, SHORT, []),
        answer(model, [FIRST, *A, SEPARATOR], [SEPARATOR, *B, SEPARATOR]),
    ]
    found = model(**batch(PAIR, ALONE, SHORT, OF_ROBERTA)).logits
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_without_a_separator_all_is_one_text(model) -> None:
    model.config.sep_token_id = None
    torch.testing.assert_close(model(**batch(PAIR)).logits[0], answer(model, PAIR, []))


def test_order_matters_by_n_grams_alone(model) -> None:
    turned = [FIRST, *A[::-1], SEPARATOR]
    assert not torch.allclose(*model(**batch(ALONE, turned)).logits)
    with torch.no_grad():
        model.bag.ngram_embeddings.weight.zero_()
    torch.testing.assert_close(*model(**batch(ALONE, turned)).logits)


def test_n_grams_are_spread_evenly() -> None:
    """All pairs of 300 neighbouring ids over 2¹⁰ buckets: as even as if they were drawn (χ², five deviations)."""
    codes, buckets = scattered(torch.arange(1000, 1300)), 2**10
    assert len(codes.unique()) == 300
    counts = torch.bincount(((BASE * codes[:, None] + codes) % buckets).flatten(), minlength=buckets).double()
    even = counts.sum() / buckets
    assert (counts - even).square().sum() / even < buckets + 5 * (2 * buckets) ** 0.5


def test_pieces_are_dropped_in_training_alone(model) -> None:
    inputs = batch(PAIR)
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    model.classifier.dropout.p = 0.0
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_it_answers_in_onnx_runtime_as_here_and_nearly_so_in_int8(tiny_encoder, tiny_tokenizer, tmp_path) -> None:
    onnx = pytest.importorskip("emdistill.ship.onnx")
    quantize = pytest.importorskip("emdistill.ship.quantize")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    student, tokenizer = make_student("bag:32", tiny_encoder(width=32), tiny_tokenizer, labels=LABELS)
    student.eval()
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    onnx.export_onnx(student, tmp_path / "model.onnx")
    quantize.quantize_dynamic_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    pairs = tokenizer(["a good movie", "it"], ["not a bad book", "was very good"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = student(**pairs).logits.numpy()
    for name, tolerance in {"model.onnx": 1e-5, "int8.onnx": 0.2}.items():
        session = onnx.open_session(tmp_path / name, threads=1)
        found = onnx.session_logits(session, {key: value.numpy() for key, value in pairs.items()})
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)
    assert 3 * (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size


def test_it_is_stored_and_loaded(tiny_encoder, tiny_tokenizer, tmp_path) -> None:
    student, tokenizer = make_student("bag:8", tiny_encoder(), tiny_tokenizer, labels=LABELS)
    save_student(student, tokenizer, tmp_path)
    loaded = load_classifier(tmp_path)
    texts = load_tokenizer(tmp_path)(["a good movie", "bad"], padding=True, return_tensors="pt")
    assert type(loaded) is type(student)
    assert torch.equal(loaded.bag.word_embeddings.codes, student.bag.word_embeddings.codes)
    assert torch.equal(loaded(**texts).logits, student.eval()(**texts).logits)
