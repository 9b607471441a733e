"""The label ids of one example spelled out by hand for each template; end tokens, special tokens, truncation."""

from typing import Any

import pytest

from hone.data.encode import Encoded, EncodeRule, encode
from hone.data.records import Chat, Example, Instruction, Message, Pair, Text
from hone.data.sources import Row

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def encode_one(example: Example, tokenizer: Any, template: str, **rule: Any) -> Encoded:
    options = {"completion_only_loss": True, "append_eos": True, **rule}
    dropped: list[tuple[str, str]] = []
    rows = list(
        encode(
            [(Row({}, "x.jsonl", 1), example)],
            tokenizer,
            EncodeRule(template, **options),
            on_drop=lambda reason, where: dropped.append((reason, where)),
        )
    )
    assert not dropped
    assert len(rows) == 1
    return rows[0]


def spelled(row: Encoded, tokenizer: Any) -> list[tuple[str, bool]]:
    """Runs of (text, supervised)."""
    runs: list[tuple[list[int], bool]] = []
    for token, supervised in zip(row.ids.tolist(), row.supervised.tolist(), strict=True):
        if not runs or runs[-1][1] != supervised:
            runs.append(([], supervised))
        runs[-1][0].append(token)
    return [(tokenizer.decode(ids), supervised) for ids, supervised in runs]


def test_text_is_all_supervised_and_ends(tokenizer: Any) -> None:
    row = encode_one(Text("return a + b"), tokenizer, "plain")
    assert spelled(row, tokenizer) == [("return a + b<|endoftext|>", True)]
    assert row.ids[-1] == tokenizer.eos_token_id


def test_pair(tokenizer: Any) -> None:
    row = encode_one(Pair("2 + 2 =", " 4"), tokenizer, "plain")
    assert spelled(row, tokenizer) == [("2 + 2 =", False), (" 4<|endoftext|>", True)]
    prompt = tokenizer("2 + 2 =", add_special_tokens=False)["input_ids"]
    answer = tokenizer(" 4", add_special_tokens=False)["input_ids"]
    assert row.ids.tolist() == [*prompt, *answer, tokenizer.eos_token_id]
    assert row.supervised.tolist() == [False] * len(prompt) + [True] * (len(answer) + 1)


def test_prompt_and_answer_are_tokenised_apart(tokenizer: Any) -> None:
    """Generation feeds the prompt alone: its ids must be a prefix of the training ids, whatever would merge."""
    row = encode_one(Pair("ret", "urn a"), tokenizer, "plain")
    prompt = tokenizer("ret", add_special_tokens=False)["input_ids"]
    assert row.ids[: len(prompt)].tolist() == prompt
    joined = tokenizer("return a", add_special_tokens=False)["input_ids"]
    assert joined[: len(prompt)] != prompt, "this pair merges across the border, or the test shows nothing"


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("", "### Instruction:\nAdd.\n\n### Response:\n"),
        ("1 2", "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"),
    ],
)
def test_instruction(tokenizer: Any, given: str, prompt: str) -> None:
    row = encode_one(Instruction("Add.", given, "3"), tokenizer, "instruction")
    assert spelled(row, tokenizer) == [(prompt, False), ("3<|endoftext|>", True)]


def test_prompts_train_too_when_asked(tokenizer: Any) -> None:
    row = encode_one(Pair("2 + 2 =", " 4"), tokenizer, "plain", completion_only_loss=False)
    assert row.supervised.all()


def test_no_end_token_when_asked(tokenizer: Any) -> None:
    row = encode_one(Text("return a"), tokenizer, "plain", append_eos=False)
    assert spelled(row, tokenizer) == [("return a", True)]


@pytest.fixture
def chat_tokenizer(tokenizer: Any) -> Any:
    import copy

    chat = copy.deepcopy(tokenizer)
    chat.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>"})
    chat.chat_template = CHATML
    return chat


