"""Whole runs: accumulation, resuming, before and after, and what a new process finds in the folder.

CPU, float32. "Bit-identical" means equal bytes of model.safetensors.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from conftest import SIGNALS, pairs, sigterm_at
from forked import hone_process
from hone.cli import app
from hone.errors import HoneError, Interrupted
from hone.runs import Run

PLAIN = {
    "use_cpu": True,
    "logging_steps": 1,
    "sample_prompts": 1,
    "sample_max_new_tokens": 4,
    "save_strategy": "no",
    "max_length": 128,
}


def losses(run: Any) -> list[float]:
    return [line["loss"] for line in run.metric_lines() if "loss" in line]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def settings(model_folder: Path, write_rows: Any, n: int = 24, **more: Any) -> dict[str, Any]:
    rows = write_rows("train.jsonl", pairs(n))
    held = write_rows(
        "val.jsonl", [{"prompt": f"add {i} and 90:", "completion": f" {i + 90}"} for i in range(200, 206)]
    )
    return {
        **PLAIN,
        "model_name_or_path": str(model_folder),
        "train_file": str(rows),
        "validation_file": str(held),
        **more,
    }


@pytest.mark.slow
def test_accumulation_8x1_equals_1x8(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    """Uneven supervised counts: a mean of means would differ. Tolerance: loss 1e-5, weights 1e-6 (float32 sums).

    Plain SGD: Adam would blow the rounding of a gradient that is zero in theory (the key bias's) up to a whole step.
    """
    from safetensors.torch import load_file

    common = settings(model_folder, write_rows, num_train_epochs=2.0, learning_rate=0.05, optim="sgd")
    runs = {}
    for micro, accumulate in ((8, 1), (1, 8), (3, 1)):
        out = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulate}
        out["output_dir"] = str(tmp_path / f"{micro}x{accumulate}")
        runs[micro] = hone.train(hone.load_config({**common, **out}))
    for a, b in zip(losses(runs[8]), losses(runs[1]), strict=True):
        assert math.isclose(a, b, abs_tol=1e-5)
    one, other = (load_file(runs[micro].folder / "model.safetensors") for micro in (8, 1))
    for name, tensor in one.items():
        assert float((tensor - other[name]).abs().max()) <= 1e-6, name
    counts = {line["supervised_tokens"] for micro in (8, 1, 3) for line in runs[micro].metric_lines() if "loss" in line}
    assert len({max(m["supervised_tokens"] for m in runs[k].metric_lines() if "loss" in m) for k in runs}) == 1
    assert len(counts) > 3, "the steps must have uneven counts, or the test shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["flat", "packed", "padded"])
def test_a_micro_batch_in_pieces_is_the_same_step(
    batching: str, tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 100 tokens at once: the gradients of a step are those of the whole micro-batch, whatever its layout."""
    from safetensors.torch import load_file

    from hone.accelerations import attach

    passes: list[int] = []
    plain = attach.cut

    def counted(batch: Any, max_tokens: int) -> Any:
        pieces = plain(batch, max_tokens)
        passes.extend(piece["input_ids"].numel() for piece in pieces)
        return pieces

    monkeypatch.setattr(attach, "cut", counted)
    common = settings(model_folder, write_rows, num_train_epochs=1.0, learning_rate=0.05, optim="sgd", max_length=64)
    weights = []
    for budget in (None, 100):
        out = {"output_dir": str(tmp_path / f"{budget}"), "micro_batch_tokens": budget, "batching": batching}
        run = hone.train(hone.load_config({**common, **out}))
        weights.append(load_file(run.folder / "model.safetensors"))
    assert len(passes) > 2 * len(losses(run)), "several pieces a step, or the test shows nothing"
    assert max(passes) <= 100 or batching == "packed"  # a packed row is one piece, its examples are not parted
    for name, tensor in weights[0].items():
        assert float((tensor - weights[1][name]).abs().max()) <= 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["flat", "packed", "padded"])
