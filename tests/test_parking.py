"""Tasks that park themselves in trio: a KeyboardInterrupt must find them either awake or parked."""

from __future__ import annotations

import ast

from helpers.paths import SOURCE


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def test_every_function_that_parks_a_task_is_protected_from_interrupts() -> None:
    """Else an interrupt can come between the note of who parks and the parking itself.

    Whoever acted on the note would reschedule a task that does not wait, which brings down the whole run.
    """
    parking: dict[tuple[str, str], bool] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef) and "wait_task_rescheduled" in _names(node):
                decorators = set().union(*map(_names, node.decorator_list))
                parking[path.name, node.name] = "enable_ki_protection" in decorators

    assert parking
    assert [where for where, protected in parking.items() if not protected] == []
