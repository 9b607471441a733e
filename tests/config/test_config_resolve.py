"""Foreign names and command-line tokens."""

from pathlib import Path
from typing import Any

import pytest

from hone.config import load_config
from hone.config.aliases import ALIASES, GONE
from hone.config.schema import leaves
from hone.errors import HoneError

# name -> (value as pasted, value in our key); names not listed here are pure renames
CONVERTED: dict[str, tuple[Any, Any]] = {
    "flash_attention": (True, "flash_attention_2"),
    "dataset_text_field": ("content", {"text": "content"}),
    "text_column": ("content", {"text": "content"}),
    "packing": (True, "packed"),
    "sample_packing": (False, "flat"),
    "neat_packing": (True, "packed"),
    "padding_free": (False, "padded"),
    "train_on_inputs": (False, True),
    "train_on_prompt": (True, False),
    "val_size": (0.07, 7.0),
    "val_set_size": (0.05, 5.0),
    "test_size": (0.1, 10.0),
    "adapter": (None, "full"),
    "use_peft": (True, "lora"),
    "lora_target": ("q_proj, v_proj", ["q_proj", "v_proj"]),
    "target_modules": ("all", "all-linear"),
    "lora_target_linear": (True, "all-linear"),
    "auto_resume_from_checkpoints": (False, "never"),
    "resume": (True, "auto"),
}
# a valid value for each leaf that pure renames reach
VALUES: dict[str, Any] = {
    "model_name_or_path": "gpt2",
    "tokenizer_name_or_path": "gpt2",
    "model_revision": "main",
    "dtype": "bfloat16",
    "train_file": Path("/data/a.jsonl"),
    "validation_file": Path("/data/v.jsonl"),
    "dataset_name": "a/b",
    "dataset_train_split": "test",
    "max_length": 99,
    "completion_only_loss": False,
    "max_train_samples": 9,
    "max_eval_samples": 9,
    "token_cache_dir": Path("/data/cache"),
    "method": "lora",
    "num_unfrozen_layers": 3,
    "lora_r": 4,
    "lora_layers_to_transform": [0, 1],
    "lora_modules_to_save": ["lm_head"],
    "learning_rate": 0.25,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.5,
    "optim": "sgd",
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "max_grad_norm": 0.5,
    "num_train_epochs": 9.0,
    "max_steps": 9,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 3,
    "gradient_checkpointing": True,
    "seed": 9,
    "use_cpu": True,
    "torch_compile": True,
    "dataloader_num_workers": 3,
    "logging_steps": 3,
    "eval_strategy": "no",
    "eval_steps": 3,
    "save_steps": 3,
    "run_name": "x",
    "max_new_tokens": 9,
    "stop": ["x"],
    "output_dir": Path("/data/out"),
    "overwrite": True,
}
COMPANIONS = {"dataset_config_name": {"dataset_name": "a/b"}, "dataset_validation_split": {"dataset_name": "a/b"}}


@pytest.mark.parametrize("name", ALIASES)
def test_each_foreign_name_reaches_its_key_with_a_notice(name: str) -> None:
    leaf = ALIASES[name].leaf
    if leaf in COMPANIONS:
        given = expected = "x"
    elif leaf == "num_return_sequences":
        given = expected = 2
    else:
        given, expected = CONVERTED.get(name, (VALUES.get(leaf), VALUES.get(leaf)))
    extra = COMPANIONS.get(leaf, {"temperature": 1.0} if leaf == "num_return_sequences" else {})
    config = load_config({name: given, **extra})
    assert getattr(getattr(config, leaves()[leaf]), leaf) == expected
    assert expected != getattr(getattr(load_config(), leaves()[leaf]), leaf) or name in ("adapter", "resume", *_SAME)
    assert any(notice.startswith(f"{name} is called {leaf} here") for notice in config.notices)


# converted values that happen to be our defaults
_SAME = {"sample_packing", "train_on_inputs", "test_size", "target_modules", "lora_target_linear"}


