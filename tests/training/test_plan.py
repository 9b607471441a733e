"""`hone plan` says before a training what the training then does: parameters, steps, tokens; and writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone import bundled
from hone.cli import app
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.models.build import build_model
from hone.models.fallback import planned_shape
from hone.models.freeze import count_trainable, groups
from hone.models.kinds import DECODER
from hone.planning import lengths, memory, plan
from hone.planning.lengths import estimated_data
from hone.planning.plan import make_plan
from hone.tables.plan import plan_text
from hone.tasks import task_of
from tiny_tasks import BART, BERT, GPT2, QUIET, T5, bert_tokenizer, labelled_rows, pair_rows

PLANS = {**QUIET, "bf16": False}
SCRATCH_GPT2 = {"model_name_or_path": None, "model_type": "gpt2", "config_overrides": {**GPT2, "n_layer": 3}}


@pytest.fixture
def config(tmp_path: Path, model_folder: Path, write_rows: Callable[..., Path]) -> Callable[..., Any]:
    """config(max_length=32, …) -> a configuration on 40 prompt/completion rows and a tiny GPT-2, never trained yet."""
    rows = write_rows("rows.jsonl", pairs(40))

    def make(**settings: Any) -> Any:
        given = {
            **PLANS,
            "model_name_or_path": str(model_folder),
            "tokenizer_name_or_path": str(model_folder),
            "train_file": str(rows),
            "per_device_train_batch_size": 3,
            "output_dir": str(tmp_path / "out"),
            **settings,
        }
        return hone.load_config({key: value for key, value in given.items() if value is not None})

    return make


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# ---- what trains ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "freeze", "num_unfrozen_layers": 1},
        {"method": "freeze", "num_unfrozen_layers": 0, "unfreeze_head": True},
        {"method": "lora", "lora_r": 4},
        {"method": "lora", "lora_r": 4, "lora_modules_to_save": ["lm_head"], "dtype": "bfloat16"},
        SCRATCH_GPT2,
    ],
    ids=["full", "freeze", "freeze-head", "lora", "lora-head-bfloat16", "from-scratch"],
)
def test_the_table_is_that_of_the_built_model(config: Any, settings: dict[str, Any]) -> None:
    chosen = config(**settings)
    found = make_plan(chosen)
    model = build_model(chosen, DECODER, load_tokenizer(chosen.model.tokenizer_name_or_path))
    assert found.groups == groups(model)
    count = count_trainable(model)
    assert sum(g.n_parameters for g in found.groups) == count.n_parameters
    assert sum(g.n_parameters for g in found.groups if g.trains) == count.n_trainable
    trained = [p for p in model.parameters() if p.requires_grad]
    assert found.memory.trained == sum(p.numel() * p.element_size() for p in trained) == found.memory.gradients
    held = {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    assert found.memory.weights == sum(t.numel() * t.element_size() for t in held)
    assert found.memory.optimizer == 2 * found.memory.trained, "AdamW keeps two numbers for each trained one"
    text = plan_text(found)
    assert f"{count.n_trainable:,} of {count.n_parameters:,} parameters train" in text
    assert "also lm_head: one tensor" in text, "the tie of GPT-2's head and embeddings is said"


# ---- steps and tokens ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What is asked are steps and tokens then; following a step's tensors takes most of the time of a plan."""
    found = SimpleNamespace(fits=True, weights=1, trained=1, optimizer=2)
    return lambda: monkeypatch.setattr(plan, "footprint", lambda *args: found)


def assert_the_run_does_as_planned(config: Any) -> None:
    planned = make_plan(config)  # lengths are estimated: nothing is prepared yet
    run = hone.train(config)
    steps = [line for line in run.metric_lines() if "loss" in line]
    assert planned.schedule.steps == steps[-1]["step"] == len(steps)
    assert planned.schedule.epochs == pytest.approx(steps[-1]["epoch"])
    counted = make_plan(config).schedule
    assert counted.exact
    assert counted.steps == planned.schedule.steps
    assert counted.tokens == steps[-1]["tokens"]
    supervised = counted.supervised_tokens * counted.epochs
    if float(counted.epochs).is_integer():
        assert supervised == steps[-1]["supervised_tokens"]
    between = [line for line in run.metric_lines() if "eval_loss" in line]
    assert len(between) == (plan._evaluations(config.train, counted) if counted.validation_tokens else 0)
    assert counted.validation_tokens == sum(hone.prepare(config).validation.lengths)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"num_train_epochs": 2},
        {"num_train_epochs": 2, "gradient_accumulation_steps": 5},
        {"num_train_epochs": 1.5},
        {"max_steps": 7, "gradient_accumulation_steps": 3},
        {"batching": "packed", "num_train_epochs": 2},
        {"batching": "padded", "max_train_samples": 11},
        {"validation_split_percentage": 0, "method": "lora", "lora_r": 2},
    ],
    ids=["epochs", "accumulation", "part-of-an-epoch", "max-steps", "packed", "padded", "no-validation"],
)
def test_steps_and_tokens_are_those_of_the_run(config: Any, settings: dict[str, Any], no_memory: Any) -> None:
    no_memory()
    assert_the_run_does_as_planned(config(**settings))


