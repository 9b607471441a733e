"""The only place a prompt is formatted: an example becomes segments of text, each supervised or not.

Training tokenises the segments one by one; generation feeds `render_prompt`, which is letter for letter what training
masked before an answer. End tokens that no template writes are appended by the encoder, not here. A chat template
writes its own special tokens (and begin-of-text), so its text must be tokenised with specials parsed and none added.

>>> render(Pair("2+2=", "4"), "plain", None)
[Segment(text='2+2=', supervised=False), Segment(text='4', supervised=True)]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.data.records import BadRow, Chat, Example, Instruction, Labelled, Message, Pair, SourceTarget, Text
from hone.data.template_rendering import Cut, Refused, rendered
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Alpaca's headings without its preamble sentence, which costs tokens in every row and says nothing about any.
HEADING = "### Instruction:"
INSTRUCTION = HEADING + "\n{instruction}\n\n"
INPUT = "### Input:\n{input}\n\n"
RESPONSE = "### Response:\n"
SHOWN = 24  # characters on each side of a border


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text whose tokens all count in the loss, or all do not."""

    text: str
    supervised: bool


def resolve_template(template: str, form: str, has_chat_template: bool) -> str:
    """The template to use for rows of this form: "plain", "instruction" or "chat".

    Args:
        template: one of those, or "auto": "chat" for conversations, "instruction" for instructions, else "plain".
        form: as named by `records.detect_form`.

    Raises:
        HoneError: the template cannot format this form, or the tokenizer has no chat template.
    """
    chats = form in ("messages", "conversations")
    if template == "auto":
        template = "chat" if chats else "instruction" if form == "instruction" else "plain"
    if chats and template != "chat":
        raise HoneError(
            f"template '{template}' cannot format conversations", fix="use template=chat, or rows of prompt+completion"
        )
    if form == "text" and template != "plain":
        raise HoneError(
            f"template '{template}' needs a prompt and an answer, and these rows hold only text",
            fix="use template=plain, or name the two columns: column_mapping: {prompt: …, completion: …}",
        )
    if template == "chat" and not has_chat_template:
        raise HoneError(
            "these rows need a chat template, and the tokenizer has none"
            if chats
            else "the tokenizer has no chat template",
            fix="choose an instruction-tuned base model, put a chat_template.jinja next to the tokenizer's files, or "
            "turn the rows into prompt+completion (template=plain) or instruction+output (template=instruction)",
        )
    return template


def render(example: Example, template: str, tokenizer: "PreTrainedTokenizerBase | None") -> list[Segment]:
    """Format one example; never empty. `tokenizer` is used by the template "chat" only.

    The texts joined are the whole example as the model sees it. In a chat every assistant turn is supervised with
    its end-of-turn marker; the white space a template puts after that marker belongs to the template and is not.

    Raises:
        BadRow: the tokenizer's chat template refuses this conversation.
        HoneError: the template cannot format this kind of example.
    """
    if template == "chat":
        return _chat_segments(_conversation(example), _required(tokenizer))
    match example:
        case Text(text) if template == "plain":
            return [Segment(text, True)]
        case Pair(prompt, completion) if template == "plain":
            return [Segment(prompt, False), Segment(completion, True)]
        case Pair(prompt, completion):
            return [Segment(_instruction_prompt(prompt, ""), False), Segment(completion, True)]
        case Instruction(instruction, given, output) if template == "instruction":
            return [Segment(_instruction_prompt(instruction, given), False), Segment(output, True)]
        case Instruction(instruction, given, output):
            return [Segment(_plain_prompt(instruction, given), False), Segment(output, True)]
    raise _unformattable(example, template)


