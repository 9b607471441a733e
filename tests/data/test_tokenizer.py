"""Ids mean exactly the text they came from: for tokenizers of GPT-2's kind, of Qwen's and of Llama's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hone.data.tokenizer import (
    _batch,
    adds_bos,
    continuation_ids,
    load_tokenizer,
    save_tokenizer,
    start_ids,
    token_byte_lengths,
    train_bpe,
)
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CORPUS = [
    "The quick brown fox doesn't jump.\nIt reads, and reads, and reads.\n\n",
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n",
    "naïve café 日本語 🙂🙂 42 4242\r\n\ttabs\r\n",
] * 5
TEXTS = st.text() | st.text(st.sampled_from(" \n\r\tab.'é日🙂\x00\x1f\u2028<|endoftext|>▁"))


@pytest.fixture(scope="module")
def gpt2_like() -> "PreTrainedTokenizerBase":
    return train_bpe(iter(CORPUS), vocab_size=330)


@pytest.fixture(scope="module")
def llama_like() -> "PreTrainedTokenizerBase":
    """SentencePiece's habits: a space before a beginning, bytes for unknown characters, a begin-of-text token."""
    return sentencepiece_like(legacy=True)


def sentencepiece_like(legacy: bool) -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(33, 127)] + ["an", "▁an", "▁and", "▁a"]
    merges = [("a", "n"), ("▁", "an"), ("▁an", "d"), ("▁", "a")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level_with_prefix_space() -> "PreTrainedTokenizerBase":
    from tokenizers import pre_tokenizers

    tokenizer = train_bpe(CORPUS, vocab_size=330)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def pieces(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[str]:
    found: list[str] = tokenizer.convert_ids_to_tokens(ids)
    return found


# --- training --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
@example(text="\r\n \r\n\x00\x7f\ufeff e\u0301 👩‍👩‍👧 ﷽ <|endoftext|>")
def test_decoding_gives_the_text_back(gpt2_like: "PreTrainedTokenizerBase", text: str) -> None:
    assert gpt2_like.decode(gpt2_like(text)["input_ids"]) == text
    assert gpt2_like.decode(start_ids(gpt2_like, [text], special=False)[0]) == text


def test_a_trained_tokenizer_is_gpt2_s_kind(gpt2_like: "PreTrainedTokenizerBase") -> None:
    assert len(gpt2_like) == 330
    assert gpt2_like.eos_token_id == gpt2_like.bos_token_id == gpt2_like.convert_tokens_to_ids("<|endoftext|>") == 0
    assert gpt2_like.unk_token is None
    assert gpt2_like.pad_token is None
    assert not adds_bos(gpt2_like)
    assert pieces(gpt2_like, gpt2_like("reads, and")["input_ids"])[-1] == "Ġand"
    again = train_bpe(CORPUS, vocab_size=330)
    assert again.get_vocab() == gpt2_like.get_vocab()


def test_training_follows_byte_pair_encoding_by_hand() -> None:
    # "abab" 3 times: pairs ab 6, ba 3 -> first merge "ab"; then abab 3 -> second merge; nothing else occurs twice
    tokenizer = train_bpe(["abab", "abab", "abab"], vocab_size=300)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert merges == [["a", "b"], ["ab", "ab"]]
    assert len(tokenizer) == 259  # 256 bytes, the end token, two merges


def test_min_frequency_and_end_token() -> None:
    tokenizer = train_bpe(["abab"] * 3, vocab_size=300, end_token="<end>", min_frequency=4)
    assert len(tokenizer) == 258
    assert tokenizer.eos_token == "<end>"


def test_training_refuses_what_cannot_work() -> None:
    with pytest.raises(HoneError, match="vocab_size=256 is too small"):
        train_bpe(["a"], vocab_size=256)
    with pytest.raises(HoneError, match="no text"):
        train_bpe([], vocab_size=300)


# --- saving and loading ----------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_comes_back(gpt2_like: "PreTrainedTokenizerBase", tmp_path: Path) -> None:
    gpt2_like.chat_template = "{{ messages[0]['content'] }}"
    save_tokenizer(gpt2_like, tmp_path / "new" / "folder")
    gpt2_like.chat_template = None
    loaded = load_tokenizer(tmp_path / "new" / "folder")
    assert start_ids(loaded, CORPUS, special=False) == start_ids(gpt2_like, CORPUS, special=False)
    assert (loaded.eos_token, loaded.bos_token, loaded.pad_token) == ("<|endoftext|>", "<|endoftext|>", None)
    assert loaded.chat_template == "{{ messages[0]['content'] }}"
    assert not adds_bos(loaded)


def write_gpt2_files(tokenizer: "PreTrainedTokenizerBase", folder: Path, vocab: str, merges: str) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / vocab).write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / merges).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2_s_two_files_are_enough(
    gpt2_like: "PreTrainedTokenizerBase", tmp_path: Path, names: tuple[str, str], with_config: bool
) -> None:
    write_gpt2_files(gpt2_like, tmp_path, *names)
    if with_config:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    loaded = load_tokenizer(tmp_path)
    for special in (False, True):
        texts = [*CORPUS, "a<|endoftext|>b"]
        assert start_ids(loaded, texts, special=special) == start_ids(gpt2_like, texts, special=special)
    assert loaded.eos_token_id == gpt2_like.eos_token_id


