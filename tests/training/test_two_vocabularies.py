"""Teacher and student with a tokenizer each: what stands in a batch, and whole trainings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from byte_pairs import byte_pair_tokenizer
from datasets import Dataset
from messages import names
from training_runs import AtStep, CountingTeacher, assert_same_outcome, make_examples
from transformers import PreTrainedTokenizer

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.errors import TokenizerError
from emdistill.losses import HiddenStateCosts, LayerLoss, Objective
from emdistill.mapping import EmdMapping
from emdistill.models.capture import capture
from emdistill.models.teacher_cache import TeacherCache
from emdistill.training import Stage
from emdistill.training.lesson import Lesson, prove
from emdistill.training.projections import fit_projections
from emdistill.training.run_stages import Interrupted
from emdistill.training.stage_arguments import stage_arguments
from emdistill.training.stage_teachers import stage_teachers
from emdistill.training.two_vocabularies import (
    TwoPartCollator,
    check_can_meet,
    collator_for_both,
    teacher_examples,
    teachers_own,
    tokenise_for_both,
)

PAIRS = Dataset.from_dict(
    {
        "text": ["A good movie", "it was not a very goodish book, and", ""],
        "text_pair": ["is it?", "bad", "the moviebook"],
        "label": [1, 0, 1],
    }
)
STUDENTS = {"input_ids", "attention_mask", "token_type_ids", "words"}
TEACHERS = {"teacher_input_ids", "teacher_attention_mask", "teacher_words"}


class Slow(PreTrainedTokenizer):
    """A tokenizer in Python: it does not say where its tokens are."""

    vocab_size = 30

    def get_vocab(self) -> dict[str, int]:
        return {chr(97 + number): number for number in range(26)} | dict(self.added_tokens_encoder)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [letter for letter in text.lower() if letter.isalpha()]

    def _convert_token_to_id(self, token: str) -> int:
        return (ord(token) - 97) % 26


def slow_tokenizer() -> Slow:
    return Slow(pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture
def with_types(tiny_tokenizer):
    """A tokenizer that tells the texts of a pair apart by token types, as BERT's does."""
    tiny_tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tiny_tokenizer


def test_tokenizers_that_read_alike_are_one(tiny_tokenizer, tokenizer_factory):
    assert teachers_own(tiny_tokenizer, tokenizer_factory()) is None
    other = byte_pair_tokenizer()
    assert teachers_own(other, tiny_tokenizer) is other
    assert tokenise_for_both(PAIRS, tiny_tokenizer, 20).to_dict() == tokenise(PAIRS, tiny_tokenizer, 20).to_dict()
    assert isinstance(collator_for_both(tiny_tokenizer, None), PaddingCollator)


def test_a_teacher_that_reads_no_token_types_has_a_part_of_its_own(with_types, tokenizer_factory):
    without_types = tokenizer_factory()
    assert teachers_own(without_types, with_types) is without_types


@pytest.mark.parametrize("max_length", [64, 8])
def test_each_part_is_what_its_tokenizer_makes_of_the_text(with_types, max_length: int):
    readers = with_types, byte_pair_tokenizer()
    both = tokenise_for_both(PAIRS, readers[0], max_length, readers[1])
    own, others = (tokenise(PAIRS, reader, max_length) for reader in readers)
    assert {*both.column_names} == STUDENTS | TEACHERS | {"labels", "length"}
    for name in own.column_names:
        assert name == "length" or both[name] == own[name]
    part = teacher_examples(both)
    assert all(part[name] == others[name] for name in ("input_ids", "attention_mask"))
    assert teacher_examples(own) is own
    assert both["length"] == [max(lengths) for lengths in zip(own["length"], others["length"], strict=True)]
    for row in both:
        assert len(row["words"]) == len(row["input_ids"]) <= max_length
        assert len(row["teacher_words"]) == len(row["teacher_input_ids"]) <= max_length
        assert {*row["words"]} - {-1} == {*row["teacher_words"]} - {-1} == {*range(max(row["words"]) + 1)}
        assert (row["words"][0], row["teacher_words"][0]) == (0, 0)
        assert row["words"][-1] == row["teacher_words"][-1] == max(row["words"])
    apart = [
        reader.decode([id])
        for reader, side in zip(readers, ("", "teacher_"), strict=True)
        for row in both
        for id, word in zip(row[f"{side}input_ids"], row[f"{side}words"], strict=True)
        if word < 0
    ]
    assert " " in apart
    assert bool("".join(apart).strip()) == (max_length == 8)  # the end of a text that the other one has cut shorter


