"""/retry, /compare, /save and /load: what they ask, what they keep, and what they refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from screens import Screen

import hone
from hone.config.sections.generate import GenerateSection
from hone.data.records import Message
from hone.data.tokenizer import save_tokenizer
from hone.errors import HoneError
from hone.inference.base import base_conversation, without_adapter
from hone.inference.chat import Conversation, Pen, ask, open_conversation
from hone.inference.chat_files import load, save

pytest_plugins = ["talking"]


# ---- retry -----------------------------------------------------------------------------------------------------------


def test_retry_answers_the_same_prompt_with_the_next_draw(conversation: Conversation, shown: list[list[int]]) -> None:
    conversation.settings = GenerateSection(max_new_tokens=10, temperature=1.0)
    Screen(["one", "two", "/retry", "/retry"]).talk(conversation)
    assert shown[1] == shown[2] == shown[3] != shown[0]
    assert [turn.content for turn in conversation.turns[::2]] == ["one", "two"]
    assert conversation.turns == conversation.said and conversation.asked == 4
    answers = {conversation.turns[3].content}
    for _ in range(3):
        Screen(["/retry"]).talk(conversation)
        answers.add(conversation.turns[3].content)
    assert len(answers) > 1, "other draws"


def test_retry_says_when_nothing_can_change_and_when_there_is_nothing(conversation: Conversation) -> None:
    screen = Screen(["/retry", "hi", "/retry", "/clear", "/retry"]).talk(conversation)
    assert screen.said.count("no message has been answered yet") == 2
    assert screen.said.count("at temperature 0 every draw is the same") == 1
    assert conversation.turns == conversation.said == []


def test_a_retry_that_fails_takes_nothing_away(conversation: Conversation) -> None:
    ask(conversation, "fox " * 200, print)
    before = list(conversation.turns)
    screen = Screen([f"/system {'fox ' * 400}", "/retry", "/system", "/retry"]).talk(conversation)
    assert screen.said.count("window 512") == 1
    assert len(conversation.turns) == len(conversation.said) == 2 and conversation.turns[0] == before[0]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_saved_conversation_is_a_row_and_goes_on_where_it_was(conversation: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    conversation.system = "Be a fox 狐."
    conversation.settings = GenerateSection(max_new_tokens=8, temperature=1.0)
    Screen(["one\n two", "three", f"/save {path}"]).talk(conversation)
    (line,) = path.read_text(encoding="utf-8").splitlines()
    messages = json.loads(line)["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[0]["content"] == "Be a fox 狐." and messages[1]["content"] == "one\n two"
    other = Conversation(conversation.model, conversation.tokenizer, "chat", conversation.settings)
    screen = Screen([f"/load {path}", "four"]).talk(other)
    assert "2 messages with answers read" in screen.said
    assert other.system == conversation.system
    assert ask(conversation, "four", print).text == other.turns[-1].content, "the same prompt and the same draw"
    Screen(["/clear", "new", f"/save {path}"]).talk(other)
    assert "new" in path.read_text(encoding="utf-8"), "one of ours is replaced"


def test_a_saved_conversation_can_be_trained_on(conversation: Conversation, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hone.cli import app

    Screen(["one", "two", f"/save {tmp_path / 'talk.jsonl'}"]).talk(conversation)
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "talk.jsonl")])
    assert checked.exit_code == 0 and "1 row of messages" in checked.output, checked.output


def test_where_the_model_knows_no_turns_each_message_is_a_row(conversation: Conversation, tmp_path: Path) -> None:
    conversation.template = "plain"
    path = tmp_path / "talk.jsonl"
    Screen(["one", "two", "/retry", f"/save {path}"]).talk(conversation)
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row[0]["content"] for row in rows] == ["one", "two"] and [len(row) for row in rows] == [2, 2]
    said = list(conversation.said)
    Screen(["/clear", f"/load {path}"]).talk(conversation)
    assert conversation.said == said and conversation.turns == [] and conversation.last == "two"


OURS = {"saved_by": "hone chat"}
TURN = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (None, ("talk.jsonl",)),
        ([], ("talk.jsonl",)),
        (["{"], ("talk.jsonl:1",)),
        ([{"text": "a"}], ("talk.jsonl:1: no `messages`",)),
        ([{"messages": "a"}], ("talk.jsonl:1", "messages")),
        ([{"messages": []}], ("talk.jsonl:1",)),
        ([{"messages": [{"role": "user"}]}], ("talk.jsonl:1", "content")),
        ([{"messages": [{"role": "fox", "content": "a"}]}], ("talk.jsonl:1", "fox")),
        ([{"messages": [TURN]}], ("talk.jsonl:1", "does not end with an answer")),
        ([{"messages": [{"role": "system", "content": "a"}]}], ("talk.jsonl:1", "does not end with an answer")),
        ([{"messages": [TURN, TURN]}], ("talk.jsonl:1: message 2 is of the role user",)),
        ([{"messages": [{"role": "system", "content": "a"}, ANSWER]}], ("talk.jsonl:1: message 2 is of the role",)),
        ([{"messages": [TURN, ANSWER]}] * 2, ("talk.jsonl:2: a second conversation",)),
    ],
)
def test_what_cannot_be_loaded_changes_nothing(
    lines: list[Any] | None, words: tuple[str, ...], conversation: Conversation, tmp_path: Path
) -> None:
    path = tmp_path / "talk.jsonl"
    if lines is not None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    conversation.turns = conversation.said = [Message("user", "x"), Message("assistant", "y")]
    with pytest.raises(HoneError) as error:
        load(conversation, path)
    for word in words:
        assert word in str(error.value)
    assert len(conversation.turns) == 2 and conversation.system is None


def test_files_of_others_are_not_replaced(conversation: Conversation, tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="nothing was said yet"):
        save(conversation, tmp_path / "talk.jsonl")
    ask(conversation, "hi", print)
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": [TURN, ANSWER], **OURS}, {"messages": [TURN, ANSWER]}]
    for text in ("".join(json.dumps(row) + "\n" for row in rows), "{", "\udcff", "[1]\n", '"hone chat"\n'):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(HoneError, match="not a saved conversation"):
            save(conversation, path)
        assert path.read_bytes() == text.encode("utf-8", "surrogateescape")
    for name, words in {"a.txt": "name it a.jsonl", "no/a.jsonl": "cannot write"}.items():
        with pytest.raises(HoneError, match=words):
            save(conversation, tmp_path / name)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(HoneError, match="not a saved conversation"):
        save(conversation, tmp_path / "folder.jsonl")
    screen = Screen(["/save", "/load", "/load nowhere.jsonl", "/load x.csv"]).talk(conversation)
    assert "/save needs the name of a file" in screen.said and "/load needs the name of a file" in screen.said
    assert "nowhere.jsonl" in screen.said and "a conversation is a file of JSON lines" in screen.said


# ---- compare ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any], chat_tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    tiny_model("llama", vocab_size=len(chat_tokenizer)).save_pretrained(folder)
    save_tokenizer(chat_tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def runs(base_folder: Path) -> Path:
    """full, lora: trained a little; none: with a rate too small for any weight."""
    place = base_folder.parent
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "fox"}]} for i in range(8)
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = {"model_name_or_path": str(base_folder), "train_file": str(place / "rows.jsonl"), "template": "chat"}
    common |= {"max_length": 64, "max_steps": 6, "learning_rate": 3e-2, "max_new_tokens": 8}
    for name, more in {
        "full": {},
        "lora": {"method": {"method": "lora"}},
        "none": {"learning_rate": 1e-30, "max_steps": 1},
    }.items():
        hone.train(hone.load_config({**common, **more, "output_dir": str(place / name)}))
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora"])
def test_compare_shows_the_base_beside_the_tuned(name: str, runs: Path, base_folder: Path) -> None:
    run = str(runs / name)
    alone = [hone.generate(model, "q1", template="chat", max_new_tokens=8)[0] for model in (str(base_folder), run)]
    assert alone[0] != alone[1]
    conversation = open_conversation(run, {"max_new_tokens": 8})
    screen = Screen(["/compare q1", "/compare", "go on"]).talk(conversation)
    both = f"--- base: {base_folder}\n{alone[0]}\n--- tuned: {run}\n{alone[1]}\n"
    assert screen.answers.startswith(both + both)
    assert screen.said.count("loading the base") == (name == "full"), "once, and not for an adapter"
    assert [turn.content for turn in conversation.turns[:3]] == ["q1", alone[1], "go on"], "the tuned answer stays"
    assert len(conversation.said) == 4


@pytest.mark.slow
def test_compare_side_by_side_and_with_the_same_draws(
    runs: Path, capsys: pytest.CaptureFixture[str], shown: list[list[int]]
) -> None:
    conversation = open_conversation(str(runs / "lora"), {"max_new_tokens": 8, "temperature": 1.0, "seed": 3})
    screen = Screen(["q1", "/compare"], columns=120).talk(conversation)
    first = screen.pieces
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("--- base: ") and " | --- tuned: " in rows[0] and all(" |" in row for row in rows)
    assert shown[0] == shown[-1] == shown[-2]
    assert conversation.turns[1].content == "".join(first).rstrip("\n"), "the draw of the answer that was there"
    assert any(note.startswith("base [8 tokens") for note in screen.notes)


@pytest.mark.slow
def test_an_adapters_base_shares_its_weights(runs: Path) -> None:
    tuned = open_conversation(str(runs / "lora"), {}).model
    base = without_adapter(tuned)
    kept = {parameter.data_ptr() for parameter in tuned.parameters()}
    assert {parameter.data_ptr() for parameter in base.parameters()} < kept
    assert not [name for name, _ in base.named_parameters() if "lora" in name or "base_layer" in name]


@pytest.mark.slow
def test_a_base_that_is_not_there_or_not_another_is_said(runs: Path, base_folder: Path, tmp_path: Path) -> None:
    def said(name: str | Path) -> str:
        conversation = open_conversation(str(name), {"max_new_tokens": 2})
        screen = Screen(["/compare", "hi", "/compare", "/compare ho"]).talk(conversation)
        assert [turn.content for turn in conversation.turns[::2]] == ["hi"], "nothing was taken back or added"
        assert "write /compare TEXT" in screen.said
        return screen.said

    assert said(runs / "none").count("have the same weights: the training changed nothing") == 2
    assert said(base_folder).count("there is no run to compare") == 2
    moved = tmp_path / "full"
    shutil.copytree(runs / "full", moved)
    path = moved / "config.resolved.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace(str(base_folder), str(tmp_path / "gone")), encoding="utf-8"
    )
    assert said(moved).count(f"its base {tmp_path / 'gone'} is missing") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "stopped"), [(80, 1), (120, 2)])
def test_ctrl_c_stops_what_is_being_written(
    columns: int, stopped: int, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = open_conversation(str(runs / "lora"), {"max_new_tokens": 100, "temperature": 2.0}, template="plain")
    conversation.settings = conversation.settings.model_copy(update={"stop": []})
    screen = Screen(["/compare The quick", KeyboardInterrupt(), "never read"], columns=columns)
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if text.strip("-| \n") and not text.startswith("---") and len(written) < 20:
            written.extend([""] * 20)
            raise KeyboardInterrupt

    monkeypatch.setattr("hone.inference.terminal._out", write)
    monkeypatch.setattr(screen, "pen", lambda: Pen(write, lambda: write("\n")))
    screen.talk(conversation)
    assert screen.said.count("; stopped]") == stopped and screen.notes[-1] == "\nbye", screen.notes


@pytest.mark.slow
def test_an_adapter_that_adds_nothing_is_known(runs: Path) -> None:
    conversation = open_conversation(str(runs / "lora"), {})
    for name, weight in conversation.model.named_parameters():
        if ".lora_B." in name:
            weight.data.zero_()
    with pytest.raises(HoneError, match="have the same weights"):
        base_conversation(conversation, print)
