"""OpenAI's own client against this server: its types, its errors, its streams."""

from collections.abc import Iterator
from typing import Any

import pytest
from serving import Client

pytest_plugins = ["serving", "talking"]
openai = pytest.importorskip("openai")


@pytest.fixture
def ask(client: Client) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{client.port}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_chat(ask: Any) -> None:
    assert [model.id for model in ask.models.list()] == ["base", "tuned"]
    messages = [{"role": "user", "content": "Hi"}]
    whole = ask.chat.completions.create(model="tuned", messages=messages, logprobs=True, top_logprobs=2, n=2, seed=1)
    said = whole.choices[0].message.content
    assert "".join(one.token for one in whole.choices[1].logprobs.content) == whole.choices[1].message.content
    chunks = list(ask.chat.completions.create(model="tuned", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    answered = [*messages, whole.choices[0].message, {"role": "user", "content": "Sure?"}]
    assert ask.chat.completions.create(model="tuned", messages=answered).choices[0].message.content is not None


def test_completions(ask: Any) -> None:
    found = ask.completions.create(model="base", prompt=["a", "b"], max_tokens=3, logprobs=2)
    assert [choice.index for choice in found.choices] == [0, 1] and found.usage.completion_tokens == 6


def test_errors_are_raised_as_their_types(ask: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.NotFoundError, match="there are base, tuned") as found:
        ask.chat.completions.create(model="gpt-4o", messages=messages)
    assert (found.value.param, found.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError) as found:
        ask.chat.completions.create(model="tuned", messages=messages, temperature=3)
    assert found.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="did you mean temperature"):
        ask.chat.completions.create(model="tuned", messages=messages, extra_body={"temprature": 1})