@pytest.mark.parametrize("sides", [("right", "right"), ("left", "right"), ("right", "left")])
def test_both_parts_of_a_batch_are_padded(with_types, sides: tuple[str, str]):
    readers = with_types, byte_pair_tokenizer()
    rows = tokenise_for_both(PAIRS, readers[0], 64, readers[1]).remove_columns("length").to_list()
    for reader, side in zip(readers, sides, strict=True):
        reader.padding_side = side
    batch = TwoPartCollator(*readers)([{**row, "row": number} for number, row in enumerate(rows)])
    assert batch.keys() == STUDENTS | TEACHERS | {"labels", "row"}
    assert batch["labels"].tolist() == [1, 0, 1]
    for prefix, side in zip(("", "teacher_"), sides, strict=True):
        ids, mask, words = (batch[prefix + name] for name in ("input_ids", "attention_mask", "words"))
        assert ids.shape == mask.shape == words.shape
        assert (mask == 0).any()
        assert (words[mask == 0] == -1).all()
        assert (mask[0, -1] == 0) == (side == "right")
        for row, of_row, tokens in zip(rows, words, mask != 0, strict=True):
            assert of_row[tokens].tolist() == row[prefix + "words"]
    alone = tokenise(PAIRS, with_types, 64).remove_columns("length").to_list()
    assert TwoPartCollator(*readers)(alone).keys() == STUDENTS - {"words"} | {"labels"}


def test_the_same_tokenizer_twice_trains_as_if_it_were_one(new_run, finished_run):
    twice = new_run(max_steps=4)
    twice.teacher_tokenizer = twice.tokenizer
    twice.go()
    for stage, again in zip(finished_run(max_steps=4).log, twice.log, strict=True):
        for line, line_again in zip(stage["log"], again["log"], strict=True):
            terms = {name: value for name, value in line.items() if name.startswith(("terms/", "loss"))}
            assert terms == pytest.approx({name: line_again[name] for name in terms}, rel=1e-5)


EVERY_KIND = dict.fromkeys(("cosine", "nst", "fsp", "attention_ce", "attention_kl", "embeddings"), 1.0)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("bert-emd", {}),
        ("minilm", {"relation_heads": 2}),
        ("patient-kd", {}),
        ("distilbert", {}),
        ("soft-targets", {}),
        ("matched-layers", EVERY_KIND),
    ],
)
def test_every_method_trains_on_states_at_words(new_run, method: str, options: dict[str, Any]):
    run = new_run(method=method, objective=options, two_vocabularies=True, max_steps=2)
    first: dict[str, set[int]] = {}
    for side, model in (("student", run.student), ("teacher", run.teacher.model)):
        ids_of = first.setdefault(side, set())
        model.register_forward_pre_hook(
            lambda _, __, inputs, ids_of=ids_of: ids_of.update(inputs["input_ids"][:, 0].tolist()), with_kwargs=True
        )
    (stage,) = run.go()
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in stage["log"] if "loss" in line)
    assert first == {"student": {run.tokenizer.cls_token_id}, "teacher": {run.teacher_tokenizer.cls_token_id}}


