"""Conversations by script: what the model is shown, what is remembered, what commands say, how Ctrl-C ends things."""

from collections.abc import Callable
from typing import Any

import pytest
from screens import Screen

from hone.config.sections.generate import GenerateSection
from hone.data.records import Chat, Message
from hone.errors import HoneError
from hone.inference.chat import Conversation, Pen, ask, check_system
from hone.inference.generate import generate_texts
from hone.inference.talk import changed, talk

pytest_plugins = ["talking"]


def test_streaming_shows_what_generation_returns(conversation: Conversation) -> None:
    for settings in (GenerateSection(max_new_tokens=40), GenerateSection(max_new_tokens=40, temperature=1.0)):
        conversation.settings, conversation.turns, conversation.asked = settings, [], 0
        pieces: list[str] = []
        reply = ask(conversation, "The quick", pieces.append)
        prompt = Chat([Message("user", "The quick")])
        whole = next(generate_texts(conversation.model, conversation.tokenizer, [prompt], settings, "chat"))
        assert "".join(pieces) == reply.text == whole[0] != ""
        assert len(pieces) > 5, "token by token"
        assert conversation.turns == [Message("user", "The quick"), Message("assistant", reply.text)]


@pytest.mark.slow
def test_forty_turns_keep_the_system_message(conversation: Conversation, shown: list[list[int]]) -> None:
    conversation.system = "Speak like a fox."
    questions = [f"question {i}: and then, what do the foxes say to dog number {i}?" for i in range(40)]
    screen = Screen(questions).talk(conversation)
    tokenizer = conversation.tokenizer
    system = tokenizer.encode("<|im_start|>system\nSpeak like a fox.<|im_end|>\n<|im_start|>user\nquestion")
    assert len(shown) == 40
    kept = []
    for i, ids in enumerate(shown):
        assert ids[: len(system)] == system
        assert len(ids) + 20 <= 512, "the answer has its room"
        text = tokenizer.decode(ids)
        asked = [int(part.split(":")[0]) for part in text.split("question ")[1:]]
        assert asked == list(range(asked[0], i + 1)), "the newest turns, without a gap"
        assert text.endswith(f"{questions[i]}<|im_end|>\n<|im_start|>assistant\n")
        kept.append(len(asked))
    assert kept[:4] == [1, 2, 3, 4] and max(kept) < 20 and kept[-1] >= 4, kept
    assert screen.said.count("oldest turns are left out") == 1
    assert "error" not in screen.said


def test_a_message_beyond_the_window_is_refused_and_forgotten(conversation: Conversation) -> None:
    ask(conversation, "hello", print)
    before = list(conversation.turns)
    with pytest.raises(HoneError, match="window 512"):
        ask(conversation, "fox " * 600, print)
    assert conversation.turns == before and len(before) == 2
    screen = Screen(["fox " * 600, "still there?"]).talk(conversation)
    assert "window 512" in screen.said and len(conversation.turns) == 4


@pytest.mark.slow
def test_a_taught_chat_model_ends_its_answers_and_sees_the_history(
    teach: Callable[..., Any], chat_tokenizer: Any
) -> None:
    from hone.inference.prompts import prompt_ids

    end = chat_tokenizer.encode("<|im_end|>")
    first = Chat([Message("user", "Who?")])
    second = Chat([Message("user", "Who?"), Message("assistant", "a fox"), Message("user", "Who?")])
    lessons = [
        (prompt_ids(first, "chat", chat_tokenizer), chat_tokenizer.encode("a fox") + end),
        (prompt_ids(second, "chat", chat_tokenizer), chat_tokenizer.encode("the dog") + end),
    ]
    conversation = Conversation(teach(chat_tokenizer, lessons), chat_tokenizer, "chat", GenerateSection())
    screen = Screen(["Who?", "Who?", "/clear", "Who?"]).talk(conversation)
    assert screen.answers == "a fox\nthe dog\na fox\n"
    assert "(forgotten)" in screen.notes
    remarks = [note for note in screen.notes if "tokens/s]" in note]
    assert len(remarks) == 3 and remarks[0].startswith(f"[{len(chat_tokenizer.encode('a fox'))} tokens, ")


def test_without_a_chat_format_each_message_stands_alone(
    tiny_model: Callable[..., Any], tokenizer: Any, shown: list[list[int]]
) -> None:
    plain = Conversation(tiny_model("gpt2"), tokenizer, "plain", GenerateSection(max_new_tokens=5))
    screen = Screen(["def f(x):", "for i in", "def f(x):"]).talk(plain)
    assert shown == [tokenizer.encode(text) for text in ("def f(x):", "for i in", "def f(x):")]
    assert plain.turns == []
    lines = screen.answers.split("\n")
    assert "each message is a prompt of its own" in screen.notes[0]
    assert lines[0] and screen.answers.startswith(lines[0])
    instructed = Conversation(plain.model, tokenizer, "instruction", plain.settings)
    Screen(["Add."]).talk(instructed)
    assert tokenizer.decode(shown[-1]) == "### Instruction:\nAdd.\n\n### Response:\n"
    plain.system = "Be kind."
    with pytest.raises(HoneError, match="no place for a system message"):
        check_system(plain)


