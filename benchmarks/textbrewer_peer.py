"""The peer TextBrewer (0.2.1.post1 on PyPI, of 2021): one training step of its GeneralDistiller on today's models.

    pip install --no-deps textbrewer==0.2.1.post1
    python benchmarks/textbrewer_peer.py     # shows that both sides compute the same losses

Two sets of losses, the same on both sides: hidden states (projected, one W a layer) and attention of M pairs of layers
("uniform") or of all M·N ("all pairs"), embeddings, and the soft cross-entropy of the logits.

What had to be done to run it with transformers 5 and torch 2.13:
- Nothing in the package: it imports (numpy, torch, tensorboard, tqdm), with SyntaxWarnings when first compiled.
- A wrapper round each model, which asks for all hidden states and attention maps. The models must be of
  `attn_implementation="eager"`: `sdpa` gives an empty tuple of attentions, and TextBrewer then an IndexError.
- An adaptor that names logits, hidden, attention and inputs_mask. Attention maps are probabilities there, after the
  student's dropout; ours are scores before the softmax: other values, the same shapes and the same arithmetic.
- Batches as plain dicts: a BatchEncoding is taken for a sequence and the models are called with its keys.
- device="cpu" (the default is cuda), output_dir (its default, ./saved_models, is made by the constructor), and
  ckpt_frequency=0, because its loops pickle the student at their checkpoints, in any case at the end of `num_steps`.
- Its projections are one Linear a match: 48 for all pairs, each computed. They are put into the student's wrapper here,
  one a layer as on our side, which is the best that can be done for it; and `train` can then be called again and again
  (it adds projections of its own to the optimizer anew each time, which the second call may not).
- A step is `train` with one batch as its data and one epoch, its progress bar switched off: teacher forward, student
  forward, losses, `write_loss` without a writer, backward, optimizer. What is left around it is below a millisecond.
"""

import copy
import io
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from measure import arguments, print_table, save
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from emdistill.losses import (
    AttentionScoreCosts,
    EmbeddingLoss,
    HiddenStateCosts,
    LayerLoss,
    Objective,
    Projection,
    SoftTargets,
)
from emdistill.mapping import FixedMapping, uniform_mapping
from emdistill.models.capture import capture
from emdistill.models.encoder import encoder_shape
from emdistill.students.fresh import fresh_student

LOSSES = ("uniform", "all pairs")
INSTALLED = find_spec("textbrewer") is not None
LEARNING_RATE = 5e-5

Batch = Mapping[str, Tensor]


def mapping_of(losses: str, students: int, teachers: int) -> FixedMapping:
    """M pairs of weight 1, or all M·N of weight 1 / (M·N)."""
    if losses == "uniform":
        return uniform_mapping(students, teachers)
    return FixedMapping(torch.full((students, teachers), 1 / (students * teachers)))


def our_objective(losses: str, student: PreTrainedModel, teacher: PreTrainedModel, seed: int = 0) -> Objective:
    """The losses as emdistill composes them; the projections are drawn from `seed`."""
    shapes = encoder_shape(student), encoder_shape(teacher)
    mapping = mapping_of(losses, shapes[0].layers, shapes[1].layers)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        projection = Projection(*shapes, "per_layer")
    terms = dict.fromkeys(("attention_scores", "hidden_states", "embeddings", "soft_targets"), 1.0)
    layers = LayerLoss([AttentionScoreCosts(), HiddenStateCosts()], mapping)
    return Objective([layers, EmbeddingLoss(), SoftTargets()], terms, projection)


def eager_copy(model: PreTrainedModel, implementation: str = "eager") -> PreTrainedModel:
    """The same weights with another attention implementation."""
    model = copy.deepcopy(model)
    model.set_attn_implementation(implementation)
    return model


class PeerModel(nn.Module):
    """A model as TextBrewer calls it, with what its adaptor passes on; the student's states are projected."""

    def __init__(self, model: PreTrainedModel, projections: nn.ModuleList | None = None) -> None:
        super().__init__()
        self.model = eager_copy(model)
        self.projections = projections

    def forward(self, **batch: Tensor) -> dict[str, Any]:
        outputs = self.model(**batch, output_hidden_states=True, output_attentions=True)
        hidden = outputs.hidden_states
        if self.projections is not None:
            hidden = [project(states) for project, states in zip(self.projections, hidden, strict=True)]
        return {"logits": outputs.logits, "hidden": hidden, "attention": outputs.attentions}


