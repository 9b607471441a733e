"""The demo's held-out functions as heads to continue, signature and docstring: the form that the base model has read.

Asked by instructions, a base model may fail for the form alone; this asks it in its own.

    python benchmarks/demo_heads.py > heads.jsonl
    hone eval hone-base --code-tasks heads.jsonl template=plain
"""

import ast
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any


def main() -> None:
    tasks = resources.files("hone") / "assets" / "demo" / "functions.test.jsonl"
    for head in heads(tasks.read_text(encoding="utf-8")):
        print(json.dumps(head))


def heads(lines: str) -> Iterator[dict[str, Any]]:
    """Each task whose reference is one plain function, with prompt `def name(…):` and what it returns as docstring."""
    for line in lines.splitlines():
        task = json.loads(line)
        body = ast.parse(task["reference"]).body
        signature = task["reference"].splitlines()[0]
        told = re.fullmatch(r"Write a function \w+\(.*?\) that (\w.*)", task["instruction"], flags=re.S)
        if told and len(body) == 1 and signature.startswith(f"def {task['entry_point']}(") and signature.endswith(":"):
            kept = {key: task[key] for key in ("task_id", "entry_point", "tests", "reference")}
            yield kept | {"prompt": f'{signature}\n    """{told[1][0].upper()}{told[1][1:]}"""\n'}


if __name__ == "__main__":
    main()
