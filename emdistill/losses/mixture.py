"""The objectives of several tasks, learned in turn: each batch has one."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from emdistill.losses.balance import Norms
from emdistill.losses.layers import LayerLoss
from emdistill.losses.loss import Loss
from emdistill.losses.objective import Objective
from emdistill.states import TASK, EncoderStates


class MixtureObjective(Objective):
    """L(batch) = L_t(batch), t being the batch's task.

    objectives   task -> its own; what is learned for training only is each task's own too, so that teachers may differ
                 in shape: projections, layer weights, the norms that balance terms. A loss may be in several of them.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        nn.Module.__init__(self)  # its losses are those of its objectives
        self.objectives = nn.ModuleDict(objectives)
        self._last: int | None = None  # the task of the last batch

    def of(self, batch: Mapping[str, Tensor]) -> Objective:
        return [*self.each().values()][int(batch[TASK][0])]

    def each(self) -> dict[str, Objective]:
        """Task -> objective."""
        return {task: part for task, part in self.objectives.items() if isinstance(part, Objective)}

    def begin_step(self, step: int, steps: int) -> None:
        for objective in self.each().values():
            objective.begin_step(step, steps)

    def _losses(self) -> list[Loss]:
        return [loss for objective in self.each().values() for loss in objective._losses()]

    def flows(self) -> Iterator[tuple[str, LayerLoss, Tensor]]:
        """Those of the last batch's task."""
        if self._last is not None:
            task, objective = [*self.each().items()][self._last]
            yield from ((f"{task}/{name}", loss, flow) for name, loss, flow in objective.flows())

    def forward(
        self,
        student: EncoderStates,
        teacher: EncoderStates,
        batch: Mapping[str, Tensor],
        meanwhile: Callable[[], object] | None = None,
        norms: Norms | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self._last = int(batch[TASK][0])
        total: tuple[Tensor, dict[str, Tensor]] = self.of(batch)(student, teacher, batch, meanwhile, norms)
        return total

    def __str__(self) -> str:
        tasks: dict[str, list[str]] = {}
        for task, objective in self.each().items():
            tasks.setdefault(str(objective), []).append(task)
        if len(tasks) == 1:
            return next(iter(tasks))
        return "; ".join(f"{', '.join(names)}: {equation}" for equation, names in tasks.items())
