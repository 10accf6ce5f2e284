"""Facts about the repository's modules. A worker reads and parses each module once."""

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method. `lines` is its length, `summary` the first line of its docstring."""

    line: int
    lines: int
    summary: str
    is_property: bool


@dataclass(slots=True)
class Module:
    """A module. `docstrings` are those of the module, its classes and its functions."""

    text: str
    docstring: str = ""
    docstrings: list[str] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)  # by `from ... import ...`
    strings: list[tuple[int, str]] = field(default_factory=list)  # line and value of each constant

    @property
    def lines(self) -> int:
        """The number of lines."""
        return len(self.text.splitlines())


def name_of(path: Path) -> str:
    """Return a path relative to the repository."""
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    """Return the Python files below folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def module(path: Path) -> Module:
    """Read and parse a module."""
    found = Module(path.read_text())
    for node in ast.walk(ast.parse(found.text)):
        match node:
            case ast.Module():
                found.docstring = ast.get_docstring(node) or ""
                found.docstrings.append(found.docstring)
            case ast.ClassDef():
                found.classes.add(node.name)
                found.docstrings.append(ast.get_docstring(node) or "")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                docstring = ast.get_docstring(node) or ""
                found.docstrings.append(docstring)
                found.functions.append(_function(node, docstring))
            case ast.ImportFrom():
                found.imported |= {alias.name for alias in node.names}
            case ast.Constant(value=str() as value):
                found.strings.append((node.lineno, value))
    return found


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, docstring: str) -> Function:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    is_property = any("property" in ast.unparse(each) for each in node.decorator_list)
    return Function(node.lineno, lines, docstring.partition("\n")[0], is_property)
