"""tools/mutants.py changes what it says it changes, and a test that looks notices."""

import ast
import os
from pathlib import Path
from types import ModuleType

import pytest

from conftest import load_script

TOOL = Path(__file__).resolve().parents[1] / "tools" / "mutants.py"
TEXT = """import os
LIMIT = 3

def total(values: list[int], limit: int = 2) -> int:
    if not values or len(values) > limit:
        raise HoneError(f"at most {LIMIT + 1}", limit - 1)
    log.info("adding %d", 7)
    seen.append(sum(value for value in values if value != 0))
    self.total += 1
    return seen[-1]
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(TOOL)


def test_every_change_of_a_text(tool: ModuleType) -> None:
    found = [str(mutant) for mutant in tool.mutants(ast.parse(TEXT))]
    assert found == [
        "2: 3  ->  4",
        "4: 2  ->  3",
        "5: if not values or len(values) > limit:  ->  if not (not values or len(values) > limit):",
        "5: not values or len(values) > limit  ->  not values and len(values) > limit",
        "5: not values  ->  values",
        "5: len(values) > limit  ->  len(values) >= limit",
        "5: len(values) > limit  ->  len(values) < limit",
        "6: raise HoneError(f'at most {LIMIT + 1}', limit - 1)  ->  pass",
        "8: seen.append(sum((value for value in values if value != 0)))  ->  pass",
        "8: for value in values if value != 0  ->  for value in values",
        "8: value != 0  ->  value == 0",
        "8: 0  ->  1",
        "9: self.total += 1  ->  self.total -= 1",
        "9: self.total += 1  ->  pass",
        "9: 1  ->  2",
        "10: return seen[-1]  ->  return None",
        "10: -1  ->  1",
        "10: 1  ->  2",
    ]


def test_a_mutant_differs_in_one_place(tool: ModuleType) -> None:
    tree = ast.parse(TEXT)
    plain = ast.unparse(tree).splitlines()
    for mutant in tool.mutants(tree):
        lines = ast.unparse(tool.changed(tree, mutant)).splitlines()
        assert sum(a != b for a, b in zip(plain, lines, strict=True)) == 1, mutant
    assert ast.unparse(tree).splitlines() == plain


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_test_that_looks_notices(tool: ModuleType, tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("import mutated_module\n\ndef test_it():\n    assert mutated_module.double(3) == 6\n")
    for text, passes in (("def double(x):\n    return 2 * x\n", True), ("def double(x):\n    return 2 / x\n", False)):
        found = tool.Instead("mutated_module", tmp_path / "mutated_module.py", ast.parse(text))
        assert tool.passes(found, [str(test)], 60) is passes
