"""OpenAI's encoder.json and vocab.bpe: the ids of transformers' GPT-2 tokenizer and of BPE written down plainly.

On 10,000 texts of a seed: code, contractions, digits, emoji, control characters, scripts, any code point.
"""

import functools
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.convert.openai_gpt2 import convert
from hone.data.tokenizer import load_tokenizer, start_ids

RAW = Path(__file__).parents[1] / "fixtures" / "openai-gpt2-tiny"


def random_texts(n: int, seed: int = 0) -> list[str]:
    """Words, code, digits, spaces, control characters, emoji, scripts and private characters, in any mixture."""
    rng = random.Random(seed)
    source = Path(__file__).read_text(encoding="utf-8")
    words = ["area", " radius", "isn't", "others've", "I'll", "'S", "the", " the", "return", "3.14", "\u00e9t\u00e9"]
    words += [
        "gr\u00f6\u00dfe",
        "\u4e2d\u6587",
        "\u0627\u0644",
        "\U0001f642",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\ufe0f",
        "e\u0301",
        "<|endoftext|>",
    ]
    words += [
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "\x00",
        "\x1b[0m",
        "\x7f",
        "\u00a0",
        "\u2028",
        "\ufeff",
        "\u0663",
        "\u00bd",
        "_",
        "''",
    ]

    def text() -> str:
        kind = rng.randrange(4)
        if kind == 0:
            return "".join(rng.choices(words, k=rng.randrange(12)))
        if kind == 1:
            at = rng.randrange(len(source) - 80)
            return source[at : at + rng.randrange(80)]
        if kind == 2:
            return "".join(chr(rng.randrange(0x250)) for _ in range(rng.randrange(30)))
        codes = (rng.randrange(0x110000) for _ in range(rng.randrange(12)))
        return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)

    return [text() for _ in range(n)]


def by_the_paper(folder: Path) -> Callable[[str], list[int]]:
    """Byte-level BPE written down from its description (Radford et al. 2019, section 2.2), slow and plain."""
    import regex

    encoder = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    ranks = {tuple(line.split(" ")): i for i, line in enumerate(line for line in lines[1:] if line)}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {byte: chr(byte) for byte in printable}  # the other bytes borrow characters from 256 on, in order
    spelled |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in spelled)}
    words = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    @functools.cache
    def word_ids(word: str) -> list[int]:
        parts = [spelled[byte] for byte in word.encode("utf-8")]
        while len(parts) > 1:
            best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            merged, at = [], 0
            while at < len(parts):
                found = tuple(parts[at : at + 2]) == best
                merged.append("".join(parts[at : at + 2]) if found else parts[at])
                at += 2 if found else 1
            parts = merged
        return [encoder[part] for part in parts]

    return lambda text: [token for word in words.findall(text) for token in word_ids(word)]


@pytest.mark.slow
def test_tokenizer_is_gpt2s_on_ten_thousand_texts(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GPT2TokenizerFast

    texts = random_texts(10_000)
    ours = load_tokenizer(RAW)
    convert(RAW, tmp_path / "converted")
    ids = start_ids(ours, texts, special=False)
    reference = by_the_paper(RAW)
    assert [reference(text) for text in texts] == ids
    theirs = GPT2TokenizerFast(vocab=str(RAW / "encoder.json"), merges=str(RAW / "vocab.bpe"))
    for other in (
        theirs,
        AutoTokenizer.from_pretrained(tmp_path / "converted"),
        load_tokenizer(tmp_path / "converted"),
    ):
        assert start_ids(other, texts, special=False) == ids
        # as transformers is usually called, it takes the spelled-out end token for the real one
        assert other(texts)["input_ids"] == ours(texts)["input_ids"]
    assert ours.decode(ids[17]) == texts[17]
    assert ours.eos_token_id == ours.convert_tokens_to_ids("<|endoftext|>") == 299
    assert len({token for row in ids for token in row}) > 250, "the texts must use the vocabulary"
