"""What a request may say: every field of OpenAI's is honoured, refused by name, or named as ignored."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.serve.fields import IGNORED, REFUSED, ChatBody, CompletionBody, read_chat, read_completion, read_json
from hone.serve.refusal import Refusal

# The fields of OpenAI's OpenAPI file 2.3.0, CreateChatCompletionRequest and CreateCompletionRequest.
OPENAI_CHAT = """
messages model modalities verbosity reasoning_effort max_completion_tokens frequency_penalty presence_penalty
web_search_options top_logprobs response_format audio store stream stop logit_bias logprobs max_tokens n prediction seed
stream_options tools tool_choice parallel_tool_calls function_call functions metadata temperature top_p user
safety_identifier prompt_cache_key service_tier prompt_cache_retention
"""
OPENAI_COMPLETION = """
model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream
stream_options suffix temperature top_p user
"""

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": "m", "prompt": "Hi"}


def refusal(fields: dict[str, Any], *, chat: bool = True) -> Refusal:
    with pytest.raises(Refusal) as found:
        (read_chat if chat else read_completion)({**(CHAT if chat else COMPLETION), **fields})
    assert found.value.status == 400
    assert set(found.value.body()["error"]) == {"message", "type", "param", "code"}
    return found.value


def test_every_field_of_openai_has_one_fate() -> None:
    for fields, kind in ((OPENAI_CHAT, ChatBody), (OPENAI_COMPLETION, CompletionBody)):
        for name in fields.split():
            fates = [name in kind.model_fields, name in IGNORED, name in REFUSED]
            assert sum(fates) == 1, name


def test_ignored_fields_are_named() -> None:
    asked = read_chat({**CHAT, "user": "me", "store": True, "messages": [{**CHAT["messages"][0], "name": "Ann"}]})  # type: ignore[dict-item]
    assert asked.ignored == ["user", "store", "messages.name"]
    streamed = {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}
    assert read_completion({**COMPLETION, **streamed}).ignored == ["stream_options.include_obfuscation"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"best_of": 2}, "best_of"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 1}, "stop"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "a\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"temprature": 1}, "temprature"),
        ({"a\ud800": 1}, "a\ud800"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    assert refusal(fields).param == param


def test_near_names_are_given() -> None:
    assert "did you mean temperature?" in refusal({"temprature": 1}).message


def test_completions() -> None:
    assert refusal({"echo": True, "logprobs": 1}, chat=False).param == "echo"
    assert refusal({"prompt": ["a"] * 33, "n": 2}, chat=False).param == "n"
    assert refusal({"prompt": ["a"] * 65}, chat=False).param == "prompt"
    for prompt in ([], [1, "a"], {"a": 1}, [True], [1.5]):
        assert refusal({"prompt": prompt}, chat=False).param is not None
    assert read_completion({**COMPLETION, "logprobs": 0}).logprobs == 0
    assert read_completion(COMPLETION).logprobs is None


def test_what_clients_send_back_of_an_answer_is_read() -> None:
    """OpenAI's own client sends an answer's message as it came."""
    answer = {
        "role": "assistant",
        "content": "b",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
        "audio": None,
    }
    asked = read_chat({**CHAT, "messages": [*CHAT["messages"], answer, *CHAT["messages"]]})
    assert len(asked.body.messages) == 3  # type: ignore[union-attr]
    assert refusal({"messages": [{**answer, "tool_calls": [{}]}, *CHAT["messages"]]}).param == "messages[0].tool_calls"


def test_values_that_ask_for_nothing_pass() -> None:
    nothing = {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "best_of": 1, "suffix": None}
    assert read_chat({**CHAT, **nothing}).ignored == []


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b"\xff", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 100_000, b"9" * 10_000]
)
def test_bodies_that_are_no_json_objects(body: bytes) -> None:
    with pytest.raises(Refusal) as found:
        read_json(body)
    assert found.value.status == 400


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(categories=None), max_size=5)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3)
)
NAMES = sorted({*OPENAI_CHAT.split(), *OPENAI_COMPLETION.split(), "top_k", "min_p", "role", "content", "x"})


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_any_body_is_read_or_refused(fields: dict[str, Any]) -> None:
    for read, least in ((read_chat, CHAT), (read_completion, COMPLETION)):
        try:
            read({**least, **fields})
        except Refusal as refused:
            assert refused.status == 400 and refused.message