def test_chat_supervises_the_answers_and_their_end_only(chat_tokenizer: Any) -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Add 1 2"),
        Message("assistant", "3"),
        Message("user", "Sure?"),
        Message("assistant", "Yes."),
    ]
    row = encode_one(Chat(messages), chat_tokenizer, "chat")
    first = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nAdd 1 2<|im_end|>\n<|im_start|>assistant\n"
    second = "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    assert spelled(row, chat_tokenizer) == [
        (first, False),
        ("3<|im_end|>", True),
        (second, False),
        ("Yes.<|im_end|>", True),
        ("\n", False),
    ]
    ends = row.ids == chat_tokenizer.eos_token_id
    assert ends.sum() == 5, "the template's own end tokens, none added"
    assert row.supervised[ends].tolist() == [False, False, True, False, True]


def test_special_tokens_in_data_are_ordinary_text(tokenizer: Any) -> None:
    row = encode_one(Text("a<|endoftext|>b"), tokenizer, "plain")
    assert (row.ids == tokenizer.eos_token_id).sum() == 1, "only the one we append"
    assert tokenizer.decode(row.ids[:-1]) == "a<|endoftext|>b"


def test_end_token_is_supervised_also_when_it_is_the_pad_token(tokenizer: Any) -> None:
    import copy

    same = copy.deepcopy(tokenizer)
    same.pad_token = same.eos_token
    row = encode_one(Pair("2 + 2 =", " 4"), same, "plain")
    assert row.ids[-1] == same.pad_token_id
    assert row.supervised[-1]


def test_begin_token_comes_from_tokenizers_that_want_one(tokenizer: Any) -> None:
    import copy

    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.add_special_tokens(["<s>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    with_bos = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>")
    row = encode_one(Pair("2 + 2 =", " 4"), with_bos, "plain")
    assert spelled(row, with_bos) == [("<s>2 + 2 =", False), (" 4<|endoftext|>", True)]


def test_empty_answers_are_dropped_and_named(tokenizer: Any) -> None:
    dropped: list[tuple[str, str]] = []
    examples: list[tuple[Row, Example]] = [
        (Row({}, "x.jsonl", 1), Pair("a", "b")),
        (Row({}, "x.jsonl", 2), Pair("a", "")),
        (Row({}, "x.jsonl", 3), Pair("a", " \n")),
        (Row({}, "x.jsonl", 4), Text("")),
    ]
    rule = EncodeRule("plain", completion_only_loss=True, append_eos=True)
    rows = list(encode(examples, tokenizer, rule, on_drop=lambda *drop: dropped.append(drop)))
    assert len(rows) == 1
    assert dropped == [
        ("empty output: nothing to learn", "x.jsonl:2"),
        ("empty output: nothing to learn", "x.jsonl:3"),
        ("empty text", "x.jsonl:4"),
    ]


def test_pieces_make_the_ids_of_the_whole(tokenizer: Any) -> None:
    """Sources cut after a newline between two non-space characters, where byte-level BPE never merges."""
    text = "i = 1\nreturn i\n"
    rule = EncodeRule("plain", completion_only_loss=True, append_eos=True)

    def ids(rows: list[tuple[Row, Example]]) -> list[int]:
        encoded = list(encode(rows, tokenizer, rule, on_drop=lambda *drop: None))
        assert [row.ends for row in encoded] == [False] * (len(rows) - 1) + [True]
        return [int(i) for row in encoded for i in row.ids]

    whole = ids([(Row({}, "b.txt", 0), Text(text))])
    pieces = ids([(Row({}, "b.txt", 0, ends=False), Text(text[:6])), (Row({}, "b.txt", 0), Text(text[6:]))])
    assert pieces == whole


def test_a_row_the_chat_template_refuses_is_a_bad_row(chat_tokenizer: Any) -> None:
    from hone.errors import HoneError

    chat_tokenizer.chat_template = "{{ raise_exception('roles must alternate') if messages|length > 2 }}" + CHATML
    three = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    rows: list[tuple[Row, Example]] = [
        (Row({}, "x.jsonl", 1), Chat(three[:2])),
        (Row({}, "x.jsonl", 2), Chat(three)),
    ]
    rule = EncodeRule("chat", completion_only_loss=True, append_eos=True)
    dropped: list[tuple[str, str]] = []
    kept = encode(rows, chat_tokenizer, rule, on_drop=lambda *drop: dropped.append(drop), on_bad_row="skip")
    assert len(list(kept)) == 1
    assert [where for _, where in dropped] == ["x.jsonl:2"]
    with pytest.raises(HoneError, match=r"x\.jsonl:2"):
        list(encode(rows, chat_tokenizer, rule, on_drop=lambda *drop: None))


def encoded(rows: list[tuple[Row, Example]], tokenizer: Any, template: str = "plain") -> list[Encoded]:
    return list(encode(rows, tokenizer, EncodeRule(template, True, True), on_drop=lambda *drop: None))


def test_an_end_token_in_the_prompt_is_not_the_answers(chat_tokenizer: Any) -> None:
    """This template closes the user's turn and leaves the assistant's open: the answer still needs an end."""
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}<|im_end|>{% endif %}{% endfor %}"
    )
    row = encode_one(Chat([Message("user", "1+2"), Message("assistant", "3")]), chat_tokenizer, "chat")
    assert spelled(row, chat_tokenizer) == [("1+2<|im_end|>", False), ("3<|im_end|>", True)]