def peers(contenders: Collection[str]) -> dict[str, str]:
    """Of these contenders: ours -> the one of TextBrewer that has the same losses."""
    pairs = {f"ours, {losses}{products}": f"TextBrewer, {losses}" for losses in LOSSES for products in ("", ", MKL")}
    return {ours: theirs for ours, theirs in pairs.items() if ours in contenders}


def textbrewer_step(teacher: PreTrainedModel, student: PreTrainedModel, losses: str) -> Callable[[Batch], None]:
    """A function that takes one training step on a batch without labels; it works on copies of both models."""
    peer_teacher, peer_student = PeerModel(teacher).eval(), _peer_student(teacher, student, losses).train()
    distiller = _distiller(peer_teacher, peer_student, losses)
    optimizer = torch.optim.AdamW(peer_student.parameters(), lr=LEARNING_RATE, fused=True)

    def step(batch: Batch) -> None:
        # Its progress bars show only on terminals; there is no option to switch them off.
        with redirect_stderr(io.StringIO()):
            distiller.train(optimizer, [dict(batch)], num_epochs=1)

    return step


def _peer_student(teacher: PreTrainedModel, student: PreTrainedModel, losses: str) -> PeerModel:
    projection = our_objective(losses, student, teacher).projection
    return PeerModel(student, None if projection is None else projection.weights)


def _distiller(teacher: PeerModel, student: PeerModel, losses: str) -> Any:
    import textbrewer

    training = textbrewer.TrainingConfig(device="cpu", output_dir=tempfile.gettempdir(), ckpt_frequency=0)
    distillation = textbrewer.DistillationConfig(
        temperature=1,
        kd_loss_type="ce",
        intermediate_matches=_matches(losses, encoder_shape(student.model).layers, encoder_shape(teacher.model).layers),
    )
    return textbrewer.GeneralDistiller(training, distillation, teacher, student, _adaptor, _adaptor)


def _adaptor(batch: Batch, outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**outputs, "inputs_mask": batch["attention_mask"]}


def _matches(losses: str, students: int, teachers: int) -> list[dict[str, Any]]:
    """One entry a pair and kind; hidden state 0 is the embeddings' output."""
    mapping = mapping_of(losses, students, teachers)
    matches = [_match("hidden", 0, 0, 1.0)]
    for i, j in mapping.pairs:
        weight = mapping.fixed_flow[i, j].item()
        matches += [_match("hidden", i + 1, j + 1, weight), _match("attention", i, j, weight)]
    return matches


def _match(feature: str, student: int, teacher: int, weight: float) -> dict[str, Any]:
    return {"feature": feature, "layer_S": student, "layer_T": teacher, "loss": f"{feature}_mse", "weight": weight}


def loss_difference(teacher: PreTrainedModel, student: PreTrainedModel, losses: str, batch: Batch) -> float:
    """Relative difference of both sides' total loss, ours fed with the probabilities that TextBrewer compares."""
    peers = {student: _peer_student(teacher, student, losses).eval(), teacher: PeerModel(teacher).eval()}
    objective = our_objective(losses, student, teacher)
    with torch.no_grad():
        states = []
        for model, peer in peers.items():
            probabilities = tuple(peer.model(**batch, output_attentions=True).attentions)
            states.append(replace(capture(model.eval(), batch, objective.needs), attention_scores=probabilities))
        ours, _ = objective(*states, batch)
        theirs, _ = _distiller(peers[teacher], peers[student], losses).train_on_batch(dict(batch), {})
    return abs(ours - theirs).item() / abs(theirs).item()


def main() -> None:
    """Compare both sides' losses on a padded batch of a small pair of models."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    if not INSTALLED:
        raise SystemExit("TextBrewer is not installed: pip install --no-deps textbrewer==0.2.1.post1")
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=4, hidden_size=96, num_attention_heads=12, intermediate_size=192)
    teacher = BertForSequenceClassification(config)
    student = fresh_student(teacher, 2, 48, labels=("no", "yes"))
    mask = (torch.arange(16) < torch.tensor([16, 9, 4, 12])[:, None]).long()
    batch = {"input_ids": torch.randint(1000, 30000, (4, 16)), "attention_mask": mask}
    differences = {losses: loss_difference(teacher, student, losses, batch) for losses in LOSSES}
    rows = [(losses, f"{difference:.1e}") for losses, difference in differences.items()]
    print_table("Total loss, TextBrewer against ours", ["losses", "relative difference"], rows)
    for losses in LOSSES:
        textbrewer_step(teacher, student, losses)(batch)
    save(options.output, {"loss_difference": differences})
    if max(differences.values()) > 1e-5:
        raise SystemExit("the losses are not the same: no comparison of their times means anything")


if __name__ == "__main__":
    main()
