"""The contenders of step.py and epoch.py: whole training steps, each a function of one batch.

A step is: teacher forward, student forward (dropout on), losses, backward, fused AdamW, zero_grad, in float32 but for
a bf16 teacher (autocast). Each trains its own copy of the student.
The reference approach runs plain transformers models with eager attention, of which it keeps the scores computed
there, and the cost stage of reference_approach.py.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from reference_approach import LayerWeights, layer_loss
from textbrewer_peer import INSTALLED, LEARNING_RATE, LOSSES, eager_copy, our_objective, textbrewer_step
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
)
from transformers.masking_utils import eager_mask

from emdistill.losses import Objective
from emdistill.mapping import EmdMapping
from emdistill.methods.bert_emd import bert_emd
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.encoder import encoder_shape
from emdistill.models.teacher import Teacher, TeacherSource
from emdistill.states import EncoderStates
from emdistill.students.fresh import fresh_student
from emdistill.training.trainer import StudentWithObjective

Inputs = Mapping[str, Tensor]
Step = Callable[[Inputs], object]

FIRST_WORD = 1000  # below it the vocabulary has its special tokens


def models(short: bool) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Teacher and student with random weights; with `short`, of a size that only shows that it runs."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 1024}
    teacher = BertForSequenceClassification(BertConfig(**sizes if short else {}, num_labels=2)).eval()
    shape = {"layers": 2, "width": 128, "heads": 8} if short else {"layers": 4, "width": 312}
    return teacher, fresh_student(teacher, **shape, labels=("no", "yes"))


class OurStep:
    """emdistill's step as its trainer takes it: compiled costs, only the teacher's layers that the losses read, and
    float32 products by oneDNN, or by MKL as PyTorch takes them (`mkl`).
    """

    def __init__(self, teach: TeacherSource, student: PreTrainedModel, objective: Objective, mkl: bool = False) -> None:
        self.teach = teach
        self.arithmetic = nullcontext if mkl else fast_float32
        self.model = StudentWithObjective(copy.deepcopy(student), copy.deepcopy(objective)).train()
        for loss in self.model.objective.layer_losses():
            loss.compiled = True
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)

    def __call__(self, inputs: Inputs) -> Tensor:
        with self.arithmetic():
            loss, _ = self.model(inputs, self.teacher_states(inputs))
            loss.backward()
        self.update()
        return loss.detach()

    def teacher_states(self, inputs: Inputs) -> EncoderStates:
        objective = self.model.objective
        return self.teach(inputs, objective.needs, objective.teacher_layers)

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def stages(self, inputs: Inputs) -> dict[str, float]:
        """Seconds of each part of one step."""
        with self.arithmetic():
            return self._stages(inputs)

    def _stages(self, inputs: Inputs) -> dict[str, float]:
        marks = [time.perf_counter()]

        def mark(*_: object) -> None:
            marks.append(time.perf_counter())

        teacher = self.teacher_states(inputs)
        mark()
        hook = self.model.objective.register_forward_pre_hook(mark)
        loss, _ = self.model(inputs, teacher)
        mark()
        hook.remove()
        loss.backward()
        mark()
        self.update()
        mark()
        names = ("teacher forward", "student forward", "losses and solve", "backward", "optimizer")
        return {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}


class EagerScores:
    """transformers' eager attention, which also keeps the scores it computes, mask values added."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept: list[Tensor] = []
        AttentionInterface.register(name, self)
        AttentionMaskInterface.register(name, eager_mask)

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        scores = torch.matmul(query, key.transpose(2, 3)) * options["scaling"]
        scores = scores if mask is None else scores + mask
        self.kept.append(scores)
        shares = functional.dropout(scores.softmax(dim=-1), options["dropout"], module.training)
        return torch.matmul(shares, value).transpose(1, 2).contiguous(), None

    def forward(self, model: PreTrainedModel, inputs: Inputs) -> tuple[Tensor, tuple[Tensor, ...], list[Tensor]]:
        """Logits, embeddings and hidden states, scores."""
        self.kept = []
        outputs = model(**without_row(inputs), output_hidden_states=True)
        return outputs.logits, outputs.hidden_states, self.kept


