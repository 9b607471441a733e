"""Prompts that were worth keeping, with the answer that was wanted: a file of rows that any run is measured on.

>>> save(Path("runs"), "2+2=", "4")                                                            # doctest: +SKIP
{'file': 'runs/test-items.jsonl', 'row': 1, 'command': 'hone eval RUN test-items.jsonl'}
"""

import json
from pathlib import Path

from hone.errors import HoneError
from hone.files import disk_errors
from hone.serve.refusal import JsonObject

FILE = "test-items.jsonl"
LONGEST = 20_000  # characters


def save(folder: Path, prompt: str, wanted: str) -> JsonObject:
    """Append a row of prompt and completion, which every template can format.

    Raises:
        HoneError: something is missing or too long, or the file cannot be written.
    """
    for name, text in (("prompt", prompt), ("wanted answer", wanted)):
        if not text.strip() or len(text) > LONGEST:
            raise HoneError(f"the {name} is {'empty' if not text.strip() else f'longer than {LONGEST:,} characters'}")
    path = folder / FILE
    line = json.dumps({"prompt": prompt, "completion": wanted}, ensure_ascii=False) + "\n"
    with disk_errors(path, "hone ui FOLDER, with a folder of yours"):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise HoneError("is not a file", where=str(path), fix="take it away, or move it")
        before = path.read_bytes() if path.is_file() else b""
        gap = "\n" if before and not before.endswith(b"\n") else ""
        with path.open("ab") as file:
            file.write((gap + line).encode("utf-8", "replace"))
    row = before.count(b"\n") + bool(gap) + 1
    return {"file": str(path), "row": row, "command": f"hone eval RUN {FILE}"}
