"""Reading YAML and mappings: what is accepted, and what each mistake says."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.config import Config, load_config, resolved_yaml
from hone.errors import HoneError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, *overrides: str) -> Config:
    Path("cfg.yaml").write_text(text, encoding="utf-8")
    return load_config("cfg.yaml", overrides)


def mistake(text: str, *overrides: str) -> str:
    with pytest.raises(HoneError) as caught:
        read(text, *overrides)
    return str(caught.value)


# what is accepted


def test_nested_flat_and_mixed_give_the_same(folder: Path) -> None:
    nested = read("train:\n  learning_rate: 1e-4\n  eval_strategy: no\ndata:\n  max_length: 64\n")
    flat = read("learning_rate: 1e-4\neval_strategy: no\nmax_length: 64\n")
    mixed = read("train:\n  learning_rate: 1e-4\neval_strategy: no\ndata.max_length: 64\n")
    assert nested == flat == mixed
    assert (flat.train.learning_rate, flat.train.eval_strategy, flat.data.max_length) == (1e-4, "no", 64)


def test_yaml_1_2_scalars(folder: Path) -> None:
    config = read(
        "learning_rate: 1e-4\neval_strategy: no\nrun_name: on\nmodel_revision: 2024-01-31\nnum_train_epochs: 2"
    )
    assert config.train.learning_rate == 0.0001 and type(config.train.num_train_epochs) is float
    assert (config.train.eval_strategy, config.train.run_name) == ("no", "on")
    assert config.model.model_revision == "2024-01-31"


def test_method_is_a_section_and_a_key(folder: Path) -> None:
    assert read("method: lora").method.method == read("method:\n  method: lora\n").method.method == "lora"


def test_an_empty_section_is_fine(folder: Path) -> None:
    assert read("train:\n  # learning_rate: 1\ndata:\nseed: 3\n").train.seed == 3


def test_values_are_plain_python(folder: Path) -> None:
    config = read(
        "config_overrides: {n_layer: 2, rope: {type: x}}\nmodel_type: gpt2\ntokenizer_name_or_path: t\nstop: [a]"
    )
    assert type(config.model.config_overrides) is dict and type(config.model.config_overrides["rope"]) is dict
    assert type(config.generate.stop) is list and type(config.model.model_type) is str


def test_byte_order_mark_and_crlf(folder: Path) -> None:
    Path("cfg.yaml").write_bytes(b"\xef\xbb\xbfseed: 1\r\nbf16: true\r\n")
    config = load_config("cfg.yaml")
    assert config.train.seed == 1 and config.where("bf16") == "cfg.yaml:2"


def test_no_source_gives_the_defaults(folder: Path) -> None:
    config = load_config()
    assert config.train == Config().train and config.source_text is None and config.where("seed") is None


def test_a_mapping_nested_or_flat(folder: Path) -> None:
    config = load_config({"train": {"seed": 1}, "bf16": True, "train_file": (Path("a"), "b")})
    assert config.train.seed == 1 and config.train.bf16
    assert config.data.train_file == [folder / "a", folder / "b"] and config.where("seed") is None


def test_what_the_config_remembers(folder: Path) -> None:
    text = "# mine\ntrain:\n  lr: 1e-4\n"
    config = read(text, "seed=1")
    assert config.source_text == text and config.source_path == folder / "cfg.yaml"
    assert config.overrides == ["seed=1"] and config.notices == ["lr is called learning_rate here"]
    assert config.lines == {"learning_rate": "cfg.yaml:3", "seed": "command line"}
    assert config.where("learning_rate") == "cfg.yaml:3" and config.where("bf16") is None
    assert pickle.loads(pickle.dumps(config)).lines == config.lines


# paths


def test_paths_start_at_the_yaml_files_folder(folder: Path) -> None:
    (folder / "sub" / "base").mkdir(parents=True)
    (folder / "sub" / "cfg.yaml").write_text(
        "train_file: [rows.jsonl, ../other]\nvalidation_file: ~/v.jsonl\nmodel_name_or_path: base\n"
        "tokenizer_name_or_path: ./tok\nresume_from_checkpoint: out/checkpoint-3\n"
    )
    config = load_config("sub/cfg.yaml", ["token_cache_dir=cache"])
    assert config.data.train_file == [folder / "sub/rows.jsonl", folder / "other"]
    assert config.data.validation_file == Path.home() / "v.jsonl"
    assert config.model.model_name_or_path == str(folder / "sub/base")
    assert config.model.tokenizer_name_or_path == str(folder / "sub/tok")
    assert config.train.resume_from_checkpoint == str(folder / "sub/out/checkpoint-3")
    assert config.output.output_dir == folder / "sub/out"
    assert config.data.token_cache_dir == folder / "cache"  # the command line's folder


def test_hub_names_stay(folder: Path) -> None:
    config = load_config(
        {"model_name_or_path": "Qwen/Qwen2-1.5B", "dataset_name": "a/b", "tokenizer_name_or_path": "gpt2"}
    )
    assert config.model.model_name_or_path == "Qwen/Qwen2-1.5B" and config.data.dataset_name == "a/b"
    assert config.model.tokenizer_name_or_path == "gpt2" and config.train.resume_from_checkpoint == "auto"


def test_no_usable_path(folder: Path) -> None:
    assert "cfg.yaml:1: train_file is not a usable path" in mistake('train_file: "a\\0b"\n')
    assert "cfg.yaml:1: output_dir must be a path, not the text ''" in mistake("output_dir: ''\n")


# mistakes in keys


def test_unknown_key(folder: Path) -> None:
    assert mistake("\n\ntrain:\n  lerning_rate: 1e-4\n") == (
        "cfg.yaml:4: unknown key 'lerning_rate'\n  did you mean 'learning_rate'? (`hone explain learning_rate`)"
    )
    assert "`hone explain` lists all keys" in mistake("zzz: 1\n")
    assert "did you mean 'warmup_steps'" in mistake("warmup_ratioo: 1\n")
    assert "unknown key '1'" in mistake("1: 2\n") and "unknown key 'None'" in mistake("null: 2\n")
    assert "did you mean 'train'" in mistake("trian:\n  seed: 1\n")


def test_wrong_section(folder: Path) -> None:
    assert mistake("model:\n  learning_rate: 1e-4\n").startswith(
        "cfg.yaml:2: 'learning_rate' belongs to the section 'train', not 'model'"
    )


def test_a_key_given_twice(folder: Path) -> None:
    assert mistake("train:\n  seed: 1\nseed: 2\n").startswith(
        "cfg.yaml:3: seed is given twice, already given at cfg.yaml:2"
    )
    assert "learning_rate is given twice, already given at cfg.yaml:1" in mistake("lr: 1\nlearning_rate: 2\n")


def test_duplicate_key_names_both_lines(folder: Path) -> None:
    assert mistake("seed: 1\nbf16: true\nseed: 2\n").startswith(
        "cfg.yaml:3: duplicate key 'seed', already given at cfg.yaml:1"
    )


def test_a_section_given_a_value(folder: Path) -> None:
    assert "cfg.yaml:1: 'train' is a section, 5 was given" in mistake("train: 5\n")
    assert read("model: gpt2\noutput: o\n").model.model_name_or_path == "gpt2"


def test_name_without_a_counterpart(folder: Path) -> None:
    assert "config_overrides: {n_layer: 6}" in mistake("n_layer: 3\n")
    assert "always saved as safetensors" in mistake("save_safetensors: true\n")


# mistakes in values


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "learning_rate: '1e-4'",
            "learning_rate must be a number, greater than 0, not the text '1e-4'\n  remove the quotes",
        ),
        ("learning_rate: -1", "must be a number, greater than 0, not -1"),
        ("learning_rate: .nan", "must be a number, greater than 0, not nan"),
        ("learning_rate: .inf", "must be a number, greater than 0, not inf"),
        ("learning_rate: true", "must be a number, greater than 0, not true"),
        ("learning_rate:", "must be a number, greater than 0, not null (empty)"),
        ("learning_rate: [1]", "must be a number, greater than 0, not the list [1]"),
        ("warmup_steps: '10'", "warmup_steps must be a number, at least 0, not the text '10'\n  remove the quotes"),
        ("max_length: 1", "max_length must be a whole number, at least 2, not 1"),
        ("max_steps: 1e3", "max_steps must be a whole number, at least -1, not 1000.0\n  write max_steps: 1000"),
        ("seed: 1.5", "seed must be a whole number, at least 0, at most 4294967295, not 1.5"),
        ("seed: true", "not true"),
        ("bf16: yes", "bf16 must be true or false, or null, not the text 'yes'\n  write bf16: true"),
        ("fp16: 1", "fp16 must be true or false, not 1"),
        ("bf16: 'true'", "remove the quotes: bf16: true"),
        ("run_name: 5", 'run_name must be text, or null, not 5\n  put it in quotes: run_name: "5"'),
        ("method: loar", "method must be one of 'full', 'freeze', 'lora', not the text 'loar'\n  did you mean 'lora'?"),
        ("lr_scheduler_type: Cosine", "did you mean 'cosine'?"),
        ("lora_target_modules: q_proj", "write a list: lora_target_modules: [q_proj]"),
        ("lora_target_modules: []", "must be 'all-linear', or a list of texts, not the list []"),
        ("stop: [1]", "stop must be a list of texts, not the list [1]"),
        ("column_mapping: {text: 1}", "column_mapping must be a mapping of text to text"),
        ("train_file: []", "train_file must be a path, or a list of paths, or null, not the list []"),
        ("train_file: 5", "train_file must be a path, or a list of paths, or null, not 5"),
        ("validation_split_percentage: 51", "at least 0, at most 50, not 51"),
        ("eval_steps: 0", "eval_steps must be a number, greater than 0, or null, not 0"),
        ("top_p: 0", "top_p must be a number, greater than 0, at most 1, not 0"),
        ("model_name_or_path: " + "x" * 10 + "\n\nseed: '" + "y" * 200 + "'", "y" * 59 + "…"),
    ],
)
def test_wrong_values(folder: Path, line: str, expected: str) -> None:
    message = mistake(line + "\n")
    assert expected in message and message.startswith("cfg.yaml:")


def test_no_message_shows_the_validators_wording(folder: Path) -> None:
    message = mistake(
        "learning_rate: x\nwarmup_steps: []\ntrain_file: {}\nmethod: 3\nstop: 1\nlora_target_modules: {}\n"
    )
    assert "6 mistakes" in message
    assert not any(word in message for word in ("pydantic", "Input should", "type=", "Traceback"))


def test_several_mistakes_come_together_by_line(folder: Path) -> None:
    message = mistake("seed: x\nzzz: 1\nmodel:\n  bf16: true\nmax_length: 1\n", "top_k=-1")
    assert message.startswith("cfg.yaml: 5 mistakes\n")
    found = [
        message.index(start) for start in ("cfg.yaml:1:", "cfg.yaml:2:", "cfg.yaml:4:", "cfg.yaml:5:", "command line:")
    ]
    assert found == sorted(found)


def test_objects_in_a_mapping_are_refused(folder: Path) -> None:
    with pytest.raises(HoneError, match="a Python object"):
        load_config({"seed": object()})
    with pytest.raises(HoneError, match="config_overrides"):
        load_config({"model_type": "gpt2", "tokenizer_name_or_path": "t", "config_overrides": {"x": object()}})


# mistakes in the file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cfg.yaml: the file is empty"),
        (b"# only a comment\n", "cfg.yaml: the file is empty"),
        (b"- a\n- b\n", "cfg.yaml:1: the top level is a list, a mapping was expected"),
        (b"just words\n", "cfg.yaml:1: the top level is a single value"),
        (b"seed: 1\nrun_name: caf\xe9\n", "cfg.yaml: not UTF-8 text (byte 21 is 0xe9)"),
        (b"train:\n\tseed: 1\n", "cfg.yaml:2: a tab where YAML wants spaces"),
        (b"seed: 1\nstop: [a\nbf16: true\n", "not valid YAML"),
        (b"stop: @x\n", "cfg.yaml:1: not valid YAML"),
        (b"run_name: \x01\n", "cfg.yaml:1: not valid YAML"),
        (b"seed: 1\n---\nseed: 2\n", "cfg.yaml:2: not valid YAML: a second YAML document"),
        (b"a: &x [*x]\n", "refers to itself"),
        (b"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
         b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n", "grows too large"),
        (b"[" * 1500, "not readable as YAML"),
        (b"? [a]\n: 1\n", "a key must be a plain word"),
        (b"seed: " + b"1" * (1 << 20), "bytes are too many for a configuration"),
    ],
)  # fmt: skip
def test_broken_files(folder: Path, content: bytes, expected: str) -> None:
    Path("cfg.yaml").write_bytes(content)
    with pytest.raises(HoneError) as caught:
        load_config(Path("cfg.yaml"))
    assert expected in str(caught.value)


def test_missing_file_folder_and_odd_names(folder: Path) -> None:
    with pytest.raises(HoneError, match=r"nope.yaml: no such file"):
        load_config("nope.yaml")
    with pytest.raises(HoneError, match=r"`hone init book --with-data` writes that recipe"):
        load_config("book.yaml")
    with pytest.raises(HoneError, match=r"learning_rate=1e-4`"):
        load_config("seed=1")
    (folder / "run").mkdir()
    (folder / "run" / "config.resolved.yaml").write_text("seed: 1\n")
    with pytest.raises(HoneError, match=r"run: is a folder.*\n.*run/config.resolved.yaml"):
        load_config("run")
    for odd in ("a\0b", "x" * 5000):
        with pytest.raises(HoneError, match="cannot read"):
            load_config(odd)


# writing


def test_resolved_yaml_round_trip(folder: Path) -> None:
    config = read(
        "model_type: gpt2\ntokenizer_name_or_path: ./t\n"
        "config_overrides: {n_layer: 2, x: [1, null, 1e-5], 'no': 'yes'}\n"
        "stop: ['\\n', \"a\\tb\\u2028\", 'no', '1e-4', '# x', '', 'null', 'ünï \U0001f600']\neval_strategy: no\n"
        "train_file: [a b.jsonl, 'c#d']\nrun_name: '5'\ntf32: false\nadam_epsilon: 1e-12\n"
    )
    Path("again.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    again = load_config("again.yaml")
    assert again == config and resolved_yaml(again) == resolved_yaml(config)
    assert again.model.config_overrides == {"n_layer": 2, "x": [1, None, 1e-5], "no": "yes"}


def test_resolved_yaml_reads_the_same_with_a_yaml_1_1_reader(folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    config = read("learning_rate: 1e-5\neval_strategy: no\nbf16: true\n")
    values = yaml.safe_load(resolved_yaml(config))
    assert values["train"]["learning_rate"] == 1e-5 and values["train"]["eval_strategy"] == "no"
    assert Config.model_validate(values) == config


def test_the_default_config_round_trips(folder: Path) -> None:
    Path("again.yaml").write_text(resolved_yaml(load_config()))
    assert load_config("again.yaml") == load_config()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stop=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=4),
    rate=st.floats(min_value=1e-300, max_value=1e300),
)
def test_any_text_and_number_round_trips(folder: Path, stop: list[str], rate: float) -> None:
    config = load_config({"stop": stop, "learning_rate": rate})
    Path("again.yaml").write_text(resolved_yaml(config), encoding="utf-8", newline="")
    assert load_config("again.yaml") == config


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), st.text("ab:[]{}-#&*!|>'\"%@,? \n\t0", max_size=40).map(str.encode)))
def test_any_bytes_give_a_config_or_one_clear_message(folder: Path, content: bytes) -> None:
    Path("cfg.yaml").write_bytes(content)
    try:
        load_config("cfg.yaml")
    except HoneError as error:
        assert "cfg.yaml" in str(error)


# cost


def test_loading_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import hone.config.load, hone.config.explain\n"
        "hone.config.load.load_config({'seed': 1}, ['bf16=true'])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), time.perf_counter() - t < 3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_a_mapping_is_not_changed(folder: Path) -> None:
    source: dict[str, Any] = {"train": {"lr": 1e-4}, "stop": ["a"]}
    load_config(source).generate.stop.append("b")
    assert source == {"train": {"lr": 1e-4}, "stop": ["a"]}
