"""The base model's tokenizer: a byte-level BPE of the corpus, and how far it shortens the held-out packages.

python base_model/base_tokenizer.py --corpus out/base --out out/base/tokenizer          # 8,192 entries
python base_model/base_tokenizer.py --corpus out/base --out /tmp/try --vocab-size 10240
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from hone.data.tokenizer import save_tokenizer, train_bpe
from hone.metrics.bytes_per_token import bytes_per_token
from hone.show import estimate


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with train.jsonl and held_out.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("--vocab-size", type=int, default=8192, help="entries (default 8192)")
    parser.add_argument("--every", type=int, default=3, help="read every n-th training file (default 3)")
    options = parser.parse_args()
    tokenizer = train_bpe(
        islice(texts(options.corpus / "train.jsonl"), 0, None, options.every), vocab_size=options.vocab_size
    )
    save_tokenizer(tokenizer, options.out)
    found = bytes_per_token(tokenizer, texts(options.corpus / "held_out.jsonl"))
    print(
        f"{found.n_entries:,} entries: {estimate(found.ratio, '.3f')} bytes per token over {found.n_texts} "
        f"held-out files, {found.n_tokens:,} tokens"
    )


def texts(path: Path) -> Iterator[str]:
    """The text of each row."""
    with path.open(encoding="utf-8") as rows:
        for row in rows:
            yield json.loads(row)["text"]


if __name__ == "__main__":
    main()
