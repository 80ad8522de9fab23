"""Cross-view training: views that see a part of a text learn what the whole of it is answered with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emdistill.errors import ConfigError
from emdistill.losses.loss import Loss, logits_of
from emdistill.models.bilstm import first_and_last, greatest
from emdistill.processes import shared_count
from emdistill.states import ANSWERS, NO_ANSWER, NO_CLASS, EncoderShape, EncoderStates, labels_of_answers

# View -> how many answers further on the answer stands that it is to give.
VIEWS = {"full": 0, "forwards": 0, "backwards": 0, "future": 1, "past": -1}


class CrossView(Loss):
    """Σ_v Σ_a CE(softmax(z^teacher_{a+s(v)}), view_v(a)) / A, over the answers a of rows without labels; A are all.

    full       [h^1; h^N], both directions of the first and the last layer
    forwards   →h^1, which has read the text up to the word's first piece; backwards  ←h^1, from there to the end
    future     →h^1, for the next word: s = 1;                             past       ←h^1, for the one before: s = -1
    A view is W_2 · relu(W_1 · states), `full` without the relu. There is no target beyond a row's first and last word.
    A text with one answer has no neighbours; of it, views read the units' greatest values over the tokens.
    student    the shape of a BiLSTM (models/bilstm.py)
    outputs    the width of the logits
    labelled   whether views learn from rows with labels too
    Raises ConfigError for an unknown view, and for a student with attention, whose states have seen both sides.
    Source: Clark et al., EMNLP 2018, section 3; the heads as in the released code.
    """

    own_needs = frozenset({"hidden"})
    predicts = True

    def __init__(
        self, student: EncoderShape, outputs: int, *, views: Sequence[str] = tuple(VIEWS), labelled: bool = False
    ) -> None:
        super().__init__()
        if student.heads:
            raise ConfigError(
                "cross-view training reads apart what a student has seen from the left and from the right, and one "
                "with attention sees both at once; take a BiLSTM: --student bilstm"
            )
        if unknown := sorted(set(views) - VIEWS.keys()):
            raise ConfigError(f"there is no view {unknown[0]!r}; the views are {', '.join(VIEWS)}")
        half = student.width // 2
        self.views = nn.ModuleDict({view: _head(view, half, outputs) for view in views})
        self.labelled = labelled

    def forward(self, student: EncoderStates, teacher: EncoderStates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        states, rows = _states_of_answers(student, batch)
        targets = logits_of(teacher).detach().softmax(dim=-1)
        learned = torch.ones_like(rows, dtype=torch.bool) if self.labelled else labels_of_answers(batch) == NO_CLASS
        total = targets.new_zeros(())
        for view, head in self.views.items():
            answers, targeted = _targets(rows, VIEWS[view])
            answers, targeted = answers[learned[targeted]], targeted[learned[targeted]]
            log_predictions = head(_seen(view, states[answers])).log_softmax(dim=-1)
            total = total - (targets[targeted] * log_predictions).sum()
        return {"views": total / shared_count(targets.new_tensor(len(targets)))}

    def extra_repr(self) -> str:
        return "labelled rows too" if self.labelled else ""


def _head(view: str, half: int, outputs: int) -> nn.Module:
    hidden = nn.Linear(4 * half if view == "full" else half, half)
    between = [] if view == "full" else [nn.ReLU()]
    return nn.Sequential(hidden, *between, nn.Linear(half, outputs))


def _states_of_answers(student: EncoderStates, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """[A, 2d] of the first layer and the last, and the row of each answer, [A]."""
    states = first_and_last(student.hidden)
    if ANSWERS not in batch:
        return greatest(states, student.mask), torch.arange(len(states), device=states.device)
    answers = batch[ANSWERS]
    rows, places = (answers != NO_ANSWER).nonzero(as_tuple=True)
    return states[rows, answers[rows, places]], rows


def _seen(view: str, states: Tensor) -> Tensor:
    """What a view reads of [→h^1; ←h^1; h^N]."""
    half = states.shape[-1] // 4
    if view == "full":
        return states
    return states[:, :half] if view in ("forwards", "future") else states[:, half : 2 * half]


def _targets(rows: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """The answers that have one of the same row `shift` further on, and that one."""
    answers = torch.arange(len(rows), device=rows.device)
    targeted = answers + shift
    inside = (targeted >= 0) & (targeted < len(rows))
    answers, targeted = answers[inside], targeted[inside]
    same = rows[answers] == rows[targeted]
    return answers[same], targeted[same]
