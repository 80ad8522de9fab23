"""`emdistill methods`, `mappings`, `tasks`, `students`: what there is to choose from, a line each.

The tables are read from their source: to import them would import torch, which takes seconds for seven lines.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
GENERAL = "no task: raw text, for a student of any task to come (general distillation)"


def methods() -> str:
    """List the methods."""
    return _listing(_documented_rows("emdistill.methods", "METHODS"))


def mappings() -> str:
    """List the ways to map student layers to teacher layers."""
    return _listing(_documented_rows("emdistill.mapping", "MAPPINGS"))


def tasks() -> str:
    """List the built-in tasks."""
    glue, docstrings = _parse("emdistill.data.glue"), _parse("emdistill.data.docstrings")
    lines = {name: _constants(glue, row)["description"] for name, row in _rows(glue, "GLUE")}
    own = _constants(docstrings, _assigned(docstrings, "DOCSTRINGS"))
    return _listing(lines | {own["name"]: own["description"], "text": GENERAL})


def students() -> str:
    """List the ways to name a student."""
    source = _parse("emdistill.students")
    forms = [_constants(source, row) for _, row in _rows(source, "STUDENTS")]
    return _listing({form["example"]: form["description"] for form in forms})


def _listing(lines: dict[str, str]) -> str:
    """A line each, whatever the terminal's width: lists are also read by other programs."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


# ------------------------------------------------------------------------------------------- tables as source


def _parse(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _documented_rows(module: str, table: str) -> dict[str, str]:
    """Key -> first line of the docstring of what a table's row names."""
    source = _parse(module)
    rows = ((key, _definition(source, row.id)) for key, row in _rows(source, table) if isinstance(row, ast.Name))
    return {key: (ast.get_docstring(definition) or "").partition("\n")[0] for key, definition in rows}


def _rows(source: ast.Module, table: str) -> Iterator[tuple[str, ast.expr]]:
    rows = _assigned(source, table)
    assert isinstance(rows, ast.Dict)
    for key, row in zip(rows.keys, rows.values, strict=True):
        assert isinstance(key, ast.Constant)
        yield str(key.value), row


def _assigned(source: ast.Module, name: str) -> ast.expr:
    """What is assigned to a name of the module."""
    for node in source.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                return value
    raise LookupError(name)


def _definition(source: ast.Module, name: str) -> ast.FunctionDef | ast.ClassDef:
    """The function or class of a name, in this module or where it is imported from."""
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return _definition(_parse(node.module), name)
    raise LookupError(name)


def _constants(source: ast.Module, call: ast.expr) -> dict[str, str]:
    """The arguments of a call that are written as constants, by the name of their parameter or field."""
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    definition = _definition(source, call.func.id)
    if isinstance(definition, ast.ClassDef):
        nodes = (node.target for node in definition.body if isinstance(node, ast.AnnAssign))
        names = [target.id for target in nodes if isinstance(target, ast.Name)]
    else:
        names = [argument.arg for argument in definition.args.args]
    given = dict(zip(names, call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}
    return {name: str(value.value) for name, value in given.items() if isinstance(value, ast.Constant)}