def render_prompt(
    example_or_prompt: Example | str,
    template: str,
    tokenizer: "PreTrainedTokenizerBase | None",
    *,
    system: str | None = None,
) -> str:
    """What generation feeds the model: the text before the answer, as `render` formats it.

    A string is a prompt, an instruction or a user's turn, as the template has it. Of a chat that ends with an
    assistant's turn, everything before that turn is the prompt; otherwise the assistant is to answer the last turn.
    `system` opens a chat that has no system message of its own.

    Raises:
        BadRow, HoneError: as `render`; also for `system` where the template has no place for it.
    """
    if template == "chat":
        prompt = example_or_prompt
        messages = [Message("user", prompt)] if isinstance(prompt, str) else _conversation(prompt)
        if messages[-1].role == "assistant":
            messages = messages[:-1]
        if system is not None and not (messages and messages[0].role == "system"):
            messages = [Message("system", system), *messages]
        return _texts(messages, _required(tokenizer), [(len(messages), True)])[0]
    if system is not None:
        raise HoneError(f"template '{template}' has no place for a system message", fix="write it into the prompt")
    if isinstance(example_or_prompt, str):
        example_or_prompt = Pair(example_or_prompt, "")
    return "".join(s.text for s in render(example_or_prompt, template, tokenizer) if not s.supervised)


def border_note(example: Example) -> str | None:
    """What a prompt that is joined with its completion, both as they are, looks like where nothing lies between them.

    >>> border_note(Pair("What is 1+1?", "2"))
    "the first row is trained as 'What is 1+1?' + '2', nothing between (template=instruction, or plain if meant)"
    """
    if not isinstance(example, Pair) or not (example.prompt.strip() and example.completion.strip()):
        return None
    if example.prompt[-1].isspace() or example.completion[0].isspace():
        return None
    prompt = ("…" if len(example.prompt) > SHOWN else "") + example.prompt[-SHOWN:]
    completion = example.completion[:SHOWN] + ("…" if len(example.completion) > SHOWN else "")
    return (
        f"the first row is trained as {prompt!r} + {completion!r}, nothing between "
        "(template=instruction, or plain if meant)"
    )


def code_request(code: str, template: str) -> Example | str:
    """The beginning of a program that a model is to complete, in the form of a row, or as it is if it is plain."""
    return code if template == "plain" else Instruction("Complete this Python code.", code, "")


def program_request(words: str, template: str) -> Example | str:
    """A program asked for in words, in the form of a row; plain, a docstring at the top of that program.

    >>> program_request("Double x.", "plain")
    '\"\"\"\\nDouble x.\\n\"\"\"\\n'
    """
    if template != "plain":
        return Instruction(words, "", "")
    quoted = words.replace('"""', "'''")
    return f'"""\n{quoted}\n"""\n'


def with_names(words: str, names: Sequence[str], test: str) -> str:
    """A task in words, with the names that its tests call: by its first test if that is an assertion of one line.

    >>> with_names("Double x.", ["twice"], "assert twice(1) == 2")
    'Double x.\\nassert twice(1) == 2'
    """
    if all(name in words for name in names):
        return words
    if test.startswith("assert ") and "\n" not in test:
        return f"{words}\n{test}"
    return f"{words}\nThe name to define: {', '.join(names)}"


def _instruction_prompt(instruction: str, given: str) -> str:
    block = INPUT.format(input=given) if given else ""
    return INSTRUCTION.format(instruction=instruction) + block + RESPONSE


def _plain_prompt(instruction: str, given: str) -> str:
    """An instruction without headings: a line break separates the parts, as a person would type them."""
    return f"{instruction}\n{given}\n" if given else f"{instruction}\n"


def _conversation(example: Example) -> Sequence[Message]:
    match example:
        case Chat(messages):
            return messages
        case Pair(prompt, completion):
            return [Message("user", prompt), Message("assistant", completion)]
        case Instruction(instruction, given, output):
            question = f"{instruction}\n\n{given}" if given else instruction
            return [Message("user", question), Message("assistant", output)]
    raise _unformattable(example, "chat")


def _unformattable(example: Example, template: str) -> HoneError:
    fixes: dict[type, str] = {
        Text: "use template=plain",
        Chat: "use template=chat",
        Labelled: "use task=classification; to train on the text alone, leave the label column out of the file",
        SourceTarget: "use task=seq2seq, or name the columns: column_mapping: {prompt: source, completion: target}",
    }
    columns = {Text: "text", Chat: "messages", Labelled: "text+label", SourceTarget: "source+target"}[type(example)]
    return HoneError(f"template '{template}' cannot format rows of {columns}", fix=fixes[type(example)])


