"""A `tokenizer.json` is rules of whoever made the model: tried once, in a process with limits, before it is used.

Its patterns are bounded by the library (a search that goes back too often ends in a panic), but not what it puts in
the place of a letter, nor how long all that takes. The trial reads the file and tokenises a few texts. A file that
does not load is refused here, where its size in memory is bounded.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from hone.data.trial import MEMORY, PANIC, TOO_LONG, UNREADABLE, tried
from hone.errors import HoneError, first_line

MAX_RULES_BYTES = 64 << 20  # of tokenizer.json; 262,144 tokens take 33 MB
CPU_SECONDS, MORE_SECONDS = 2, 3  # and as many more for each 10 MB; 33 MB take about 1 s to read
MEMORY_BYTES, TIMES = 400 << 20, 24  # and as many times the file's own size
MAX_TOKENS = 100_000  # of one text; the texts below have less than a thousand characters
PROGRAM = f"""
from tokenizers import Tokenizer
try:
    tokenizer = Tokenizer.from_file(asked["file"])
except MemoryError:
    sys.exit({MEMORY})
except BaseException as error:
    print(str(error).strip())
    sys.exit({UNREADABLE})
try:
    for text in asked["texts"]:
        for special in (False, True):
            if len(tokenizer.encode(text, add_special_tokens=special).ids) > {MAX_TOKENS}:
                sys.exit({TOO_LONG})
except (MemoryError, Exception) as error:
    sys.exit({MEMORY} if isinstance(error, MemoryError) else 0)
except SystemExit:
    raise
except BaseException:
    sys.exit({PANIC})
"""
FIX = "it is damaged, or made to do harm: use the tokenizer of another model"
TEXTS = [
    "x",
    "The quick brown fox, it's said, jumps over 12 lazy dogs, 3.14 times\n\n\tcaf\u00e9, \u4f60\u597d, \U0001f600!\r\n",
    "def f(self, x_1=None):\n    return [i ** 2 for i in range(10) if i % 2 == 0]  # TODO\n" * 3,
    *(letter * 100 + end for letter in ("a", " ", "\n", "0", "-", "e\u0301") for end in ("", "!")),
]


def check_rules(path: Path) -> None:
    """Refuse a `tokenizer.json` that needs more time or memory than any tokenizer can want, or that breaks down.

    Raises:
        HoneError: it does.
    """
    size = path.stat().st_size
    if size > MAX_RULES_BYTES:
        raise HoneError(f"more than {MAX_RULES_BYTES >> 20} MiB are no tokenizer", where=str(path), fix=FIX)
    with path.open("rb") as file:
        _check(str(path), size, hashlib.file_digest(file, "sha256").hexdigest())


@lru_cache(maxsize=32)
def _check(path: str, size: int, digest: str) -> None:
    """`digest` is for the cache: the same file is tried once in a process."""
    import tokenizers

    seconds, memory = CPU_SECONDS + MORE_SECONDS * size // 10_000_000, MEMORY_BYTES + TIMES * size
    asked = {"file": str(Path(path).resolve()), "texts": TEXTS}
    ended, words = tried(PROGRAM, asked, [tokenizers], cpu_seconds=seconds, memory_bytes=memory)
    if ended == 0:
        return
    if ended == UNREADABLE:
        fix = "save it again with save_pretrained, or copy the tokenizer's files from the base model's folder"
        raise HoneError(f"cannot load the tokenizer: {first_line(words)[:300]}", where=path, fix=fix)
    limits = {MEMORY: f"{memory >> 20} MiB of memory", TOO_LONG: f"{MAX_TOKENS:,} tokens"}
    what = f"the tokenizer takes more than {limits.get(ended, f'{seconds} seconds')} for a text of a few words"
    if ended == PANIC:
        what = "the tokenizer breaks down on ordinary text: one of its rules cannot be carried out"
    raise HoneError(what, where=path, fix=FIX)
