"""What of transformers' arguments cannot work is refused, and not passed over."""

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.training import DistillationArguments


def test_shards_over_accelerators_need_some(tmp_path) -> None:
    with names(ConfigError, "--training.fsdp", "torchrun"):
        DistillationArguments(output_dir=str(tmp_path), use_cpu=True, fsdp=True)


@pytest.mark.parametrize("options", [{}, {"bf16": True}])
def test_the_teacher_computes_as_is_asked(tmp_path, options: dict[str, bool]) -> None:
    arguments = DistillationArguments(output_dir=str(tmp_path), use_cpu=True, teacher_bf16=False, **options)
    assert str(arguments.teacher_dtype) == "torch.float32"


@pytest.mark.parametrize("instructions", [False, True])
@pytest.mark.parametrize("option", ["bf16", "teacher_bf16", "fp16"])
def test_bfloat16_is_emulated_where_the_processor_has_none(
    tmp_path, monkeypatch: pytest.MonkeyPatch, option: str, instructions: bool
) -> None:
    monkeypatch.setattr("emdistill.training.arguments.has_bfloat16", lambda device: instructions)
    arguments = DistillationArguments(output_dir=str(tmp_path), use_cpu=True, **{option: True})
    assert arguments.emulates_bfloat16 == (option != "fp16" and not instructions)
    assert arguments.leaves_bfloat16_out == (option == "teacher_bf16" and instructions)


def test_a_process_cannot_leave_out_a_batch_that_the_others_learn(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DistillationArguments, "world_size", 2)
    with names(ConfigError, "--training.skip_bad_batches", "torchrun"):
        DistillationArguments(output_dir=str(tmp_path), use_cpu=True, skip_bad_batches=True)