def test_steps_and_tokens_of_windows(config: Any, write_rows: Callable[..., Path], no_memory: Any) -> None:
    no_memory()
    texts = [{"text": f"def f{i}(x):\n    return x + {i}\n" * (1 + i % 3)} for i in range(30)]
    chosen = config(train_file=str(write_rows("texts.jsonl", texts)), batching="windows", max_length=16)
    assert_the_run_does_as_planned(chosen)


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "overrides"), [("gpt2", GPT2), ("bert", BERT), ("t5", T5), ("bart", BART)])
def test_the_other_tasks(
    config: Any,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    model_type: str,
    overrides: dict[str, Any],
    no_memory: Any,
) -> None:
    task = "seq2seq" if model_type in ("t5", "bart") else "classification"
    rows = labelled_rows(30) if task == "classification" else pair_rows(30)
    settings = {"task": task, "train_file": str(write_rows("task.jsonl", rows)), "num_train_epochs": 2}
    if model_type == "bert":
        bert_tokenizer([word for row in rows for word in row["text"].split()]).save_pretrained(tmp_path / "words")
        settings["tokenizer_name_or_path"] = str(tmp_path / "words")
    chosen = config(
        **settings, model_name_or_path=None, model_type=model_type, config_overrides=overrides, max_target_length=32
    )
    found = make_plan(chosen)
    assert found.memory.untraced is None
    assert found.memory.activations and found.memory.logits
    assert found.memory.evaluation > found.memory.weights
    assert not (tmp_path / "out").exists()
    no_memory()
    assert_the_run_does_as_planned(chosen)


def test_estimated_lengths_are_near_the_counted_ones(config: Any) -> None:
    chosen = config()
    tokenizer = load_tokenizer(chosen.model.tokenizer_name_or_path)
    (estimated, how), counted = estimated_data(chosen, task_of(chosen), tokenizer), hone.prepare(chosen)
    assert how == "estimated from 40 tokenised rows"
    assert len(estimated.train) == len(counted.train)
    assert len(estimated.validation) == len(counted.validation)
    assert estimated.train.n_tokens == pytest.approx(counted.train.n_tokens, rel=0.05)
    assert estimated.train.n_supervised().sum() == pytest.approx(counted.train.n_supervised().sum(), rel=0.2)
    assert np.sort(estimated.train.lengths) == pytest.approx(np.sort(counted.train.lengths), abs=4)
    assert "about 36 examples" in plan_text(make_plan(config(seed=3))) or make_plan(chosen).schedule.exact


def test_estimates_are_split_as_the_store_splits(config: Any, write_rows: Callable[..., Path]) -> None:
    """Copies on one side, and only once where they are to go; one text is cut at its end."""
    copied = str(write_rows("copied.jsonl", pairs(10) * 3))
    one = write_rows("one.jsonl", []).with_suffix(".txt")
    one.write_text("def add(a, b):\n    return a + b\n" * 60)
    for settings in (
        {"train_file": copied},
        {"train_file": copied, "deduplicate": True},
        {"train_file": copied, "validation_file": str(write_rows("held.jsonl", pairs(3)))},
        {"train_file": str(one), "batching": "windows", "max_length": 16},
    ):
        chosen = config(**settings)
        tokenizer = load_tokenizer(chosen.model.tokenizer_name_or_path)
        (estimated, _), counted = estimated_data(chosen, task_of(chosen), tokenizer), hone.prepare(chosen)
        assert len(estimated.train) == pytest.approx(len(counted.train), abs=1), settings
        assert len(estimated.validation) == pytest.approx(len(counted.validation), abs=1), settings


