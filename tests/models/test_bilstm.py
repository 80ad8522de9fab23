"""The BiLSTM against torch's own LSTM over packed texts, pairs apart, and the student that answers itself."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from emdistill.models import capture, load_classifier, load_tokenizer, save_student
from emdistill.models.bilstm import BiLstmConfig, BiLstmForSequenceClassification, BiLstmLayer, greatest
from emdistill.models.teacher import OwnAnswers

LENGTHS = torch.tensor([7, 1, 4])
MASK = (torch.arange(7) < LENGTHS[:, None]).long()
IDS = torch.randint(5, 90, (3, 7), generator=torch.Generator().manual_seed(0))
BATCH = {"input_ids": IDS * MASK, "attention_mask": MASK}


def test_layers_are_torchs_own_over_packed_texts(tiny_encoder) -> None:
    model = tiny_encoder("bilstm", layers=2, width=12, heads=0)
    states = capture(model, BATCH, {"embeddings", "hidden"})
    read = states.embeddings
    for layer, found in zip(model.bilstm.layers, states.hidden, strict=True):
        reference = nn.LSTM(12, 6, batch_first=True, bidirectional=True)
        for side, own in (("", layer.forwards), ("_reverse", layer.backwards)):
            reference.load_state_dict({name + side: value for name, value in own.state_dict().items()}, strict=False)
        packed = nn.utils.rnn.pack_padded_sequence(read, LENGTHS, batch_first=True, enforce_sorted=False)
        read, _ = nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
        torch.testing.assert_close(found[MASK.bool()], read[MASK.bool()])


def test_the_directions_of_the_first_layer_stand_apart(tiny_encoder) -> None:
    """What stands behind a token changes its second half alone, what stands before it its first half alone."""
    model = tiny_encoder("bilstm", layers=2, width=12, heads=0)
    other = BATCH["input_ids"].clone()
    other[0, 3] = 50 if other[0, 3] != 50 else 51
    before, after = (
        capture(model, BATCH | {"input_ids": ids}, {"hidden"}).hidden[0][0] for ids in (BATCH["input_ids"], other)
    )
    changed = before != after
    assert not changed[:3, :6].any()
    assert not changed[4:, 6:].any()
    assert changed[4:, :6].any(dim=-1).all()
    assert changed[:3, 6:].any(dim=-1).all()


def test_no_padding_is_the_greatest() -> None:
    states = torch.full((1, 3, 2), 9.0)
    states[0, :2] = torch.tensor([[-5.0, -1.0], [-2.0, -3.0]])
    assert greatest(states, torch.tensor([[1, 1, 0]])).tolist() == [[-2.0, -1.0]]


def test_a_head_of_tags_is_stored_and_loaded(tiny_encoder, tiny_tokenizer, tmp_path) -> None:
    model = tiny_encoder("bilstm", width=12, heads=0, labels=5, head="TokenClassification")
    save_student(model, tiny_tokenizer, tmp_path)
    loaded = load_classifier(tmp_path)
    assert type(loaded) is type(model)
    assert loaded(**BATCH).logits.shape == (3, 7, 5)
    assert torch.equal(loaded(**BATCH).logits, model(**BATCH).logits)
    texts = load_tokenizer(tmp_path)(["a good movie", "bad"], padding=True, return_tensors="pt")
    assert "token_type_ids" not in texts  # it has no table of them


def test_own_answers_are_those_of_use_and_of_now(tiny_encoder) -> None:
    student = tiny_encoder("bilstm", width=12, heads=0).train()
    teacher = OwnAnswers(student)
    expected = student.eval()(**BATCH).logits
    student.train()
    states = teacher(BATCH)
    torch.testing.assert_close(states.logits, expected)  # without gradients other kernels may run
    assert not states.logits.requires_grad
    assert all(module.training for module in student.modules())
    assert not torch.equal(capture(student, BATCH, ()).logits, expected)  # dropout
    with torch.no_grad():
        student.classifier.out_proj.bias.add_(1)
    torch.testing.assert_close(teacher(BATCH).logits, expected + 1)
    assert isinstance(student.bilstm.layers[0], BiLstmLayer)


@pytest.mark.usefixtures("onnx_operators_are_listed_once")
def test_a_tagger_answers_in_onnx_runtime_as_here(tiny_encoder, tmp_path) -> None:
    onnx = pytest.importorskip("emdistill.ship.onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = tiny_encoder("bilstm", layers=1, width=12, heads=0, labels=3, head="TokenClassification")
    onnx.export_onnx(model, tmp_path / "model.onnx")
    session = onnx.open_session(tmp_path / "model.onnx", threads=1)
    (output,) = session.get_outputs()
    assert not {2, 8} & set(output.shape[:2]), "batch and length are open, whatever the exporter's example was"
    found = onnx.session_logits(session, {name: value.numpy() for name, value in BATCH.items()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(**BATCH).logits.numpy(), atol=1e-5, rtol=0)


FIRST, SEPARATOR = 2, 3
A, B = [10, 11, 12, 11], [20, 21, 10]


def apart(**options: object) -> BiLstmForSequenceClassification:
    """A BiLSTM in float64 that encodes texts apart."""
    sizes = {"vocab_size": 40, "embedding_size": 5, "hidden_size": 8, "num_labels": 3}
    torch.manual_seed(0)
    config = BiLstmConfig(**sizes, cls_token_id=FIRST, sep_token_id=SEPARATOR, **options)
    return BiLstmForSequenceClassification(config).double().eval()


def rows(*texts: list[int]) -> dict[str, torch.Tensor]:
    longest = max(map(len, texts))
    return {
        "input_ids": torch.tensor([text + [0] * (longest - len(text)) for text in texts]),
        "attention_mask": torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts]),
    }


def vector(model: BiLstmForSequenceClassification, pieces: list[int]) -> torch.Tensor:
    """[2d]: torch's LSTMs over the pieces of one text and nothing else, in both directions."""
    if not pieces:
        return torch.zeros(16).double()
    bilstm = model.bilstm
    states, layers = bilstm.embedding_projection(bilstm.embedding_norm(bilstm.word_embeddings.weight[pieces])), []
    for layer in bilstm.layers:
        read = torch.cat([states, states.new_zeros(len(pieces), 1)], dim=-1)
        states = torch.cat([layer.forwards(read)[0], layer.backwards(read.flip(0))[0].flip(0)], dim=-1)
        layers.append(states)
    return torch.cat(layers, dim=-1).amax(dim=0).clamp(min=0)


