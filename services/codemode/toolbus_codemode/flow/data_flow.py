"""Static analysis of a program: the tools whose results can reach each of its calls.

The analysis ignores the order of statements and the scopes of names, so it only errs towards more
inputs. It gives up (None) where a program uses what it does not follow: a tool that is not called
directly, a function, a class, a stored result of an earlier program. Both languages are parsed as
Python; a Starlark program that is not valid Python has no analysis. A method that can change its
object is followed only as a statement, or as the whole value of an assignment.

An expression that fails ends the program, so its values decide whether later calls are made. The
analysis does not follow two other ends of a program: a reached limit, and a failed call of a tool.
A failed call reveals one bit of what its tool reads. In a loop, failures would reveal more bits, so
the analysis follows them there.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from toolbus_codemode.flow.safe_expressions import safe_parts
from toolbus_codemode.sandbox.program import Program
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.mcp.builtin_server import BUILT_IN

LONGEST_SOURCE = 16_000  # characters
MAX_ROUNDS = 100
Sources = frozenset[str]
NOTHING: Sources = frozenset()
# Functions that return new values, which share no list or dictionary with their arguments.
_COPYING = frozenset({
    "len", "str", "int", "float", "bool", "print", "repr", "range", "sum", "any", "all", "abs",
    "hash", "ord", "chr", "isinstance",
})  # fmt: skip
# Methods that do not change their object.
_READING = frozenset({
    "get", "keys", "values", "items", "copy", "count", "index", "find", "split", "rsplit",
    "splitlines", "join", "replace", "strip", "lstrip", "rstrip", "lower", "upper", "title",
    "capitalize", "startswith", "endswith", "format", "isdigit", "isalpha", "isalnum", "isspace",
    "partition", "rpartition", "removeprefix", "removesuffix", "union", "intersection",
    "difference", "elems",
})  # fmt: skip
_UNFOLLOWED = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Try, ast.TryStar,
    ast.With, ast.AsyncWith, ast.Match, ast.Global, ast.Nonlocal, ast.Yield, ast.YieldFrom,
    ast.Delete, ast.AsyncFor, ast.NamedExpr,
)  # fmt: skip
# Names that reach variables or tools indirectly, or whose arguments are functions.
_INDIRECT = frozenset({
    "globals", "locals", "vars", "eval", "exec", "getattr", "setattr", "__import__", "call",
    "parallel", "try_call", "partial", "map", "filter",
})  # fmt: skip
_EXITS = (ast.Break, ast.Continue, ast.Return, ast.Raise, ast.Assert)
_MODULES = frozenset({"asyncio", "json", "math", "re", "datetime"})


def inputs_of(program: Program) -> Mapping[str, tuple[str, ...]] | None:
    """Return the inputs of each tool by full name; None if the program cannot be analysed."""
    if len(program.source) > LONGEST_SOURCE:
        return None
    spaces = {
        space.name: {each.name: full_name(space.server, each.tool) for each in space.functions}
        for space in program.tools
        if space.server != BUILT_IN
    }
    if any(space.server == BUILT_IN for space in program.tools):
        return None  # it can read what an earlier program has stored
    with warnings.catch_warnings(), suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        warnings.simplefilter("ignore")  # a warning would quote the program in the log
        flow = _DataFlow(ast.parse(program.source), spaces)
        return flow.solved()
    return None


class _UnfollowedError(ValueError):
    """The program uses a construct that the analysis does not support."""


class _DataFlow:
    """The data flow of one program, computed until nothing changes."""

    def __init__(self, tree: ast.Module, spaces: Mapping[str, Mapping[str, str]]) -> None:
        self.tree = tree
        self.spaces = spaces
        # All other names are built in.
        self.stored = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        }
        self.group: dict[str, str] = {}  # a name -> another name of its group, or itself
        self.reach: dict[str, Sources] = {}  # by the first name of a group
        self.inputs: dict[str, Sources] = {}
        # Tools whose results decide whether all later statements run, and, by loop, its statements.
        self.always = NOTHING
        self.repeated: dict[int, Sources] = {}
        self.looped = NOTHING  # the tools in the loops around a statement
        self.top = {id(node) for node in tree.body}
        self.bound: set[str] = set()  # names that an earlier top-level statement has set
        self.changed = True
        self._check()

    def solved(self) -> dict[str, tuple[str, ...]]:
        """Return the inputs of each tool."""
        for _ in range(MAX_ROUNDS):
            if not self.changed:
                return {name: tuple(sorted(found)) for name, found in self.inputs.items()}
            self.changed, self.always, self.bound = False, NOTHING, set()
            self._block(self.tree.body, NOTHING)
        raise _UnfollowedError

    def _check(self) -> None:
        """Raise `_UnfollowedError` for a construct that the analysis does not support."""
        direct = {
            id(node.func.value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and self._tool(node)
            if isinstance(node.func, ast.Attribute)
        }
        whole = {
            id(node.value.value if isinstance(node.value, ast.Await) else node.value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, _UNFOLLOWED):
                raise _UnfollowedError
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                raise _UnfollowedError
            if isinstance(node, ast.Call) and not self._is_followed(
                node, is_whole=id(node) in whole
            ):
                raise _UnfollowedError
            if isinstance(node, ast.Import):
                if any(each.name not in _MODULES or each.asname for each in node.names):
                    raise _UnfollowedError
            elif isinstance(node, ast.ImportFrom):
                raise _UnfollowedError
            elif isinstance(node, ast.Name):
                if node.id in _INDIRECT or (node.id in self.spaces and id(node) not in direct):
                    raise _UnfollowedError
                if node.id in _MODULES and not isinstance(node.ctx, ast.Load):
                    raise _UnfollowedError

    def _is_followed(self, node: ast.Call, *, is_whole: bool) -> bool:
        """Return whether a call changes nothing that the analysis would miss.

        `is_whole` is set if the call is a statement, or the whole value of an assignment.
        """
        match node.func:
            case ast.Name(id=name):
                return name not in self.stored
            case ast.Attribute(value=receiver, attr=method):
                if self._tool(node) or method in _READING:
                    return True
                if isinstance(receiver, ast.Name) and receiver.id not in self.stored:
                    return receiver.id in _MODULES
                return is_whole and not any(
                    isinstance(each, ast.Call) for each in ast.walk(receiver)
                )
        return False

    def _tool(self, node: ast.Call) -> str:
        """Return the full name of the tool that is called; empty for another function."""
        match node.func:
            case ast.Attribute(value=ast.Name(id=space), attr=name):
                return self.spaces.get(space, {}).get(name, "")
        return ""

    def _block(self, body: Iterable[ast.stmt], control: Sources) -> None:
        for statement in body:
            self._statement(statement, control | self.always)

    def _statement(self, node: ast.stmt, control: Sources) -> None:
        match node:
            case ast.If(test=test):
                inner = control | self._evaluate([test], control)
                self._exits(node, inner)
                self._block((*node.body, *node.orelse), inner)
            case ast.While(test=test):
                inner = control | self._evaluate([test], control)
                self.always |= inner  # the loop may not end
                self._loop(node, inner)
            case ast.For(target=target, iter=iterated):
                inner = control | self._evaluate([target, iterated], control)
                self.always |= inner  # the loop fails if the value is not a list
                self._add(self._names(target), inner)
                self._loop(node, inner)
            case _:
                parts = list(ast.iter_child_nodes(node))
                found = self._evaluate(parts, control)
                if isinstance(node, ast.Assert | ast.AugAssign):
                    self.always |= found | control
                if not isinstance(node, ast.Expr):
                    self._add(self._targets(node), found | control)
                elif not self._is_tool_call(node.value):
                    self._add(self._aliased([node.value]), found | control)  # such as append
                if id(node) in self.top and isinstance(node, ast.Assign):
                    self.bound.update(
                        each.id for each in node.targets if isinstance(each, ast.Name)
                    )

    def _loop(self, node: ast.For | ast.While, control: Sources) -> None:
        """Note the inputs of the calls in a loop; each statement of the loop can end it."""
        self._exits(node, control)
        known, around = self.repeated.get(id(node), NOTHING), self.looped
        self.always |= known
        self.looped |= frozenset(self._calls([node]))
        self._block(node.body, control)
        self.looped = around
        if self.always - known:
            self.repeated[id(node)], self.changed = self.always, True
        self._block(node.orelse, control)

    def _is_tool_call(self, node: ast.expr) -> bool:
        inner = node.value if isinstance(node, ast.Await) else node
        return isinstance(inner, ast.Call) and bool(self._tool(inner))

    def _exits(self, node: ast.stmt, control: Sources) -> None:
        if any(isinstance(each, _EXITS) for each in ast.walk(node)):
            self.always |= control

    def _evaluate(self, parts: list[ast.AST], control: Sources) -> Sources:
        """Return the tools whose results can reach these expressions; note the inputs of calls."""
        calls = self._calls(parts)
        known = control | self._reaching(parts)
        for at, tool in enumerate(calls):
            others = frozenset((*calls[:at], *calls[at + 1 :]))
            # A tool's own server knows anyway whether earlier calls of the tool in the loop failed.
            self._note(tool, known | others | (self.looped - {tool}))
        self._unite(self._aliased(parts))
        failing = list(self._failing(parts))
        if failing:
            self.always |= control | self._reaching(failing) | frozenset(self._calls(failing))
        return known | frozenset(calls)

    def _reaching(self, parts: Iterable[ast.AST]) -> Sources:
        """Return the tools whose results can reach the variables in these expressions."""
        names = {name for part in parts for name in self._names(part)}
        return NOTHING.union(*(self.reach.get(self._first(name), NOTHING) for name in names))

    def _calls(self, parts: Iterable[ast.AST]) -> list[str]:
        """Return the tools that are called in these expressions."""
        return [
            tool
            for part in parts
            for node in ast.walk(part)
            if isinstance(node, ast.Call) and (tool := self._tool(node))
        ]

    def _failing(self, parts: Iterable[ast.AST]) -> Iterator[ast.AST]:
        """Yield the expressions that can fail; for the call of a tool, its arguments."""
        waiting = list(parts)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Call) and self._tool(node):
                yield ast.Tuple([*node.args, *(each.value for each in node.keywords)])
            elif isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Load) and node.id in self.stored - self.bound:
                    yield node
            elif (within := safe_parts(node, self.stored)) is None:
                yield node
            else:
                waiting.extend(within)

    def _note(self, tool: str, sources: Sources) -> None:
        before = self.inputs.get(tool)
        after = sources if before is None else before | sources
        if after != before:
            self.inputs[tool], self.changed = after, True

    def _names(self, node: ast.AST) -> Iterator[str]:
        """Yield the variables in an expression."""
        for each in ast.walk(node):
            if isinstance(each, ast.Name) and each.id in self.stored:
                yield each.id

    def _targets(self, node: ast.stmt) -> list[str]:
        """Return the variables that a statement changes."""
        match node:
            case ast.Assign(targets=targets):
                return [name for each in targets for name in self._names(each)]
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                return list(self._names(target))
        return []

    def _aliased(self, parts: Iterable[ast.AST]) -> list[str]:
        """Return the variables that can share a list or dictionary after these expressions.

        The result of a tool, or of a function that copies, shares nothing with the arguments.
        """
        found: list[str] = []
        waiting = list(parts)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Call) and (self._tool(node) or self._copies(node.func)):
                continue
            if isinstance(node, ast.JoinedStr | ast.Compare):
                continue
            if isinstance(node, ast.Name) and node.id in self.stored:
                found.append(node.id)
            waiting.extend(ast.iter_child_nodes(node))
        return found

    def _copies(self, function: ast.expr) -> bool:
        match function:
            case ast.Name(id=name):
                return name in _COPYING and name not in self.stored
            case ast.Attribute(value=ast.Name(id="json")):
                return True
        return False

    def _first(self, name: str) -> str:
        while self.group.get(name, name) != name:
            name = self.group[name]
        return name

    def _unite(self, names: list[str]) -> None:
        """Put variables that can share a value into one group."""
        if not names:
            return
        first = self._first(names[0])
        self.group.setdefault(first, first)
        for name in names[1:]:
            other = self._first(name)
            if other != first:
                self.group[other] = first
                self.reach[first] = self.reach.get(first, NOTHING) | self.reach.get(other, NOTHING)
                self.changed = True

    def _add(self, names: Iterable[str], sources: Sources) -> None:
        for name in names:
            first = self._first(name)
            before = self.reach.get(first, NOTHING)
            if sources - before:
                self.reach[first], self.changed = before | sources, True
