"""From a request that has been read to requests for the engine: prompts in ids, settings, and the room there is.

>>> engine_requests(served, read_chat(body))                                                    # doctest: +SKIP
"""

import secrets
from dataclasses import dataclass

from hone.config.sections.generate import GenerateSection
from hone.data.records import BadRow, Chat, Example, Message
from hone.errors import HoneError
from hone.inference.engine import Request
from hone.inference.generate import answer_rule, start_id
from hone.inference.prompts import prompt_ids
from hone.inference.stream import Answer
from hone.models.inspect import reads_source
from hone.serve.fields import Asked, ChatBody, CompletionBody
from hone.serve.models import Served
from hone.serve.refusal import Refusal

SMALLEST_TOP_P = 1e-9  # 0 is OpenAI's word for it: the likeliest token alone


@dataclass(frozen=True)
class Prepared:
    """requests: prompt by prompt, n answers of each. texts: the prompts, for `echo`. seed: of the draws."""

    requests: list[Request]
    texts: list[str]
    n_prompt_tokens: int
    seed: int
    n: int


def engine_requests(served: Served, asked: Asked, default_seed: int | None = None) -> Prepared:
    """What the engine is to do for a request.

    Args:
        default_seed: for requests without one; None draws one for each.

    Raises:
        Refusal: the template cannot format the messages, or a prompt leaves no room in the window.
    """
    body = asked.body
    seed = body.seed if body.seed is not None else default_seed
    seed = secrets.randbits(32) if seed is None else seed % 2**32
    template = served.template if isinstance(body, ChatBody) else "plain"
    prompts, texts = _prompts(served, body)
    settings = _settings(served, asked, seed)
    bias = _bias(served, body.logit_bias or {})
    n = body.n or 1
    requests = []
    for ids in prompts:
        _check_window(served, ids, "messages" if isinstance(body, ChatBody) else "prompt")
        rule = answer_rule(served.model, served.tokenizer, template, settings, len(ids))
        before = [] if reads_source(served.model) else ids
        requests += [
            Request(
                prompt=ids,
                answer=Answer(served.decoder, before, rule),
                settings=settings,
                number=number,
                logprobs=asked.logprobs,
                presence_penalty=body.presence_penalty or 0.0,
                frequency_penalty=body.frequency_penalty or 0.0,
                repetition_penalty=body.repetition_penalty or 1.0,
                min_p=body.min_p or 0.0,
                logit_bias=bias,
            )
            for number in range(n)
        ]
    return Prepared(requests, texts, sum(map(len, prompts)), seed, n)


def _settings(served: Served, asked: Asked, seed: int) -> GenerateSection:
    """The model's own settings with the request's over them; see `fields.Sampled` for the bounds."""
    body = asked.body
    given = {
        "temperature": body.temperature,
        "top_p": None if body.top_p is None else max(body.top_p, SMALLEST_TOP_P),
        "top_k": body.top_k,
        "max_new_tokens": asked.max_new_tokens,
        "stop": asked.stop,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return served.settings.model_copy(update={**changes, "sampling_seed": seed, "num_return_sequences": 1})


def _bias(served: Served, given: dict[str, float]) -> dict[int, float]:
    n_tokens = int(served.model.get_input_embeddings().weight.shape[0])
    for name in given:
        if not (name.isascii() and name.isdigit() and len(name) < 10 and int(name) < n_tokens):
            message = f"logit_bias: {name[:40]!r} is not one of the {n_tokens} token ids"
            raise Refusal(400, message, param="logit_bias")
    return {int(name): float(value) for name, value in given.items()}


def _prompts(served: Served, body: ChatBody | CompletionBody) -> tuple[list[list[int]], list[str]]:
    """Ids of each prompt, and its text where it was text or may have to be shown."""
    if isinstance(body, ChatBody):
        return [_ids(served, conversation(served, body), served.template, "messages")], []
    given = body.prompt
    several = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    ids, texts = [], []
    for one in several:
        if isinstance(one, str):
            ids.append(_ids(served, one, "plain", "prompt"))
            texts.append(one)
        else:
            assert isinstance(one, list)
            ids.append(_checked_ids(served, one))
            texts.append(str(served.tokenizer.decode(ids[-1])) if body.echo else "")
    return ids, texts


def conversation(served: Served, body: ChatBody) -> Example | str:
    """The messages as an example, or the one message that a template without turns has a place for.

    Raises:
        Refusal: more than that was sent: a model that was trained without turns would not see them as such.
    """
    if served.template == "chat":
        roles = (("system" if turn.role == "developer" else turn.role) for turn in body.messages)
        return Chat([Message(role, turn.text) for role, turn in zip(roles, body.messages)])
    if len(body.messages) > 1:
        raise Refusal(
            400,
            f"'{served.name}' was trained with the template '{served.template}', which has no form for a system "
            "message or earlier turns: send one message of the user, and what it needs to know in it",
            param="messages",
            code="unsupported_conversation",
        )
    return body.messages[0].text


def _ids(served: Served, prompt: Example | str, template: str, param: str) -> list[int]:
    try:
        ids = prompt_ids(prompt, template, served.tokenizer, framed=reads_source(served.model))
        return ids or [start_id(served.tokenizer)]
    except (BadRow, HoneError) as error:
        raise Refusal(400, str(error).replace("\n", ";"), param=param) from None


def _checked_ids(served: Served, ids: list[int]) -> list[int]:
    n_tokens = int(served.model.get_input_embeddings().weight.shape[0])
    if wrong := [one for one in ids if not 0 <= one < n_tokens]:
        raise Refusal(400, f"prompt: {str(wrong[0])[:40]} is not one of the {n_tokens} token ids", param="prompt")
    return ids or [start_id(served.tokenizer)]


def _check_window(served: Served, ids: list[int], param: str) -> None:
    window = served.window
    if window is not None and len(ids) >= window:
        message = (
            f"the prompt has {len(ids)} tokens and the context of '{served.name}' is {window} tokens: nothing is left "
            "for an answer; shorten the prompt"
        )
        raise Refusal(400, message, param=param, code="context_length_exceeded")
