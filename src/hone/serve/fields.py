"""What a request may say: every field of OpenAI's API is honoured, refused by name, or named as ignored.

The models below are the one list: requests are checked with them, and `/openapi.json` is made of them.

>>> read_chat({"model": "tuned", "messages": [{"role": "user", "content": "Hi"}], "user": "me"}).ignored
['user']
"""

import difflib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.serve.refusal import JsonObject, Refusal

MOST_ANSWERS = 64  # of one request: prompts x n
# Fields that change nothing here. A request that has them is answered, and the header x-hone-ignored names them.
IGNORED = {
    "user": "who asks makes no difference",
    "safety_identifier": "who asks makes no difference",
    "metadata": "nothing is stored",
    "store": "nothing is stored",
    "service_tier": "there is one",
    "prompt_cache_key": "prompts that begin alike are found without it",
    "prompt_cache_retention": "prompts that begin alike are found without it",
    "prediction": "a hint for speed, the answer is the same",
    "parallel_tool_calls": "there are no tools",
}
# Fields that would change the answer and cannot be honoured -> why; and values beside null that ask for nothing.
REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("tools are not called", ([],)),
    "tool_choice": ("tools are not called", ("none", "auto")),
    "functions": ("functions are not called", ([],)),
    "function_call": ("functions are not called", ("none", "auto")),
    "response_format": ("answers are plain text; leave response_format out", ({"type": "text"},)),
    "modalities": ("answers are text", (["text"],)),
    "audio": ("answers are text", ()),
    "web_search_options": ("nothing is searched", ()),
    "reasoning_effort": ("the model's thoughts, if it has any, are part of its answer", ()),
    "verbosity": ("say it in the prompt", ()),
    "best_of": ("answers are not ranked; ask for n of them", (1,)),
    "suffix": ("the model continues text, it does not fill in", ("",)),
}
# What clients send back of an answer they were given: empty it says nothing, full it is refused.
EMPTY: tuple[Any, ...] = (None, [], "")
OF_AN_ANSWER = ("refusal", "annotations", "tool_calls", "function_call", "audio", "reasoning_content", "reasoning")

Some = Field(min_length=1)
Prompts = str | Annotated[list[str], Some] | Annotated[list[int], Some] | Annotated[list[list[int]], Some]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(Body):
    type: Literal["text"]
    text: str


