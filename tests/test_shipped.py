"""The model that ships with hone: its name, its size, plain transformers and the glass box agree on it; a spare model
offline; and the demo that trains it."""

import json
import logging
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import hone
from hone.cli import app
from hone.config.load import load_config
from hone.demo import CONFIG, FILES, LORA, demo, lay_out
from hone.errors import HoneError
from hone.models.gpt2 import load_gpt2
from hone.models.load import check_source, load_finished
from hone.models.offline import reachable_or_spare
from hone.shipped import NAME, named, shipped_folder

HEAD = "def add(a, b):\n"


def test_its_name_is_its_folder_unless_one_has_a_folder_so_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named(NAME) == str(shipped_folder()) and named("distilgpt2") == "distilgpt2"
    check_source(NAME)
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert named(NAME) == NAME
    with pytest.raises(HoneError, match="not a model folder"):
        check_source(NAME)


def test_the_package_stays_small() -> None:
    sizes = {path.name: path.stat().st_size for path in shipped_folder().iterdir()}
    assert set(sizes) == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert sum(sizes.values()) <= 24e6
    package = Path(hone.__file__).parent
    whole = sum(path.stat().st_size for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert whole <= 30e6


def test_plain_transformers_and_the_glass_box_agree_on_it() -> None:
    """float32 from the same bfloat16 weights: |Δ logit| <= 1e-4, sums in another order."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped_folder())
    plain = AutoModelForCausalLM.from_pretrained(shipped_folder(), dtype=torch.float32).eval()
    ids = tokenizer(HEAD * 40, return_tensors="pt").input_ids[:, :512]
    glass = load_gpt2(shipped_folder()).float().eval()
    with torch.no_grad():
        torch.testing.assert_close(glass(ids), plain(ids).logits, atol=1e-4, rtol=0)
    assert load_finished(NAME).dtype == torch.bfloat16
    assert tokenizer.decode(tokenizer(HEAD).input_ids) == HEAD


def test_it_knows_python() -> None:
    """A held-out function costs it far less than the same lines in disorder; random weights see no difference."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped_folder())
    model = AutoModelForCausalLM.from_pretrained(shipped_folder(), dtype=torch.float32).eval()
    lines = ["def count_words(text):", "    counts = {}", "    for word in text.split():"]
    lines += ["        counts[word] = counts.get(word, 0) + 1", "    return counts"]

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    assert loss("\n".join(lines)) < 3.5 < loss("\n".join(word for line in reversed(lines) for word in line.split()))


def test_its_card_names_each_package_and_what_it_is_not_for() -> None:
    card = (shipped_folder() / "README.md").read_text(encoding="utf-8")
    for wanted in ("**Not for**", "| python 3.11", "PSF-2.0", "| sympy ", "held out", "xz -9e", "bits per byte"):
        assert wanted in card, wanted
    assert card.count("```python") == 11  # how to load it, and ten continuations


# ---- offline --------------------------------------------------------------------------------------------------------


def test_a_hub_name_out_of_reach_gives_way_to_the_spare(caplog: pytest.LogCaptureFixture) -> None:
    given = {"model_name_or_path": "nobody/no-such-model", "method": "lora", "lora_target_modules": ["q_proj"]}
    config = load_config({**given, "offline_model_name_or_path": NAME, "model_revision": "abc"})
    with caplog.at_level(logging.WARNING, logger="hone"):
        found = reachable_or_spare(config)
    assert found.model.model_name_or_path == NAME and found.model.model_revision is None
    assert found.method.lora_target_modules == "all-linear" and found.method.method == "lora"
    (line,) = caplog.messages
    assert "nobody/no-such-model is not on this machine" in line and NAME in line
    assert config.model.model_name_or_path == "nobody/no-such-model", "the given config is left alone"
    assert reachable_or_spare(load_config(given)).model.model_name_or_path == "nobody/no-such-model", "no spare named"


def test_a_model_at_hand_needs_no_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = {"offline_model_name_or_path": "spare"}
    for name in (str(tmp_path), NAME):
        config = load_config({"model_name_or_path": name, **spare})
        assert reachable_or_spare(config) is config
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: str(tmp_path))
    config = load_config({"model_name_or_path": "gpt2", **spare})
    assert reachable_or_spare(config) is config, "in the hub's cache"


# ---- the demo -------------------------------------------------------------------------------------------------------


def test_the_demo_lays_out_its_files_and_leaves_changed_ones_alone(tmp_path: Path) -> None:
    lay_out(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    (tmp_path / CONFIG).write_text("mine")
    lay_out(tmp_path)
    assert (tmp_path / CONFIG).read_text() == "mine"


def small(folder: Path) -> None:
    """The demo's files with eight rows, three tasks and two steps."""
    lay_out(folder)
    for name, n in zip(FILES[1:], (8, 3)):
        lines = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:n]), encoding="utf-8")
    text = (folder / CONFIG).read_text(encoding="utf-8")
    (folder / CONFIG).write_text(text.replace("train:\n", "train:\n  max_steps: 2\n").replace("128", "8"))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_demo_trains_the_shipped_model(tmp_path: Path, method: str) -> None:
    small(tmp_path)
    found = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--method", method, "--json"])
    assert found.exit_code == 0, found.output
    told: dict[str, Any] = json.loads(found.stdout)
    run = tmp_path / ("functions" if method == "full" else "functions-lora")
    assert told["run"] == str(run) and told["tuned"]["loss"] < told["base"]["loss"]
    assert (run / "report.html").is_file()
    assert (run / "adapter_config.json").is_file() == (method == "lora")
    if shutil.which("bwrap"):
        assert json.loads((run / "eval" / "tuned.code.json").read_text())["n_tasks"] == 3
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert demo(tmp_path, method).status["stage"] == "finished"
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert after == before, "what is finished is not touched again"


def test_the_demo_has_two_methods(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--method", "freeze"])
    assert found.exit_code == 1 and "full or lora" in found.output and not list(tmp_path.iterdir())
    assert load_config({}, list(LORA)).method.method == "lora"


@pytest.mark.slow
def test_what_the_demo_says_to_try_next_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small(tmp_path)
    demo(tmp_path)
    commands = re.findall(r"^# .*: +(hone .*)$", (tmp_path / CONFIG).read_text(encoding="utf-8"), flags=re.M)
    assert len(commands) == 2
    for command in commands:
        found = CliRunner().invoke(app, shlex.split(command)[1:])
        assert found.exit_code == 0, f"{command}\n{found.output}"
    assert (tmp_path / "mine" / "model.safetensors").is_file() and (tmp_path / "seeds" / "repeat.json").is_file()
