"""Writes the rows of the grids into the demo's two files; rows of other families, written by hand there, are kept.

Does not judge the rows: `tests/test_demo_tasks.py` does.
One way to use it: `python tools/demo_functions/build.py`; with `--check` it only says whether the files are as built.
"""

import json
import sys
from pathlib import Path
from typing import Any

import library
import plain
from grid import rows_of

FOLDER = Path(__file__).parents[2] / "src" / "hone" / "assets" / "demo"
GRIDS = (*plain.GRIDS, *library.GRIDS)


def built(path: Path, *, held_out: bool) -> str:
    """The text of a file with the grids' rows renewed, ordered by family."""
    families = {grid.family for grid in GRIDS}
    old = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows: list[dict[str, Any]] = [row for row in old if row["family"] not in families]
    rows += [row for grid in GRIDS for row, is_held_out in rows_of(grid) if is_held_out == held_out]
    rows.sort(key=lambda row: row["family"])  # stable: within a family as written
    if not held_out:  # where they are trained on, the output says it already
        rows = [{key: value for key, value in row.items() if key != "reference"} for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def main() -> None:
    stale = []
    for name, held_out in (("functions.train.jsonl", False), ("functions.test.jsonl", True)):
        path = FOLDER / name
        text = built(path, held_out=held_out)
        if text != path.read_text(encoding="utf-8"):
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    print(f"{'not as built' if '--check' in sys.argv[1:] else 'written'}: {', '.join(stale) or 'none'}")
    if stale and "--check" in sys.argv[1:]:
        sys.exit(1)


if __name__ == "__main__":
    main()
