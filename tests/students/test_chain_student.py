"""How a chain is born: from which layers, what convolutions do at first, and what it learns from which layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names
from transformers import AutoModelForMaskedLM, PreTrainedModel

from emdistill.errors import ConfigError, ModelError
from emdistill.mapping import MappingAmong, write_mapping
from emdistill.methods import METHODS
from emdistill.models import Teacher, capture, encoder_layers, encoder_shape, fingerprint
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.states import NOTHING, WORDS
from emdistill.students import make_student

LABELS = ("bad", "good")


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """The model with no LayerNorm at its beginning."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def batch(tiny_tokenizer) -> dict[str, torch.Tensor]:
    texts = tiny_tokenizer(["a good movie, was it", "bad"], padding=True, return_tensors="pt")
    return {"input_ids": texts["input_ids"], "attention_mask": texts["attention_mask"], "labels": torch.tensor([1, 0])}


def test_halves_in_turn_are_the_layers(tiny_encoder, tiny_tokenizer, batch) -> None:
    """Bit for bit, whatever BERT's kin calls its parts; the states after feed-forward are those after the layers."""
    for family in ("bert", "roberta", "camembert"):
        teacher = stirred(tiny_encoder(family, layers=6))
        kept, chain = (make_student(spec, teacher, tiny_tokenizer, labels=LABELS)[0] for spec in ("3", "chain:afafaf"))
        expected, found = (capture(model.eval(), batch, {"hidden", "attention"}) for model in (kept, chain))
        assert torch.equal(found.logits, expected.logits)
        tokens = batch["attention_mask"].bool()  # the positions of RoBERTa's padding are others
        for own, layer in zip(found.hidden[1::2], expected.hidden, strict=True):
            assert torch.equal(own[tokens], layer[tokens])
        assert [scores is None for scores in found.attention_scores] == [False, True] * 3
        assert torch.equal(found.attention_scores[2][0], expected.attention_scores[1][0])


@pytest.mark.parametrize("family", ["bert", "roberta", "camembert"])
def test_heads_come_along(tiny_encoder, tiny_tokenizer, batch, family) -> None:
    words = stirred(AutoModelForMaskedLM.from_config(tiny_encoder(family, layers=4).config).eval())
    kept, chain = (make_student(spec, words, tiny_tokenizer, predictions=WORDS)[0] for spec in ("2", "chain:afaf"))
    assert has_masked_lm_head(chain)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    tokens = batch["attention_mask"].bool()  # the positions of RoBERTa's padding are others
    assert torch.equal(chain.eval()(**inputs).logits[tokens], kept.eval()(**inputs).logits[tokens])
    bare, _ = make_student("chain:afaf", words.base_model, tiny_tokenizer, predictions=NOTHING)
    assert torch.equal(bare.eval()(**inputs)[0][tokens], kept.base_model(**inputs)[0][tokens])


def test_convolutions_do_next_to_nothing_at_first(tiny_encoder, tiny_tokenizer, batch) -> None:
    teacher = stirred(tiny_encoder(layers=3))
    plain, chain = (
        make_student(spec, teacher, tiny_tokenizer, labels=LABELS)[0].eval()
        for spec in ("chain:afafaf", "chain:dafc5afafc")
    )
    difference = chain(**batch).logits - plain(**batch).logits
    assert 0 < difference.abs().max() < 0.1 * plain(**batch).logits.abs().max()
    chain(**batch).logits.square().sum().backward()
    for place in (0, 3, 8):
        assert encoder_layers(chain)[place].convolution.dense.weight.grad.any()


def test_the_seed_decides_what_is_drawn(tiny_encoder, tiny_tokenizer) -> None:
    teacher, random_state = tiny_encoder(layers=2), torch.get_rng_state()
    for spec, birth, width in (("chain:ac", "importance", 32), ("chain:acx24", "fresh", 24)):
        options: dict[str, Any] = {"labels": LABELS, "birth": birth}
        student, again, other = (
            make_student(spec, teacher, tiny_tokenizer, seed=seed, **options)[0] for seed in (1, 1, 2)
        )
        assert fingerprint(again) == fingerprint(student) != fingerprint(other)
        assert encoder_shape(student).width == width
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_narrower_chain_is_of_what_is_cut_out(tiny_encoder, tiny_tokenizer, batch) -> None:
    teacher = stirred(tiny_encoder(layers=2))
    options: dict[str, Any] = {"labels": LABELS, "sample": lambda _: [batch]}
    cut, chain = (make_student(spec, teacher, tiny_tokenizer, **options)[0] for spec in ("2x24", "chain:afafx24"))
    assert torch.equal(chain.eval()(**batch).logits, cut.eval()(**batch).logits)


