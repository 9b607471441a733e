"""Ollama: its reader's grammar accepts the Modelfile, and the template renders the prompt of the training.

The reader is Ollama's `parser/parser.go`, state by state; the template language is the part of Go's text/template that
is written here, evaluated independently of what wrote it.
"""

import ast
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.config.sections.generate import GenerateSection
from hone.convert import gguf_check
from hone.convert.export import export
from hone.convert.ollama import go_string, modelfile, sayable
from hone.convert.prompt_form import jinja_of, turns_of
from hone.data.records import Chat, Message
from hone.data.templates import render_prompt
from hone.errors import HoneError

COMMANDS = {"from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message"}


def is_print(letter: str) -> bool:
    """Go's strconv.IsPrint: letters, marks, numbers, punctuation, symbols and the ASCII space."""
    return letter == " " or unicodedata.category(letter)[0] in "LMNPS"


def unquote(text: str) -> tuple[str, bool]:
    if text[:3] == '"""':
        return (text[3:-3], True) if len(text) >= 6 and text[-3:] == '"""' else ("", False)
    if text[:1] == '"':
        return (text[1:-1], True) if len(text) >= 2 and text[-1] == '"' else ("", False)
    return text, True


def step(state: str, letter: str) -> tuple[str, str]:
    """parseRuneForState: the next state, and the letter to keep (none: a zero, which does not print)."""
    space, line = letter in " \t", letter in "\r\n"
    if state == "nil":
        after = "comment" if letter == "#" else "nil" if space or line else "name"
        return after, letter if after == "name" else "\0"
    if state in ("name", "parameter"):
        assert space or re.match("[A-Za-z]" if state == "name" else "[A-Za-z0-9_]", letter), f"{letter!r} in a {state}"
        return ("value", "\0") if space else (state, letter)
    if state == "comment":
        return ("nil", "\0") if line else ("comment", letter)
    return ("nil" if line or space else "value"), letter


def parse(text: str) -> list[tuple[str, str]]:
    """Commands of a Modelfile, as ParseFile reads them (without MESSAGE)."""
    found: list[tuple[str, str]] = []
    state, name, buffer = "nil", "", ""
    for given in text:
        after, letter = step(state, given)
        if after != state:
            if state == "name":
                assert buffer.lower() in COMMANDS, buffer
                name = {"from": "model"}.get(buffer.lower(), buffer.lower())
                after = "parameter" if name == "parameter" else after
            elif state == "parameter":
                name = buffer
            elif state == "value":
                value, whole = unquote(buffer.strip())
                if not whole or given in " \t":
                    buffer += given
                    continue
                found.append((name, value))
            state, buffer = after, ""
        if is_print(letter):
            buffer += letter
    if state == "value":
        value, whole = unquote(buffer.strip())
        assert whole, "unexpected end"
        found.append((name, value))
    assert any(name == "model" for name, _ in found), "no FROM line"
    return found


# ---- the part of Go's text/template that is written ------------------------------------------------------------------


