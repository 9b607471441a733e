"""The bundled model: its name, its size, plain transformers and the glass box agree on it; it in place of
a hub name without a network; and the demo that trains it."""

import json
import logging
import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from typer.testing import CliRunner

import hone
from hone import bundled
from hone.bundled import NAME
from hone.cli import app
from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.demo import CONFIG, FILES, LORA, demo, lay_out
from hone.errors import HoneError
from hone.hub import answers, cached, in_reach, no_retries
from hone.models.fallback import with_fallback
from hone.models.gpt2 import load_gpt2
from hone.models.load import load_finished
from hone.models.source import check_source
from hone.training.repeat import repeat

HEAD = "def add(a, b):\n"


def test_its_name_is_its_folder_unless_one_has_a_folder_so_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundled.resolve(NAME) == str(bundled.folder()) and bundled.resolve("distilgpt2") == "distilgpt2"
    check_source(NAME)
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert bundled.resolve(NAME) == str(bundled.folder()), "a run of that name begins with an empty folder"
    (tmp_path / NAME / "config.json").write_text("{}")
    assert bundled.resolve(NAME) == NAME
    with pytest.raises(HoneError, match="has no weights"):
        check_source(NAME)


def test_the_package_stays_small() -> None:
    sizes = {path.name: path.stat().st_size for path in bundled.folder().iterdir()}
    assert set(sizes) == {
        "README.md", "config.json", "generation_config.json", "manifest.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert sum(sizes.values()) <= 24e6
    package = Path(hone.__file__).parent
    whole = sum(path.stat().st_size for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert whole <= 30e6


def test_plain_transformers_and_the_glass_box_agree_on_it() -> None:
    """float32 from the same bfloat16 weights: |Δ logit| <= 1e-4, sums in another order."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled.folder())
    plain = AutoModelForCausalLM.from_pretrained(bundled.folder(), dtype=torch.float32).eval()
    ids = tokenizer(HEAD * 40, return_tensors="pt").input_ids[:, :512]
    glass = load_gpt2(bundled.folder()).float().eval()
    with torch.no_grad():
        torch.testing.assert_close(glass(ids), plain(ids).logits, atol=1e-4, rtol=0)
    assert load_finished(NAME).dtype == torch.bfloat16
    assert tokenizer.decode(tokenizer(HEAD).input_ids) == HEAD


def test_it_knows_python() -> None:
    """A held-out function costs it far less than the same lines in disorder; random weights see no difference."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled.folder())
    model = AutoModelForCausalLM.from_pretrained(bundled.folder(), dtype=torch.float32).eval()
    lines = ["def count_words(text):", "    counts = {}", "    for word in text.split():"]
    lines += ["        counts[word] = counts.get(word, 0) + 1", "    return counts"]

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    assert loss("\n".join(lines)) < 3.5 < loss("\n".join(word for line in reversed(lines) for word in line.split()))


def test_its_card_names_each_package_and_what_it_is_not_for() -> None:
    card = (bundled.folder() / "README.md").read_text(encoding="utf-8")
    for wanted in ("**Not for**", "| python 3.11", "PSF-2.0", "| sympy ", "held out", "xz -9e", "bits per byte"):
        assert wanted in card, wanted
    assert card.count("```python") == 11  # how to load it, and ten continuations


# ---- offline --------------------------------------------------------------------------------------------------------


def test_a_hub_name_out_of_reach_gives_way_to_the_fallback(caplog: pytest.LogCaptureFixture) -> None:
    given = {"model_name_or_path": "nobody/no-such-model", "method": "lora", "lora_target_modules": ["q_proj"]}
    config = load_config({**given, "offline_model_name_or_path": NAME, "model_revision": "abc"})
    with caplog.at_level(logging.WARNING, logger="hone"):
        found = with_fallback(config)
    assert found.model.model_name_or_path == NAME and found.model.model_revision is None
    assert found.method.lora_target_modules == "all-linear" and found.method.method == "lora"
    (line,) = caplog.messages
    assert "nobody/no-such-model is not on this machine" in line and NAME in line
    assert config.model.model_name_or_path == "nobody/no-such-model", "the given config is left alone"


@pytest.mark.parametrize("method", bundled.RATES)
def test_the_fallback_comes_with_its_own_rate(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's rate is the other model's; one on the command line is the user's."""
    (tmp_path / "r.yaml").write_text(
        f"model:\n  model_name_or_path: nobody/no-such-model\n  offline_model_name_or_path: {NAME}\n"
        f"method:\n  method: {method}\ntrain:\n  learning_rate: 5e-5\n"
    )
    own = bundled.RATES[method]
    with caplog.at_level(logging.WARNING, logger="hone"):
        assert with_fallback(load_config(tmp_path / "r.yaml")).train.learning_rate == own
        assert f"with learning_rate={own:g} (offline" in caplog.messages[-1]
        assert with_fallback(load_config(tmp_path / "r.yaml", ["lr=2e-5"])).train.learning_rate == 2e-5
        assert "learning_rate" not in caplog.messages[-1]
        assert with_fallback(load_config(tmp_path / "r.yaml", keys={"lr": 2e-5})).train.learning_rate == 2e-5
    other = load_config(tmp_path / "r.yaml", [f"offline_model_name_or_path={tmp_path}"])
    assert with_fallback(other).train.learning_rate == 5e-5, "another fallback's rate is not known"
    monkeypatch.setattr("hone.models.fallback.answers", lambda name, revision: True)
    assert with_fallback(load_config(tmp_path / "r.yaml")).train.learning_rate == 5e-5


def test_a_rate_far_below_the_bundled_model_s_own_is_said_once() -> None:
    base = {"model_name_or_path": NAME}
    for given in ({}, {"learning_rate": 5e-5}, {"method": "lora", "learning_rate": 1e-4}):
        (notice,) = load_config({**base, **given}).notices
        assert notice.startswith("learning_rate is ") and NAME in notice
    assert load_config({**base, "learning_rate": 5e-4}).notices == []
    assert load_config({"model_name_or_path": "gpt2"}).notices == []


def test_check_prepare_plan_and_train_agree_on_the_fallback(
    tmp_path: Path, write_rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_rows("rows.jsonl", [{"text": f"def f{i}(x):\n    return x + {i}\n"} for i in range(8)])
    (tmp_path / "r.yaml").write_text(
        f"model_name_or_path: nobody/no-such-model\noffline_model_name_or_path: {NAME}\nlearning_rate: 5e-5\n"
        f"train_file: {rows}\nmax_steps: 1\nsample_prompts: 0\nmax_length: 1024\n"
    )
    said = {}
    for command in ("check", "prepare", "plan", "train"):
        caplog.clear()
        found = CliRunner().invoke(app, [command, str(tmp_path / "r.yaml")])
        assert found.exit_code == 0, found.output
        said[command] = next(line for line in caplog.messages if "takes its place" in line)
    assert len(set(said.values())) == 1 and "learning_rate=0.001 and max_length=512" in said["check"]
    trained = load_config(tmp_path / "out" / "config.resolved.yaml")
    assert (trained.train.learning_rate, trained.data.max_length) == (1e-3, 512)


def test_without_a_fallback_one_message_says_what_trains_here(tmp_path: Path) -> None:
    given = {"model_name_or_path": "nobody/no-such-model", "train_file": "x"}
    with pytest.raises(HoneError, match="cannot be reached") as found:
        with_fallback(load_config(given))
    assert str(found.value.fix).endswith("model_name_or_path=hone-base learning_rate=0.001")
    mapping = {"source": "code", "target": "summary"}
    with pytest.raises(HoneError) as found:
        with_fallback(load_config({**given, "task": "seq2seq", "column_mapping": mapping}))
    settings = shlex.split(str(found.value.fix).split("the bundled model: ")[1])
    config = load_config(given | {"task": "seq2seq", "column_mapping": mapping}, settings)
    assert (config.method.task, config.data.column_mapping) == ("causal", {"prompt": "code", "completion": "summary"})
    assert with_fallback(config) is config and config.notices == []


def test_a_model_at_hand_needs_no_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = {"offline_model_name_or_path": "fallback"}
    for name in (str(tmp_path), NAME):
        config = load_config({"model_name_or_path": name, **fallback})
        assert with_fallback(config) is config
    config = load_config({"model_name_or_path": "gpt2", **fallback})
    monkeypatch.setattr("hone.models.fallback.answers", lambda name, revision: True)
    assert with_fallback(config) is config
    monkeypatch.setattr("hone.models.fallback.answers", lambda name, revision: False)
    assert with_fallback(config).model.model_name_or_path == "fallback"
    monkeypatch.setattr("hone.models.fallback.cached", lambda name, revision, tokenizer: True)
    assert with_fallback(config) is config


def in_the_hub_s_cache(folder: Path, files: list[str], revision: str = "main") -> None:
    """As huggingface_hub keeps them: a snapshot by commit, and the commit by the branch's name."""
    there = folder / "models--me--it"
    (there / "refs").mkdir(parents=True, exist_ok=True)
    (there / "refs" / revision).write_text("abc")
    for file in files:
        (there / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
        (there / "snapshots" / "abc" / file).write_text("{}")


def test_a_model_is_cached_when_all_of_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not cached("me/it") and not cached("not a name/at all/")
    in_the_hub_s_cache(tmp_path, ["config.json", "tokenizer.json"])
    assert not cached("me/it")
    in_the_hub_s_cache(tmp_path, ["model.safetensors"])
    assert cached("me/it") and not cached("me/it", "v1")
    in_the_hub_s_cache(tmp_path, [], revision="v1")
    assert cached("me/it", "v1")
    (tmp_path / "models--me--it" / "snapshots" / "abc" / "tokenizer.json").unlink()
    assert not cached("me/it") and cached("me/it", tokenizer=False)


def test_out_of_reach_is_known_without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert constants.HF_HUB_OFFLINE and not in_reach(), "tests are offline"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("hone.hub.getproxies", dict)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of `discard`: nobody listens
    assert not in_reach()
    with no_retries("me/it"):
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert in_reach()
        with no_retries("me/it"):
            assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        for kind in ("http", "all"):
            proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setattr("hone.hub.getproxies", lambda kind=kind, proxy=proxy: {kind: proxy})
            assert in_reach(), "the proxy is"
    assert not in_reach(), "nor is the proxy now"
    monkeypatch.setattr("hone.hub.getproxies", lambda: {"http": "127.0.0.1:9"})
    assert in_reach(), "not known to be out of it"
    for error, wanted in ((LocalEntryNotFoundError("no"), False), (OSError("gated"), True), (None, True)):
        monkeypatch.setattr("huggingface_hub.hf_hub_download", Mock(side_effect=error))
        assert answers("me/it") is wanted


def test_what_began_with_the_fallback_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model_name_or_path": "gpt2", "offline_model_name_or_path": NAME, "output_dir": str(tmp_path)}
    offline = with_fallback(load_config(settings))
    (tmp_path / "config.resolved.yaml").write_text(resolved_yaml(offline), encoding="utf-8")
    monkeypatch.setattr("hone.models.fallback.answers", lambda name, revision: True)
    assert with_fallback(load_config(settings)).model.model_name_or_path == NAME
    again = load_config({**settings, "overwrite": True})
    assert with_fallback(again) is again


def test_rows_are_cut_to_the_fallback_s_window(caplog: pytest.LogCaptureFixture) -> None:
    given = {"model_name_or_path": "nobody/no-such-model", "offline_model_name_or_path": NAME}
    with caplog.at_level(logging.WARNING, logger="hone"):
        assert with_fallback(load_config({**given, "max_length": 1024})).data.max_length == 512
    assert "max_length=512" in caplog.messages[-1]
    assert with_fallback(load_config({**given, "max_length": 256})).data.max_length == 256


@pytest.mark.slow
def test_repeat_stays_with_the_fallback(tmp_path: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", [{"text": f"def f{i}(x):\n    return x + {i}\n"} for i in range(8)])
    settings = {"model_name_or_path": "nobody/no-such-model", "offline_model_name_or_path": NAME, "max_steps": 1}
    files = {"train_file": str(rows), "validation_split_percentage": 25, "output_dir": str(tmp_path / "out")}
    found = repeat(load_config(settings | files), [1, 2])
    assert len(found.runs) == 2


@pytest.mark.slow
def test_an_adapter_of_it_is_loaded_wherever_hone_is_installed(tmp_path: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", [{"text": f"def f{i}(x):\n    return x + {i}\n"} for i in range(8)])
    run = tmp_path / "out"
    settings = {"model_name_or_path": NAME, "method": "lora", "max_steps": 2, "warmup_steps": 0}
    hone.train(load_config(settings | {"train_file": str(rows), "output_dir": str(run)}))
    here = load_finished(str(run))
    ids = torch.tensor([[5, 6, 7, 8]])
    about = run / "adapter_config.json"
    for base in ("/elsewhere/lib/python3.11/site-packages/hone/assets/base", NAME):
        about.write_text(json.dumps({**json.loads(about.read_text()), "base_model_name_or_path": base}))
        moved = load_finished(str(run))
        with torch.no_grad():
            assert torch.equal(moved(ids).logits, here(ids).logits)
            assert not torch.equal(load_finished(NAME)(ids).logits, here(ids).logits), "the adapter does something"


def test_a_name_that_nearly_is_its_own_is_asked_about() -> None:
    with pytest.raises(HoneError) as found:
        load_finished("hone_base")
    assert "did you mean hone-base?" in str(found.value)


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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_demo_trains_the_bundled_model(tmp_path: Path, method: str) -> None:
    small(tmp_path)
    found = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--method", method, "--json"])
    assert found.exit_code == 0, found.output
    told: dict[str, Any] = json.loads(found.stdout)
    run = tmp_path / ("functions" if method == "full" else "functions-lora")
    assert told["run"] == str(run) and told["comparison"]["metrics"]["loss"]["difference"]["value"] < 0
    assert (run / "report.html").is_file()
    assert (run / "adapter_config.json").is_file() == (method == "lora")
    if shutil.which("bwrap"):
        assert json.loads((run / "eval" / "tuned.code.json").read_text())["n_tasks"] == 3
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert demo(tmp_path, method).status["stage"] == "finished"
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert after == before, "what is finished is not touched again"


@pytest.mark.parametrize("place", ["afile", "afile/sub", "/proc/no/such"])
def test_the_demo_needs_a_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("mine")
    found = CliRunner().invoke(app, ["demo", "-o", place])
    assert found.exit_code == 1 and "error: " in found.output and "--output FOLDER" in found.output
    assert (tmp_path / "afile").read_text() == "mine"


@pytest.mark.slow
def test_the_demo_takes_settings_but_no_config(tmp_path: Path) -> None:
    small(tmp_path)
    arguments = ["demo", "-o", str(tmp_path), "code_tasks=null", "--max_steps", "1", f"output_dir={tmp_path / 'one'}"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "one" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 1
    found = CliRunner().invoke(app, ["demo", "mine.yaml", "-o", str(tmp_path)])
    assert found.exit_code == 1 and "no config: 'mine.yaml'" in found.output


def test_the_demo_has_two_methods(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--method", "freeze"])
    assert found.exit_code == 1 and "full or lora" in found.output and not list(tmp_path.iterdir())
    assert load_config({}, list(LORA)).method.method == "lora"


@pytest.mark.slow
def test_what_the_demo_says_to_try_next_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small(tmp_path)
    commands = re.findall(r"^# .*: +(hone .*)$", (tmp_path / CONFIG).read_text(encoding="utf-8"), flags=re.M)
    assert len(commands) == 2
    assert "--seeds 3 " in commands[1]
    for command in commands:
        found = CliRunner().invoke(app, shlex.split(command.replace("--seeds 3 ", "--seeds 2 "))[1:])
        assert found.exit_code == 0, f"{command}\n{found.output}"
    assert (tmp_path / "mine" / "model.safetensors").is_file() and (tmp_path / "seeds" / "repeat.json").is_file()