def test_what_cannot_be_is_refused(tiny_encoder, tiny_tokenizer, tmp_path) -> None:
    with names(ModelError, "'electra'", "--student-source", "--student-birth fresh"):
        make_student("chain:af", tiny_encoder("electra"), tiny_tokenizer, labels=LABELS)
    make_student("chain:af", tiny_encoder("electra"), tiny_tokenizer, labels=LABELS, birth="fresh")
    with names(ConfigError, "c2"):
        make_student("chain:ac2", tiny_encoder(), tiny_tokenizer, labels=LABELS)
    with names(ConfigError, "--student-source"):
        make_student("chain:acx24", tiny_encoder(), tiny_tokenizer, labels=LABELS, source=tmp_path)


SETTINGS = {"matched-layers": {"attention_kl": 1.0, "attention_scores": 1.0}}


@pytest.mark.parametrize("method", sorted({*METHODS} - {"cross-view"}))  # which is of BiLSTMs
def test_methods_teach_every_operator(method: str, tiny_encoder, tiny_tokenizer, batch) -> None:
    """Seven operators, four of which have no attention, of a teacher of three layers; no weights at their beginning."""
    teacher = Teacher(tiny_encoder(layers=3))
    student, _ = make_student("chain:dafcfaf", teacher.model, tiny_tokenizer, labels=LABELS)
    student = stirred(student)
    stages = METHODS[method](encoder_shape(student), teacher.shape, **SETTINGS.get(method, {}))
    for stage in stages:
        objective = stage.objective
        own = capture(student, batch, objective.student_needs, objective.student_layers)
        total, terms = objective(own, teacher(batch, objective.needs, objective.teacher_layers), batch)
        assert torch.isfinite(total)
        assert all(term > 0 for term in terms.values())
        total.backward()
    assert all(weight.grad is not None for weight in encoder_layers(student)[0].parameters())
    for stage in stages:
        for name, loss, flow in stage.objective.flows():
            assert flow.shape == (7, 3)
            if name.startswith(("attention", "relations")):
                assert isinstance(loss.mapping, MappingAmong) or method == "mobilebert"  # layer by layer
                assert not flow[[0, 2, 3, 4, 6]].any()


def test_emd_maps_every_operator_and_attention_among_those_that_attend(tiny_encoder, tiny_tokenizer, batch) -> None:
    teacher = Teacher(tiny_encoder(layers=3))
    student, _ = make_student("chain:dafcfaf", teacher.model, tiny_tokenizer, labels=LABELS)
    (stage,) = METHODS["bert-emd"](encoder_shape(student), teacher.shape)
    stage.objective(capture(student, batch, stage.objective.needs), teacher(batch, stage.objective.needs), batch)
    flows = {name: flow for name, _, flow in stage.objective.flows()}
    torch.testing.assert_close(flows["hidden_states"].sum(dim=1), torch.full((7,), 1 / 7))
    torch.testing.assert_close(flows["attention_scores"].sum(dim=0), torch.full((3,), 1 / 3))
    assert flows["attention_scores"][[1, 5]].sum(dim=1).tolist() == pytest.approx([0.5, 0.5])


def test_of_a_file_those_pairs_teach_attention_whose_layers_attend(tiny_encoder, tmp_path: Path) -> None:
    shape = encoder_shape(tiny_encoder("chain", operators=["a", "f", "c3", "a"]))
    write_mapping(tmp_path / "pairs.json", [(0, 0), (1, 0), (2, 1), (3, 2, 0.5)], 4, 3)
    stages = METHODS["tinybert"](shape, encoder_shape(tiny_encoder(layers=3)), mapping=str(tmp_path / "pairs.json"))
    attention, hidden = stages[0].objective.layer_losses()
    assert attention.mapping.pairs == ((0, 0), (3, 2))
    assert hidden.mapping.pairs == ((0, 0), (1, 0), (2, 1), (3, 2))


def test_where_nothing_attends_attention_is_refused(tiny_encoder) -> None:
    chain, bert = (encoder_shape(model) for model in (tiny_encoder("chain", operators=["f", "c3"]), tiny_encoder()))
    for sides in ((chain, bert), (bert, chain)):
        with names(ConfigError, "student" if sides[0] is chain else "teacher", "--objective.attention_scores 0"):
            METHODS["balanced"](*sides)
    METHODS["balanced"](chain, bert, attention_scores=0.0)