def test_what_cannot_be_loaded_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str | Path, what: str) -> None:
        with pytest.raises(HoneError) as caught:
            load_tokenizer(name)
        assert what in caught.value.what
        assert caught.value.fix

    refused(tmp_path, "no tokenizer in this folder")
    refused(tmp_path / "absent", "no such folder")
    refused("./absent", "no such folder")
    (tmp_path / "file.json").write_text("{}")
    refused(tmp_path / "file.json", "named by its folder")
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    refused(tmp_path, "cannot load the tokenizer")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "encoder.json").write_text("[]")
    (tmp_path / "vocab.bpe").write_text("")
    with pytest.raises(HoneError, match=r"cannot read encoder\.json and vocab\.bpe"):
        load_tokenizer(tmp_path)
    (tmp_path / "encoder.json").write_text('{"a": 0}')
    refused(tmp_path, "not GPT-2's vocabulary")


def test_an_unreachable_hub_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def unreachable(name: str, revision: str, trust_remote_code: bool) -> Any:
        assert (name, revision, trust_remote_code) == ("owner/name", "main", False)
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(HoneError, match=r"^owner/name: cannot load .*: We couldn't connect to the hub\n.*hf download"):
        load_tokenizer("owner/name")


# --- ids -------------------------------------------------------------------------------------------------------------


def test_special_tokens_in_the_data_are_text(
    gpt2_like: "PreTrainedTokenizerBase", llama_like: "PreTrainedTokenizerBase"
) -> None:
    for tokenizer, token in ((gpt2_like, "<|endoftext|>"), (llama_like, "</s>")):
        end = tokenizer.eos_token_id
        for encode in (start_ids, continuation_ids):
            assert end not in encode(tokenizer, [f"a{token}b"], special=False)[0]
            assert encode(tokenizer, [f"a{token}b"], special=True)[0].count(end) == 1
            assert tokenizer.decode(encode(tokenizer, [f"a{token}b"], special=False)[0]).strip() == f"a{token}b"
        assert tokenizer(f"a{token}")["input_ids"][-1] == end, "the tokenizer itself is left as it was"


def test_the_backend_is_left_as_it_was_after_an_error(gpt2_like: "PreTrainedTokenizerBase") -> None:
    with pytest.raises(Exception, match=r"surrogates|TextEncodeInput"):
        start_ids(gpt2_like, ["\ud800"], special=False)
    assert gpt2_like("<|endoftext|>")["input_ids"] == [0]


def test_neither_truncation_nor_padding_nor_bos(llama_like: "PreTrainedTokenizerBase") -> None:
    texts = ["and " * 50, "a"]
    llama_like(texts, truncation=True, max_length=4, padding="max_length" if llama_like.pad_token else False)
    ids = start_ids(llama_like, texts, special=False)
    assert len(ids[0]) > 50
    assert pieces(llama_like, ids[1]) == ["▁a"]
    assert adds_bos(llama_like)