class ReferenceStep:
    """A step of the reference approach, on copies of both models; one projection for all layers, as released."""

    def __init__(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        self.teacher_scores, self.student_scores = EagerScores("reference teacher"), EagerScores("reference student")
        self.teacher = eager_copy(teacher, self.teacher_scores.name).eval()
        self.student = eager_copy(student, self.student_scores.name).train()
        self.project = nn.Linear(student.config.hidden_size, teacher.config.hidden_size)
        self.weights = LayerWeights.uniform(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        parameters = [*self.student.parameters(), *self.project.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

    def __call__(self, inputs: Inputs) -> None:
        with torch.no_grad():
            teacher_logits, teacher_hidden, teacher_scores = self.teacher_scores.forward(self.teacher, inputs)
        logits, hidden, scores = self.student_scores.forward(self.student, inputs)
        projected = [self.project(states) for states in hidden]
        loss = layer_loss(scores, teacher_scores, "scores", self.weights)
        loss = loss + layer_loss(projected[1:], teacher_hidden[1:], "hidden", self.weights)
        self.weights.advance()
        loss = loss + functional.mse_loss(projected[0], teacher_hidden[0])
        loss = loss + functional.cross_entropy(logits, teacher_logits.softmax(dim=-1))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def emd_objective(student: PreTrainedModel, teacher: PreTrainedModel) -> Objective:
    """BERT-EMD's joint objective; its projection is drawn from the generator as it stands."""
    return bert_emd(encoder_shape(student), encoder_shape(teacher))[0].objective


def our_steps(teacher: PreTrainedModel, student: PreTrainedModel, cache: TeacherSource) -> dict[str, OurStep]:
    """BERT-EMD with a live teacher, with one in bf16, and with its states read from `cache`."""
    teachers = {
        "ours": Teacher(teacher),
        "ours, bf16 teacher": Teacher(teacher, dtype=torch.bfloat16),
        "ours, cached teacher": cache,
    }
    objective = emd_objective(student, teacher)
    steps = {name: OurStep(teach, student, objective) for name, teach in teachers.items()}
    return {**steps, "ours, MKL": OurStep(Teacher(teacher), student, objective, mkl=True)}


def peer_steps(teacher: PreTrainedModel, student: PreTrainedModel) -> dict[str, Step]:
    """TextBrewer and ours with each set of losses; nothing where TextBrewer is not installed."""
    if not INSTALLED:
        print("TextBrewer is left out; it is had by: pip install --no-deps textbrewer==0.2.1.post1")
        return {}
    steps: dict[str, Step] = {}
    for losses in LOSSES:
        theirs = textbrewer_step(teacher, student, losses)
        steps[f"TextBrewer, {losses}"] = lambda inputs, theirs=theirs: theirs(without_row(inputs))
        objective = our_objective(losses, student, teacher)
        steps[f"ours, {losses}"] = OurStep(Teacher(teacher), student, objective)
        steps[f"ours, {losses}, MKL"] = OurStep(Teacher(teacher), student, objective, mkl=True)
    return steps


def without_row(inputs: Inputs) -> dict[str, Tensor]:
    """What a plain model takes: no example numbers, no labels."""
    return {name: value for name, value in inputs.items() if name not in ("row", "labels")}


def random_batch(batch: int, length: int, vocabulary: int, shortest: int | None = None) -> dict[str, Tensor]:
    """Random words; with `shortest`, sentences of random lengths from it to `length`, padded."""
    lengths = torch.full((batch, 1), length) if shortest is None else torch.randint(shortest, length + 1, (batch, 1))
    mask = (torch.arange(length) < lengths).long()
    words = torch.randint(FIRST_WORD, vocabulary, (batch, length)) * mask
    return {"input_ids": words, "attention_mask": mask, "row": torch.arange(batch)}


class PlainStep:
    """BERT-EMD written out: every pair by itself, autograd through all, no operation of our own but the transport."""

    def __init__(self, teacher: Teacher, student: PreTrainedModel, objective: Objective) -> None:
        self.teacher = teacher
        self.student = copy.deepcopy(student).train()
        self.needs = objective.needs
        self.weights = objective.weights
        self.project = copy.deepcopy(objective.projection)
        self.mapping = EmdMapping(encoder_shape(student).layers, teacher.shape.layers)
        parameters = [*self.student.parameters(), *self.project.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

    def __call__(self, inputs: Inputs) -> Tensor:
        teacher = self.teacher(inputs, self.needs)
        student = self.project(capture(self.student, inputs, self.needs))
        token = student.mask.bool()[:, :, None]
        both = (token & token.mT)[:, None]
        costs = {
            "attention_scores": pair_costs(student.attention_scores, teacher.attention_scores, both),
            "hidden_states": pair_costs(student.hidden, teacher.hidden, token),
        }
        flows = self.mapping(torch.stack(list(costs.values())).detach())
        terms = {name: (flow * costs[name]).sum() for name, flow in zip(costs, flows, strict=True)}
        terms["embeddings"] = pair_costs([student.embeddings], [teacher.embeddings], token)[0, 0]
        terms["soft_targets"] = functional.cross_entropy(student.logits, teacher.logits.softmax(dim=-1))
        loss = sum(weight * terms[name] for name, weight in self.weights.items())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def pair_costs(students: Sequence[Tensor], teachers: Sequence[Tensor], valid: Tensor) -> Tensor:
    """The mean squared difference of every pair over valid entries, [M, N]."""
    rows = []
    for student in students:
        differences = [(student - teacher)[valid.expand_as(student)] for teacher in teachers]
        rows.append(torch.stack([difference.square().mean() for difference in differences]))
    return torch.stack(rows)
