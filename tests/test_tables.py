"""The visible tables against their folders: what a folder publishes is in its table, and the other way round."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import emdistill
import emdistill.losses as losses
from emdistill.cli import main
from emdistill.commands.lists import GENERAL
from emdistill.data.form import Form
from emdistill.data.glue import GLUE
from emdistill.data.read import FORMS
from emdistill.losses import Loss
from emdistill.mapping import MAPPINGS, LayerMapping, MappingAmong
from emdistill.methods import METHODS
from emdistill.students import STUDENTS, make_student
from emdistill.students.gradual import cut_to
from emdistill.students.several_heads import with_heads
from emdistill.tasks.task import RAW_TEXT

PACKAGE = Path(emdistill.__file__).parent


def public_modules(folder: str) -> dict[str, ModuleType]:
    """File stem -> module, for every file of a folder whose name does not begin with an underscore."""
    stems = sorted(path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_"))
    assert stems
    return {stem: importlib.import_module(f"emdistill.{folder}.{stem}") for stem in stems}


def own(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public classes and functions that are written in this module."""
    for name, part in vars(module).items():
        if not name.startswith("_") and getattr(part, "__module__", None) == module.__name__:
            yield name, part


def reached(function: FunctionType, package: str, seen: set[FunctionType] | None = None) -> set[FunctionType]:
    """The functions of `package` that `function` names, and those that these name."""
    seen = set() if seen is None else seen
    if function not in seen and function.__module__.startswith(package):
        seen.add(function)
        for name in function.__code__.co_names:
            part = function.__globals__.get(name)
            if isinstance(part, FunctionType):
                reached(part, package, seen)
    return seen


def test_every_file_of_methods_is_a_method() -> None:
    modules = public_modules("methods")
    assert {stem.replace("_", "-") for stem in modules} == set(METHODS)
    for stem, module in modules.items():
        assert METHODS[stem.replace("_", "-")] is vars(module)[stem]


def test_every_mapping_is_in_its_table() -> None:
    written = {
        part
        for module in public_modules("mapping").values()
        for _, part in own(module)
        if inspect.isclass(part) and issubclass(part, LayerMapping) and not inspect.isabstract(part)
    }
    # MappingAmong is any of them, among some layers.
    assert written - {MappingAmong} == {type(build(2, 3)) for build in MAPPINGS.values()}


def test_every_file_of_students_is_reached_from_its_table() -> None:
    modules = {module.__name__ for module in public_modules("students").values()}
    builders = [reached(kind.build, "emdistill.students") for kind in STUDENTS.values()]  # type: ignore[arg-type]
    # What is done to a student of any form, the heads of several tasks, the birth that takes a part of the training.
    further = (make_student, with_heads, cut_to)
    builders += [reached(function, "emdistill.students") for function in further]
    assert {function.__module__ for function in set().union(*builders)} == modules | {"emdistill.students"}
    assert all({function.__module__ for function in functions} & modules for functions in builders)


def test_every_form_of_data_is_in_its_table() -> None:
    written = {
        part
        for module in public_modules("data").values()
        for _, part in own(module)
        if inspect.isclass(part) and issubclass(part, Form) and not inspect.isabstract(part)
    }
    assert written == set(map(type, FORMS))


def test_a_task_or_a_kind_has_one_form() -> None:
    tasks = [task for form in FORMS for task in form.tasks]
    kinds = [kind for form in FORMS for kind in form.kinds]
    assert len(tasks) == len(set(tasks))
    assert len(kinds) == len(set(kinds))
    assert all(form.kinds_of(task) for form in FORMS for task in form.tasks)


def test_the_glue_tasks() -> None:
    assert list(GLUE) == ["sst2", "cola", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert all(glue.task.name == name for name, glue in GLUE.items())


def test_every_loss_is_published() -> None:
    written = {
        name
        for module in public_modules("losses").values()
        for name, part in own(module)
        if inspect.isclass(part) and (issubclass(part, Loss) or isinstance(vars(part).get("needs"), frozenset))
    }
    assert written <= vars(losses).keys()


def first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


@pytest.mark.parametrize(
    ("verb", "rows"),
    [
        ("methods", {name: first_line(method) for name, method in METHODS.items()}),
        ("mappings", {name: first_line(build) for name, build in MAPPINGS.items()}),
        (
            "tasks",
            {name: asks for form in FORMS for name, asks in form.tasks.items()} | {RAW_TEXT: GENERAL},
        ),
        ("students", {kind.example: kind.description for kind in STUDENTS.values()}),
    ],
)
def test_the_command_line_lists_every_row(verb: str, rows: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The lists are read from the tables' source."""
    assert main([verb]) == 0
    printed = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    assert {name: text.strip() for name, text in printed} == rows