@pytest.mark.parametrize(("behind", "ends"), [("\n", 1), ("\n~", 1), ("\n~;", 2), ("\n~;?", 2)])
def test_an_end_token_counts_in_the_last_three_tokens(chat_tokenizer: Any, behind: str, ends: int) -> None:
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{{ m.content }}<|im_end|>"
        + behind.replace("\n", "\\n").join(("{{ '", "' }}"))
        + "{% endif %}{% endfor %}"
    )
    row = encode_one(Chat([Message("user", "1+2"), Message("assistant", "3")]), chat_tokenizer, "chat")
    assert (row.ids == chat_tokenizer.eos_token_id).sum() == ends, spelled(row, chat_tokenizer)


def test_ids_of_end_and_begin_are_the_tokenizers_own(tokenizer: Any) -> None:
    """Also where one of them is 0, and where neither is."""
    import copy

    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.add_special_tokens(["</s>"])
    backend.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    other = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="</s>")
    row = encode_one(Text("a b"), other, "plain")
    assert other.bos_token_id == 0 and other.eos_token_id > 0
    assert (row.ids[0], row.ids[-1]) == (0, other.eos_token_id)


def test_batches_are_bounded_in_rows_and_characters(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And change nothing."""
    from hone.data import encode as module

    texts = ["a" * 3] * 4 + ["b" * 9] * 3 + ["c"] * 5
    rows: list[tuple[Row, Example]] = [(Row({}, "x", i), Text(text)) for i, text in enumerate(texts)]
    whole = [row.ids.tolist() for row in encoded(rows, tokenizer)]
    sizes: list[list[int]] = []
    plain = module._encode_batch

    def counted(batch: Any, *rest: Any) -> Any:
        sizes.append([len(item.segments[0].text) for item in batch])
        return plain(batch, *rest)

    monkeypatch.setattr(module, "_encode_batch", counted)
    monkeypatch.setattr(module, "ROWS_PER_BATCH", 4)
    monkeypatch.setattr(module, "CHARACTERS_PER_BATCH", 18)
    assert [row.ids.tolist() for row in encoded(rows, tokenizer)] == whole
    assert sizes == [[3, 3, 3, 3], [9, 9], [9, 1, 1, 1], [1, 1]]


def test_pieces_among_other_rows_with_a_tokenizer_that_marks_beginnings() -> None:
    """SentencePiece puts a space before a beginning, and none before a piece that goes on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<s>", "\u2581", *"abcd.\n"]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    marks = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>")
    rows: list[tuple[Row, Example]] = [
        (Row({}, "x", 0, ends=False), Text("a\n")),
        (Row({}, "x", 0), Text("b")),
        (Row({}, "y", 0), Text("c")),
        (Row({}, "z", 0), Text("d")),
    ]
    found = [[pieces[i] for i in row.ids] for row in encoded(rows, marks)]
    assert found == [["\u2581", "a", "\n"], ["b", "<s>"], ["\u2581", "c", "<s>"], ["\u2581", "d", "<s>"]]