def go_tree(template: str) -> list[Any]:
    """Nodes: a text, ("value", words), ("range", words, nodes), ("if", [(words or None, nodes), …])."""
    tokens = re.split(r'(\{\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}\})', template)
    at = 0

    def nodes() -> list[Any]:
        nonlocal at
        found: list[Any] = []
        while at < len(tokens):
            token = tokens[at]
            if not token.startswith("{{"):
                assert "{{" not in token, token
                found.append(token)
                at += 1
                continue
            words = re.findall(r'"(?:[^"\\]|\\.)*"|\(|\)|:=|,|[^\s(),"]+', token[2:-2])
            if words[0] in ("end", "else"):
                return found
            at += 1
            if words[0] == "range":
                found.append(("range", words[1:], nodes()))
                at += 1  # its end
            elif words[0] == "if":
                branches: list[Any] = [(words[1:], nodes())]
                while "else" in tokens[at]:
                    words = re.findall(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()"]+', tokens[at][2:-2])
                    at += 1
                    branches.append((words[2:] or None, nodes()))
                at += 1
                found.append(("if", branches))
            else:
                found.append(("value", words))
        return found

    return nodes()


def go_value(words: list[str], scope: dict[str, Any]) -> Any:
    word = words.pop(0)
    if word == "(":
        value = go_call(words, scope)
        assert words.pop(0) == ")"
        return value
    if word[0] == '"':
        return ast.literal_eval(word)  # the escapes that are written mean the same in both
    if word.isdigit():
        return int(word)
    name, *path = word.split(".")
    value = scope[name] if name else scope["$"]
    for part in path:
        value = value[part]
    return value


def go_call(words: list[str], scope: dict[str, Any]) -> Any:
    name = words[0]
    if name not in ("eq", "len", "slice"):
        return go_value(words, scope)
    words.pop(0)
    given = []
    while words and words[0] != ")":
        given.append(go_value(words, scope))
    if name == "eq":
        return given[0] == given[1]
    return len(given[0]) if name == "len" else given[0][given[1] :]


def go_render(nodes: list[Any], scope: dict[str, Any]) -> str:
    text = ""
    for node in nodes:
        if isinstance(node, str):
            text += node
        elif node[0] == "value":
            text += str(go_call(list(node[1]), scope))
        elif node[0] == "range":
            words = list(node[1])
            names = words[: words.index(":=")]
            values = go_value(words[words.index(":=") + 1 :], scope)
            for i, value in enumerate(values):
                own = {names[0]: i, names[2]: value} if "," in names else {names[0]: value}
                text += go_render(node[2], {**scope, **own})
        else:
            for words, inner in node[1]:
                if words is None or go_call(list(words), scope):
                    text += go_render(inner, scope)
                    break
    return text


def ollama(text: str, *turns: tuple[str, str]) -> str:
    """What Ollama's server makes of a conversation with this Modelfile, before llama.cpp adds begin-of-text."""
    commands = dict(parse(text))
    messages = [{"Role": role, "Content": content} for role, content in turns]
    if "system" in commands and turns[0][0] != "system":
        messages.insert(0, {"Role": "system", "Content": commands["system"]})
    return go_render(go_tree(commands["template"]), {"$": {"Messages": messages}})


# ---- plain and instruction -------------------------------------------------------------------------------------------

TEXTS = ["Add 2 and 3.", "a {{ b }} \"c\" '''", "line\n\n  two\t", "größe 你好 🙂", ""]


@pytest.mark.parametrize("template", ["plain", "instruction"])
def test_the_last_message_is_asked_in_the_form_of_the_training(template: str, tokenizer: Any) -> None:
    settings = GenerateSection(max_new_tokens=77, temperature=0.5, top_k=5, top_p=0.9, stop=["\n\n\n", "### "])
    text, notes = modelfile("my-f16.gguf", template, tokenizer, settings, 512)
    assert not notes
    for asked in TEXTS:
        expected = render_prompt(asked, template, tokenizer)
        assert ollama(text, ("user", asked)) == expected
        assert ollama(text, ("user", "before"), ("assistant", "an answer"), ("user", asked)) == expected
    commands = parse(text)
    assert commands[0] == ("model", "./my-f16.gguf") and ("num_ctx", "512") in commands
    wanted = {
        "num_predict": "77",
        "temperature": "0.5",
        "top_k": "5",
        "top_p": "0.9",
        "min_p": "0",
        "repeat_penalty": "1",
    }
    assert wanted.items() <= dict(commands).items()
    assert [value for name, value in commands if name == "stop"] == ["\n\n\n", "### "]


@pytest.mark.parametrize("template", ["plain", "instruction"])
def test_the_files_chat_template_writes_the_same(template: str, tokenizer: Any) -> None:
    import jinja2

    jinja = jinja2.Template(jinja_of(template, tokenizer), keep_trailing_newline=True)
    for asked in TEXTS:
        messages = [{"role": "user", "content": "before"}, {"role": "user", "content": asked}]
        assert jinja.render(messages=messages) == render_prompt(asked, template, tokenizer)


# ---- chat ------------------------------------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN2 = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
    "m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
ODD = "{% for m in messages %}{{ '«' + m['role'] + '\u00a0🙂\"\"\"{{' + m['content'] + '»' }}{% endfor %}{{ 'A:' }}"
LAST_ONLY = "{{ 'Q: ' + messages[-1]['content'] + ' A:' }}"
UPPER = "{% for m in messages %}{{ m['role'] | upper + ': ' + (m['content'] | upper) + ';' }}{% endfor %}"
NUMBERED = (
    "{% for m in messages %}{{ loop.index | string + ' ' + m['role'] + m['content'] + ';' }}{% endfor %}{{ 'x' }}"
)


@pytest.fixture
def speaking(tokenizer: Any) -> Callable[[str], Any]:
    """The tests' tokenizer with a chat template, and a begin-of-text token of its own."""
    import copy

    def build(template: str) -> Any:
        found = copy.deepcopy(tokenizer)
        found.chat_template = template
        found.add_special_tokens({"bos_token": "<s>"})
        return found

    return build


CONVERSATIONS: list[tuple[tuple[str, str], ...]] = [
    (("user", "Add 2."),),
    (("user", "a\nb"), ("assistant", "c {{ }}"), ("user", '"d" 🙂')),
    (("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")),
]
WITH_SYSTEM = [(("system", "Be brief."), *turns) for turns in CONVERSATIONS]


@pytest.mark.parametrize("template", [CHATML, QWEN2, LLAMA3, MISTRAL, ZEPHYR, ODD])
def test_a_conversation_is_written_as_the_chat_template_does(template: str, speaking: Any) -> None:
    tokenizer = speaking(template)
    text, notes = modelfile("m.gguf", "chat", tokenizer, GenerateSection(), 256)
    assert any("trims" in note for note in notes) == (template == LLAMA3)
    for turns in CONVERSATIONS + (WITH_SYSTEM if template != MISTRAL else []):
        expected = render_prompt(Chat([Message(role, content) for role, content in turns]), "chat", tokenizer)
        assert ollama(text, *turns) == expected.removeprefix("<s>")  # llama.cpp puts that there
    assert ("system" in dict(parse(text))) == (template == QWEN2)
    stops = [value for name, value in parse(text) if name == "stop"]
    ends = {CHATML: ["<|im_end|>"], QWEN2: ["<|im_end|>"], LLAMA3: ["<|eot_id|>"], ODD: []}
    assert stops == ends.get(template, ["<|endoftext|>"])


@pytest.mark.parametrize("template", [LAST_ONLY, UPPER, NUMBERED])
def test_a_template_that_does_more_than_surround_is_refused(template: str, speaking: Any) -> None:
    with pytest.raises(HoneError, match="chat template") as caught:
        turns_of(speaking(template))
    assert "--to gguf" in str(caught.value)


def test_strings_of_go() -> None:
    text = 'a"b\\c\n\t\u00a0é🙂\x00'
    assert go_string(text) == '"a\\"b\\\\c\\n\\u0009\\u00a0\\u00e9\\U0001f642\\u0000"'
    assert ast.literal_eval(go_string(text)) == text


@pytest.mark.parametrize("value", ["<|im_end|>", "a\nb", " x ", 'say "no" twice', "\n\n", "größe", "a\tb"])
def test_a_value_that_can_be_said_comes_back(value: str) -> None:
    assert sayable(value)
    assert parse(f'FROM ./m\nPARAMETER stop """{value}"""\nPARAMETER top_k 3\n')[1:] == [
        ("stop", value),
        ("top_k", "3"),
    ]


@pytest.mark.parametrize("value", ["", "\x00", "a\u00a0b", 'x"""y', '"', "\u200b"])
def test_a_value_that_cannot_be_said_is_noted(value: str, tokenizer: Any) -> None:
    assert not sayable(value)
    if value:
        _, notes = modelfile("m.gguf", "plain", tokenizer, GenerateSection(stop=[value]), 256)
        assert "cannot be said in a Modelfile" in notes[0]


# ---- hone export --to ollama -----------------------------------------------------------------------------------------


def test_the_folder_has_file_and_modelfile(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_check, "installed", lambda: False)
    done = export(str(model_folder), "ollama", output=tmp_path / "My Model-ollama", dtype="f16")
    folder = tmp_path / "My Model-ollama"
    assert {path.name for path in folder.iterdir()} == {
        "My-Model-f16.gguf", "Modelfile", "README.md", "manifest.json"
    }  # fmt: skip
    assert dict(parse((folder / "Modelfile").read_text()))["model"] == "./My-Model-f16.gguf"
    assert "ollama create my-model -f Modelfile" in done.text
    assert "Modelfile" in json.loads((folder / "manifest.json").read_text())["files"]