def test_layouts_train_alike(batching: str, tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    common = settings(model_folder, write_rows, num_train_epochs=1.0, max_length=64, per_device_train_batch_size=24)
    run = hone.train(hone.load_config({**common, "batching": batching, "output_dir": str(tmp_path / batching)}))
    if batching == "packed":  # rows, not examples, are counted: one batch holds all of them here too
        assert len(losses(run)) == 1
    reference = hone.train(hone.load_config({**common, "batching": "padded", "output_dir": str(tmp_path / "ref")}))
    assert math.isclose(losses(run)[0], losses(reference)[0], abs_tol=1e-5)
    assert math.isclose(run.tuned.value("loss"), reference.tuned.value("loss"), abs_tol=1e-5)


@pytest.fixture
def interruptible(tmp_path: Path, tiny_model: Any, tokenizer: Any, write_rows: Any) -> dict[str, Any]:
    """A config of 80 steps in four epochs, with dropout, accumulation and evaluations by steps."""
    base = tmp_path / "base"
    tiny_model("gpt2", resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1).save_pretrained(base)
    tokenizer.save_pretrained(base)
    return settings(
        base,
        write_rows,
        n=80,
        num_train_epochs=4.0,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        eval_strategy="steps",
        eval_steps=15,
        save_strategy="steps",
        save_steps=20,
        save_total_limit=1,
        lr_scheduler_type="cosine",
        dropout=0.1,
        bf16=False,  # in both processes, whatever this processor does best
        learning_rate=1e-3,
    )


def logged(folder: Path) -> list[Any]:
    keep = ("step", "loss", "eval_loss", "learning_rate", "tokens", "supervised_tokens")
    return [{k: line[k] for k in keep if k in line} for line in Run(folder).metric_lines()]


@pytest.mark.slow
@SIGNALS
def test_sigterm_then_the_same_command_ends_bit_identical(tmp_path: Path, interruptible: dict[str, Any]) -> None:
    """In processes, as a job is stopped."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(interruptible), encoding="utf-8")  # JSON is YAML 1.2
    hone.train(hone.load_config(path, [f"output_dir={tmp_path / 'whole'}"]))
    broken, said = ["train", str(path), f"output_dir={tmp_path / 'broken'}"], tmp_path / "stderr.txt"
    said.touch()
    process = hone_process(broken, stderr=said)
    metrics = tmp_path / "broken" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.is_file() or len(metrics.read_text().splitlines()) < 25):
        time.sleep(0.01)
    process.terminate()
    process.join(120)
    assert process.exitcode == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    state = json.loads((tmp_path / "broken" / "status.json").read_text())
    assert state["status"] == "interrupted"
    stopped = len([line for line in metrics.read_text().splitlines() if '"grad_norm"' in line])
    assert 20 <= stopped < 80, "the signal must fall in the middle"
    assert not (tmp_path / "broken" / "model.safetensors").is_file()

    again = CliRunner().invoke(app, broken)
    assert again.exit_code == 0, again.output
    assert "resuming from checkpoint-" in again.stderr
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole"), "the log goes on as if nothing had happened"


@SIGNALS
def test_an_adapter_that_was_stopped_ends_bit_identical(tmp_path: Path, interruptible: dict[str, Any]) -> None:
    def config(name: str) -> Any:
        return hone.load_config({**interruptible, "method": "lora", "output_dir": str(tmp_path / name)})

    whole = hone.train(config("whole"))
    with pytest.raises(Interrupted, match="stopped at step 26"):
        hone.train(config("broken"), callbacks=[sigterm_at(25)])
    broken = Run(tmp_path / "broken")
    assert broken.status["status"] == "interrupted" and not (broken.folder / "adapter_model.safetensors").is_file()
    hone.train(config("broken"))
    files = [(run.folder / "adapter_model.safetensors").read_bytes() for run in (broken, whole)]
    assert files[0] == files[1] and logged(broken.folder) == logged(whole.folder)


@pytest.mark.slow
@SIGNALS
def test_a_second_sigint_stops_at_once(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(model_folder, write_rows, n=400, num_train_epochs=500.0, output_dir=str(tmp_path / "out"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "eval_strategy": "no"}), encoding="utf-8")
    said = tmp_path / "stderr.txt"
    said.touch()
    process = hone_process(["train", str(path)], stderr=said)
    metrics = tmp_path / "out" / "metrics.jsonl"
    while not metrics.is_file():
        time.sleep(0.05)
        assert process.exitcode is None
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert "Traceback" not in said.read_text()


@SIGNALS
def test_a_signal_in_the_last_evaluation_stops_before_the_next_one(
    tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone.tasks import causal

    common = settings(model_folder, write_rows, eval_strategy="epoch", num_train_epochs=1.0)
    whole = hone.train(hone.load_config({**common, "output_dir": str(tmp_path / "whole")}))
    config = hone.load_config({**common, "output_dir": str(tmp_path / "out")})
    of_numbers = causal.loss_and_perplexity  # the last of an evaluation during training

    def interrupted(losses: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return of_numbers(losses)

    with monkeypatch.context() as patched:
        patched.setattr(causal, "loss_and_perplexity", interrupted)
        with pytest.raises(Interrupted, match="trained and saved, but not measured"):
            hone.train(config)
    run = Run(tmp_path / "out")
    assert run.status["status"] == "interrupted" and run.tuned is None
    hone.train(config)
    assert run.status["status"] == "finished"
    measured, expected = (one.tuned.model_copy(update={"seconds": 0}) for one in (run, whole))
    assert measured == expected
    assert weights(run.folder) == weights(whole.folder)


@pytest.mark.slow
def test_before_and_after_in_a_new_process(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    """Ten functions; the saved model, loaded by plain transformers in a new process, has the perplexity of
    eval/tuned.json to 1e-6 relative."""
    functions = [{"text": f"def f{i}(a, b):\n    '''Add {i}.'''\n    return a + b + {i}\n"} for i in range(10)]
    config = {
        **PLAIN,
        "model_name_or_path": str(model_folder),
        "train_file": str(write_rows("train.jsonl", functions[:8])),
        "validation_file": str(write_rows("val.jsonl", functions[8:])),
        "max_length": 128,
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2.0,
        "learning_rate": 5e-5,
        "output_dir": str(tmp_path / "run"),
    }
    run = hone.train(hone.load_config(config))
    base, tuned = run.base, run.tuned
    assert base is not None
    assert tuned is not None
    assert tuned.value("loss") < base.value("loss")
    assert tuned.n_items == 2
    program = f"""
import json, math, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(run.folder)!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({str(run.folder)!r})
nats, tokens = 0.0, 0
for line in open({config["validation_file"]!r}):
    ids = torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"] + [tokenizer.eos_token_id]])
    with torch.no_grad():
        logits = model(ids).logits[0, :-1].double()
    nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    tokens += ids.shape[1] - 1
print(tokens, math.exp(nats / tokens))
"""
    environment = {**os.environ, "PYTHONPATH": ""}
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert output.returncode == 0, output.stderr
    tokens, perplexity = output.stdout.split()
    assert int(tokens) == tuned.n_tokens
    assert math.isclose(float(perplexity), tuned.value("perplexity"), rel_tol=1e-6)
    samples = [json.loads(line) for line in (run.folder / "eval" / "samples.jsonl").read_text().splitlines()]
    assert set(samples[0]) == {"item", "prompt", "reference", "base", "tuned"}
    for name in ("config.yaml", "config.resolved.yaml", "env.json", "metrics.jsonl", "train.log", "README.md"):
        assert (run.folder / name).stat().st_size, name
    assert run.status["status"] == "finished"


def test_tied_weights_are_saved_once_and_tied_again(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    from safetensors import safe_open

    run = hone.train(
        hone.load_config(settings(model_folder, write_rows, num_train_epochs=1.0, output_dir=str(tmp_path / "run")))
    )
    with safe_open(run.folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    model, _ = hone.load(run)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_finished_run_is_not_trained_again_and_another_is_refused(
    tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    config = settings(model_folder, write_rows, num_train_epochs=1.0, output_dir=str(tmp_path / "run"))
    run = hone.train(hone.load_config(config))
    before, stamp = weights(run.folder), (run.folder / "model.safetensors").stat().st_mtime_ns
    hone.train(hone.load_config(config))
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(HoneError, match=r"another run \(learning_rate: 5e-05 there, 0\.1 here\)"):
        hone.train(hone.load_config({**config, "learning_rate": 0.1}))
    assert weights(run.folder) == before
    hone.train(hone.load_config({**config, "learning_rate": 0.1, "overwrite": True}))
    assert weights(run.folder) != before


def test_changed_data_is_another_run(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(model_folder, write_rows, num_train_epochs=1.0, output_dir=str(tmp_path / "run"))
    run = hone.train(hone.load_config(config))
    run.update(stage="training", status="interrupted")
    write_rows("train.jsonl", pairs(25))
    with pytest.raises(HoneError, match="data has changed"):
        hone.train(hone.load_config(config))


def test_evaluation_that_was_cut_off_is_all_that_is_redone(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(model_folder, write_rows, num_train_epochs=1.0, output_dir=str(tmp_path / "run"))
    run = hone.train(hone.load_config(config))
    tuned, stamp = run.tuned, (run.folder / "model.safetensors").stat().st_mtime_ns
    (run.folder / "eval" / "tuned.json").unlink()
    run.update(stage="saved", status="interrupted")
    again = hone.train(hone.load_config(config)).tuned
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert tuned is not None
    assert again is not None
    assert again.metrics == tuned.metrics


def test_best_model_is_kept_and_early_stopping_stops(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(
        model_folder,
        write_rows,
        num_train_epochs=30.0,
        learning_rate=0.05,  # far too high: the validation loss soon rises
        eval_strategy="epoch",
        output_dir=str(tmp_path / "run"),
    )
    config |= {"save_strategy": "epoch", "load_best_model_at_end": True, "early_stopping_patience": 2}
    run = hone.train(hone.load_config({**config, "save_total_limit": 1}))
    evaluated = [line["eval_loss"] for line in run.metric_lines() if "eval_loss" in line]
    assert len(evaluated) < 30
    assert evaluated.index(min(evaluated)) == len(evaluated) - 3, "two evaluations without improvement end it"
    tuned = run.tuned
    assert tuned is not None
    assert math.isclose(tuned.value("loss"), min(evaluated), rel_tol=1e-6)
    assert len(run.checkpoints()) <= 2, "the last and the best"


def test_max_train_seconds_ends_cleanly(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(model_folder, write_rows, num_train_epochs=10000.0, output_dir=str(tmp_path / "run"))
    run = hone.train(hone.load_config({**config, "max_train_seconds": 1.0, "eval_strategy": "no"}))
    assert run.status["status"] == "finished"
    assert run.tuned is not None


def test_metrics_lines(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(
        model_folder, write_rows, num_train_epochs=1.0, batching="padded", output_dir=str(tmp_path / "run")
    )
    run = hone.train(hone.load_config(config))
    data = hone.prepare(hone.load_config(config))
    last = [line for line in run.metric_lines() if "loss" in line][-1]
    assert last["tokens"] == data.train.n_tokens, "real tokens: padding is not counted"
    assert last["supervised_tokens"] == int(data.train.n_supervised().sum())
    assert set(last) == {
        "step", "epoch", "loss", "grad_norm", "learning_rate", "tokens", "supervised_tokens", "tokens_per_s", "step_s",
        "mfu", "peak_memory_bytes",
    }  # fmt: skip
    assert 0 < last["mfu"] < 1
    assert last["peak_memory_bytes"] > 50e6