@pytest.mark.parametrize("name", GONE)
def test_each_name_without_a_counterpart_says_what_to_do(name: str) -> None:
    with pytest.raises(HoneError) as caught:
        load_config({name: 1})
    assert f"'{name}' is not a key here" in str(caught.value) and GONE[name] in str(caught.value)


def test_the_notice_of_the_ratio_explains_the_share() -> None:
    assert load_config({"warmup_ratio": 0.1}).notices == [
        "warmup_ratio is called warmup_steps here (a value below 1 is a share of all steps)"
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("warmup_ratio", 1, "a count of steps goes into warmup_steps"),
        ("val_set_size", 2000, "a number of rows has no counterpart"),
        ("adapter", "qlora", "quantized training is not offered"),
        ("lora_target_linear", False, "only true has a counterpart"),
        ("dataset", "rows.jsonl", "a local file goes into train_file"),
        ("packing", "maybe", "batching must be one of"),
        ("lr", "1e-4", "remove the quotes"),
    ],
)
def test_values_without_a_counterpart(name: str, value: Any, message: str) -> None:
    with pytest.raises(HoneError, match=message):
        load_config({name: value})


# command line


@pytest.mark.parametrize(
    "tokens",
    [
        ["learning_rate=1e-4"],
        ["train.learning_rate=1e-4"],
        ["--learning_rate=1e-4"],
        ["--learning_rate", "1e-4"],
        ["--learning-rate", "1e-4"],
        ["--train.learning-rate=1e-4"],
        ["--lr", "1e-4"],
        ["learning_rate=1", "learning_rate=1e-4"],  # the last one wins
    ],
)
def test_every_form_of_an_override(tokens: list[str]) -> None:
    assert load_config({"learning_rate": 3.0}, tokens).train.learning_rate == 1e-4


def test_overrides_replace_what_the_file_gave_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  lr: 1\n")
    config = load_config(tmp_path / "c.yaml", ["train.learning_rate=2"])
    assert config.train.learning_rate == 2 and config.where("learning_rate") == "command line"


def test_values_of_overrides() -> None:
    config = load_config(
        None,
        ["--bf16", "--max_steps", "-1", "stop=['a', \"\\n\"]", "run_name=a: b #c", "column_mapping={text: content}",
         "max_train_seconds=", "eval_strategy=no", "--use_cpu", "false", "model={model_name_or_path: gpt2}",
         "method=lora", "model_revision='5'"],
    )  # fmt: skip
    assert config.train.bf16 and config.train.max_steps == -1 and not config.train.use_cpu
    assert config.generate.stop == ["a", "\n"] and config.train.run_name == "a: b #c"
    assert config.data.column_mapping == {"text": "content"} and config.train.max_train_seconds is None
    assert config.train.eval_strategy == "no" and config.model.model_name_or_path == "gpt2"
    assert config.method.method == "lora" and config.model.model_revision == "5"


def test_a_switch_does_not_swallow_the_next_override() -> None:
    config = load_config(None, ["--bf16", "seed=3", "--overwrite", "--seed", "4"])
    assert config.train.bf16 and config.output.overwrite and config.train.seed == 4


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["foo"], "command line: 'foo' is not of the form key=value"),
        (["=1"], "'=1' is not of the form key=value"),
        (["-lr", "1"], "'-lr' is not of the form key=value"),
        (["--learning_rate"], "--learning_rate has no value"),
        (["--learning_rate", "--bf16"], "--learning_rate has no value"),
        (["stop=[a"], "the value of stop is not readable"),
        (["learning_rate="], "must be a number, greater than 0, not null (empty)"),
        (["lerning_rate=1"], "command line: unknown key 'lerning_rate'\n  did you mean 'learning_rate'?"),
        (["model.learning_rate=1"], "'learning_rate' belongs to the section 'train', not 'model'"),
        (["config_overrides.n_layer=2"], "write config_overrides={n_layer: ...}"),
        (["learning_rate='1e-4'"], "remove the quotes"),
    ],
)
def test_bad_overrides(tokens: list[str], message: str) -> None:
    with pytest.raises(HoneError) as caught:
        load_config(None, tokens)
    assert message in str(caught.value) and str(caught.value).startswith("command line")
