"""Ids by words are the tokenizer's own ids, for any text; where that cannot be known, there are no words."""

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from hone.data import pretoken_cache as words
from hone.data.pretoken_cache import GPT2, LLAMA3, QWEN2, word_ids
from hone.data.tokenizer import start_ids

PIECES = ["'s", "'LL", "'", " ", "  ", "\n", "\r\n", "\t", "\v", "\x00", "\x1f", "\x7f", "12345", "0", "def", "Xy", "_"]
PIECES += ["#", "!?", ":\n", "<|endoftext|>", "é", "二", "½", "\u2028", "\xa0", "😀", "return", " a", "fuzz", "A", "99"]
texts_of_pieces = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
any_texts = st.one_of(st.text(st.characters(max_codepoint=127)), texts_of_pieces, st.text())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Merges whatever stands together, across all borders of words: a wrong cut, wide or narrow, shows in the ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=3000, initial_alphabet=sorted(alphabet), special_tokens=["<|endoftext|>"], show_progress=False
    )
    choose = random.Random(1)
    backend.train_from_iterator(("".join(choose.choices(PIECES, k=6)) for _ in range(3000)), trainer=trainer)
    return with_parts(
        PreTrainedTokenizerFast(tokenizer_object=backend),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    )


def with_parts(tokenizer: Any, **parts: Any) -> Any:
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    for name, part in parts.items():
        setattr(backend, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def cutting_by(tokenizer: Any, pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    both = pre_tokenizers.Sequence([split, byte_level])
    return with_parts(tokenizer, pre_tokenizer=both, normalizer=normalizers.NFC())


def assert_equal(found: Any, tokenizer: Any, texts: list[str]) -> None:
    ids, lengths = found.ids(texts)
    plain = start_ids(tokenizer, texts, special=False)
    assert lengths.tolist() == [len(one) for one in plain]
    assert ids.tolist() == [token for one in plain for token in one]


@pytest.mark.parametrize("pattern", [None, GPT2, QWEN2, LLAMA3], ids=["byte level", "gpt2", "qwen2", "llama3"])
def test_ids_are_the_tokenizers_own(tokenizer: Any, pattern: str | None) -> None:
    ours = cutting_by(tokenizer, pattern) if pattern else tokenizer
    found = word_ids(ours, ["a sample"])
    assert found is not None

    @settings(max_examples=150, deadline=None)
    @given(st.lists(any_texts, max_size=4))
    def check(texts: list[str]) -> None:
        assert_equal(found, ours, texts)

    check()


@pytest.mark.parametrize("pattern", [None, GPT2, QWEN2, LLAMA3], ids=["byte level", "gpt2", "qwen2", "llama3"])
def test_cuts_are_the_tokenizers_own(tokenizer: Any, pattern: str | None) -> None:
    ours = cutting_by(tokenizer, pattern) if pattern else tokenizer
    found = word_ids(ours, [])
    assert found is not None
    ascii_characters = [chr(code) for code in range(128)]
    choose = random.Random(2)
    texts = [a + b for a in ascii_characters for b in ascii_characters]
    texts += ["".join(choose.choices("aZz09'#_ \t\n\r\x00stSrelvVdm", k=14)) for _ in range(3000)]
    cut = ours.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    for text in texts:
        assert found._cut(text) == [text[begin:end] for _, (begin, end) in cut(text)], repr(text)


def test_texts_of_nothing(tokenizer: Any) -> None:
    found = word_ids(tokenizer, [])
    assert found is not None
    for texts in ([], [""], ["", "", "a", ""], ["é", ""]):
        assert_equal(found, tokenizer, texts)


def test_words_are_forgotten_and_learned_again(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "CACHED_CHARACTERS", 300)
    found = word_ids(tokenizer, [])
    assert found is not None
    choose, seen = random.Random(0), set[str]()
    for _ in range(50):
        texts = ["".join(choose.choices(PIECES, k=20)) for _ in range(5)]
        assert_equal(found, tokenizer, texts)
        seen.update(found._numbers)
        assert sum(map(len, found._numbers)) <= 300 + sum(map(len, texts)), "the limit and one batch beyond it"
    assert len(seen) > len(found._numbers)


def test_added_tokens_in_a_text_are_found(tokenizer: Any) -> None:
    """Tokens that were added without being special are cut out of ordinary text, across the borders of words."""
    ours = with_parts(tokenizer)
    ours.add_tokens([AddedToken("turn a", special=False), AddedToken("   ", special=False)])
    found = word_ids(ours, [])
    assert found is not None
    texts = ["return a", "x   y", "return b", "a     b"]
    assert_equal(found, ours, texts)
    assert start_ids(ours, texts[:1], special=False) != start_ids(tokenizer, texts[:1], special=False)


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"normalizer": normalizers.Lowercase()},
        {"normalizer": normalizers.Sequence([normalizers.NFC(), normalizers.Replace("  ", " ")])},
    ],
    ids=["space before", "no pattern", "whitespace", "lower case", "replaced spaces"],
)
def test_no_words_for_tokenizers_of_another_kind(tokenizer: Any, parts: dict[str, Any]) -> None:
    assert word_ids(with_parts(tokenizer, **parts), ["a sample"]) is None


def test_no_words_for_another_pattern_or_with_dropout(tokenizer: Any) -> None:
    assert word_ids(cutting_by(tokenizer, r"\p{L}+|\P{L}+"), ["a sample"]) is None
    dropping = with_parts(tokenizer)
    dropping.backend_tokenizer.model.dropout = 0.5
    assert word_ids(dropping, ["a sample"]) is None


def test_no_words_where_a_sample_disagrees(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last guard: whatever makes the cuts wrong is seen before they are used."""
    monkeypatch.setattr(words, "_for_ascii", lambda pattern: words.re.compile(r"\S+|\s+"))
    assert word_ids(tokenizer, []) is None
