"""Programs in answers: continuations cut where new statements begin, chat answers in every dress, in linear time."""

import time

import pytest

from hone.grading.extract import STOP_STRINGS, continuation, fenced, programs_of
from hone.grading.statements import statements
from hone.grading.tasks import Task, as_task

PROMPT = 'from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add\n    >>> add(1, 2)\n    """\n'
CODE = as_task({"task_id": "c", "prompt": PROMPT, "entry_point": "add", "tests": ["assert add(1, 2) == 3"]})
TALK = as_task({"task_id": "t", "prompt": "Add two numbers.", "entry_point": "add", "tests": ["assert add(1, 2) == 3"]})
BODY = "    return a + b\n"
WHOLE = "def add(a, b):\n    return a + b\n"


def result(programs: list[str]) -> int:
    """What the first program that compiles makes of add(1, 2); as the sandbox does, but for trusted text."""
    for program in programs:
        try:
            code = compile(program, "<program>", "exec")
        except (SyntaxError, ValueError):
            continue
        space: dict[str, object] = {"__name__": "program"}
        exec(code, space)
        return space["add"](1, 2)  # type: ignore[operator, no-any-return]
    raise AssertionError(f"none compiles: {programs}")


CONTINUATIONS = {
    "as it should be": BODY,
    "stripped": "return a + b",
    "blank lines": "\n\n    return a + b\n\n\n",
    "a print after it": BODY + "\nprint(add(1, 2), undefined)\n",
    "asserts after it": BODY + "\nassert add(1, 2) == 4\n",
    "a main guard": BODY + "\nif __name__ == '__main__':\n    raise SystemExit\n",
    "another function, cut off": BODY + "\n\ndef other(x):\n    return (x +",
    "itself again, cut off": BODY + "\n\ndef add(a, b):\n    return (",
    "a helper below": "    return helper(a, b)\n\n\ndef helper(a, b):\n    return a + b\n",
    "a helper and a constant": "    return a + b + ZERO\n\nZERO = 0\n\nclass Unused:\n    pass\n\nprint(1 / 0)\n",
    "text after it": BODY + "\nThis function adds two numbers.\n",
    "a fence after it": BODY + "```\nIt adds.\n",
    "an end token": BODY + "<|endoftext|>def junk(",
    "a string at the margin": '    s = """\nprint(1)\nx = [\n"""\n    return a + b + 0 * len(s)\nprint(1 / 0)\n',
    "brackets at the margin": "    return sum([\na,\nb,\n])\nprint(1 / 0)\n",
    "a line continued": "    return a + \\\nb\nprint(1 / 0)\n",
    "quotes in comments": '    # don\'t """ ( [\n    return a + b  # it\'s {\nprint(1 / 0)\n',
    "quotes in quotes": "    s = \"'''\" + '\"\"\"' + '\\'('\n    return a + b + 0 * len(s)\nprint(1 / 0)\n",
    "a comment at the margin": "# first\n    return a + b\n# Test\nprint(1 / 0)\n",
    "tabs of a nested block": "    if a:\n    \treturn a + b\n    return b\n",
    "carriage returns": "    return a + b\r\n\r\nprint(1 / 0)\r\n",
    "a decorator and an import below": BODY + "\nimport math\n\n@staticmethod\ndef other():\n    pass\n\n1 / 0\n",
}


@pytest.mark.parametrize("answer", CONTINUATIONS.values(), ids=CONTINUATIONS.keys())
def test_continuations(answer: str) -> None:
    assert result(programs_of(CODE, answer)) == 3


