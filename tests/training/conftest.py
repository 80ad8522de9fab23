"""Trainings from scratch, and trainings that nothing interrupted, each of which is run once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from byte_pairs import byte_pair_tokenizer
from training_runs import SETTINGS, Asynchronous, CountingTeacher, Run

from emdistill.methods import METHODS
from emdistill.models.encoder import encoder_shape
from emdistill.training import DistillationTrainer, lesson
from emdistill.training.run_stages import seed_everything
from emdistill.training.stage_teachers import CacheChoice

MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run(tiny_encoder, tokenizer_factory) -> MakeRun:
    """Factory: make_run(folder, method="bert-emd", objective={...}, cache="none", **training), a run not yet begun.

    two_vocabularies=True gives the teacher a tokenizer of its own.
    What is for the cache and the loss alone must not reach a model: `row`, `labels` and `words` are refused there.
    """
    tokenizer = tokenizer_factory()

    def refuse(model: Any, _: Any, inputs: dict[str, Any]) -> None:
        assert not {"row", "labels", "words"} & inputs.keys()

    def make(
        folder: Path,
        *,
        method: str = "bert-emd",
        objective: dict[str, Any] | None = None,
        cache: CacheChoice = "none",
        two_vocabularies: bool = False,
        **training: Any,
    ) -> Run:
        teachers_own = byte_pair_tokenizer() if two_vocabularies else None
        words = {} if teachers_own is None else {"vocab_size": len(teachers_own)}
        teacher = CountingTeacher(tiny_encoder(layers=3, width=16, heads=2, seed=1, **words))
        student = tiny_encoder(layers=2, width=8, heads=2, seed=2)
        for model in (student, teacher.model):
            model.register_forward_pre_hook(refuse, with_kwargs=True)
        seed_everything(3)
        stages = METHODS[method](encoder_shape(student), teacher.shape, **(objective or {}))
        return Run(
            student, teacher, tokenizer, stages, folder, {**SETTINGS, **training}, cache, teacher_tokenizer=teachers_own
        )

    return make


@pytest.fixture
def new_run(make_run: MakeRun, tmp_path: Path) -> MakeRun:
    """Factory: new_run("name", ...) is a make_run in a folder of this test."""
    return lambda name="run", **options: make_run(tmp_path / name, **options)


@pytest.fixture(scope="session")
def finished_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Factory: finished_run(choose=False, ...) is a make_run that went to its end uninterrupted, once for all tests.

    It is only looked at; whoever changes it, or its folder, takes a new_run.
    """
    finished: dict[str, Run] = {}

    def finish(*, choose: bool = False, **options: Any) -> Run:
        key = repr((choose, sorted(options.items())))
        if key not in finished:
            with pytest.MonkeyPatch.context() as patch:  # on the CPU's own schedule, whatever a test has set
                patch.setattr(lesson, "DistillationTrainer", DistillationTrainer)
                finished[key] = make_run(tmp_path_factory.mktemp("finished"), **options)
                finished[key].go(choose=choose)
        return finished[key]

    return finish


@pytest.fixture
def asynchronous(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and every trainer made from then on works as on an accelerator."""
    return lambda: monkeypatch.setattr(lesson, "DistillationTrainer", Asynchronous)
