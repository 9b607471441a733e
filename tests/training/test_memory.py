"""Steps without numbers hold what real steps hold: the engine on fake tensors against PyTorch's own count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hone
from conftest import pairs
from hone.data.tokenizer import tokenizer_of
from hone.models.build import build_model
from hone.planning.memory import LiveBytes, engine_without_weights, fullest_batches, pass_memory, step_memory, within
from hone.runs import Run
from hone.tasks import task_of
from hone.training.arguments import training_arguments
from hone.training.setup import build_engine


def allocated(program: Callable[[], Any]) -> int:
    """Most bytes that PyTorch's CPU allocator held at one time during a program, on top of what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        program()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.fixture
def engines(tmp_path: Path, tiny_model: Any, tokenizer: Any, write_rows: Any) -> Callable[..., tuple[Any, Any]]:
    """engines("gpt2", batching="flat", …) -> the engine of that config with weights, and without."""
    rows = write_rows("rows.jsonl", pairs(24))

    def make(architecture: str, **settings: Any) -> tuple[Any, Any]:
        sizes = {"n_embd": 128} if architecture == "gpt2" else {"hidden_size": 128, "intermediate_size": 512}
        folder = tmp_path / architecture
        tiny_model(architecture, **sizes).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = hone.load_config(
            {
                "model_name_or_path": str(folder),
                "train_file": str(rows),
                "use_cpu": True,
                "bf16": False,
                "max_length": 128,
                "keep_freed_memory": False,
                "output_dir": str(tmp_path / "run"),
                **settings,
            }
        )
        task, names, data = task_of(config), tokenizer_of(config.model), hone.prepare(config)
        run = Run(tmp_path / "run")
        args = training_arguments(config.train, run, has_validation=False)
        model = build_model(config, task.model, names)
        real = build_engine(run, config, task, args, names, model, data)
        return real, engine_without_weights(config, task, names, data)

    return make


def batches(engine: Any) -> list[Any]:
    attached, args = engine.attached, engine.args
    chosen = fullest_batches(attached, args.per_device_train_batch_size, args.seed, 1)
    return [attached.collate([attached.dataset[i] for i in rows]) for rows in chosen]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain-loss"])
@pytest.mark.parametrize("batching", ["flat", "padded"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_step_without_numbers_holds_what_the_real_one_does(
    architecture: str, batching: str, fused: bool, engines: Any
) -> None:
    real, planned = engines(architecture, batching=batching, fused_head=fused)
    given = [{key: value for key, value in batch.items() if key != "num_tokens"} for batch in batches(real)]
    model = real.accelerator.prepare_model(real.model)

    def steps() -> None:
        optimizer = real.create_optimizer()
        for batch in given:
            real.training_step(model, dict(batch), 1)
            real.accelerator.clip_grad_norm_(model.parameters(), real.args.max_grad_norm)
            optimizer.step()
            model.zero_grad()

    measured = allocated(steps)
    counted = LiveBytes(planned.model)
    weights = counted.now
    step = step_memory(counted, planned, batches(planned))
    assert step.peak - weights == pytest.approx(measured, rel=0.05)
    assert step.gradients == sum(p.numel() * p.element_size() for p in real.model.parameters())
    assert step.optimizer == 2 * step.gradients, "AdamW"
    assert all(parameter.grad is None for parameter in planned.model.parameters())


@pytest.mark.parametrize(
    ("optim", "numbers"), [("adamw_torch", 2), ("adagrad", 1), ("rmsprop", 1), ("sgd", 0), ("paged_adamw_32bit", 2)]
)
def test_what_an_optimizer_keeps_is_seen_in_its_own_step(optim: str, numbers: int, engines: Any) -> None:
    """bitsandbytes' kernels know no fake tensors: theirs is a formula."""
    _, planned = engines("gpt2", optim=optim)
    step = step_memory(LiveBytes(planned.model), planned, batches(planned))
    assert step.optimizer == numbers * step.gradients


def test_accumulation_keeps_gradients_and_evaluation_holds_less(engines: Any) -> None:
    peaks = {}
    for accumulation in (1, 2):
        _, planned = engines("gpt2", gradient_accumulation_steps=accumulation, optim="sgd")
        counted = LiveBytes(planned.model)
        step = step_memory(counted, planned, batches(planned))
        peaks[accumulation] = step.peak
        batch = batches(planned)[1]
        ids = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
        assert pass_memory(counted, planned.model, lambda model, ids=ids: model(**ids, use_cache=False)) < step.peak
    assert peaks[2] > peaks[1]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_micro_batch_within_the_other_need_not_be_followed(accumulation: int, engines: Any) -> None:
    found = []
    for first_counts in (True, False):
        _, planned = engines("gpt2", gradient_accumulation_steps=accumulation)
        rows = sorted(range(len(planned.attached.dataset)), key=lambda i: int(planned.attached.dataset.lengths[i]))
        assert within(planned.attached, rows[:2], rows[-2:]) and not within(planned.attached, rows[-2:], rows[:2])
        given = [planned.attached.collate([planned.attached.dataset[i] for i in two]) for two in (rows[:2], rows[-2:])]
        step = step_memory(LiveBytes(planned.model), planned, given, first_counts=first_counts)
        found.append([getattr(step, name) for name in ("gradients", "optimizer", "activations", "logits", "peak")])
    assert found[0][:4] == found[1][:4]
    assert found[0][4] == pytest.approx(found[1][4], rel=1e-2)
