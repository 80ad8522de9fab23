"""Settings of a training that cannot be honoured are refused by name, and before anything is removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from messages import names
from transformers.trainer_utils import SaveStrategy

from emdistill.errors import ConfigError
from emdistill.training import DistillationArguments
from emdistill.training.lesson import Lesson, prove
from emdistill.training.stage_arguments import CHOICES, NOT_HERE, stage_arguments


@pytest.fixture
def arguments(new_run, tmp_path: Path) -> Callable[..., DistillationArguments]:
    """Factory: arguments(choose=False, save_steps=2) of a run's only stage."""

    def make(choose: bool = False, **training: Any) -> DistillationArguments:
        (stage,) = new_run().stages
        return stage_arguments(stage, training, folder=tmp_path / "run", choose=choose, metric="accuracy", seed=1)

    return make


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("learning_rate", None),
        ("per_device_train_batch_size", 0),
        ("num_train_epochs", 0.0),
        ("max_steps", 0),
        ("max_steps", -5),
        ("save_steps", 0),
        ("save_steps", -1),
        ("lr_scheduler_type", "lin"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, tmp_path: Path, name: str, value: Any) -> None:
    named = [value] if name == "lr_scheduler_type" else [f"--training.{name}", value]
    with names(ConfigError, *named):
        arguments(**{name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("seed", 7, "--seed"),
        ("seed", 0, "--seeds"),
        ("data_seed", 7, "--seed"),
        ("resume_from_checkpoint", "last", "--resume"),
        ("metric_for_best_model", "f2", "--select"),
        ("label_smoothing_factor", 0.1, "--objective"),
        ("neftune_noise_alpha", 5.0, "--objective"),
        ("batch_eval_metrics", True, None),
        ("eval_do_concat_batches", False, None),
        ("push_to_hub", True, "--output"),
        ("eval_delay", 3, "--training.save_steps"),
        ("save_only_model", True, "--resume"),
        ("ignore_data_skip", True, "--resume"),
        ("enable_jit_checkpoint", True, "SIGTERM"),
        ("torch_compile", True, "--training.compile_costs"),
        ("torch_compile_mode", "bogus", "--training.compile_costs"),
        ("use_liger_kernel", True, None),
        ("debug", "underflow_overflow", None),
    ],
)
def test_what_a_training_cannot_honour_is_refused_with_the_mend(arguments, name: str, value: Any, mend: Any) -> None:
    with names(ConfigError, f"--training.{name}", value, *filter(None, [mend])):
        arguments(choose=True, **{name: value})


@pytest.mark.parametrize(("name", "word"), [("train_sampling_strategy", "group_by_lenght"), ("log_level", "loud")])
def test_words_that_mean_nothing_are_refused_with_those_that_do(arguments, name: str, word: str) -> None:
    with names(ConfigError, f"--training.{name}", word, *CHOICES[name]):
        arguments(**{name: word})


def test_all_that_cannot_be_honoured_is_named_at_once_and_defaults_pass(arguments) -> None:
    with names(ConfigError, "--training.seed", "--training.push_to_hub"):
        arguments(seed=7, push_to_hub=True)
    plain = DistillationArguments(output_dir="run")
    defaults = {name: getattr(plain, name) for name in NOT_HERE if "seed" not in name}
    assert arguments(**defaults).seed == 1


def test_every_checkpoint_is_scored_where_one_is_chosen(arguments) -> None:
    steps = arguments(choose=True, save_strategy="steps", save_steps=3)
    assert (steps.eval_strategy, steps.eval_steps) == ("steps", 3)
    assert arguments(choose=True).eval_strategy == arguments(choose=True, save_strategy="best").eval_strategy == "epoch"
    assert arguments(save_strategy="steps", save_steps=3).eval_strategy == "no"
    assert arguments(save_strategy="no").save_strategy == SaveStrategy.NO
    for name in ("save_strategy", "eval_strategy"):
        with names(ConfigError, f"--training.{name}", "--select"):
            arguments(choose=True, **{name: "no"})
    with names(ConfigError, "--training.eval_strategy steps", "--training.save_strategy steps"):
        arguments(choose=True, eval_strategy="steps")


@pytest.mark.parametrize(("name", "word"), [("eval_strategy", "steps"), ("save_strategy", "best")])
def test_nothing_is_scored_where_the_last_checkpoint_is_kept(arguments, name: str, word: str) -> None:
    with names(ConfigError, f"--training.{name} {word}", "--select"):
        arguments(**{name: word})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"report_to": "wandb"}, "wandb"),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "foo"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "--training.lr_scheduler_kwargs"),
        ({"optim": "adamw_bnb_8bit"}, "bitsandbytes"),
        ({"optim_args": "fast"}, "--training.optim_args"),
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 1000}, 1000),
    ],
)
def test_what_no_trainer_can_be_made_with_is_refused_before_a_run_begins(
    new_run, arguments, tmp_path: Path, options: dict[str, Any], named: Any
) -> None:
    run = new_run("other")
    lesson = Lesson(run.student, run.tokenizer, run.stages, [arguments(**options)], run.train, run.teacher)
    with names(ConfigError, named):
        prove(lesson)
    assert not any(tmp_path.iterdir())
