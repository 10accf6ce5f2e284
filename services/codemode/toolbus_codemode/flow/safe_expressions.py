"""Expressions that cannot fail if their parts cannot, in Starlark and in Python."""

import ast
from collections.abc import Container, Sequence

# Functions of one value that cannot fail; `print` takes any number of values.
_TOTAL = frozenset({"bool", "print", "repr", "str", "type"})
_SAFE = (
    ast.Constant, ast.BoolOp, ast.IfExp, ast.boolop, ast.cmpop, ast.expr_context, ast.JoinedStr,
)  # fmt: skip
_EQUALITIES = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)


def safe_parts(node: ast.AST, stored: Container[str]) -> Sequence[ast.AST] | None:
    """Return the parts of an expression that fails only if one of them does; else None.

    `stored` are the variables of the program: a function of such a name is not built in.
    """
    parts: Sequence[ast.AST] | None = None
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            is_total = name in _TOTAL and name not in stored
            parts = args if is_total and (len(args) == 1 or name == "print") else None
        case ast.Await(value=ast.Call(func=ast.Attribute()) as call):
            parts = [call]
        case ast.Dict(keys=keys, values=values):
            parts = values if all(isinstance(each, ast.Constant) for each in keys) else None
        case ast.Compare(left=left, ops=ops, comparators=others):
            is_safe = all(isinstance(each, _EQUALITIES) for each in ops)
            parts = [left, *others] if is_safe else None
        case ast.FormattedValue(value=value, format_spec=None):
            parts = [value]
        case ast.List(elts=found, ctx=ast.Load()) | ast.Tuple(elts=found, ctx=ast.Load()):
            parts = found  # in another context it unpacks a value
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            parts = [operand]
        case _ if isinstance(node, _SAFE):
            parts = list(ast.iter_child_nodes(node))
    return parts
