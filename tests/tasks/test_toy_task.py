"""A task that the package does not have, brought from outside in this one file: a number from a text.

Nothing is registered. The task is an argument, and everything after it (training, resuming, the measurements before and
after, comparison, tables, model card, report) goes by what it says of itself.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hone
from hone.config.schema import Config
from hone.config.sections.eval import EvalSection
from hone.data.batches import by_length, padded_texts
from hone.data.dataset import Dataset, Preview
from hone.data.encode import Encoded
from hone.data.prepare import Examples, Reading
from hone.data.records import Labelled
from hone.data.special_tokens import padding_id
from hone.data.store import Split, Store
from hone.data.tokenizer import start_ids
from hone.errors import HoneError
from hone.models.kinds import CLASSIFIER
from hone.report.folder import read_folder
from hone.results import Items, Kind, Measurement, Sample, level_of
from hone.statistics.paired import Metric, items_of, level
from hone.tables.run import before_after
from hone.tasks.task import Task
from tiny_tasks import GPT2_DRY, QUIET

SQUARED_ERROR = Kind(heading="mean squared error", unit="points²", higher_is_better=False)
RMSE = Kind(heading="RMSE", unit="points", higher_is_better=False, form=".2f")


# ---- rows to numbers -------------------------------------------------------------------------------------------------


def encode(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    """The store knows classes, so each different number is one; `Numbers` makes numbers of their names again."""
    for _, example in rows:
        assert isinstance(example, Labelled)
        if str(example.label) not in reading.names:
            reading.names.append(str(example.label))
        ids = start_ids(reading.tokenizer, [example.text], special=False)[0]
        yield Encoded(np.array(ids), np.ones(len(ids), bool), True, reading.names.index(str(example.label)))


@dataclasses.dataclass(frozen=True)
class Numbers(Dataset):
    """values: (n,) float64."""

    values: np.ndarray

    def __getitem__(self, index: int) -> dict[str, Any]:
        start, size = int(self.starts[index]), int(self.sizes[index])
        return {"input_ids": self.split.tokens[start : start + size].astype(np.int64), "labels": self.values[index]}

    @property
    def outputs(self) -> Sequence[str]:
        return ["points"]

    def n_supervised(self) -> np.ndarray:
        return np.ones(len(self), np.int64)

    def preview(self, index: int) -> Preview:
        item = self[index]
        return Preview(item["input_ids"], np.zeros(len(item["input_ids"]), bool), f"{item['labels']:g} points")

    def described(self) -> str:
        return f"{self.values.min():g} to {self.values.max():g} points"


def views(config: Config, store: Store, tokenizer: Any) -> tuple[Numbers, Numbers]:
    values = np.array([float(name) for name in store.meta["label_names"]])

    def view(split: Split) -> Numbers:
        assert split.labels is not None
        sizes = np.minimum(np.diff(split.starts), config.data.max_length)
        return Numbers(split, split.starts[:-1], sizes, np.arange(split.n_documents), values[split.labels])

    return view(store.train), view(store.val)


# ---- training and measuring ------------------------------------------------------------------------------------------


def collate(items: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    texts = [item["input_ids"] for item in items]
    values = torch.tensor([item["labels"] for item in items], dtype=torch.float32)
    return {**padded_texts(texts, pad_token_id), "labels": values, "num_tokens": sum(map(len, texts))}


def loss(logits: torch.Tensor, labels: torch.Tensor, num_items: Any = None) -> torch.Tensor:
    errors = (logits[:, 0].float() - labels) ** 2
    return errors.mean() if num_items is None else errors.sum() / num_items


@torch.inference_mode()
def predicted(model: Any, validation: Numbers, tokenizer: Any, settings: EvalSection) -> np.ndarray:
    found, training = np.zeros(len(validation)), model.training
    model.eval()
    for chosen in by_length(validation.lengths, settings.eval_tokens_per_batch):
        batch = padded_texts([validation[i]["input_ids"] for i in chosen], padding_id(tokenizer))
        found[chosen] = model(**{k: v.to(model.device) for k, v in batch.items()}).logits[:, 0].float().cpu().numpy()
    model.train(training)
    return found


def watch(model: Any, tokenizer: Any, validation: Numbers, settings: EvalSection) -> dict[str, float]:
    errors = (predicted(model, validation, tokenizer, settings) - validation.values) ** 2
    return {"loss": float(errors.mean()), "rmse": math.sqrt(errors.mean())}


def measure(model: Any, tokenizer: Any, validation: Numbers, settings: EvalSection) -> tuple[Measurement, Items]:
    numbers = predicted(model, validation, tokenizer, settings)
    errors = Metric(SQUARED_ERROR, (numbers - validation.values) ** 2)
    mean = level(errors, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples)
    root = level_of(RMSE, mean.mapped(lambda square: math.sqrt(max(square, 0.0))))
    found = Measurement(
        task=TASK.name,
        metrics={"rmse": root, "squared_error": mean},
        n_items=len(validation),
        item="text",
        n_tokens=validation.n_tokens,
        confidence_level=settings.confidence_level,
        samples=[
            Sample(
                item=i,
                prompt=tokenizer.decode(validation[i]["input_ids"]),
                reference=f"{validation.values[i]:g}",
                text=f"{numbers[i]:.1f}",
            )
            for i in range(min(settings.sample_prompts, len(validation)))
        ],
    )
    return found, items_of("text", {"squared_error": errors})


TASK = Task(
    name="points",
    forms=("labelled",),
    encode=encode,
    views=views,
    model=dataclasses.replace(CLASSIFIER, called="a model that can give a number"),
    collate=collate,
    inputs=lambda model, batch: batch,
    loss=lambda method, data: loss,
    watch=watch,
    measure=measure,
    answer=lambda validation, index, tokenizer: f"{validation.values[index]:g}",
    pipeline_tag="text-classification",
)


# ---- that it is all there --------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, tokenizer: Any, write_rows: Any) -> Config:
    """Points are how often a text says 'good', less how often it says 'bad'; labels are numbers, or text of them."""
    rows = []
    for i in range(60):
        good, bad = i % 4, i // 4 % 3
        points = good - bad
        text = " ".join([f"day {i}:", *["good"] * good, *["bad"] * bad])
        rows.append({"text": text, "label": points if i % 2 else f"{points}.0"})
    tokenizer.save_pretrained(tmp_path / "tok")
    settings = {
        "model_type": "gpt2",
        "config_overrides": GPT2_DRY,
        "tokenizer_name_or_path": str(tmp_path / "tok"),
        "train_file": str(write_rows("points.jsonl", rows)),
        "validation_split_percentage": 25.0,
        "num_train_epochs": 8.0,
        "learning_rate": 5e-3,
        "output_dir": str(tmp_path / "run"),
    }
    return hone.load_config({**QUIET, **settings, "sample_prompts": 2})


def test_a_task_of_ones_own_is_trained_measured_compared_and_reported(config: Config) -> None:
    run = hone.train(config, task=TASK)
    base, tuned = run.base, run.tuned
    assert base is not None and tuned is not None and base.task == "points"
    assert tuned.value("rmse") < 0.5 * base.value("rmse")
    watched = [line["eval_rmse"] for line in run.metric_lines() if "eval_rmse" in line]
    assert len(watched) == 8 and math.isclose(watched[-1], tuned.value("rmse"), rel_tol=1e-5)
    change = run.comparison
    assert change is not None and change.headline == "squared_error" and change.verdict == "better"
    assert hone.compare(run).metrics["squared_error"].kind == SQUARED_ERROR

    told = before_after(run)
    assert "RMSE (points)" in told and "better" in told and "points²" in told and "try it" not in told
    assert "RMSE (points)" in (run.folder / "README.md").read_text()
    page = (run.folder / "report.html").read_text()
    assert "RMSE" in page and "mean squared error" in page
    assert read_folder(run.folder).config is not None, "its name in config.resolved.yaml is no mistake"


@pytest.mark.slow
def test_it_is_prepared_planned_evaluated_and_repeated_as_well(config: Config) -> None:
    data = hone.prepare(config, task=TASK)
    assert isinstance(data.train, Numbers) and len(data.train) == 45
    assert hone.plan(config, task=TASK).schedule.n_examples == 45
    run = hone.train(config, task=TASK)
    assert hone.train(config, task=TASK).folder == run.folder, "it is finished"
    again = hone.evaluate(run, config, task=TASK)
    assert run.tuned is not None and math.isclose(again.value("rmse"), run.tuned.value("rmse"), rel_tol=1e-5)
    config.output.output_dir = run.folder.with_name("seeds")
    config.train.num_train_epochs = 1.0
    assert hone.repeat(config, seeds=[1, 2], task=TASK).headline == "squared_error"


def test_lora_saves_and_loads_its_head(config: Config) -> None:
    full = hone.train(config, task=TASK)
    settings = {"model_name_or_path": str(full.folder), "model_type": None, "config_overrides": {}}
    config.model = config.model.model_copy(update={**settings, "tokenizer_name_or_path": None})
    config.method.method, config.output.output_dir = "lora", full.folder.with_name("adapted")
    run = hone.train(config, task=TASK)
    assert full.tuned is not None and run.base is not None and run.tuned is not None
    assert math.isclose(run.base.value("rmse"), full.tuned.value("rmse"), rel_tol=1e-5), "the head is that of the run"
    assert (run.folder / "adapter_config.json").is_file()


def test_by_its_name_alone_it_is_not_known(config: Config) -> None:
    config.method.task = "points"
    with pytest.raises(HoneError, match="unknown task 'points'"):
        hone.train(config)
