"""Docstrings are complete: where arguments or errors are described, the return value is too (ruff checks the rest)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidpipe

PACKAGE = Path(vidpipe.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
RETURN_NOTHING = ("None", "NoReturn", "Never")


def public_functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """The public functions of a module, and the public methods of its public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")


def describes(function: ast.FunctionDef, *sections: str) -> bool:
    lines = {line.strip() for line in (ast.get_docstring(function) or "").splitlines()}
    return any(f"{section}:" in lines for section in sections)


@pytest.mark.parametrize("module", MODULES)
def test_what_a_function_returns_is_described_where_its_arguments_or_errors_are(module: str) -> None:
    functions = public_functions(ast.parse(MODULES[module].read_text(encoding="utf-8")).body)
    assert [
        f"{name}, line {function.lineno}"
        for name, function in functions
        if function.returns is not None
        and ast.unparse(function.returns) not in RETURN_NOTHING
        and describes(function, "Args", "Raises")
        and not describes(function, "Returns", "Yields")
    ] == []
