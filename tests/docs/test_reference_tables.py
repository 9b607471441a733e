"""docs/reference/config.md: its tables of keys that depend on each other are all that config/checks.py has."""

import ast
import re

from markdown_pages import DOCS, ROOT, section

from hone.config.checks import ACTIVE_WITH, FOR_TASKS
from hone.config.reference import BROKEN, broken_rules

REFUSED, ABLE, NEEDS = section(DOCS / "reference" / "config.md", "Keys that depend on each other").tables


def text_of(node: ast.expr) -> str:
    """A string of the source, … for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    return "…"


def test_every_contradiction_of_the_source_is_listed() -> None:
    tree = ast.parse((ROOT / "src" / "hone" / "config" / "checks.py").read_text(encoding="utf-8"))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Conflict"
    ]
    for call in calls:
        what = text_of(call.args[1])
        if what.startswith("no "):  # nothing to train with: a matter of one key
            continue
        pattern = ".+".join(map(re.escape, what.split("…")))
        assert any(re.fullmatch(pattern, row[1]) for row in REFUSED[1:]), what
    assert len(calls) > 20


def test_each_example_breaks_one_rule() -> None:
    """Where it breaks two, they are said of the same keys."""
    for values in BROKEN:
        found = broken_rules(values)
        assert found and len({one.leaves[0] for one in found}) == 1, (values, found)


def test_what_only_some_tasks_can_do_is_listed() -> None:
    found = set()
    for values, tasks in ABLE[1:]:
        able = tuple(re.findall(r"\w+", tasks.replace("task:", "").replace(" or ", " ")))
        found |= {(value, able) for value in re.findall(r"`([^`]+)`", values)}
    assert found == {
        (leaf if value is None else f"{leaf}: {value}", able)
        for leaf, values, able, _ in FOR_TASKS
        for value in values or (None,)
    }


def test_every_idle_key_is_listed() -> None:
    found = {}
    for keys, needs in NEEDS[1:]:
        control, first, *more = re.findall(r"\w+", needs.replace(" or ", " "))
        found |= dict.fromkeys(re.findall(r"\[(\w+)\]", keys), (control, (first, *more)))
    assert found == ACTIVE_WITH
