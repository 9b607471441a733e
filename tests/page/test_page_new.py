"""A run from the form: what is written, what is refused, and what is told of a start that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paging import Client, paging

from hone.config.load import Unsaved, load_config
from hone.config.recipes.rows import rows_for
from hone.errors import HoneError
from hone.page import items, new, work
from hone.page.groups import groups_of
from hone.page.watch import Watched
from hone.results import write
from hone.runs import living_status
from written_run import repeated, write_run

GOOD = "model_name_or_path: hone-base\ntrain_file: rows.jsonl\noutput_dir: runs/my\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with paging(folder) as found:
        yield found


def post(client: Client, path: str, **body: Any) -> tuple[int, Any]:
    status, _, text = client.raw("POST", f"/api/{path}", json.dumps(body).encode())
    return status, json.loads(text)


# ---- settings --------------------------------------------------------------------------------------------------------


def test_each_recipe_makes_settings_that_can_be_checked(folder: Path) -> None:
    names = [one["name"] for one in new.recipes()]
    assert names[0] == "demo" and "light-lab" in names
    for name in names:
        found = new.draft(folder, name, name, "" if name not in new.WITHOUT_ROWS else "rows.jsonl", "")
        config = load_config(Unsaved(folder / f"{name}.yaml", found["text"]))
        assert config.output.output_dir == folder / "runs" / name
        if name not in new.WITHOUT_ROWS:
            assert f"{name}-rows" in found["said"] and new.checked(folder, name, found["text"])["command"]


@pytest.mark.parametrize("name", [one["name"] for one in new.recipes()])
def test_own_rows_take_the_place_of_a_recipes_own(folder: Path, name: str) -> None:
    alone = load_config(Unsaved(folder / "x.yaml", new.draft(folder, name, "x", "rows.jsonl", "")["text"]))
    assert alone.data.train_file == folder / "rows.jsonl" and alone.data.validation_split_percentage == 10
    assert alone.data.dataset_name is None and alone.eval.code_tasks is None
    both = load_config(Unsaved(folder / "x.yaml", new.draft(folder, name, "x", "rows.jsonl", "held.jsonl")["text"]))
    assert both.data.validation_file == folder / "held.jsonl" and not both.is_given("validation_split_percentage")
    assert not (folder / "x-rows").exists()


def test_rows_and_settings_that_are_there_are_never_replaced(folder: Path) -> None:
    new.draft(folder, "light-lab", "my", "", "")
    new.draft(folder, "light-lab", "my", "", "")  # the same rows: nothing to do
    assert (folder / "my-rows" / "train.jsonl").read_text() == rows_for("light-lab")["train.jsonl"]
    (folder / "my-rows" / "train.jsonl").write_text("mine")
    with pytest.raises(HoneError, match="other rows lie here already"):
        new.draft(folder, "light-lab", "my", "", "")
    assert (folder / "my-rows" / "train.jsonl").read_text() == "mine"
    (folder / "my.yaml").write_text("seed: 1\n")
    with pytest.raises(HoneError, match="exists already, with other settings"):
        new.begin(folder, work.Trainings(folder), "my", GOOD)
    assert (folder / "my.yaml").read_text() == "seed: 1\n"
    (folder / "link.yaml").symlink_to(folder / "outside.yaml")
    with pytest.raises(HoneError, match="exists already"):
        new.begin(folder, work.Trainings(folder), "link", GOOD)
    assert not (folder / "outside.yaml").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc/x", ".hidden", "a\n", "a\0", "x" * 61, "-rf", "ä", "a b"])
def test_names_that_lead_elsewhere_are_refused(client: Client, folder: Path, name: str) -> None:
    before = sorted(folder.rglob("*"))
    for path in ("draft", "check", "plan", "train"):
        status, found = post(client, path, name=name, recipe="light-lab", text=GOOD)
        assert status == 409 and "is not a name for a run" in found["error"]
    assert sorted(folder.rglob("*")) == before


def test_mistakes_are_said_with_line_and_key_as_train_says_them(client: Client, folder: Path) -> None:
    text = "train:\n  lerning_rate: 1\n  seed: many\n" + GOOD
    status, found = post(client, "check", name="my", text=text)
    assert status == 409
    assert "my.yaml:2" in found["error"] and "did you mean 'learning_rate'" in found["error"]
    assert "my.yaml:3" in found["error"]
    for text, reason in (
        (GOOD.replace("rows.jsonl", "gone.jsonl"), "no such file or folder"),
        (GOOD.replace("model_name_or_path: hone-base\n", ""), "no model"),
        (GOOD.replace("runs/my", "../elsewhere"), "outside the folder of this page"),
        (GOOD + "a: [", "YAML"),
        ("", "empty"),
        (GOOD + "# hf_" + "a" * 30, "a password or token stands here"),
    ):
        status, found = post(client, "check", name="my", text=text)
        assert status == 409 and reason in found["error"], found
    assert post(client, "check", name="my", text=GOOD + "lr: 1e-4\n")[1]["notes"]  # a foreign name is translated
    assert not (folder / "my.yaml").exists()


def test_names_and_files_are_proposed(client: Client, folder: Path) -> None:
    write_run(folder / "runs" / "demo")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.jsonl").write_text("")
    assert client.get("/api/name", wanted="demo") == {"name": "demo-2"}
    assert client.get("/api/name", wanted="light-lab") == {"name": "light-lab"}
    found = client.get("/api/recipes")
    assert found["files"] == ["rows.jsonl"]  # nothing of a run, nothing hidden
    assert client.refused("GET", "/api/name", wanted="../x")[0] == 404


def test_every_key_can_be_completed_and_every_concept_is_listed(client: Client) -> None:
    found = client.get("/api/words")
    by_name = {one["key"]: one for one in found["keys"]}
    assert by_name["method"]["choices"] == ["full", "freeze", "lora"] and by_name["bf16"]["choices"]
    assert by_name["learning_rate"]["section"] == "train" and by_name["learning_rate"]["often"]
    perplexity = next(one for one in found["concepts"] if one["title"] == "Perplexity")
    assert "perplexity" in perplexity["words"] and perplexity["what"].endswith(".")
    for one in found["concepts"]:  # what the list offers is explained
        assert client.get("/api/word", name=one["title"])["text"]


# ---- started ---------------------------------------------------------------------------------------------------------


def ended(trainings: work.Trainings, run: str) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until and trainings.state(run)["state"] in ("starting", "running"):
        time.sleep(0.05)
    return trainings.state(run)


@pytest.mark.slow
def test_a_start_that_fails_is_told_and_its_name_is_free_again(folder: Path) -> None:
    trainings = work.Trainings(folder)
    text = GOOD.replace("hone-base", "./no-such-model")
    assert new.begin(folder, trainings, "my", text)["run"] == "runs/my"
    assert (folder / "my.yaml").read_text() == text
    found = ended(trainings, "runs/my")
    assert found["state"] == "failed" and "no-such-model" in found["said"] and "Traceback" not in found["said"]
    assert not (folder / "my.yaml").exists() and not (folder / "runs" / "my").exists()
    assert trainings.state("another") == {"state": "none", "said": ""}


def hanging(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """In place of hone a program of Python's."""
    monkeypatch.setattr(work, "hone", lambda *words: [sys.executable, "-c", program, *words])


