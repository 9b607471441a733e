"""A sliding window changes nothing: not the JSON values, not the tokens of a text, and never the memory."""

import io
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data import streams as decode
from hone.data.streams import DecodeError, json_items, text_pieces


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    ),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
    chunk=st.integers(4, 30),
)
def test_json_items_are_the_same_wherever_the_buffer_ends(
    items: list[Any], indent: int | None, ascii_only: bool, chunk: int
) -> None:
    for value in (items, {"data": items, "more": items}):
        raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", errors="surrogatepass")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decode, "CHUNK_BYTES", chunk)
            assert list(json_items(io.BytesIO(raw), max_characters=10_000)) == items


def test_an_item_longer_than_allowed_is_an_error_and_not_the_machine_s_memory() -> None:
    raw = b'[{"text": "' + b"x" * 2_000_000 + b'"}]'
    with pytest.raises(DecodeError, match="longer than 1,000 characters"):
        list(json_items(io.BytesIO(raw), max_characters=1000))


def test_malformed_json_is_found_without_reading_the_rest_of_the_file() -> None:
    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            self.read_bytes += len(found)
            return found

    stream = Counting(b'[{"text": oops},' + b'{"text": "a"},' * 500_000 + b"]")
    with pytest.raises(DecodeError, match="Expecting value"):
        list(json_items(stream, max_characters=1 << 26))
    assert stream.read_bytes <= 2 * decode.CHUNK_BYTES


def prose(seed: int, n_characters: int, line_end: str) -> str:
    """Text with everything that pre-tokenizers treat specially at a boundary."""
    rng = random.Random(seed)
    words = [
        "the",
        "don't",
        "x=1",
        "42",
        "…",
        "naïve",
        "日本語",
        "🙂",
        "end.",
        "(a)",
        "\t",
        "",
        " ",
        "\u00a0",
        "a" * 40,
    ]
    out: list[str] = []
    size = 0
    while size < n_characters:
        out.append(rng.choice(words) + rng.choice([" ", " ", " ", line_end, line_end * 2, "  ", f" {line_end}", "."]))
        size += len(out[-1])
    return "".join(out)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_tokens_of_the_pieces_are_the_tokens_of_the_whole(line_end: str, pattern: str) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:  # the pattern of GPT-4, Llama 3 and Qwen2
        regex = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        split = pre_tokenizers.Split(Regex(regex), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    text = prose(1, 60_000, line_end)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    found = list(text_pieces(io.BytesIO(text.encode()), 500, 1 << 20))
    assert len(found) > 100
    assert [ends for _, ends in found] == [False] * (len(found) - 1) + [True]
    pieces = [piece for piece, _ in found]
    assert "".join(pieces) == text
    ids = [token for piece in pieces for token in tokenizer.encode(piece).ids]
    assert ids == tokenizer.encode(text).ids