def test_byte_level_continuations_are_encoded_as_they_are(gpt2_like: "PreTrainedTokenizerBase") -> None:
    texts = ["a", " a", "\n\na", "", "🙂", "<|endoftext|>"]
    for special in (False, True):
        assert continuation_ids(gpt2_like, texts, special=special) == start_ids(gpt2_like, texts, special=special)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_continuation_has_no_space_before_it(legacy: bool) -> None:
    tokenizer = sentencepiece_like(legacy)
    texts = ["and", " and", "\nand", "", "é", "\n", "and and"]
    assert [pieces(tokenizer, ids) for ids in continuation_ids(tokenizer, texts, special=False)] == [
        ["an", "d"],
        ["▁and"],
        ["<0x0A>", "an", "d"],
        [],
        ["<0xC3>", "<0xA9>"],
        ["<0x0A>"],
        ["an", "d", "▁and"],
    ]
    assert [pieces(tokenizer, ids) for ids in start_ids(tokenizer, ["and", "\nand"], special=False)] == [
        ["▁and"],
        ["▁", "<0x0A>", "an", "d"],
    ]


def test_a_byte_level_prefix_space_is_taken_off_too() -> None:
    tokenizer = byte_level_with_prefix_space()
    plain = train_bpe(CORPUS, vocab_size=330)
    texts = ["reads", " reads", "\nreads", "42", ".", "'s", "🙂", "\n\n", ""]
    assert continuation_ids(tokenizer, texts, special=False) == start_ids(plain, texts, special=False)
    assert start_ids(tokenizer, ["reads"], special=False) == start_ids(plain, [" reads"], special=False)


@settings(max_examples=100, deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_ids_of_a_start_and_a_continuation_decode_to_both_texts(
    llama_like: "PreTrainedTokenizerBase", first: str, second: str
) -> None:
    first, second = first.replace("▁", "_"), second.replace("▁", "_")  # SentencePiece cannot tell "▁" from a space
    ids = start_ids(llama_like, [first], special=False)[0] if first else start_ids(llama_like, ["."], special=False)[0]
    ids = ids + continuation_ids(llama_like, [second], special=False)[0]
    assert llama_like.decode(ids) == (first or ".") + second


def test_a_python_tokenizer_is_served_too() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    assert not tokenizer.is_fast
    for encode in (start_ids, continuation_ids):
        assert encode(tokenizer, ["ab", "é"], special=False) == [[ord("a") + 3, ord("b") + 3], [0xC3 + 3, 0xA9 + 3]]
    with pytest.raises(HoneError, match="fast tokenizer"):
        token_byte_lengths(tokenizer, 259)


# --- bytes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_byte_lengths_sum_to_the_text(gpt2_like: "PreTrainedTokenizerBase", text: str) -> None:
    lengths = token_byte_lengths(gpt2_like, len(gpt2_like))
    assert lengths[start_ids(gpt2_like, [text], special=False)[0]].sum() == len(text.encode())


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_byte_lengths_of_sentencepiece_count_its_space(llama_like: "PreTrainedTokenizerBase", text: str) -> None:
    text = text.replace("▁", "_")
    lengths = token_byte_lengths(llama_like, len(llama_like))
    assert lengths[continuation_ids(llama_like, [text], special=False)[0]].sum() == len(text.encode())
    if text:
        assert lengths[start_ids(llama_like, [text], special=False)[0]].sum() == len(text.encode()) + 1


def test_special_tokens_are_no_bytes_but_added_words_are() -> None:
    tokenizer = train_bpe(CORPUS, vocab_size=300)
    tokenizer.add_tokens(["    ", "<tool>"])  # runs of spaces, as GPT-NeoX has them
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    lengths = token_byte_lengths(tokenizer, len(tokenizer) + 5)
    assert lengths.dtype == np.int32
    assert lengths.shape == (len(tokenizer) + 5,)
    spaces, tool, special = tokenizer.convert_tokens_to_ids(["    ", "<tool>", "<|im_start|>"])
    assert (lengths[spaces], lengths[tool], lengths[special], lengths[tokenizer.eos_token_id]) == (4, 6, 0, 0)
    assert lengths[len(tokenizer) :].tolist() == [0] * 5
    text = "x     <tool>é"
    assert lengths[start_ids(tokenizer, [text], special=False)[0]].sum() == len(text.encode())
    assert len(token_byte_lengths(tokenizer, 10)) == 10


def test_a_rule_that_no_text_gets_through_is_one_message() -> None:
    """`(a+)+$` on many a's: the library gives up with a panic of Rust, which is no Exception."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(HoneError, match="the tokenizer gave up"):
        _batch(backend, ["a" * 40 + "b"])