def test_commands(conversation: Conversation, shown: list[list[int]]) -> None:
    screen = Screen(
        [
            "/help",
            "/system Be brief.",
            "/set temperature = 0.5",
            "/set stop=\\n",
            "/set seed=7",
            "/set max_new_tokens=3",
            "/set",
            "hi",
            "/system",
            "/CLEAR",
            "ho",
            "/exit",
            "never read",
        ]
    ).talk(conversation)
    assert "/clear" in screen.notes[1] and "Ctrl-C" in screen.notes[1]
    for line in ("temperature=0.5", 'stop=["\\\\n"]', "sampling_seed=7", "max_new_tokens=3", "top_k=0"):
        assert line in screen.said
    texts = [conversation.tokenizer.decode(ids) for ids in shown]
    assert len(texts) == 2
    assert texts[0].startswith("<|im_start|>system\nBe brief.") and "system" not in texts[1]
    assert "hi" not in texts[1], "cleared"
    assert screen.notes[-1] == "bye"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/hlep", ("unknown command /hlep", "did you mean /help")),
        ("/", ("unknown command /", "/exit")),
        ("/set temperatur=1", ("no setting 'temperatur'", "did you mean 'temperature'")),
        ("/set learning_rate=1", ("no setting 'learning_rate'", "top_p")),
        ("/set temperature=hot", ("temperature must be a number", "'hot'")),
        ("/set temperature=-1", ("temperature", "at least 0")),
        ("/set top_p=0", ("top_p", "greater than 0")),
        ("/set top_k=", ("top_k",)),
        ("/set temperature", ("changes nothing", "/set temperature=0.8")),
        ("/set stop=[1]", ("stop",)),
        ("/set stop=[", ("stop", "not readable")),
        ("   ", ("nothing to answer",)),
        ("", ("nothing to answer",)),
    ],
)
def test_bad_lines_are_explained_and_the_chat_goes_on(
    line: str, words: tuple[str, ...], conversation: Conversation, shown: list[list[int]]
) -> None:
    before = conversation.settings
    screen = Screen([line, "hi"]).talk(conversation)
    for word in words:
        assert word in screen.notes[1], screen.notes
    assert conversation.settings == before
    assert len(shown) == 1 and screen.answers.endswith("\n")


def test_what_only_looks_like_a_command_is_a_message(conversation: Conversation, shown: list[list[int]]) -> None:
    Screen(["// a comment", "/usr/bin is a folder", "1/2"]).talk(conversation)
    assert len(shown) == 3


def test_settings_change_one_at_a_time() -> None:
    settings = changed(changed(GenerateSection(), "top_k=5"), 'stop=["a b", "c"]')
    assert (settings.top_k, settings.stop, settings.temperature) == (5, ["a b", "c"], 0.0)
    assert changed(settings, "stop=END it").stop == ["END it"]
    assert changed(settings, "stop=").stop == []


def test_ctrl_c_stops_the_answer_and_keeps_what_came(conversation: Conversation, shown: list[list[int]]) -> None:
    conversation.settings = GenerateSection(max_new_tokens=200)
    screen = Screen(["The quick", "go on", KeyboardInterrupt(), KeyboardInterrupt(), "never read"])
    n_written = 0

    def write(text: str) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 10:
            raise KeyboardInterrupt
        screen.pieces.append(text)

    pen = Pen(write, lambda: write("\n"))
    talk(conversation, read=screen.read, pen=lambda: pen, note=screen.notes.append, watched=True)
    assert len(shown) == 2, "the chat went on after the first answer was stopped"
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"] * 2
    partial = conversation.turns[1].content
    assert partial.startswith(screen.pieces[0]) and 0 < len(partial) < len(conversation.turns[3].content)
    assert any(note.endswith("stopped]") for note in screen.notes)
    assert "Ctrl-C once more" in screen.said and screen.notes[-1] == "\nbye"


def test_after_a_stopped_answer_one_ctrl_c_at_the_prompt_leaves(conversation: Conversation) -> None:
    def write(text: str) -> None:
        if text != "\n" and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt

    stopped: list[bool] = []
    screen = Screen(["hi", KeyboardInterrupt(), "never read"])
    pen = Pen(write, lambda: write("\n"))
    talk(conversation, read=screen.read, pen=lambda: pen, note=screen.notes.append, watched=True)
    assert screen.notes[-1] == "\nbye" and len(conversation.turns) == 2


def test_seeds_make_a_conversation_repeatable(conversation: Conversation) -> None:
    def play(seed: int) -> str:
        conversation.settings = GenerateSection(max_new_tokens=10, temperature=1.0, sampling_seed=seed)
        conversation.turns, conversation.asked = [], 0
        return Screen(["one", "two", "one"]).talk(conversation, watched=False).answers

    first = play(1)
    assert play(1) == first != play(2)


def test_a_template_without_a_system_role_says_so(conversation: Conversation) -> None:
    import copy

    conversation.tokenizer = copy.deepcopy(conversation.tokenizer)
    conversation.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    screen = Screen(["/system Be kind.", "hi"]).talk(conversation)
    assert "no system role" in screen.notes[1]
    assert conversation.system is None and len(conversation.turns) == 2


def test_a_pipe_gets_answers_only(conversation: Conversation) -> None:
    screen = Screen(["hi", "", "ho"]).talk(conversation, watched=False)
    assert screen.answers.count("\n") >= 2
    assert len(screen.notes) == 1, "only the introduction: no speed, no good-bye, nothing about the empty line"
