"""Chat templates that do not end or grow without bound are refused, also where they do so on some rows alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.data import template_rendering
from hone.errors import HoneError

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]
GROWS = "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
DEEP = "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"


@pytest.fixture(autouse=True)
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of time, for quick tests of time; on a busy machine the others are not to meet it first."""
    monkeypatch.setattr(template_rendering, "SECONDS", 0.5)


@pytest.fixture
def time_enough(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "second" not in request.node.callspec.params["word"]:
        monkeypatch.setattr(template_rendering, "SECONDS", 20.0)


def with_chat_template(project: Path, template: str) -> None:
    """The model with this template; rows are conversations."""
    (project / "model" / "chat_template.jinja").write_text(template)
    turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    (project / "train.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 4)


@pytest.mark.usefixtures("time_enough")
@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}", "seconds"),
        ("{{ 10 ** (10 ** 10) }}", "seconds"),
        ("{{ 'x' * 10**10 }}", "memory"),
        ("{{ ['x'] * messages | length * 10**9 }}", "memory"),
        ("{{ '%1000000000d' % 1 }}", "memory"),
        (GROWS, "memory"),
        ("{{ messages }}{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "characters"),
    ],
)
def test_a_template_without_end_is_refused(
    project: Path, hone: Hone, refused: Refused, template: str, word: str
) -> None:
    with_chat_template(project, template)
    refused(hone("prepare", "cfg.yaml"), "model/chat_template.jinja", "the chat template", word)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
        (DEEP, "calls itself without end"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% for m in messages", "refuses the turns"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused(
    project: Path, hone: Hone, refused: Refused, template: str, words: str
) -> None:
    with_chat_template(project, template)
    refused(hone("prepare", "cfg.yaml"), words)


def test_a_template_in_the_tokenizers_settings_is_tried_too(
    project: Path, hone: Hone, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_rendering, "SECONDS", 20.0)
    with_chat_template(project, "")
    (project / "model" / "chat_template.jinja").unlink()
    settings = project / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": GROWS}))
    refused(hone("generate", "model", "--prompt", "Hi", "--template", "chat"), "model/tokenizer_config.json", "memory")


LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"


@pytest.mark.usefixtures("time_enough")
@pytest.mark.parametrize(
    ("bomb", "word"),
    [
        (LOOP, "0.5 seconds for one conversation"),
        ("{{ (8 + n) ** (10 ** 9) }}", "0.5 seconds"),
        (
            "{% set n = namespace(x=10 ** 4000) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
            "second",
        ),
        ("{{ 'x' * n * 10**10 }}", "memory"),
        ("{{ messages[0].content.center(10**10) }}", "memory"),
        ("{{ messages[0].content | indent(10**10) }}", "memory"),
        ("{{ '{:10000000000}'.format(1) }}", "memory"),
        ("{{ (['x' * 10**6] * (n * 10**6)) | join }}", "memory"),
        ("{% set x = 'x' * 10**6 %}{{ x.replace('x', x) }}", "memory"),
        ("{{ (1).to_bytes(10**10, 'big') }}", "memory"),
        ("{{ 'x' * (n * 10**7) }}", "characters"),
    ],
)
def test_a_bomb_that_waits_for_a_row(project: Path, hone: Hone, refused: Refused, bomb: str, word: str) -> None:
    said = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with_chat_template(
        project, f"{{% if messages[0].content == 'go' %}}{{% set n = messages | length %}}{bomb}{{% endif %}}{said}"
    )
    assert hone("prepare", "cfg.yaml").exit_code == 0
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "2"}]
    with (project / "train.jsonl").open("a") as file:
        file.write(json.dumps({"messages": turns}) + "\n")
    refused(hone("prepare", "cfg.yaml"), "model/chat_template.jinja", word)


def test_a_thread_is_as_safe_as_the_main_one(project: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(content: str) -> str:
        template = "{% if messages[0].content == 'go' %}" + LOOP + "{% endif %}{{ messages[0].content }}"
        try:
            turns = [{"role": "user", "content": content}]
            return template_rendering.rendered(template, {}, turns, [(1, False)], "models/chat")[0]
        except HoneError as error:
            return error.what

    with ThreadPoolExecutor(3) as pool:
        first, bomb, last = pool.map(ask, ["a", "go", "b"])
    assert (first, last) == ("a", "b") and "0.5 seconds" in bomb


def test_a_conversation_of_30_mb_is_not_a_bomb() -> None:
    long = "\U0001f600" + "word " * 6_000_000
    turns = [{"role": "user", "content": long}, {"role": "assistant", "content": "yes"}]
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    text = template_rendering.rendered(template, {}, turns, [(1, False), (2, False)], "models/chat")[1]
    assert text == f"[user]{long}[assistant]yes"