CHATS = {
    "whole": WHOLE,
    "fenced": f"```python\n{WHOLE}```",
    "fenced, with words": f"Sure! Here's a function to add:\n\n```python\n{WHOLE}```\n\nIt adds.",
    "no language": f"Here:\n```\n{WHOLE}```\n",
    "capital language": f"```Python\n{WHOLE}```\n",
    "tildes": f"~~~py\n{WHOLE}~~~\n",
    "never closed": f"Here:\n```python\n{WHOLE}",
    "never closed, cut off": f"Here:\n```python\n{WHOLE}\ndef other(x):\n    return (x +",
    "in a list": f"1. So:\n   ```python\n   {WHOLE.replace(chr(10), chr(10) + '   ')}\n   ```\n",
    "a shell before it": f"```bash\npip install x\n```\n```python\n{WHOLE}```\n",
    "a use after it": f"```python\n{WHOLE}```\nUse it:\n```python\nprint(add(1, 2))\n```\n",
    "corrected": "```python\ndef add(a, b):\n    return a - b\n```\nNo, wait:\n```python\n" + WHOLE + "```\n",
    "corrected, but cut off": f"```python\n{WHOLE}```\nBetter:\n```python\ndef add(a, b):\n    return sum([a,",
    "imports apart": "```py\nfrom math import fsum\n```\nand\n```py\ndef add(*a):\n    return int(fsum(a))\n```\n",
    "no fence, with words": f"Sure, here is the function:\n\n{WHOLE}\nThis adds the numbers, doesn't it?\n",
    "no fence, imports first": f"Of course.\nimport math\nfrom typing import List\n\n{WHOLE}\nHope this helps!\n",
    "asynchronous helper": f"async def other():\n    pass\n\n{WHOLE}",
    "a lambda": "add = lambda a, b: a + b\n",
    "marks in the docstring": '```py\ndef add(a, b):\n    """Add `a`.\n\n    ``1``\n    """\n    return a + b\n```',
    "end token": f"```python\n{WHOLE}```<|im_end|>\n",
    "windows": f"```python\r\n{WHOLE.replace(chr(10), chr(13) + chr(10))}```\r\n",
}


@pytest.mark.parametrize("task", [CODE, TALK], ids=["code", "talk"])
@pytest.mark.parametrize("answer", CHATS.values(), ids=CHATS.keys())
def test_chat_answers(task: Task, answer: str) -> None:
    assert result(programs_of(task, answer)) == 3


def test_a_fenced_body_continues_the_prompt() -> None:
    assert result(programs_of(CODE, f"The body is:\n```python\n{BODY}```\n")) == 3


def test_a_whole_answer_may_lean_on_the_prompts_imports() -> None:
    answer = "```python\ndef add(a: int, b: int) -> int:\n    x: List[int] = [a, b]\n    return sum(x)\n```"
    assert result(programs_of(CODE, answer)) == 3


def test_refusals_and_nonsense_are_kept_for_the_sandbox() -> None:
    for answer in ("", "I cannot do that.", "```\n```", "\n\n", "```json\n{}\n```", "\0"):
        for task in (CODE, TALK):
            assert programs_of(task, answer), "something is there to be judged"


def test_a_well_cut_completion_is_run_as_it_is() -> None:
    for body in (BODY, "    return a + b", "\n    x = 1\n\n    return a + b + x - 1\n"):
        assert continuation(PROMPT, body)[0].rstrip() == (PROMPT + body).rstrip()


def test_strings_are_kept_whole() -> None:
    answer = '    return """\ndef no():\n"""\n\ndef yes():\n    return 1\nprint(2)\n'
    assert continuation("def no():\n", answer)[0] == 'def no():\n    return """\ndef no():\n"""\n'
    assert [one.text[:8] for one in statements(answer)] == ["    retu", "def yes(", "print(2)"]


def test_fences() -> None:
    blocks = fenced("a\n````python\n```\ninner\n```\n````\nb\n```py\nc\n")
    assert [(block.text, block.closed) for block in blocks] == [("```\ninner\n```\n", True), ("c\n\n", False)]


def test_stop_strings_end_no_function() -> None:
    assert not any(stop in BODY + "\n\ndef helper(x):\n    return x\n" for stop in STOP_STRINGS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    ["x = 1\n" * 200_000, "(" * 1_000_000, "```python\n" * 100_000, '"' * 1_000_000, "def f():\n" * 100_000,
     "    " * 500_000, "\\" * 1_000_000, "'''\n" * 200_000, "<|" * 500_000, "`" * 1_000_000, "\n" * 1_000_000,
     "add = " * 200_000, "    a = 1\n" * 100_000 + "def f(x):\n" * 50_000, "async " * 200_000, "@a\n" * 300_000],
    ids=range(15),
)  # fmt: skip
def test_a_megabyte_of_anything_takes_seconds_at_most(answer: str) -> None:
    began = time.process_time()
    programs_of(CODE, answer)
    programs_of(TALK, answer)
    assert time.process_time() - began < 6
