"""The supernet's losses against whole forward passes, what a step changes, and the chains that leave it."""

from typing import Any

import pytest
import torch
from messages import names

from emdistill.errors import TrainingError
from emdistill.models import Teacher, capture, encoder_layers, fingerprint
from emdistill.search.chains import candidates
from emdistill.search.supernet import BlockStates, Supernet, block_states, take_over, train
from emdistill.students import make_student

NAMES = ["a", "f", "c3", "d3"]


@pytest.fixture
def teacher(tiny_encoder) -> Teacher:
    model = tiny_encoder(layers=4)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Teacher(model)


@pytest.fixture
def batches(tiny_tokenizer) -> list[dict[str, torch.Tensor]]:
    texts = [["a good movie, was it", "bad"], ["it was a very good book"], ["the movie", "not of it"]]
    return [dict(tiny_tokenizer(own, padding=True, return_tensors="pt")) for own in texts]


def states_of(teacher: Teacher, supernet: Supernet, batches: Any) -> list[BlockStates]:
    return [block_states(teacher, supernet, batch) for batch in batches]


def test_it_is_born_as_the_teachers_blocks(teacher, batches) -> None:
    supernet = Supernet(teacher, NAMES, 2)
    assert (supernet.ends, supernet.places) == ([1, 3], [4, 4])
    for states in states_of(teacher, supernet, batches):
        for block in range(2):
            assert supernet.block_loss(block, ("a", "f", "a", "f"), states).detach() < 1e-10
            ends = supernet.block_loss(block, ("c3", "d3"), states).detach()
            nothing = supernet.error(block, states.states[block], states)
            assert ends == pytest.approx(float(nothing), rel=0.2)  # convolutions do next to nothing at first
    again = Supernet(teacher, NAMES, 2)
    assert fingerprint(again) == fingerprint(supernet) != fingerprint(Supernet(teacher, NAMES, 2, seed=1))


def test_the_mean_state_has_a_loss_of_one(teacher, batches) -> None:
    supernet = Supernet(teacher, NAMES, 2)
    (states,) = states_of(teacher, supernet, batches[:1])
    supernet.scale_by([states])
    for block in range(2):
        tokens = states.states[block + 1][states.mask.bool()]
        mean = tokens.mean(dim=0).expand_as(states.states[0])
        assert float(supernet.error(block, mean, states)) == pytest.approx(1, rel=1e-5)


def test_losses_with_what_is_alike_computed_once_are_those_of_each(teacher, batches) -> None:
    supernet = Supernet(teacher, NAMES, 2)
    states = states_of(teacher, supernet, batches)
    some = [name for place, name in enumerate(candidates(NAMES, 4)) if place % 7 == 0]
    losses = supernet.block_losses(1, some, states)
    for name in some:
        expected = sum(float(supernet.block_loss(1, name, batch).detach()) for batch in states) / len(states)
        assert losses[name] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_steps_teach_what_is_drawn_and_are_a_function_of_the_seed(teacher, batches) -> None:
    found = []
    for seed in ("1", "1", "2"):
        supernet = Supernet(teacher, NAMES, 2)
        optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        states = states_of(teacher, supernet, batches)
        before = supernet.block_losses(0, [("c3", "f")], states)[("c3", "f")]
        survivors = [[("c3", "f")], list(candidates(NAMES, 4))]
        untouched = fingerprint(supernet.operator(0, 0, "a"))
        for _ in range(8):
            losses = train(supernet, states, survivors, optimizer, schedule, seed)
        assert len(losses) == 2
        assert supernet.block_losses(0, [("c3", "f")], states)[("c3", "f")] < 0.9 * before
        assert fingerprint(supernet.operator(0, 0, "a")) == untouched
        found.append(fingerprint(supernet))
    assert found[0] == found[1] != found[2]


def test_a_loss_that_is_not_finite_stops_at_its_block(teacher, batches) -> None:
    supernet = Supernet(teacher, NAMES, 2)
    (states,) = states_of(teacher, supernet, batches[:1])
    states.states[2].fill_(float("nan"))  # behind the second block
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    before = fingerprint(supernet)
    with names(TrainingError, "block 2", "c3f", "step 1", "--learning-rate"):
        train(supernet, [states], [[("a",)], [("c3", "f")]], optimizer, schedule, "seed")
    assert fingerprint(supernet) == before


def test_a_chain_leaves_with_the_supernets_weights(teacher, batches, tiny_tokenizer) -> None:
    supernet = Supernet(teacher, NAMES, 2)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    blocks = (("c3", "f"), ("a", "f", "d3"))
    student, _ = make_student("chain:c3fafd3", teacher.model, tiny_tokenizer, labels=("a", "b"))
    take_over(student, supernet, blocks)
    (batch, *_), (states, *_) = batches, states_of(teacher, supernet, batches)
    hidden = capture(student.eval(), batch, {"hidden"}).hidden
    first = supernet.error(0, hidden[1], states)
    torch.testing.assert_close(first, supernet.block_loss(0, blocks[0], states))
    assert fingerprint(encoder_layers(student)[2]) == fingerprint(supernet.operator(1, 0, "a"))
    last = supernet.error(1, hidden[-1], states)
    assert supernet.end_error(blocks, [states]) == pytest.approx(float(last.detach()))
