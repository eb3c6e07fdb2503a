"""Performs I/O: reads the project's files and reports violations of rules that our linters do not cover.

`shape_caps.py [ROOT]` prints `file:line: problem (how to fix it)` for each finding and exits with 1 if there is any.
The rules are the functions in `CODE_RULES` (Python files of `proxy/`) and `TEXT_RULES` (every file of the repository).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

FILE_LINES = 350
FUNCTION_LINES = 50
ARGUMENTS = 6
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "misc", "manager"}
BROAD = {"Exception", "BaseException"}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Finding = tuple[int, str]


@dataclass(frozen=True)
class File:
    """One file: its path inside the repository and its text."""

    path: PurePosixPath
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @property
    def functions(self) -> list[FunctionNode]:
        return [node for node in self.nodes if isinstance(node, FunctionNode)]


# --- rules for proxy/ ------------------------------------------------------------------------------------------------


def long_file(file: File) -> Iterator[Finding]:
    if len(file.lines) > FILE_LINES:
        yield 1, f"{len(file.lines)} lines, at most {FILE_LINES} (split the file at a responsibility)"


def long_function(file: File) -> Iterator[Finding]:
    for function in file.functions:
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield function.lineno, f"{function.name} has {lines} lines, at most {FUNCTION_LINES} (extract its steps)"


def many_arguments(file: File) -> Iterator[Finding]:
    for function in file.functions:
        given = function.args
        names = [argument.arg for argument in given.posonlyargs + given.args]
        if names[:1] in (["self"], ["cls"]):
            names = names[1:]
        names += [argument.arg for argument in [*given.kwonlyargs, given.vararg, given.kwarg] if argument]
        if len(names) > ARGUMENTS:
            yield function.lineno, f"{function.name} takes {len(names)} arguments, at most {ARGUMENTS} (pass a Struct)"


def vague_module_name(file: File) -> Iterator[Finding]:
    for name in file.path.with_suffix("").parts:
        if name in VAGUE_NAMES:
            yield 1, f"'{name}' is a vague name (name the module after its responsibility)"


def unfinished(file: File) -> Iterator[Finding]:
    for number, line in enumerate(file.lines, 1):
        found = re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", line)
        if found:
            yield number, f"{found[1]} (finish it, or file an issue)"


def swallowed_exception(file: File) -> Iterator[Finding]:
    for node in file.nodes:
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(step, ast.Pass | ast.Continue) or _is_literal(step) for step in node.body)
            if silent and _is_broad(node.type):
                yield node.lineno, "a broad except that hides the error (name the exception, or report it)"
        elif isinstance(node, ast.Call) and _name(node.func) == "suppress" and any(map(_is_broad, node.args)):
            yield node.lineno, "a broad suppress (name the exception)"


def hidden_import(file: File) -> Iterator[Finding]:
    inner = {
        (node.lineno, node.end_lineno or node.lineno)
        for function in file.functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    for first, last in sorted(inner):
        # The reason is on the line of the import or on the line above.
        if not any(re.search(r"#.*\blazy: \w", line) for line in file.lines[max(first - 2, 0) : last]):
            yield first, "an import inside a function (move it up, or say why: `# lazy: reason`)"


def format_of_variable(file: File) -> Iterator[Finding]:
    for node in file.nodes:
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr == "format" and not isinstance(called.value, ast.Constant):
            yield called.lineno, "format() of a text that is not a literal (its fields can access attributes)"


def composed_sql(file: File) -> Iterator[Finding]:
    if file.path.parts[:2] != ("proxy", "storage"):
        return
    for node in file.nodes:
        if isinstance(node, ast.JoinedStr):
            composed = any(isinstance(part, ast.FormattedValue) for part in node.values)
            text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
            composed, text = True, str(node.left.value)
        else:
            continue
        if composed and re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|WHERE|VALUES)\b", text):
            yield node.lineno, "SQL with values in its text (pass them as parameters)"


def _is_literal(node: ast.stmt) -> bool:
    """True for `...` or a bare string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_broad(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(_is_broad, node.elts))
    return node is None or _name(node) in BROAD


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- rules for every file --------------------------------------------------------------------------------------------

# Split, so that this file does not contain what it looks for.
REGISTRIES = tuple(
    ("".join(parts), top)
    for *parts, top in (
        ("py", "pi", "org"),
        ("python", "hosted", "org"),
        ("npm", "js", "org"),
        ("npm", "js", "com"),
        ("cra", "tes", "io"),
    )
)
HOMES = (("", "home", r"\w"), ("", "Users", r"\w"), ("", "root", ""))


def registry_host(file: File) -> Iterator[Finding]:
    hosts = "|".join(r"\.".join(labels) for labels in REGISTRIES)
    for number, line in enumerate(file.lines, 1):
        if found := re.search(rf"(?<![\w-])(?:[\w-]+\.)*(?:{hosts})\b", line):
            yield number, f"names the host of a package registry: {found[0]} (configure it on the machine)"


def path_of_a_home(file: File) -> Iterator[Finding]:
    homes = "|".join("/".join(names) for names in HOMES)
    for number, line in enumerate(file.lines, 1):
        if found := re.search(rf"(?<![\w./}}-])(?:{homes})", line):
            yield number, f"names a path on one machine: {found[0]} (use a path inside the repository)"


Rule = Callable[[File], Iterator[Finding]]
CODE_RULES: tuple[Rule, ...] = (
    long_file,
    long_function,
    many_arguments,
    vague_module_name,
    unfinished,
    swallowed_exception,
    hidden_import,
    format_of_variable,
    composed_sql,
)
TEXT_RULES: tuple[Rule, ...] = (registry_host, path_of_a_home)


def findings(file: File) -> Iterator[str]:
    """The findings for one file, one line each, in the order of the rules."""
    is_code = file.path.parts[0] == "proxy" and file.path.suffix == ".py"
    for rule in (*CODE_RULES, *TEXT_RULES) if is_code else TEXT_RULES:
        for line, message in rule(file):
            yield f"{file.path}:{line}: {message}"


def files(root: Path) -> Iterator[File]:
    """The text files that are committed or would be."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in sorted(subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")):
        path = root / name
        if name and path.is_file():
            try:
                yield File(PurePosixPath(name), path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                continue


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    found = [line for file in files(root) for line in findings(file)]
    print("\n".join(found) if found else "shape: ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
