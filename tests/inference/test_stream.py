"""Answers growing token by token: whole characters only, stop texts never shown, the parts joined are the whole."""

import copy
import random
from typing import Any

import pytest

from hone.inference.stream import Answer, AnswerRule, first_stop

SAMPLES = [
    "plain words, 12 of them\n\n\tand a tab",
    "naïve café — “quotes” … ½",
    "emoji 👩‍👩‍👧 🇫🇷 😀😀, 漢字かな交じり文, עברית, हिन्दी",
    "a\u0301 decomposed, \u200d joiner, \ufffd itself, and more",
    " starts with a space",
    "e",
]


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """As Llama's: "▁" for spaces, single bytes as <0x..>, the first space of a text is not written."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz,.é"]
    vocab = {piece: i for i, piece in enumerate(pieces)} | {"▁t": 300, "▁th": 301, "▁the": 302}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def rule(**changes: Any) -> AnswerRule:
    return AnswerRule(**{"end_ids": {0}, "stop": [], "room": 10_000, **changes})


def grow(answer: Answer, ids: list[int]) -> list[str]:
    """The pieces that pushing `ids` gives, until the answer ends."""
    pieces = []
    for token in ids:
        pieces.append(answer.push(token))
        if answer.ended:
            return pieces
    return [*pieces, answer.finish()]


@pytest.mark.parametrize("text", SAMPLES)
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) > 1 or len(text) == 1
    answer = Answer(tokenizer, tokenizer.encode("before"), rule())
    pieces = grow(answer, ids)
    assert "".join(pieces) == answer.text == text
    for piece in pieces:
        assert piece.count("\ufffd") <= text.count("\ufffd"), "half a character was shown"
    if "漢" in text:
        assert pieces.count("") > 10, "characters of several tokens wait for their last one"


@pytest.mark.parametrize("text", SAMPLES)
def test_sentencepiece_text_joins_as_well(sentencepiece: Any, text: str) -> None:
    """Its decoder drops the first space: an answer that continues a prompt must keep it, one at the start must not."""
    ids = sentencepiece.encode(text)
    continued = Answer(sentencepiece, sentencepiece.encode("before"), rule(end_ids={2}))
    assert "".join(grow(continued, ids)) == continued.text == " " + text
    alone = Answer(sentencepiece, [1], rule(end_ids={2}))
    assert "".join(grow(alone, ids)) == alone.text == text == sentencepiece.decode(ids)


def test_any_tokens_at_all_join(tokenizer: Any) -> None:
    """Random ids are mostly broken UTF-8; the text is that of decoding them at once."""
    luck = random.Random(0)
    for _ in range(200):
        ids = [luck.randrange(1, len(tokenizer)) for _ in range(luck.randrange(1, 30))]
        answer = Answer(tokenizer, tokenizer.encode("x"), rule())
        assert "".join(grow(answer, ids)) == answer.text == tokenizer.decode(ids)
        assert answer.ids == ids


def test_added_tokens_are_text_and_special_ones_are_not(tokenizer: Any) -> None:
    """Also those that cannot be spelled in the alphabet of bytes, and such as are no token at all."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<käse ä>", "plain", "漢"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|x|>"]})
    luck, n = random.Random(1), len(tokenizer)
    for _ in range(300):
        ids = [luck.choice([luck.randrange(1, n), luck.randrange(n - 4, n + 2)]) for _ in range(luck.randrange(1, 20))]
        answer = Answer(tokenizer, [5], rule())
        assert "".join(grow(answer, ids)) == answer.text == tokenizer.decode(ids, skip_special_tokens=True)


def test_stop_texts_are_never_shown_wherever_the_tokens_fall(tokenizer: Any) -> None:
    text = "x = 1\n\ndef f(x):\n    return x\n### Instruction:\nnext"
    ids = tokenizer.encode(text)
    stops: list[list[str]] = [[text[a:b]] for a in range(len(text)) for b in range(a + 1, min(a + 9, len(text) + 1))]
    for stop in [*stops, ["\n### ", "\n\ndef"], ["zzz", "return"], ["### Response", "nextly"]]:
        answer = Answer(tokenizer, [1], rule(stop=stop))
        pieces = grow(answer, ids)
        cut = first_stop(text, stop)
        assert "".join(pieces) == answer.text == text[:cut], stop
        assert (answer.ended == "stop text") == (cut is not None)


def test_a_false_beginning_of_a_stop_text_is_only_delayed(tokenizer: Any) -> None:
    answer = Answer(tokenizer, [1], rule(stop=["\n\nEND"]))
    shown = [answer.push(token) for token in tokenizer.encode("one\n\nE")]
    assert "".join(shown) == "one"
    assert answer.push(tokenizer.encode("x")[0]) == "\n\nEx"


def test_how_answers_end(tokenizer: Any) -> None:
    ids = tokenizer.encode("one two three")
    ended = Answer(tokenizer, [1], rule())
    grow(ended, [*ids, 0])
    assert (ended.ended, ended.text, ended.ids) == ("end token", "one two three", ids)
    short = Answer(tokenizer, [1], rule(room=3))
    grow(short, ids)
    assert (short.ended, short.text) == ("length", tokenizer.decode(ids[:3]))
    with pytest.raises(AssertionError):
        short.push(5)
    half = Answer(tokenizer, [1], rule(room=1))
    assert grow(half, tokenizer.encode("漢")) == ["\ufffd"], "the room ended in the middle of a character"
    waiting = Answer(tokenizer, [1], rule(stop=["wait, no"], room=len(tokenizer.encode("so wait"))))
    assert "".join(grow(waiting, tokenizer.encode("so wait"))) == "so wait", "what was held back comes at the end"


def test_trim_leaves_out_leading_white_space_only(tokenizer: Any) -> None:
    answer = Answer(tokenizer, [1], rule(trim=True))
    assert "".join(grow(answer, tokenizer.encode(" \n\n Hi  there "))) == answer.text == "Hi  there "
