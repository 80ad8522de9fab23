"""The training section as one stage's arguments; what training cannot honour is refused by name."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from emdistill.errors import ConfigError
from emdistill.training.arguments import DistillationArguments
from emdistill.training.stage import Stage

# The least that a number of the section may be.
LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "early_stopping_patience": 1,
    "max_steps": 1,
    "num_train_epochs": 1e-6,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "save_steps": 1e-6,
    "gradient_norm_steps": 0,
    "flow_steps": 0,
    "tokens_per_batch": 0,
}
BY_SELECT = "--select says which checkpoint is kept, by the task's first metric"
OWN_LOSSES = "the method's losses are taken as they are; --objective.* changes them"
OWN_SCORES = "the student's answers are scored all at once"
NOT_COMPILED = "a compiled student may pass over the hooks that read its states; --training.compile_costs is safe"
TAKEN_UP = "with --resume a run ends as if it had never been stopped"
# What is not taken from the section, with the mend: a run decides it elsewhere, or its trainer cannot honour it.
NOT_HERE = {
    "seed": "give --seed, or --seeds to compare",
    "data_seed": "give --seed, or --seeds to compare",
    "resume_from_checkpoint": "give --resume",
    "save_only_model": TAKEN_UP,
    "ignore_data_skip": TAKEN_UP,
    "enable_jit_checkpoint": "SIGTERM and Ctrl-C write a checkpoint anyway",
    "eval_delay": "a checkpoint is chosen among all that are saved; --training.save_steps says how many these are",
    "load_best_model_at_end": BY_SELECT,
    "metric_for_best_model": BY_SELECT,
    "greater_is_better": BY_SELECT,
    "label_smoothing_factor": OWN_LOSSES,
    "neftune_noise_alpha": OWN_LOSSES,
    "batch_eval_metrics": OWN_SCORES,
    "eval_do_concat_batches": OWN_SCORES,
    "include_for_metrics": OWN_SCORES,
    "prediction_loss_only": OWN_SCORES,
    "eval_on_start": "score a model with `emdistill evaluate`",
    "debug": "a loss that is not finite is named anyway, with its step and texts",
    "torch_compile": NOT_COMPILED,
    "torch_compile_backend": NOT_COMPILED,
    "torch_compile_mode": NOT_COMPILED,
    "use_liger_kernel": "such kernels give no states of layers to learn from",
    "push_to_hub": "a run is only written to --output; upload its student/ afterwards",
}
# The words that transformers names for a setting, but does not hold it to.
CHOICES = {
    setting.name: [*setting.metadata["choices"]]
    for setting in fields(TrainingArguments)
    if setting.metadata.get("choices")
}
DEFAULTS = {setting.name: setting.default for setting in fields(DistillationArguments)}


def stage_arguments(
    stage: Stage, training: Mapping[str, Any], *, folder: Path, choose: bool, metric: str, seed: int
) -> DistillationArguments:
    """The recipe's training section with the stage's own settings over it.

    choose   whether checkpoints are scored by `metric` and the best one is kept; without, nothing stops early
    Raises ConfigError for a number out of range, for what cannot be honoured, and where transformers refuses a value.
    """
    _refuse(training)
    settings: dict[str, Any] = {
        # Absolute, for transformers notes the best checkpoint's place in the others.
        "output_dir": str((folder / "checkpoints" / stage.name).resolve()),
        # transformers asks for this where mixed precision is wanted and no accelerator is there.
        "use_cpu": not torch.accelerator.is_available(),
        # Without both, every copy of a batch to an accelerator waits for it.
        "dataloader_pin_memory": torch.accelerator.is_available(),
        "accelerator_config": {"non_blocking": torch.accelerator.is_available()},
        "save_strategy": "epoch",
        "save_total_limit": 2,  # the one before, should the last one be damaged
        "restore_callback_states_from_checkpoint": True,  # the patience of early stopping
        "report_to": "none",
        **(_scored_when_saved(training) if choose else _never_scored(training)),
        "seed": seed,
        "load_best_model_at_end": choose,
        "metric_for_best_model": f"eval_{metric}" if choose else None,
        "greater_is_better": True if choose else None,
        **training,
        **stage.training,
    }
    if not choose:
        settings["early_stopping_patience"] = None
    settings["num_train_epochs"] = round(
        stage.share * settings.get("num_train_epochs", DEFAULTS["num_train_epochs"]), 6
    )
    if settings.get("max_steps", -1) > 0:
        settings["max_steps"] = max(1, round(stage.share * settings["max_steps"]))
    values = {name: settings.get(name, DEFAULTS[name]) for name in LEAST}
    wrong = [
        f"--training.{name} must be at least {least:g}, not {values[name]}"
        for name, least in LEAST.items()
        if values[name] != DEFAULTS[name] and not (values[name] is not None and values[name] >= least)
    ]
    wrong += [
        f"--training.{name} takes one of {', '.join(choices)}, not {settings[name]!r}"
        for name, choices in CHOICES.items()
        if settings.get(name) not in (None, *choices)
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))
    try:
        return DistillationArguments(**settings)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the training section cannot be used: {error}") from error


def _refuse(training: Mapping[str, Any]) -> None:
    """Raise ConfigError that lists all of NOT_HERE that is given; a default changes nothing, but a seed would."""
    harmless = DEFAULTS | {"seed": None, "include_for_metrics": [], "debug": []}
    given = {name: training[name] for name in NOT_HERE if training.get(name) not in (None, harmless[name])}
    if given:
        raise ConfigError(
            "\n".join(f"--training.{name} {value} cannot be had: {NOT_HERE[name]}" for name, value in given.items())
        )


def _never_scored(training: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing is scored where the last checkpoint is kept; raises ConfigError where that is asked for."""
    scored, saved = training.get("eval_strategy", "no"), training.get("save_strategy")
    asked = f"eval_strategy {scored}" if scored != "no" else "save_strategy best" if saved == "best" else ""
    if asked:
        raise ConfigError(
            f"--training.{asked}: where the last checkpoint is kept none is scored; leave it out, or give "
            "--select held-out"
        )
    return {"eval_strategy": "no"}


def _scored_when_saved(training: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint is chosen among those that are saved, so each of them is scored."""
    strategy = training.get("save_strategy", "epoch")
    scored = "epoch" if strategy == "best" else strategy
    asked = training.get("eval_strategy", scored)
    if "no" in (strategy, asked):
        raise ConfigError(
            "--training.save_strategy and --training.eval_strategy cannot be 'no' where the best checkpoint is kept; "
            "give --select last too"
        )
    if asked != scored and strategy != "best":
        raise ConfigError(
            f"--training.eval_strategy {asked}: a checkpoint is scored when it is saved, so give "
            f"--training.save_strategy {asked} instead"
        )
    return {
        "eval_strategy": scored,
        "eval_steps": training.get("save_steps", DEFAULTS["save_steps"]),
    }
