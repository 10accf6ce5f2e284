"""The analysis of programs: it may name too many inputs of a call, but never too few."""

import pytest

from toolbus_codemode.flow.data_flow import inputs_of
from toolbus_codemode.sandbox.program import Function, Limits, Namespace, Program

NOTES, WEB = "notes__read", "web__fetch"
SPACES = (
    Namespace("notes", "notes", (Function("read", "read"),)),
    Namespace("web", "web", (Function("fetch", "fetch"),)),
    Namespace("chat", "chat", (Function("post", "post"),)),
)


def reaching(source: str) -> set[str] | None:
    """Return what can reach the arguments of `chat.post`; None without an analysis."""
    found = inputs_of(Program(source, "python", SPACES, Limits()))
    return None if found is None else set(found["chat__post"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = notes.read()\nb = web.fetch()\nchat.post(text=b)", {WEB}),
        ('a = await notes.read()\nb = await web.fetch()\nawait chat.post(text="hi")', set()),
        ('a = notes.read()\nprint(a)\nchat.post(text="done")', set()),
        ("a = notes.read()\nb = web.fetch()\nchat.post(text=str(b))\nn = len(a)", {WEB}),
        ('a = notes.read()\nb = [a, {"k": a == 1}, f"{a}"]\nchat.post(text="done")', set()),
        ("for i in range(3):\n    chat.post(text=i)\na = notes.read(id=i)", set()),
        ("for x in web.fetch():\n    chat.post(text=x)\na = notes.read()", {WEB}),
    ],
)
def test_a_program_that_does_not_mix_values_has_separate_inputs(
    source: str, expected: set[str]
) -> None:
    assert reaching(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "chat.post(text=notes.read())",
        'a = notes.read()\nb = a[0]\nc = f"{b}"\nchat.post(text=c)',
        'a = notes.read()\nif a:\n    chat.post(text="yes")',
        "a = notes.read()\nx = 0\nif a:\n    x = 1\nchat.post(text=x)",
        'a = notes.read()\nfor i in range(len(a)):\n    chat.post(text="x")',
        'a = notes.read()\nwhile a:\n    chat.post(text="x")',
        '[chat.post(text="x") for _ in notes.read()]',
        "a = []\nb = a\nb.append(notes.read())\nchat.post(text=a)",
        'a = {}\na["k"] = notes.read()\nchat.post(text=a)',
        "a = []\nb = [a]\nb[0].append(notes.read())\nchat.post(text=a)",
        "a = []\nfor x in [a]:\n    x.append(notes.read())\nchat.post(text=a)",
        'x = ""\nfor i in range(2):\n    chat.post(text=x)\n    x = notes.read()',
        "a = notes.read()\nfor i in range(9):\n    if a:\n        break\n    chat.post(text=i)",
        "a = notes.read()\nb = web.fetch(url=a)\nchat.post(text=b)",
        'a = notes.read()\na and chat.post(text="x")',
        "a = notes.read()\nx = 1 if a else 2\nchat.post(text=x)",
        "a, b = notes.read(), 1\nchat.post(text=b)",
        "a = notes.read()\nassert a\nchat.post(text=1)",
        "x = 1\nx += notes.read()\nchat.post(text=x)",
        'a = notes.read()\nd = {"a": a}\nfor k, v in d.items():\n    chat.post(text=v)',
        "a = notes.read()\nx = a.strip().lower()\nchat.post(text=x)",
        # the program can end before the call
        *(
            f'a = notes.read()\n{each}\nchat.post(text="x")'
            for each in (
                "1 / a",
                "[0][a]",
                "a + 1",
                "-a",
                "a < 1",
                "len(a)",
                "a.x",
                "1 in a",
                "x, y = a",
                "for i in a:\n    pass",
                "while a:\n    pass",
                "print(*a)",
                "x = {a: 1}",
                "x = [i for i in a]",
                "if a:\n    x = 1 / 0",
                "if a:\n    x = 1\nprint(x)",
                "notes.read(id=a)",
                "if a:\n    notes.read()",
                "fail(a)",
                "json.encode(a)",
                "x = 0\nx += a",
                "'{}'.format(a)",
                "x = a if a else 1 / a",
            )
        ),
        "for i in range(9):\n    chat.post(text=i)\n    [0][notes.read() == i]",
        "for i in range(9):\n    chat.post(text=i)\n    notes.read(id=i)",
        "for i in range(9):\n    for j in range(9):\n        chat.post(text=j)\n    -notes.read()",
    ],
)
def test_a_value_that_can_reach_a_call_is_one_of_its_inputs(source: str) -> None:
    found = reaching(source)
    assert found is not None
    assert NOTES in found


@pytest.mark.parametrize(
    "source",
    [
        "f = chat.post\nf(text=notes.read())",
        "def f():\n    return notes.read()\nchat.post(text=f())",
        "chat.post(text=(lambda: notes.read())())",
        "parallel([call(chat.post, text=notes.read())])",
        "try:\n    a = notes.read()\nexcept Exception as e:\n    chat.post(text=str(e))",
        "x = [chat]\nx[0].post(text=notes.read())",
        'getattr(chat, "post")(text=notes.read())',
        "from notes import read\nchat.post(text=read())",
        "import notes as n\nchat.post(text=n.read())",
        "chat.post(text=(x := notes.read()))",
        "chat = 1\nchat.post(text=notes.read())",
        "this is not a program",
        "x = " + "(" * 9000,
        "#" * 20_000,
        "a = []\nadd = a.append\nadd(notes.read())\nchat.post(text=a)",
        *(
            f"i = []\n{each}\nchat.post(text=i)"
            for each in (
                "print(i.append(notes.read()))",
                "z = str(i.append(notes.read()))",
                "web.fetch(url=i.append(notes.read()))",
                'f"{i.append(notes.read())}"',
                "i.append(notes.read()) == 1",
                "if i.append(notes.read()):\n    pass",
                "while i.append(notes.read()):\n    pass",
                "json.dumps(i.append(notes.read()))",
                "for z in range(len([i.append(notes.read())])):\n    pass",
                "z = 0\nz += len(i.append(notes.read()) or [])",
                "json.x = notes.read()",
                "round(i).append(notes.read())",
                "type(i).x = notes.read()",
                "list.append(i, notes.read())",
                "[i.append(x) for x in notes.read()]",
            )
        ),
    ],
)
def test_a_program_that_cannot_be_followed_has_no_analysis(source: str) -> None:
    assert reaching(source) is None