@pytest.mark.parametrize("options", [{}, {"cache": "states"}, {"method": "soft-targets", "cache": "logits"}])
def test_a_run_of_two_vocabularies_is_resumed_as_if_uninterrupted(new_run, finished_run, options: dict[str, Any]):
    run = new_run(two_vocabularies=True, **options)
    with pytest.raises(Interrupted):
        run.go(AtStep(7))
    again = new_run(two_vocabularies=True, **options)
    again.go(resume=True)
    assert_same_outcome(finished_run(two_vocabularies=True, **options), again)


def test_the_accelerators_order_trains_the_same_student(new_run, finished_run, asynchronous):
    asynchronous()
    run = new_run(two_vocabularies=True)
    run.go()
    assert_same_outcome(finished_run(two_vocabularies=True), run)


def test_cached_states_are_those_of_the_teachers_tokens(new_run, tmp_path: Path):
    run = new_run(two_vocabularies=True, cache="states")
    (cache,) = stage_teachers(
        run.stages, run.teacher, run.train, run.teacher_tokenizer, cache="states", folder=tmp_path
    )
    assert isinstance(cache, TeacherCache)
    rows = run.train.add_column("row", list(range(len(run.train)))).remove_columns("length").select([3, 9, 4]).to_list()
    batch = TwoPartCollator(run.tokenizer, run.teacher_tokenizer)(rows)
    needs = run.stages[0].objective.needs
    computed, read = run.teacher(batch, needs), cache(batch, needs)
    assert torch.equal(read.mask, batch["teacher_attention_mask"])
    torch.testing.assert_close(read.logits, computed.logits)
    tokens = read.mask != 0
    for one, other in zip(read.hidden, computed.hidden, strict=True):
        torch.testing.assert_close(one[tokens].float(), other[tokens], rtol=2e-3, atol=2e-3)


def test_a_step_is_proven_and_projections_are_fitted_at_words(new_run):
    run = new_run(two_vocabularies=True)
    arguments = [stage_arguments(run.stages[0], run.settings, folder=run.folder, choose=False, metric="", seed=1)]
    own = run.teacher_tokenizer
    prove(Lesson(run.student, run.tokenizer, run.stages, arguments, run.train, run.teacher, teacher_tokenizer=own))
    rows = run.train.remove_columns("length").to_list()
    batch = TwoPartCollator(run.tokenizer, own)(rows)

    def hidden_cost() -> float:
        objective = run.stages[0].objective
        with torch.no_grad():
            student = capture(run.student.eval(), batch, objective.needs)
            return objective(student, run.teacher(batch, objective.needs), batch)[1]["hidden_states"].item()

    before = hidden_cost()
    fit_projections(run.stages, run.student, run.teacher, lambda: [batch])
    assert hidden_cost() < before


def test_where_a_tokenizer_gives_no_places_answers_alone_carry_over(tiny_tokenizer):
    slow = slow_tokenizer()
    layers = Stage("layers", Objective([LayerLoss([HiddenStateCosts()], EmdMapping(1, 1))], {"hidden_states": 1.0}))
    for pair, side in (((tiny_tokenizer, slow), "teacher"), ((slow, tiny_tokenizer), "student")):
        with names(TokenizerError, f"{side}'s", "Slow", "layers", "--method soft-targets"):
            check_can_meet([layers], *pair)
    check_can_meet([layers], tiny_tokenizer, None)
    both = tokenise_for_both(make_examples(), slow, 20, tiny_tokenizer)
    assert not {"words", "teacher_words"} & {*both.column_names}
    batch = TwoPartCollator(slow, tiny_tokenizer)(both.remove_columns("length").select(range(3)).to_list())
    assert batch["input_ids"].shape != batch["teacher_input_ids"].shape


def test_soft_targets_need_no_places(new_run):
    run = new_run(method="soft-targets", two_vocabularies=True, max_steps=1)
    run.tokenizer = slow_tokenizer()
    check_can_meet(run.stages, run.tokenizer, run.teacher_tokenizer)
    assert isinstance(run.teacher, CountingTeacher)
    run.go()
    assert run.teacher.sentences() == 8
