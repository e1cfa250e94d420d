"""How the code is to read, as far as a program can tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("messages", "services", "ipam_actor", "host_actor")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
TEST_FILE_LINES_MAX = 600
UNTELLING_NAMES = {"manager", "helper", "util", "base", "common", "data", "info"}
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work)/[\w.]")
TOLD_BY_ASYNCIO = {
    "connection_made",
    "connection_lost",
    "data_received",
    "datagram_received",
    "error_received",
    "eof_received",
}
READ_BY_PEOPLE = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".js", ".mjs", ""}


def python_files(*folders: str) -> list[Path]:
    return sorted(
        path for folder in folders for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts
    )


def trees(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for path in python_files(*folders):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(), str(path))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def project_files() -> Iterator[Path]:
    """Every text of the project that somebody reads; not what was built, fetched, or left by a tool."""
    for top in sorted(ROOT.iterdir()):
        if top.name in {"build", "requirements"} or (
            top.name.startswith(".") and top.name not in {".ci", ".gitignore"}
        ):
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix in READ_BY_PEOPLE and "node_modules" not in path.parts:
                yield path


def test_no_function_is_long() -> None:
    long = [
        f"{name}:{function.lineno} {function.name}: {length} lines"
        for name, tree in trees(*PRODUCT, "tests", "bench")
        for function in functions(tree)
        if (length := (function.end_lineno or function.lineno) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join(["", *long])


def test_no_file_is_long() -> None:
    limits = {**dict.fromkeys((*PRODUCT, "bench"), FILE_LINES_MAX), "tests": TEST_FILE_LINES_MAX - 1}
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for folder, limit in limits.items()
        for path in python_files(folder)
        if (lines := len(path.read_text().splitlines())) > limit
    ]
    assert not long, "\n".join(["", *long])


def test_a_file_is_named_for_what_it_defines() -> None:
    untelling = [
        str(path.relative_to(ROOT))
        for path in python_files(*PRODUCT, "tests", "bench")
        if {word.removesuffix("s") for word in path.stem.split("_")} & UNTELLING_NAMES
    ]
    assert not untelling, "\n".join(["", *untelling])


def is_blind(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}) for kind in kinds
    )


def test_nobody_swallows_what_they_do_not_know() -> None:
    swallowing = [
        f"{name}:{node.lineno}"
        for name, tree in trees(*PRODUCT, "tests", "bench")
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and is_blind(node)
        if not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert not swallowing, "\n".join(["", *swallowing])


def test_nothing_is_left_unfinished_and_no_path_is_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:90]}"
        for path in project_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line) or MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(["", *found])


def told_by_interfaces() -> set[str]:
    """The methods whose meaning a Protocol of the product says, or asyncio."""
    return TOLD_BY_ASYNCIO | {
        method.name
        for _, tree in trees(*PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases)
        for method in functions(node)
        if ast.get_docstring(method)
    }


def public_functions(body: list[ast.stmt], told: set[str]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Module functions, and the methods of public classes that no interface has told already."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (method for method in public_functions(node.body, set()) if method.name not in told)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def test_every_public_function_says_what_it_is_for() -> None:
    told = told_by_interfaces()
    silent = [
        f"{name}:{function.lineno} {function.name}"
        for name, tree in trees(*PRODUCT)
        for function in public_functions(tree.body, told)
        if not ast.get_docstring(function)
    ]
    assert not silent, "\n".join(["", *silent])


def waits_for_time(tree: ast.Module) -> Iterator[int]:
    """The lines that sleep, but for `sleep(0)`, which only lets others run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            if [ast.unparse(argument) for argument in node.args] != ["0"]:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio", "anyio"}:
            yield from (node.lineno for name in node.names if name.name == "sleep")


def test_no_test_waits_for_time_to_pass() -> None:
    waiting = [f"{name}:{line}" for name, tree in trees("tests") for line in waits_for_time(tree)]
    assert not waiting, "\n".join(["", *waiting])


def test_there_are_no_mocks() -> None:
    mocking = [
        f"{name}:{node.lineno}"
        for name, tree in trees("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and "mock" in ast.unparse(node).replace(".", " ").split()
    ]
    assert not mocking, "\n".join(["", *mocking])
