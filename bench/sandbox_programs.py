"""Hostile programs by family for both engines: templates with numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from toolbus_codemode.sandbox.program import Engine, Limits

CANARY = "canary-5f0c1d"
SIZES = (10**7, 10**8, 10**9, 2 * 10**9, 10**10)
# family -> templates, and the numbers for each
Families = dict[str, tuple[tuple[str, ...], tuple[object, ...]]]
DEPTHS = (150, 199, 250, 1_000, 3_000, 10_000)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One program with its family."""

    family: str
    engine: Engine
    source: str
    limits: Limits = field(default_factory=lambda: Limits(deadline=1.0, cpu=2))


BOTH: Families = {
    "memory": (
        (
            "'a' * {n}",
            "[0] * {n}",
            "x = 'a' * 1000000\nresult = len(x * ({n} // 1000))",
            "x = [1]\nfor i in range(60):\n    x = x + x\nresult = len(x)",
            "d = {{}}\nfor i in range({n}):\n    d[i] = str(i) * 100",
            "x = ','.join(['a' * 100000] * ({n} // 10000))\nresult = len(x)",
            "'ab'.replace('a', 'x' * {n})",
            "x = 'a' * 100000\nfor i in range(20):\n    x = x.replace('a', 'aaaa')",
            "list(range({n}))",
            "[[y for y in range(1000)] for x in range({n})]",
        ),
        SIZES,
    ),
    "builtin hang": (
        (
            "max(range({n}))",
            "min(range({n}))",
            "sorted(range({n}))",
            "all([True for x in range({n})])",
            "{n} in [x for x in range({n})]",
            "len([x for x in range({n}) if x == -1])",
        ),
        (2 * 10**9, 10**10),
    ),
    "loop": (
        (
            "for i in range({n}):\n    pass",
            "x = 0\nfor i in range({n}):\n    x += i * i",
            "def f():\n  for i in range({n}):\n    for j in range({n}):\n      pass\nf()",
        ),
        (10**9, 10**12),
    ),
    "depth": (
        (
            "{open}{close}",
            "x = []\nfor i in range({n}):\n    x = [x]\nx",
            "x = {{}}\nfor i in range({n}):\n    x = {{'a': x}}\nresult = x",
            "x = []\nfor i in range({n}):\n    x = [x]\nresult = len(str(x))",
            "{minus}1",
            "{nots}True",
            "{plus}1",
            "x = 1\nresult = {lambdas}1",
            "result = 1{ifs}",
            "x = {{}}\nx{attributes}",
            "def f(n):\n    return f(n + 1) if n < {n} else n\nf(0)",
        ),
        DEPTHS,
    ),
    "bignum": (
        (
            "x = 3\nfor i in range({n}):\n    x = x * x\nresult = x",
            "1 << {n}000",
            "str(7 << {n}0)",
            "x = (1 << {n}00) - 1\nresult = x // 3 % 7",
            "int('9' * {n}0)",
        ),
        (40, 64, 1_000, 100_000, 10**7),
    ),
    "print flood": (
        (
            "for i in range({n}):\n    print('x' * 1000)",
            "print('x' * {n})",
            "print(list(range({n})))",
        ),
        (10**5, 10**6, 10**7),
    ),
    "giant result": (
        (
            "result = 'x' * {n}",
            "result = ['y' * 1000] * ({n} // 1000)",
            "result = {{str(i): 'z' * 100 for i in range({n} // 100)}}",
        ),
        (2 * 10**6, 10**7, 5 * 10**7),
    ),
    "cycle": (
        (
            "x = []\nx.append(x)\nresult = x",
            "x = {{}}\nx['x'] = x\nresult = x",
            "x = []\ny = [x]\nx.append(y)\nprint(x)",
            "x = []\nx.append(x)\nresult = str(x)",
            "x = []\nx.append(x)\nx == x",
            "x = []\nx.append(x)\ny = []\ny.append(y)\nresult = x == y",
        ),
        (1,),
    ),
    "escape": (
        (
            "open('/etc/passwd').read()",
            "open('{canary_file}').read()",
            "import os\nos.environ",
            "import os\nos.environ['TOOLBUS_CANARY']",
            "import os\nos.system('id')",
            "import subprocess\nsubprocess.run(['id'])",
            "import socket\nsocket.socket()",
            "import ctypes\nctypes.CDLL(None)",
            "import sys\nsys.modules",
            "__import__('os').environ",
            "eval('1')",
            "exec('1')",
            "load('//etc/passwd', 'root')",
            "load('{canary_file}', 'x')",
            "().__class__.__base__.__subclasses__()",
            "print.__globals__",
            "''.__class__.__mro__",
            "gh.read.__globals__",
            "gh.read.__self__",
            "gh.__dict__",
            "getattr(gh, 'secret')()",
            "globals()",
            "vars()",
            "breakpoint()",
            "input()",
            "compile('1', 'x', 'eval')",
            "_secret_0()",
            "_together([0], False)",
            "_together([-1, 'x'], False)",
            "_leave()",
            "_join()",
            "_mode('prepare')\nresult = gh.read(n=1)",
            "_fork(10000000000)",
            "_enter(1, 1)\n_leave()\n_leave()\n_leave()\ngh.read(n=1)",
            "_enter(1, 1)\nresult = gh.read(n=1)",
            "_wrong('{canary_file}', 'x')",
            "parallel(5)",
            "parallel([5])",
            "parallel([struct(prepared = 100)])",
            "parallel([struct(prepared = 'x')])",
            "gh.hidden()",
            "gh.read(n=print)",
            "gh.read(n=gh)",
            "gh.read(n=gh.read)",
            "fs.read(path='/etc/passwd')",
            "fail('{canary_file}')",
        ),
        (1,),
    ),
}
STARLARK: Families = {
    "callback": (
        (
            "for i in range({n}):\n    gh.read(n=i)",
            "for i in range({n}):\n    try_call(gh.broken)",
            "parallel([call(gh.read, n=i) for i in range({n})])",
            "parallel([lambda i=i: gh.read(n=i) for i in range({n})])",
            "def f(n):\n    return parallel([lambda: f(n - 1)]) if n else 0\nf({n})",
            "gh.read(n='x' * {n}0000)",
            "gh.slow()\n" * 20,
            "[try_call(gh.slow) for i in range({n})]",
            "x = call(gh.read, n=1)\nparallel([x] * {n})",
            "gh.broken()",
            "gh.large(n={n})",
        ),
        (50, 1_000, 100_000),
    ),
    "strings": (
        (
            "'{{}}' * {n}",
            "('{{:>' + '9' * 9 + '}}').format(1)",
            "('%s' * {n}) % tuple(['a' * 1000] * {n})",
            "('a' * {n}).split('a')",
            "json.decode('[' * {n} + ']' * {n})",
            "json.encode(json.decode('{{\"a\":' * {n} + '1' + '}}' * {n}))",
            "('a,' * {n}).split(',') * {n}",
        ),
        (1_000, 100_000, 10**7),
    ),
}
PYTHON: Families = {
    "callback": (
        (
            "for i in range({n}):\n    await gh.read(n=i)",
            "import asyncio\nawait asyncio.gather(*[gh.read(n=i) for i in range({n})])",
            "for i in range({n}):\n    gh.read(n=i)",
            "for i in range({n}):\n  try:\n    await gh.broken()\n  except Exception:\n    pass",
            "await gh.read(n='x' * {n}0000)",
            "while True:\n    await gh.slow()",
            "await gh.broken()",
            "await gh.large(n={n})",
            "await gh.read(n={{(1, 2): {n}}})",
        ),
        (50, 1_000, 100_000),
    ),
    "hang": (
        (
            "while True:\n    pass",
            "import time\ntime.sleep({n})",
            "import asyncio\nawait asyncio.sleep({n})",
            "import re\nre.match('(a+)+$', 'a' * {n} + 'b')",
            "x = 0\nwhile x < {n}000000000:\n    x += 1",
            "def g():\n    while True:\n        yield 1\nsum(g())",
            "while True:\n  try:\n    while True:\n      pass\n  except BaseException:\n    pass",
            "pow(3, {n}00000000)",
            "10 ** 10 ** {n}",
            "class A:\n    def __repr__(self):\n        return repr(self)\nrepr(A())",
        ),
        (28, 60),
    ),
}


def filled(template: str, number: object, canary_file: str) -> str:
    """Return a program from its template."""
    deep = int(str(number))
    few = min(deep, 20_000)
    names = {
        "n": number,
        "canary_file": canary_file,
        "open": "[" * few,
        "close": "]" * few,
        "minus": "-" * few,
        "nots": "not " * few,
        "plus": "1+" * few,
        "lambdas": "lambda: " * min(few, 7_000),
        "ifs": " if x else 1" * min(few, 5_000),
        "attributes": ".a" * few,
    }
    for name, value in names.items():
        template = template.replace("{" + name + "}", str(value))
    return template.replace("{{", "{").replace("}}", "}")


def corpus(canary_file: str) -> Iterator[Hostile]:
    """Return every program with the engines it is meant for."""
    engines: tuple[tuple[Engine, Families], ...] = (
        ("starlark", BOTH | STARLARK),
        ("python", BOTH | PYTHON),
    )
    for engine, families in engines:
        for family, (templates, numbers) in families.items():
            sources = {
                filled(template, number, canary_file): None
                for template in templates
                for number in numbers
            }
            yield from (Hostile(family, engine, source) for source in sources)