def test_a_sample_stands_for_a_long_file(
    config: Any, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(train_file=str(write_rows("many.jsonl", pairs(600))))
    tokenizer = load_tokenizer(chosen.model.tokenizer_name_or_path)
    monkeypatch.setattr(lengths, "SAMPLE_ROWS", 50)
    found, how = estimated_data(chosen, task_of(chosen), tokenizer)
    assert how == "estimated from 50 tokenised rows"
    monkeypatch.setattr(lengths, "READ_SECONDS", 0.0)
    assert "at least so many: reading was stopped" in estimated_data(chosen, task_of(chosen), tokenizer)[1]
    assert found.train.n_tokens == pytest.approx(hone.prepare(chosen).train.n_tokens, rel=0.1)


# ---- what is measured, printed and left behind -----------------------------------------------------------------------


def test_nothing_is_written(config: Any, tmp_path: Path) -> None:
    chosen = config()
    before = files_below(tmp_path)
    assert not make_plan(chosen).schedule.exact
    assert files_below(tmp_path) == before


@pytest.mark.slow
def test_measure_times_two_steps_and_leaves_no_run(config: Any, tmp_path: Path) -> None:
    chosen = config(num_train_epochs=3)
    found = make_plan(chosen, measure=True)
    assert not (tmp_path / "out").exists()
    timing, schedule = found.timing, found.schedule
    assert timing is not None and schedule.exact
    assert 0 < timing.step_s < 10
    assert timing.train_s == pytest.approx(schedule.tokens / timing.tokens_per_s)
    assert timing.evaluations == 3 + 2, "each epoch, before and after"
    assert 0 < timing.evaluation_s < timing.train_s
    text = plan_text(found)
    assert f"{schedule.steps} steps of" in text and "5 evaluations" in text
    short = make_plan(config(max_train_samples=2, num_train_epochs=1, max_train_seconds=1e-3), measure=True)
    assert short.schedule.steps == 1, "two steps are timed even where the run has one"
    assert short.timing is not None and short.timing.train_s == 1e-3


@pytest.mark.slow
def test_json_and_exit_codes(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Any, tokenizer: Any
) -> None:
    chosen = config()
    for one in (tiny_model("gpt2", n_layer=1), tokenizer):  # of one block: ten steps are followed
        one.save_pretrained(tmp_path / "model")
    keys = [f"model_name_or_path={tmp_path / 'model'}", f"train_file={chosen.data.train_file}"]
    keys += [f"output_dir={tmp_path / 'out'}", "max_length=64", "use_cpu=true"]
    done = CliRunner().invoke(app, ["plan", *keys, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["fits"] is True and told["changes"] == []
    assert told["schedule"]["n_examples"] == 36
    assert told["memory"]["total"] >= told["memory"]["training"] > 0
    assert {group["trains"] for group in told["groups"]} == {True}
    done = CliRunner().invoke(app, ["plan", *keys])
    assert done.exit_code == 0 and "it fits" in done.stdout and "parameters train" in done.stdout
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    done = CliRunner().invoke(app, ["plan", *keys])
    assert done.exit_code == 3, done.output
    assert "IT DOES NOT FIT" in done.stdout and "no setting makes it fit here" in done.stdout
    assert "Traceback" not in done.output


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_to_lower_is_named_and_suffices(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one_block = {**SCRATCH_GPT2, "config_overrides": {**GPT2, "n_layer": 1}, "batching": "padded"}
    chosen = config(per_device_train_batch_size=8, gradient_accumulation_steps=2, **one_block)
    whole = make_plan(chosen)
    assert whole.fits and not whole.changes
    small = make_plan(config(per_device_train_batch_size=1, gradient_accumulation_steps=16, **one_block))
    assert small.memory.total < whole.memory.total
    monkeypatch.setattr(memory, "free_memory", lambda device: small.memory.total)
    found = make_plan(chosen)
    assert not found.fits
    *tried, last = found.changes
    assert last.fits and not any(change.fits for change in tried)
    assert last.total <= small.memory.total
    steps = last.settings
    assert steps["per_device_train_batch_size"] * steps["gradient_accumulation_steps"] == 16
    again = make_plan(chosen.changed(steps))
    assert again.fits and again.memory.total == last.total
    assert "fits  with" in plan_text(found)


def test_a_full_disk_is_no_memory(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config(save_strategy="steps", save_steps=2, save_total_limit=2, max_steps=9)
    disk = make_plan(chosen).disk
    assert disk.kept == 3, "the new one is there before the oldest goes"
    assert disk.total == disk.model + 3 * disk.checkpoint
    assert disk.checkpoint == 3 * disk.model, "AdamW keeps two numbers for each weight"
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": disk.total - 1}))
    full = make_plan(chosen)
    assert not full.fits and full.memory.fits and full.changes == []
    assert "NOT ENOUGH: lower save_total_limit" in plan_text(full)


def test_the_disk_holds_what_was_planned(config: Any) -> None:
    chosen = config(save_strategy="steps", save_steps=2, max_steps=4, method="lora", lora_r=4)
    disk = make_plan(chosen).disk
    run = hone.train(chosen)
    model = (run.folder / "adapter_model.safetensors").stat().st_size
    checkpoint = sum(p.stat().st_size for p in run.checkpoints()[0].iterdir() if p.suffix in (".safetensors", ".pt"))
    assert model == pytest.approx(disk.model, rel=0.2, abs=5000)
    assert checkpoint == pytest.approx(disk.checkpoint, rel=0.2, abs=20000)


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_name_or_path": "./nothere"}, "no such folder"),
        ({"train_file": "nothere.jsonl"}, "nothere.jsonl: no such file"),
        ({"max_length": 300}, "max_length is 300, but the model has 256 positions"),
        ({"method": "freeze", "num_unfrozen_layers": 9}, "num_unfrozen_layers is 9"),
        ({"method": "lora", "lora_target_modules": ["q_proj"]}, "no linear layer 'q_proj'"),
        ({"task": "seq2seq"}, "encoder-decoder, such as t5 or bart"),
        ({**SCRATCH_GPT2, "config_overrides": {"n_layr": 2}}, "did you mean 'n_layer'"),
        ({"batching": "windows", "max_length": 200}, "no example is left to train on"),
        ({"report_to": "nonsense"}, "tracker 'nonsense'"),
    ],
)
def test_mistakes_are_said_as_train_would(config: Any, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(HoneError) as caught:
        make_plan(config(**settings))
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) > 1, "and how to repair it"
    assert not (tmp_path / "out").exists()


# ---- without weights ------------------------------------------------------------------------------------------------

PUBLISHED = {
    "distilgpt2": 81_912_576,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "Qwen/Qwen2-0.5B": 494_032_768,
    "Qwen/Qwen2-1.5B": 1_543_714_304,
}


def without_weights(name: str, rows: Path, **more: Any) -> Any:
    return hone.plan(
        hone.load_config(
            {"model_name_or_path": name, "train_file": str(rows), "eval_base": False, "eval_strategy": "no", **more}
        )
    )


def counted(plan: Any) -> tuple[int, int]:
    trained = sum(group.n_parameters for group in plan.groups if group.trains)
    return trained, sum(group.n_parameters for group in plan.groups)


@pytest.mark.slow
def test_a_well_known_shape_is_planned_without_its_weights(write_rows: Any) -> None:
    name = "distilgpt2"
    plan = without_weights(name, write_rows("rows.jsonl", pairs(4)), max_length=32, per_device_train_batch_size=1)
    assert counted(plan) == (PUBLISHED[name], PUBLISHED[name]) and plan.model == name


def test_lora_on_qwen2_has_the_published_share_to_the_last_parameter() -> None:
    import torch

    lora = {"method": "lora", "lora_r": 64, "lora_target_modules": ["q_proj", "v_proj"]}
    config = hone.load_config({"model_name_or_path": "Qwen/Qwen2-1.5B", "method": lora, "max_length": 32})
    config = config.changed(planned_shape(config.model) or {})
    with torch.device("meta"):
        model = build_model(config, DECODER, load_tokenizer("hone-base"), weights=False)
    count = count_trainable(model)
    assert (count.n_trainable, count.n_parameters) == (8_716_288, 1_552_430_592)


def test_every_shape_has_its_published_size() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    for name, n_parameters in PUBLISHED.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(bundled.shape(name)))
        assert model.num_parameters() == n_parameters, name


def test_a_folder_with_config_json_alone_is_planned(tmp_path: Path, tiny_model: Any, write_rows: Any) -> None:
    model = tiny_model("gpt2")
    model.config.save_pretrained(tmp_path / "shape")
    rows = write_rows("rows.jsonl", pairs(12))
    with pytest.raises(HoneError, match="embedding only"):  # no tokenizer there, and the bundled one has more tokens
        without_weights(str(tmp_path / "shape"), rows, max_length=64)
    model.config.vocab_size = 8192
    model.config.save_pretrained(tmp_path / "shape")
    n_parameters = model.num_parameters() + (8192 - model.get_input_embeddings().weight.shape[0]) * model.config.n_embd
    assert counted(without_weights(str(tmp_path / "shape"), rows, max_length=64))[1] == n_parameters
    with pytest.raises(HoneError, match="no step can be timed"):
        hone.plan(
            hone.load_config({"model_name_or_path": str(tmp_path / "shape"), "train_file": str(rows)}), measure=True
        )


def test_a_fallback_is_what_is_planned(write_rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = write_rows("rows.jsonl", pairs(12))
    plan = without_weights("gpt2-medium", rows, offline_model_name_or_path="hone-base", max_length=64)
    assert plan.model == "hone-base" and any(
        "offline_model_name_or_path=null plans" in line for line in caplog.messages
    )