def _required(tokenizer: "PreTrainedTokenizerBase | None") -> "PreTrainedTokenizerBase":
    assert tokenizer is not None, "template 'chat' is the tokenizer's own: pass the tokenizer"
    return tokenizer


def _texts(messages: Sequence[Message], tokenizer: "PreTrainedTokenizerBase", cuts: Sequence[Cut]) -> list[str]:
    """The tokenizer's chat template as text, for some beginnings of a conversation.

    Args:
        cuts: for each how many messages, and whether to open an assistant's turn at the end.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, each with a name
        template = template.get("default")
    try:
        if isinstance(template, str):
            if any(not n for n, _ in cuts):
                raise Refused((0, True), "it has nothing to render")
            name = str(tokenizer.name_or_path)
            return rendered(template, tokenizer.special_tokens_map, turns, cuts, name)
        return [_by_the_tokenizer(tokenizer, turns[:n], answer_next) for n, answer_next in cuts]
    except Refused as error:
        roles = ", ".join(message.role for message in messages[: error.cut[0]]) or "none"
        raise BadRow(f"the tokenizer's chat template refuses the turns ({roles}): {error.words}") from error


def _by_the_tokenizer(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]], answer_next: bool) -> str:
    """A conversation as text by a tokenizer that has a program of its own in the place of one template."""
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise Refused((len(turns), answer_next), str(error)) from error
    assert isinstance(text, str), "tokenize=False gives text"
    return text


def _chat_segments(messages: Sequence[Message], tokenizer: "PreTrainedTokenizerBase") -> list[Segment]:
    """Cut a rendered conversation at the assistant's turns.

    Turn i begins where the rendering of the turns before it, with an assistant's turn opened, ends. That must be a
    prefix of the whole, or what generation feeds the model would differ from what it was trained on.
    """
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    cuts = dict.fromkeys([(len(messages), False), *(cut for i in answers for cut in ((i, True), (i + 1, False)))])
    texts = dict(zip(cuts, _texts(messages, tokenizer, list(cuts)), strict=True))
    whole = texts[len(messages), False]
    segments: list[Segment] = []
    done = 0
    for i in answers:
        prompt, until_here = texts[i, True], texts[i + 1, False]
        end = _turn_end(whole, prompt, until_here, messages[i].content)
        segments += [Segment(whole[done : len(prompt)], False), Segment(whole[len(prompt) : end], True)]
        done = end
    if done < len(whole):
        segments.append(Segment(whole[done:], False))
    return segments


def _turn_end(whole: str, prompt: str, until_here: str, content: str) -> int:
    """Where the assistant's turn that follows `prompt` ends in `whole`, its end-of-turn marker included.

    until_here: the conversation rendered as if it ended with this turn.
    """
    if not (whole.startswith(prompt) and until_here.startswith(prompt)):
        raise HoneError(
            "the tokenizer's chat template does not render a conversation as a continuation of its beginning, so "
            "which tokens the assistant speaks is not certain",
            fix="use a chat template without look-ahead (chat_template.jinja), or prompt+completion rows",
        )
    answer, turn = content.strip(), until_here[len(prompt) :]  # many templates trim what they are given
    # The answer's words may also occur around it ("think" in "<think>"), so both of its outer places are tried.
    for at in (turn.find(answer), turn.rfind(answer)) if answer else (0,):
        after = turn[at + len(answer) :]
        marker = after.rstrip() or after  # without a visible marker, the white space itself ends the turn
        if whole.startswith(until_here):
            return len(until_here) - (len(after) - len(marker))
        if whole.startswith(answer + marker, len(prompt)):  # an earlier turn in another dress: see below
            return len(prompt) + len(answer) + len(marker)
    # Qwen3 drops the empty thought before every answer but the last: found above. What changes more is not guessed.
    raise HoneError(
        "the tokenizer's chat template rewrites earlier turns of a conversation, so its answers cannot be found",
        fix="use conversations with one assistant turn, or a chat template that keeps earlier turns",
    )
