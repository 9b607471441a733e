"""Every function in Python takes a file, a dictionary, a Config or keys, with one schema behind them."""

import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hone
from conftest import pairs
from hone.config.load import KEYWORD
from hone.config.schema import Config, leaves
from hone.config.sections.train import TrainSection
from hone.errors import HoneError

TAKE_A_SOURCE: list[Callable[..., Any]] = [hone.train, hone.prepare, hone.plan, hone.repeat, hone.load_config]


@pytest.fixture
def keys(model_folder: Path, write_rows: Any, tmp_path: Path) -> dict[str, Any]:
    rows = write_rows("rows.jsonl", pairs(20))
    return {"model_name_or_path": str(model_folder), "train_file": str(rows), "output_dir": str(tmp_path / "run")}


def test_a_file_a_dictionary_a_config_and_keys_are_the_same(keys: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    nested = {"model": {"model_name_or_path": keys["model_name_or_path"]}, "train": {"learning_rate": 1e-4}}
    rest = {key: keys[key] for key in ("train_file", "output_dir")}
    asked = [
        hone.load_config(file, learning_rate=1e-4),
        hone.load_config(str(file), ["learning_rate=1e-4"]),
        hone.load_config(keys, learning_rate=1e-4),
        hone.load_config(hone.load_config(keys), learning_rate=1e-4),
        hone.load_config(learning_rate=1e-4, **keys),
        hone.load_config(nested, **rest),
        hone.load_config({}, train={"learning_rate": 1e-4}, **keys),
    ]
    assert all(config == asked[0] for config in asked)
    stores = [hone.prepare(source).store.folder for source in (file, keys, asked[0])]
    assert {*stores, hone.prepare(**keys).store.folder} == {stores[0]}


def test_keys_win_over_overrides_and_these_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("seed: 1\nmax_length: 64\nlearning_rate: 1e-3\n")
    config = hone.load_config(file, ["seed=2", "max_length=65"], seed=3)
    assert (config.train.seed, config.data.max_length, config.train.learning_rate) == (3, 65, 1e-3)
    assert (config.where("seed"), config.where("max_length")) == (KEYWORD, "command line")
    assert str(config.where("learning_rate")).endswith("my.yaml:3") and config.source_path == file


def test_a_config_to_change_keeps_where_it_is_from(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("seed: 1\nlora_r: 4\n")
    before = hone.load_config(file)
    after = hone.load_config(before, method="lora")
    assert before.method.method == "full" and after.method.method == "lora" and after.train.seed == 1
    assert after.source_path == file and after.source_text == before.source_text
    assert after.where("seed") == before.where("seed") and after.where("method") == KEYWORD
    assert before.notices and not after.notices, "lora_r has an effect now; defaults were never given"
    assert hone.load_config(before) is before
    assert hone.load_config(Config(train=TrainSection(seed=7)), max_length=9).train.seed == 7


def test_paths_in_keys_start_here_and_those_of_a_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my.yaml").write_text("train_file: rows.jsonl\n")
    monkeypatch.chdir(tmp_path)
    config = hone.load_config("sub/my.yaml", validation_file=Path("val.jsonl"))
    assert config.data.train_file == tmp_path / "sub" / "rows.jsonl"
    assert config.data.validation_file == tmp_path / "val.jsonl"


@pytest.mark.parametrize("function", TAKE_A_SOURCE)
@pytest.mark.parametrize(
    ("source", "keys", "expected"),
    [
        (3, {}, "not int"),
        (["my.yaml"], {}, "not list"),
        (None, {"lerning_rate": 1}, "did you mean 'learning_rate'"),
        ({"max_length": 8}, {"max_length": "x"}, "max_length must be a whole number"),
        ({"train": {"max_length": 8}}, {}, "belongs to the section 'data'"),
        ("nowhere.yaml", {}, "nowhere.yaml: no such file"),
        ("rows.jsonl", {}, "give it as a key: train_file='rows.jsonl'"),
        (None, {"bf16": True, "fp16": True}, "fp16"),
    ],
)
def test_a_mistake_is_one_clear_error(
    function: Callable[..., Any], source: Any, keys: dict[str, Any], expected: str
) -> None:
    with pytest.raises(HoneError, match=re.escape(expected)):
        function(source, **keys)


@pytest.mark.parametrize("function", [hone.train, hone.prepare, hone.plan, hone.repeat])
def test_nothing_at_all_names_what_is_missing(function: Callable[..., Any]) -> None:
    for source in ((), (None,), ({},)):
        with pytest.raises(HoneError, match="no model: neither"):
            function(*source)


def test_what_is_no_model_is_said() -> None:
    for call in (hone.load, hone.evaluate, hone.compare):
        with pytest.raises(HoneError, match="a model was expected, not int"):
            call(3)  # type: ignore[operator]
    with pytest.raises(HoneError, match="overrides are a list"):
        hone.load_config(None, 3)  # type: ignore[arg-type]


def test_a_task_by_name_is_a_key(keys: dict[str, Any], write_rows: Any) -> None:
    rows = write_rows("labels.jsonl", [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(12)])
    data = hone.prepare(**{**keys, "train_file": rows}, task="classification")
    assert data.train.outputs == ["a", "b"]
    with pytest.raises(HoneError, match="unknown task 'klass'"):
        hone.prepare(**keys, task="klass")


def test_notices_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hone"):
        config = hone.load_config(lr=1e-4)
        hone.load_config(config)
    assert [record.getMessage() for record in caplog.records] == ["note: lr is called learning_rate here"]


def test_help_is_a_page() -> None:
    text = inspect.getdoc(hone.train) or ""
    named = re.findall(r"^ {8}(\w+)  ", text, re.M)
    assert len(named) == 10 and set(named) <= set(leaves())
    assert all(word in text for word in ("hone explain", "HoneError", "Interrupted", "hone.Run", "light-lab.yaml"))
    assert all(len(line) <= 116 for line in text.splitlines())
    for name in hone.__all__:
        assert inspect.getdoc(getattr(hone, name)), name


def test_ipython_shows_the_message_alone() -> None:
    error = HoneError("no such file", where="my.yaml", fix="`hone init` lists the recipes")
    assert error._render_traceback_() == ["HoneError: my.yaml: no such file\n  `hone init` lists the recipes"]


def test_only_what_there_is_is_there() -> None:
    assert hone.Run.__name__ == "Run"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hone.nothing
