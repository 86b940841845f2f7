"""Every engine is run on each of its definitions: the modules say so themselves, and this reads them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import FAMILIES

INTEGRATION = Path(__file__).resolve().parent.parent / "integration"


def engines_run_by(module: ast.Module) -> Iterator[str]:
    """The engines E of `NAMES = definitions_of(*E)` where NAMES parametrises a test of the module."""
    lists = {
        statement.targets[0].id: statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    for test in module.body:
        if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
            continue
        for mark in test.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.parametrize":
                yield from engines_of(lists.get(ast.unparse(mark.args[1]), mark.args[1]))


def engines_of(value: ast.expr) -> Iterator[str]:
    """The names in a call of `definitions_of`; none in anything else."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "definitions_of":
        yield from map(ast.literal_eval, value.args)


def read_modules() -> Iterator[tuple[str, str]]:
    """(module, engine) of every definition test."""
    for path in sorted(INTEGRATION.glob("test_*.py")):
        for engine in engines_run_by(ast.parse(path.read_text(encoding="utf-8"))):
            yield path.name, engine


def test_the_definitions_of_every_engine_are_run_by_a_test() -> None:
    assert {engine for _, engine in read_modules()} == set(FAMILIES)


def test_every_engine_has_a_definition() -> None:
    assert {row.architecture.engine for row in load_definitions().values()} == set(FAMILIES)


def test_a_list_that_no_test_runs_over_does_not_count() -> None:
    source = """
NAMES = definitions_of("flux")
OTHERS = definitions_of("draft", "rife")

@pytest.mark.parametrize("name", OTHERS)
def test_one(name): ...

@pytest.mark.parametrize("name", ["flux"])
def test_two(name): ...
"""
    assert set(engines_run_by(ast.parse(source))) == {"draft", "rife"}
