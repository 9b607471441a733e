"""Chat templates that do not end or grow without bound are refused before they meet a row."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.data import template_trial

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]
GROWS = "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
DEEP = "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"


@pytest.fixture(autouse=True)
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time, for quick tests."""
    monkeypatch.setattr(template_trial, "CPU_SECONDS", 1)
    monkeypatch.setattr(template_trial, "ROW_SECONDS", 0.5)


def with_chat_template(project: Path, template: str) -> None:
    """The model with this template; rows are conversations."""
    (project / "model" / "chat_template.jinja").write_text(template)
    turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    (project / "train.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 4)


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


def test_a_template_in_the_tokenizers_settings_is_tried_too(project: Path, hone: Hone, refused: Refused) -> None:
    with_chat_template(project, "")
    (project / "model" / "chat_template.jinja").unlink()
    settings = project / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": GROWS}))
    refused(hone("generate", "model", "--prompt", "Hi", "--template", "chat"), "model/tokenizer_config.json", "memory")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system does not count a process's time")
def test_a_template_that_waits_for_a_row_to_loop(project: Path, hone: Hone, refused: Refused) -> None:
    loop = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    said = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with_chat_template(project, f"{{% if messages[0].content == 'go' %}}{loop}{{% endif %}}{said}")
    assert hone("prepare", "cfg.yaml").exit_code == 0
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "2"}]
    with (project / "train.jsonl").open("a") as file:
        file.write(json.dumps({"messages": turns}) + "\n")
    refused(hone("prepare", "cfg.yaml"), "model/chat_template.jinja", "0.5 seconds for one conversation")
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