def test_a_training_that_was_killed_is_not_shown_as_running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that nobody has waited for keeps its number, and would count as a process that runs."""
    hanging(monkeypatch, "import time; time.sleep(60)")
    trainings, watched = work.Trainings(folder), Watched(folder)
    trainings.start("runs/my", ["train"], folder)
    with pytest.raises(HoneError, match="is being started already"):
        trainings.start("runs/my", ["train"], folder)
    pid = trainings._of["runs/my"].process.pid
    write_run(folder / "runs" / "my")
    (folder / "runs" / "my" / "status.json").write_text(json.dumps({"status": "running", "stage": "x", "pid": pid}))
    assert trainings.state("runs/my")["state"] == "running"
    assert watched.rows()[0]["status"] == "running"
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # dead, and waited for by nobody
    trainings.look()
    assert watched.rows()[0]["status"] == "killed"
    assert "killed by signal 9" in trainings.state("runs/my")["said"]


def test_a_program_that_breaks_is_told_by_its_last_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging(monkeypatch, "raise SystemError('<b>broken</b> \\x1b[2J')")
    trainings = work.Trainings(folder)
    trainings.start("runs/my", ["train"], folder)
    found = ended(trainings, "runs/my")
    assert found["state"] == "failed" and "SystemError: <b>broken</b> \\x1b[2J" in found["said"]


def test_a_training_outlives_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys, time; print('x', file=sys.stderr); time.sleep(0.5); print('y', file=sys.stderr, flush=True)"
    hanging(monkeypatch, program)
    trainings = work.Trainings(folder)
    trainings.start("runs/my", ["train"], folder)
    process = trainings._of["runs/my"].process
    trainings.end()
    assert process.wait(timeout=30) == 0
    assert os.getsid(0) != process.pid


def test_a_resume_that_fails_is_told(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(folder / "runs" / "a")
    (folder / "runs" / "a" / "status.json").write_text(json.dumps({"status": "interrupted", "stage": "training"}))
    hanging(monkeypatch, "import sys; sys.exit('error: rows.jsonl: no such file or folder')")
    assert client.raw("POST", "/api/resume?run=runs/a", b"{}")[0] == 200
    until = time.monotonic() + 30
    while time.monotonic() < until and client.get("/api/started", run="runs/a")["state"] != "failed":
        time.sleep(0.05)
    assert client.get("/api/started", run="runs/a")["said"] == "rows.jsonl: no such file or folder"


def test_a_plan_is_of_the_text_that_stands_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[list[str], str]] = []

    def plans(words: list[str], place: Path) -> tuple[int, str, str]:
        said.append((words, Path(words[1]).read_text()))
        assert Path(words[1]).parent == folder, "paths in it start there"
        return 3, f"{words[1]}: too large", ""

    monkeypatch.setattr(new, "said_by", plans)
    before = sorted(folder.iterdir())
    assert new.planned(folder, "my", GOOD) == {"text": "my.yaml: too large", "fits": False}
    assert said[0][1] == GOOD and sorted(folder.iterdir()) == before
    monkeypatch.setattr(new, "said_by", lambda words, place: (1, "", f"{words[1]}:3: no"))
    with pytest.raises(HoneError, match=r"^my\.yaml:3: no$"):
        new.planned(folder, "my", GOOD)


def test_nothing_of_the_folder_is_taken_for_a_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken')\n")
    done = subprocess.run(work.hone("version"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- kept prompts, groups --------------------------------------------------------------------------------------------


def test_a_prompt_is_kept_as_a_row_that_can_be_measured(client: Client, folder: Path) -> None:
    from hone.data.records import Pair, examples
    from hone.data.sources import read_rows

    hostile = "</script>\u2028\x00\ud800"
    assert post(client, "item", prompt="2+2=", wanted="4")[1]["row"] == 1
    (folder / items.FILE).write_text((folder / items.FILE).read_text().rstrip("\n"))  # edited by hand
    found = post(client, "item", prompt=hostile, wanted="x\ny")[1]
    assert found["row"] == 2 and found["file"] == str(folder / items.FILE)
    rows = read_rows([folder / items.FILE], on_bad_row="error", on_skip=lambda reason, where: None)
    kept = [one for _, one in examples(rows, column_mapping={}, on_bad_row="error", on_skip=print)]
    assert kept[0] == Pair("2+2=", "4") and isinstance(kept[1], Pair) and kept[1].completion == "x\ny"
    for prompt, wanted in (("", "x"), ("x", " "), ("x" * 20_001, "x")):
        assert post(client, "item", prompt=prompt, wanted=wanted)[0] == 409
    (folder / items.FILE).unlink()
    (folder / items.FILE).symlink_to(folder / "elsewhere")
    assert post(client, "item", prompt="a", wanted="b")[0] == 409 and not (folder / "elsewhere").exists()


def test_runs_of_one_command_are_a_group(folder: Path) -> None:
    (folder / "seeds").mkdir()
    write(folder / "seeds" / "repeat.json", repeated())
    names = [*(f"seeds/seed-{n}" for n in range(3)), "grid/lora_r-8", "grid/lora_r-16", "a", "b", "other/seed-1"]
    found = {group["id"]: group for group in groups_of(folder, names)}
    assert set(found) == {"seeds", "grid"}
    assert found["seeds"]["kind"] == "seeds" and found["grid"]["kind"] == "settings"
    assert found["seeds"]["after"] is not None and found["seeds"]["spread"] is not None
    assert "after" not in found["grid"]
    (folder / "seeds" / "repeat.json").write_text("{")
    assert "repeat.json" in {g["id"]: g for g in groups_of(folder, names)}["seeds"]["error"]


def test_the_status_of_a_dead_process_is_killed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert living_status({"status": "running", "pid": gone.pid}) == "killed"