class Turn(Body):
    """One message. `developer` is another word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(None, description="ignored")

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="ignored")


class Sampled(Body):
    """What both endpoints take. Where a field is left out, the settings of the run hold, as for `hone generate`."""

    model: str
    max_tokens: int | None = Field(None, ge=1, description="at most so many new tokens; the window may end it earlier")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_ANSWERS)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="counts modulo 2**32")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    top_k: int | None = Field(None, ge=0, description="not OpenAI's")
    min_p: float | None = Field(None, ge=0, le=1, description="not OpenAI's")
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="not OpenAI's")


class ChatBody(Sampled):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


class CompletionBody(Sampled):
    prompt: Prompts
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = Field(None, description="the prompt stands before the answer; not together with logprobs")


class Asked:
    """A request that has been read. body: its fields, checked. ignored: names of those that change nothing."""

    def __init__(self, body: ChatBody | CompletionBody, ignored: list[str]) -> None:
        self.body, self.ignored = body, ignored

    @property
    def logprobs(self) -> int | None:
        """How many alternatives are wanted beside each token; None for no log-probabilities."""
        if isinstance(self.body, ChatBody):
            return (self.body.top_logprobs or 0) if self.body.logprobs else None
        return self.body.logprobs

    @property
    def max_new_tokens(self) -> int | None:
        newer = self.body.max_completion_tokens if isinstance(self.body, ChatBody) else None
        return newer or self.body.max_tokens

    @property
    def stop(self) -> list[str] | None:
        stop = self.body.stop
        return [stop] if isinstance(stop, str) else stop

    @property
    def chat(self) -> bool:
        return isinstance(self.body, ChatBody)

    @property
    def echo(self) -> bool:
        return isinstance(self.body, CompletionBody) and bool(self.body.echo)

    @property
    def include_usage(self) -> bool:
        return bool(self.body.stream_options and self.body.stream_options.include_usage)


def read_json(raw: bytes) -> JsonObject:
    """A request's body.

    Raises:
        Refusal: it is not a JSON object of numbers and text as they are.
    """
    try:
        found = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {str(error)[:200] or type(error).__name__}") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is JSON, but not an object")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def read_chat(given: Mapping[str, Any]) -> Asked:
    """The body of a chat completion.

    Raises:
        Refusal: with the field that is to blame in `param`.
    """
    fields, ignored = _sorted_out(given, ChatBody)
    if isinstance(fields.get("messages"), list):
        fields["messages"] = [_turn(turn, i) for i, turn in enumerate(fields["messages"])]
    body = _checked(ChatBody, fields)
    assert isinstance(body, ChatBody)
    if body.top_logprobs is not None and not body.logprobs:
        raise Refusal(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if None not in (both := (body.max_tokens, body.max_completion_tokens)) and both[0] != both[1]:
        raise Refusal(400, "max_tokens and max_completion_tokens are one setting: give one", param="max_tokens")
    if body.messages[-1].role != "user":
        raise Refusal(400, "the last message must be the user's: it is the one that is answered", param="messages")
    if any(turn.name for turn in body.messages):
        ignored.append("messages.name")
    return _asked(body, ignored)


def read_completion(given: Mapping[str, Any]) -> Asked:
    """The body of a completion.

    Raises:
        Refusal: with the field that is to blame in `param`.
    """
    fields, ignored = _sorted_out(given, CompletionBody)
    body = _checked(CompletionBody, fields)
    assert isinstance(body, CompletionBody)
    if body.echo and body.logprobs is not None:
        raise Refusal(400, "log-probabilities of the prompt are not computed: leave echo or logprobs out", param="echo")
    n_prompts = len(body.prompt) if isinstance(body.prompt, list) and not isinstance(body.prompt[0], int) else 1
    if n_prompts * (body.n or 1) > MOST_ANSWERS:
        message = f"{n_prompts} prompts x n {body.n or 1} are more than {MOST_ANSWERS} answers at once"
        raise Refusal(400, message, param="n" if n_prompts <= MOST_ANSWERS else "prompt")
    return _asked(body, ignored)


def _asked(body: ChatBody | CompletionBody, ignored: list[str]) -> Asked:
    if body.stream_options is not None:
        if not body.stream:
            raise Refusal(400, "stream_options needs stream: true", param="stream_options")
        if body.stream_options.include_obfuscation is not None:
            ignored.append("stream_options.include_obfuscation")
    return Asked(body, ignored)


def _sorted_out(given: Mapping[str, Any], kind: type[Sampled]) -> tuple[JsonObject, list[str]]:
    """The fields that are honoured, and the names of those ignored."""
    for name, (why, harmless) in REFUSED.items():
        if name in given and not _is_one_of(given[name], (None, *harmless)):
            raise Refusal(400, f"{name} is not supported: {why}", param=name, code="unsupported_parameter")
    known = kind.model_fields
    for name in given:
        if name not in known and name not in IGNORED and name not in REFUSED:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"unrecognized request argument: {name[:80]}{hint}"
            raise Refusal(400, message, param=name[:80], code="unknown_parameter")
    return {name: given[name] for name in known if name in given}, [name for name in IGNORED if name in given]


def _is_one_of(value: Any, harmless: tuple[Any, ...]) -> bool:
    return any(type(value) is type(one) and value == one for one in harmless)


def _turn(turn: Any, i: int) -> Any:
    """A message without the empty fields that clients send back of an answer, and with no part but text."""
    if not isinstance(turn, dict):
        return turn
    for name in OF_AN_ANSWER:
        if not _is_one_of(turn.get(name), EMPTY):
            raise Refusal(400, f"messages with {name} are not read", param=f"messages[{i}].{name}")
    if turn.get("role") in ("tool", "function"):
        raise Refusal(400, "there are no tools: roles are system, user, assistant", param=f"messages[{i}].role")
    parts = turn.get("content")
    for j, part in enumerate(parts if isinstance(parts, list) else []):
        if isinstance(part, dict) and part.get("type") in ("image_url", "input_audio", "file", "video_url"):
            message = f"only text is read, no {part['type']}"
            raise Refusal(400, message, param=f"messages[{i}].content[{j}]", code="unsupported_parameter")
    return {name: value for name, value in turn.items() if name not in OF_AN_ANSWER}


def _checked(kind: type[Sampled], fields: JsonObject) -> Sampled:
    try:
        _check_text(fields)
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = _path(first["loc"], kind)
        raise Refusal(400, f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}", param=param) from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None


def _path(loc: tuple[int | str, ...], kind: type[Sampled]) -> str:
    """('messages', 0, 'content', 'str') -> messages[0].content: what is a field, not a branch of a union."""
    known = {*kind.model_fields, *Turn.model_fields, *TextPart.model_fields, *StreamOptions.model_fields}
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step in known:
            path += f".{step}" if path else step
    return path or str(loc[0])


def _check_text(value: Any, param: str = "") -> None:
    """Half a surrogate pair is JSON, and no text: no tokenizer takes it."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Refusal(400, f"{param}: not Unicode text (half a surrogate pair)", param=param) from None
    elif isinstance(value, dict):
        for name, one in value.items():
            _check_text(name, param)
            _check_text(one, f"{param}.{name}" if param else name)
    elif isinstance(value, list):
        for i, one in enumerate(value):
            _check_text(one, f"{param}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Refusal(400, f"{param}: a number beyond all bounds", param=param)
