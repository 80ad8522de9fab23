"""The views' loss against a float64 re-computation, answer by answer and view by view, in plain NumPy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from encoder_states import leaves, mapped, random_states, tensors, with_padding
from messages import names
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.losses import CrossView, HardLabels
from emdistill.losses.cross_view import VIEWS
from emdistill.states import EncoderShape, EncoderStates

SHAPE, TAGS = EncoderShape(2, 6, 0), 4
Batch = dict[str, Tensor]


def drawn(seed: int) -> tuple[CrossView, EncoderStates, EncoderStates, Batch]:
    """A loss, states of both and a batch of five texts: padded, of one to four answers each, some with labels."""
    draw = np.random.RandomState(seed)
    lengths = draw.randint(3, 9, size=5)
    mask = torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64))
    answers = [np.sort(draw.permutation(length)[: draw.randint(1, 5)]) for length in lengths]
    labelled = draw.rand(5) < 0.4
    labels = [
        draw.randint(TAGS, size=len(each)) if has else np.full(len(each), -100)
        for each, has in zip(answers, labelled, strict=True)
    ]
    count = sum(map(len, answers))
    student, teacher = (
        replace(
            random_states(SHAPE, mask, seed + place, vectors=0),
            logits=torch.from_numpy(draw.standard_normal((count, TAGS))),
        )
        for place in (0, 100)
    )
    width = max(map(len, answers))
    batch = {
        "answers": torch.tensor([[*each, *[-1] * (width - len(each))] for each in answers]),
        "labels": torch.tensor([[*each, *[-100] * (width - len(each))] for each in labels]),
    }
    torch.manual_seed(seed)
    return CrossView(SHAPE, TAGS).double(), student, teacher, batch


def again(
    loss: CrossView, student: EncoderStates, teacher: EncoderStates, batch: Batch, *, labelled: bool = False
) -> float:
    """The equation in loops."""
    first, last = (layer.detach().numpy() for layer in (student.hidden[0], student.hidden[-1]))
    half = first.shape[-1] // 2
    targets = [np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in teacher.logits.numpy()]
    places = [
        (row, int(place), int(label))
        for row, (own, tags) in enumerate(zip(batch["answers"], batch["labels"], strict=True))
        for place, label in zip(own, tags, strict=True)
        if place >= 0
    ]
    total = 0.0
    for view, shift in VIEWS.items():
        *inner, outer = [part for part in loss.views[view] if isinstance(part, torch.nn.Linear)]  # type: ignore[union-attr]
        for number, (row, place, label) in enumerate(places):
            target = number + shift
            if not 0 <= target < len(places) or places[target][0] != row or (label != -100 and not labelled):
                continue
            both, reads = first[row, place], {"forwards": slice(0, half), "future": slice(0, half)}
            state = (
                np.concatenate([both, last[row, place]]) if view == "full" else both[reads.get(view, slice(half, None))]
            )
            hidden = inner[0].weight.detach().numpy() @ state + inner[0].bias.detach().numpy()
            hidden = hidden if view == "full" else np.maximum(hidden, 0)
            z = outer.weight.detach().numpy() @ hidden + outer.bias.detach().numpy()
            total -= targets[target] @ (z - z.max() - np.log(np.exp(z - z.max()).sum()))
    return total / len(places)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_equation(seed: int) -> None:
    loss, *given = drawn(seed)
    (value,) = loss(*given).values()
    assert value.item() == pytest.approx(again(loss, *given), abs=1e-12)
    loss.labelled = True
    (every,) = loss(*given).values()
    assert every.item() == pytest.approx(again(loss, *given, labelled=True), abs=1e-12)
    assert every >= value


def test_a_text_with_one_answer_is_seen_by_three_views() -> None:
    loss, student, teacher, _ = drawn(1)
    student, teacher = (replace(states, logits=states.logits[:5]) for states in (student, teacher))
    labels = torch.tensor([0, -100, -100, 2, -100])
    (value,) = loss(student, teacher, {"labels": labels}).values()
    targets, total = teacher.logits.softmax(-1), 0.0
    for row in (1, 2, 4):
        tokens = student.mask[row].bool()
        first, last = (layer[row][tokens].amax(dim=0) for layer in student.hidden)
        for view, seen in {"full": torch.cat([first, last]), "forwards": first[:3], "backwards": first[3:]}.items():
            total -= (targets[row] @ loss.views[view](seen).log_softmax(-1)).item()
    assert value.item() == pytest.approx(total / 5, abs=1e-12)


def test_gradients_reach_the_student_and_the_views_but_no_teacher_and_no_padding() -> None:
    loss, student, teacher, batch = drawn(2)
    batch["labels"] = torch.full_like(batch["answers"], -100)
    student, teacher = leaves(student), leaves(teacher)
    loss(student, teacher, batch)["views"].backward()
    assert all(layer.grad.any() and layer.grad.isfinite().all() for layer in student.hidden)
    assert not any(layer.grad[student.mask == 0].any() for layer in student.hidden)
    assert all(any(weight.grad.any() for weight in view.parameters()) for view in loss.views.values())
    assert all(state.grad is None for state in tensors(teacher))
    for filler in (1e6, math.nan):
        spoiled = with_padding(student, filler)
        assert torch.equal(loss(spoiled, teacher, batch)["views"], loss(student, teacher, batch)["views"])


def test_it_is_a_mean_over_the_batch_and_nothing_where_all_have_labels() -> None:
    loss, student, teacher, batch = drawn(3)
    twice = [
        replace(mapped(states, lambda tensor: torch.cat([tensor, tensor])), mask=torch.cat([states.mask] * 2))
        for states in (student, teacher)
    ]
    doubled = {name: torch.cat([values, values]) for name, values in batch.items()}
    torch.testing.assert_close(loss(*twice, doubled)["views"], loss(student, teacher, batch)["views"])
    value = loss(student, teacher, batch | {"labels": torch.where(batch["answers"] >= 0, 1, -100)})["views"]
    value.backward()
    assert value == 0


def test_smoothed_labels() -> None:
    """(1 - ε) of a label lies on its class, ε on all of them alike; who has no label counts and adds nothing."""
    logits = torch.from_numpy(np.random.RandomState(0).standard_normal((4, TAGS)))
    labels, total = [1, -100, 3, 0], 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        norm = math.log(sum(map(math.exp, row)))
        shares = [0.1 / TAGS + 0.9 * (tag == label) for tag in range(TAGS)]
        total -= 0.0 if label < 0 else sum(share * (z - norm) for share, z in zip(shares, row, strict=True))
    states = EncoderStates(logits=logits, mask=torch.ones(4, 1))
    value = HardLabels(label_smoothing=0.1)(states, states, {"labels": torch.tensor(labels)})["hard_labels"]
    assert value.item() == pytest.approx(total / 4, abs=1e-12)
    with names(ConfigError, "--objective.label_smoothing", "1.0"):
        HardLabels(label_smoothing=1.0)


def test_what_cannot_be_seen_apart_is_refused() -> None:
    with names(ConfigError, "--student bilstm"):
        CrossView(EncoderShape(2, 6, 2), TAGS)
    with names(ConfigError, "'sideways'", *VIEWS):
        CrossView(SHAPE, TAGS, views=["full", "sideways"])
