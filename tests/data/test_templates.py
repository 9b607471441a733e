"""Segments spelled by hand for each template; prompts for generation equal what training masks."""

from typing import TYPE_CHECKING

import pytest

from hone.data.records import BadRow, Chat, Example, Instruction, Labelled, Message, Pair, SourceTarget, Text
from hone.data.template_rendering import Refused, rendered
from hone.data.templates import Segment, render, render_prompt, resolve_template
from hone.data.tokenizer import train_bpe
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML = (  # as Qwen2's: a default system message, a line break after every end marker
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (  # trims, refuses turns that do not alternate, opens no turn for the assistant
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} </s>{% endif %}{% endfor %}"
)
THINKING = (  # as Qwen3's: an empty thought before the last answer only
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_MARKER = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
COUNTING = "{{ messages | length }} turns\n" + NO_MARKER
SHOUTING = (  # rewrites every turn but the last
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] if loop.last else m['content'] | upper }};{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

TWO_TURNS = Chat(
    [
        Message("user", "2+2?"),
        Message("assistant", "4"),
        Message("user", "Sure?"),
        Message("assistant", "Yes."),
    ]
)


@pytest.fixture(scope="module")
def plain_tokenizer() -> "PreTrainedTokenizerBase":
    return train_bpe(["some text"], vocab_size=300)


def with_template(tokenizer: "PreTrainedTokenizerBase", template: str) -> "PreTrainedTokenizerBase":
    tokenizer.chat_template = template
    return tokenizer


def pairs(segments: list[Segment]) -> list[tuple[str, bool]]:
    return [(segment.text, segment.supervised) for segment in segments]


def test_plain() -> None:
    assert pairs(render(Text("all of it"), "plain", None)) == [("all of it", True)]
    assert pairs(render(Pair("def f(", "):\n"), "plain", None)) == [("def f(", False), ("):\n", True)]
    assert pairs(render(Instruction("Add.", "1 2", "3"), "plain", None)) == [("Add.\n1 2\n", False), ("3", True)]
    assert pairs(render(Instruction("Add.", "", "3"), "plain", None)) == [("Add.\n", False), ("3", True)]


def test_instruction() -> None:
    assert pairs(render(Instruction("Add {x}.", "1 2", "3"), "instruction", None)) == [
        ("### Instruction:\nAdd {x}.\n\n### Input:\n1 2\n\n### Response:\n", False),
        ("3", True),
    ]
    assert pairs(render(Instruction("Add.", "", "3"), "instruction", None)) == [
        ("### Instruction:\nAdd.\n\n### Response:\n", False),
        ("3", True),
    ]
    assert render(Pair("Add.", "3"), "instruction", None) == render(Instruction("Add.", "", "3"), "instruction", None)


def test_chat_of_two_turns(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    assert pairs(render(TWO_TURNS, "chat", with_template(plain_tokenizer, CHATML))) == [
        (
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n",
            False,
        ),
        ("4<|im_end|>", True),
        ("\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Yes.<|im_end|>", True),
        ("\n", False),
    ]


def test_chat_with_a_system_message_and_a_last_turn_of_the_user(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    chat = Chat([Message("system", "S"), Message("user", "Q"), Message("assistant", "A\n"), Message("user", "R")])
    assert pairs(render(chat, "chat", with_template(plain_tokenizer, CHATML))) == [
        ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n", False),
        ("A\n<|im_end|>", True),
        ("\n<|im_start|>user\nR<|im_end|>\n", False),
    ]


def test_chat_without_an_assistant_is_all_masked(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    segments = render(Chat([Message("user", "Q")]), "chat", with_template(plain_tokenizer, CHATML))
    assert [segment.supervised for segment in segments] == [False]


def test_chat_of_other_rows(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    tokenizer = with_template(plain_tokenizer, NO_MARKER)
    assert pairs(render(Pair("Q", "A"), "chat", tokenizer)) == [("user: Q\nassistant: ", False), ("A\n", True)]
    assert pairs(render(Instruction("Add.", "1 2", "3"), "chat", tokenizer)) == [
        ("user: Add.\n\n1 2\nassistant: ", False),
        ("3\n", True),
    ]


def test_a_template_that_trims_and_has_no_opening_of_the_assistant(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    chat = Chat([Message("user", " Q "), Message("assistant", " A\n"), Message("user", "R"), Message("assistant", "B")])
    assert pairs(render(chat, "chat", with_template(plain_tokenizer, LLAMA2))) == [
        ("<s>[INST] Q [/INST]", False),
        (" A </s>", True),
        ("<s>[INST] R [/INST]", False),
        (" B </s>", True),
    ]


@pytest.mark.parametrize("answer", ["4", "think", "im_end", "<|im_end|>"])
def test_a_template_that_shows_earlier_answers_in_another_dress(
    plain_tokenizer: "PreTrainedTokenizerBase", answer: str
) -> None:
    messages = [Message("user", "2+2?"), Message("assistant", answer), *TWO_TURNS.messages[2:]]
    assert pairs(render(Chat(messages), "chat", with_template(plain_tokenizer, THINKING))) == [
        ("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n", False),
        (f"{answer}<|im_end|>", True),
        ("\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n", False),
        ("<think>\n\n</think>\n\nYes.<|im_end|>", True),
        ("\n", False),
    ]


@pytest.mark.parametrize("answer", ["", " ", "im_end", "assistant", "<|im_end|>"])
def test_the_marker_is_supervised_whatever_the_answer_says(
    plain_tokenizer: "PreTrainedTokenizerBase", answer: str
) -> None:
    segments = render(Pair("Q", answer), "chat", with_template(plain_tokenizer, CHATML))
    assert pairs(segments)[1:] == [(f"{answer}<|im_end|>", True), ("\n", False)]


def test_templates_that_cannot_be_cut_are_refused(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    with pytest.raises(HoneError, match="continuation of its beginning"):
        render(TWO_TURNS, "chat", with_template(plain_tokenizer, COUNTING))
    with pytest.raises(HoneError, match="rewrites earlier turns"):
        chat = Chat([Message("user", "Q"), Message("assistant", "a"), Message("user", "r"), Message("assistant", "b")])
        render(chat, "chat", with_template(plain_tokenizer, SHOUTING))


def test_a_conversation_that_the_template_refuses_is_a_bad_row(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    chat = Chat([Message("user", "Q"), Message("user", "R"), Message("assistant", "A")])
    with pytest.raises(BadRow, match=r"refuses the turns \(user, user, assistant\): roles must alternate"):
        render(chat, "chat", with_template(plain_tokenizer, LLAMA2))


PROMPTED: list[tuple[Example, str]] = [
    (Text("all of it"), "plain"),
    (Pair("Q", "A"), "plain"),
    (Pair("Q", "A"), "instruction"),
    (Pair("Q", "A"), "chat"),
    (Instruction("I", "X", "O"), "plain"),
    (Instruction("I", "X", "O"), "instruction"),
    (Instruction("I", "", "O"), "instruction"),
    (Instruction("I", "X", "O"), "chat"),
    (Chat([Message("system", "S"), Message("user", "Q"), Message("assistant", "A")]), "chat"),
]


@pytest.mark.parametrize("chat_template", [CHATML, THINKING, NO_MARKER])
@pytest.mark.parametrize(("example", "template"), PROMPTED)
def test_prompts_are_what_training_masks(
    plain_tokenizer: "PreTrainedTokenizerBase", example: Example, template: str, chat_template: str
) -> None:
    tokenizer = with_template(plain_tokenizer, chat_template)
    segments = render(example, template, tokenizer)
    before_answer = "".join(s.text for s in segments[: next(i for i, s in enumerate(segments) if s.supervised)])
    assert render_prompt(example, template, tokenizer) == before_answer


def test_a_prompt_of_a_conversation_under_way(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    tokenizer = with_template(plain_tokenizer, CHATML)
    before_last = "".join(segment.text for segment in render(TWO_TURNS, "chat", tokenizer)[:3])
    assert render_prompt(TWO_TURNS, "chat", tokenizer) == before_last
    assert render_prompt(Chat(TWO_TURNS.messages[:3]), "chat", tokenizer) == before_last


def test_prompts_from_a_string(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    tokenizer = with_template(plain_tokenizer, CHATML)
    assert render_prompt("def f(", "plain", None) == "def f("
    assert render_prompt("Add.", "instruction", None) == "### Instruction:\nAdd.\n\n### Response:\n"
    assert render_prompt("Hi", "chat", tokenizer, system="S") == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    own = Chat([Message("system", "Own"), Message("user", "Hi")])
    assert "Own" in render_prompt(own, "chat", tokenizer, system="S")
    assert "system\nS<" not in render_prompt(own, "chat", tokenizer, system="S")
    with pytest.raises(HoneError, match="no place for a system message"):
        render_prompt("Hi", "plain", None, system="S")


@pytest.mark.parametrize(
    ("template", "form", "resolved"),
    [
        ("auto", "text", "plain"),
        ("auto", "pair", "plain"),
        ("auto", "instruction", "instruction"),
        ("auto", "messages", "chat"),
        ("auto", "conversations", "chat"),
        ("plain", "instruction", "plain"),
        ("instruction", "pair", "instruction"),
        ("chat", "pair", "chat"),
    ],
)
def test_resolve(template: str, form: str, resolved: str) -> None:
    assert resolve_template(template, form, True) == resolved


@pytest.mark.parametrize(
    ("template", "form", "what"),
    [
        ("auto", "messages", "the tokenizer has none"),
        ("chat", "pair", "the tokenizer has no chat template"),
        ("plain", "messages", "cannot format conversations"),
        ("instruction", "text", "hold only text"),
        ("chat", "text", "hold only text"),
    ],
)
def test_what_cannot_be_resolved_names_the_ways_out(template: str, form: str, what: str) -> None:
    with pytest.raises(HoneError) as caught:
        resolve_template(template, form, False)
    assert what in caught.value.what
    assert "template=" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("example", "template", "fix"),
    [
        (Text("t"), "instruction", "template=plain"),
        (Text("t"), "chat", "template=plain"),
        (Labelled("t", 1), "plain", "task=classification"),
        (SourceTarget("s", "t"), "plain", "task=seq2seq"),
        (Chat([Message("user", "Q")]), "plain", "template=chat"),
    ],
)
def test_examples_that_a_template_cannot_spell(
    plain_tokenizer: "PreTrainedTokenizerBase", example: Example, template: str, fix: str
) -> None:
    with pytest.raises(HoneError, match="cannot format") as caught:
        render(example, template, plain_tokenizer)
    assert fix in str(caught.value.fix)


FEATURES = (  # what people's templates use, one of each
    "{%- set ns = namespace(n=0, seen=[]) -%}{{ bos_token }}{% if tools is none and documents is none %}none{% endif %}"
    "{% for m in messages %}\n    {% if m.role == 'system' %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}"
    "{{ m | tojson(indent=2) }}{{ dict(a=ns.n) | tojson }}{{ loop.index0 // 2 }}{{ '%02d' % ns.n }}"
    "{% generation %}{{ m.content.split('?')[-1].strip() | upper }}\n{% endgeneration %}"
    "{% if ns.n > 2 %}{% break %}{% endif %}\n{% endfor %}"
    "{% macro line(x, y='-') %}{{ x ~ y }}{% endmacro %}{{ line(strftime_now('%Y')) }}"
    "{{ missing is defined }}{{ missing }}"
    "{{ messages[::-1] | map(attribute='role') | join(',') }}{% if add_generation_prompt %}>{% endif %}\n"
)
FORBIDDEN = (
    "{{ raise_exception('no') }}", "{% set n = namespace(_x=1) %}", "{{ missing.a.b }}", "{{ [].append(1) }}",
    "{{ messages.__class__ }}{{ messages.__class__.mro() }}", "{% set n = namespace() %}{% set n._y = 1 %}", "{% if %}",
)  # fmt: skip


@pytest.mark.parametrize("template", [CHATML, LLAMA2, THINKING, NO_MARKER, COUNTING, FEATURES])
@pytest.mark.parametrize("answer_next", [False, True])
def test_a_chat_is_rendered_as_by_transformers(
    plain_tokenizer: "PreTrainedTokenizerBase", template: str, answer_next: bool
) -> None:
    tokenizer = with_template(plain_tokenizer, template)
    turns = [{"role": one.role, "content": f"é <b>{one.content}</b>\ud800 "} for one in TWO_TURNS.messages]
    for n in range(1, len(turns) + 1):
        ours = rendered(template, tokenizer.special_tokens_map, turns, [(n, answer_next)], "")
        whole = tokenizer.apply_chat_template(turns[:n], tokenize=False, add_generation_prompt=answer_next)
        assert ours == [whole]


@pytest.mark.parametrize("template", FORBIDDEN)
def test_what_transformers_forbids_is_refused(plain_tokenizer: "PreTrainedTokenizerBase", template: str) -> None:
    turns = [{"role": "user", "content": "a"}]
    with pytest.raises(Exception) as theirs:
        with_template(plain_tokenizer, template).apply_chat_template(turns, tokenize=False)
    with pytest.raises(Refused) as ours:
        rendered(template, {}, turns, [(1, False)], "")
    assert ours.value.words == str(theirs.value) or "namespace" in ours.value.words
