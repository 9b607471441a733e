"""What the tests of inference share: a chat tokenizer, tiny models, a conversation. A plugin, as `spoiled`."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hone.config.sections.generate import GenerateSection
from hone.inference.chat import Conversation
from hone.inference.engine import Engine, Request

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def chat_tokenizer(tokenizer: Any) -> Any:
    """Two special tokens more; the end token stays <|endoftext|>, as in a base model tuned with ChatML."""
    chat = copy.deepcopy(tokenizer)
    chat.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    chat.chat_template = CHATML
    return chat


@pytest.fixture(scope="session")
def teach(tiny_model: Callable[..., Any]) -> Callable[..., Any]:
    """teach(tokenizer, [(prompt ids, answer ids), …]) -> a tiny GPT-2 that has learned these answers by heart."""
    import torch

    def taught(tokenizer: Any, lessons: Sequence[tuple[list[int], list[int]]], steps: int = 150) -> Any:
        model = tiny_model("gpt2", vocab_size=len(tokenizer))
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(steps):
            losses = []
            for prompt, answer in lessons:
                ids = torch.tensor([prompt + answer])
                labels = torch.tensor([[-100] * len(prompt) + answer])
                losses.append(model(input_ids=ids, labels=labels).loss)
            loss = torch.stack(losses).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.05, "the tiny model did not learn"
        return model.eval()

    return taught


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompt ids of every answer, as they go to the model."""
    found: list[list[int]] = []
    add = Engine.add

    def spy(engine: Engine, request: Request) -> Any:
        found.append(list(request.prompt))
        return add(engine, request)

    monkeypatch.setattr(Engine, "add", spy)
    return found


@pytest.fixture
def conversation(tiny_model: Callable[..., Any], chat_tokenizer: Any) -> Conversation:
    """A random model with a window of 512 and a ChatML template."""
    model = tiny_model("gpt2", vocab_size=len(chat_tokenizer), n_positions=512)
    return Conversation(model, chat_tokenizer, "chat", GenerateSection(max_new_tokens=20))