def test_texts_of_a_pair_are_encoded_as_if_alone() -> None:
    model = apart()
    pairs = {
        (FIRST, *A, SEPARATOR, *B, SEPARATOR): (A, B),
        (FIRST, *B, SEPARATOR, SEPARATOR, *A, SEPARATOR): (B, A),  # as RoBERTa writes pairs
        (FIRST, *A, SEPARATOR, *A, SEPARATOR): (A, A),
        (FIRST, *B, SEPARATOR): (B, []),
        (FIRST, SEPARATOR): ([], []),
    }
    expected = []
    for first, second in pairs.values():
        u, v = vector(model, first), vector(model, second)
        expected.append(model.classifier(torch.cat([u, v, (u - v).abs(), u * v])))
    found = model(**rows(*map(list, pairs))).logits
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)


def test_shut_gates_stay_shut() -> None:
    """No step changes the weights that shut them, and special tokens have the state 0 in every layer."""
    model = apart().train()
    fixed = [lstm.weight_ih_l0[:, -1].clone() for lstm in model.modules() if isinstance(lstm, nn.LSTM)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    batch = rows([FIRST, *A, SEPARATOR, *B, SEPARATOR], [FIRST, *B, SEPARATOR])
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch).logits, torch.tensor([0, 2])).backward()
        optimizer.step()
    now = [lstm.weight_ih_l0[:, -1] for lstm in model.modules() if isinstance(lstm, nn.LSTM)]
    assert all(torch.equal(before, after) for before, after in zip(fixed, now, strict=True))
    special = (batch["input_ids"] == FIRST) | (batch["input_ids"] == SEPARATOR)
    for states in capture(model, batch, {"hidden"}).hidden:
        assert not states[special].any()
        assert states[~special & (batch["attention_mask"] != 0)].all()


def test_a_config_of_before_reads_a_pair_as_one_text(tiny_tokenizer, tmp_path) -> None:
    torch.manual_seed(0)
    model = BiLstmForSequenceClassification(BiLstmConfig(vocab_size=90, embedding_size=5, hidden_size=8)).eval()
    save_student(model, tiny_tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if name not in ("cls_token_id", "sep_token_id")})
    )
    loaded, pair = load_classifier(tmp_path), rows([FIRST, *A, SEPARATOR, *B, SEPARATOR])
    hidden = loaded.bilstm(**pair).hidden_states
    whole = torch.cat([hidden[1], hidden[-1]], dim=-1).amax(dim=1)
    torch.testing.assert_close(loaded(**pair).logits, model.classifier(whole))
    assert loaded.classifier.dense.in_features == 16


@pytest.mark.usefixtures("onnx_operators_are_listed_once")
def test_pairs_are_answered_in_onnx_runtime_as_here(tmp_path) -> None:
    onnx = pytest.importorskip("emdistill.ship.onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    more = {"num_hidden_layers": 1, "max_position_embeddings": 32}  # a second layer takes long to trace
    model = apart(**more, problem_type="single_label_classification").float()
    onnx.export_onnx(model, tmp_path / "model.onnx")
    session = onnx.open_session(tmp_path / "model.onnx", threads=1)
    batch = rows([FIRST, *A, SEPARATOR, *B, SEPARATOR], [FIRST, *B, SEPARATOR], [FIRST, SEPARATOR])
    found = onnx.session_logits(session, {name: value.numpy() for name, value in batch.items()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(**batch).logits.numpy(), atol=1e-5, rtol=0)
