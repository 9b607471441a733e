"""hone: fine-tune language models on the machine you have, and prove what that changed.

The command line is a thin skin over these functions; each imports what it needs when it is called.

>>> import hone                                                            # doctest: +SKIP
>>> run = hone.train(hone.load_config("recipe.yaml", ["learning_rate=1e-4"]))   # doctest: +SKIP
>>> model, tokenizer = hone.load(run)                                      # doctest: +SKIP
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.config.schema import Config
    from hone.convert.merge import Merged
    from hone.data.prepare import Prepared
    from hone.data.records import Example
    from hone.inference.generate import SamplingOptions
    from hone.inference.prompts import Prompt
    from hone.planning.plan import Plan
    from hone.results import Comparison, Measurement
    from hone.results.repeat import Repeat
    from hone.runs import Run
    from hone.tasks.task import Task

__version__ = "0.1.0"
__all__ = [
    "compare",
    "evaluate",
    "flat_collator",
    "generate",
    "generate_many",
    "load",
    "load_config",
    "merge",
    "plan",
    "predict",
    "prepare",
    "repeat",
    "speed_up",
    "train",
]


def load_config(source: "str | Path | Mapping[str, Any] | None" = None, overrides: Sequence[str] = ()) -> "Config":
    """Read a YAML file or a mapping, apply `key=value` overrides, check everything. See `hone.config.load`."""
    from hone.config.load import load_config as load

    return load(source, overrides)


def prepare(config: "Config", task: "Task | None" = None) -> "Prepared":
    """Tokenise the config's data into the token store, or open it if that was done before."""
    from hone.data.prepare import prepare as prepare_data
    from hone.data.tokenizer import tokenizer_of
    from hone.models.fallback import with_fallback
    from hone.tasks import chosen

    config, task = chosen(with_fallback(config), task)
    return prepare_data(config, task, tokenizer_of(config.model))


def plan(config: "Config", task: "Task | None" = None, *, measure: bool = False) -> "Plan":
    """What a training will cost: parameters, steps, memory, disk, and with `measure` time; see `hone.planning.plan`."""
    from hone.planning.plan import make_plan

    return make_plan(config, task, measure=measure)


def train(config: "Config", task: "Task | None" = None) -> "Run":
    """Measure the base, train, save, measure the tuned model; everything is in the returned run's folder."""
    from hone.hardware import calm_threads

    calm_threads()
    from hone.training.train import train as train_run

    return train_run(config, task)


def repeat(config: "Config", seeds: Sequence[int], task: "Task | None" = None) -> "Repeat":
    """Train with each seed, in folders of their own, and say what they tell together; see `hone.training.repeat`."""
    from hone.hardware import calm_threads

    calm_threads()
    from hone.training.repeat import repeat as repeat_runs

    return repeat_runs(config, seeds, task)


def speed_up(model: "PreTrainedModel", max_length: int | None = None) -> list[str]:
    """Make the training step of any Hugging Face causal model cheaper; see `hone.accelerations.speed_up`."""
    from hone.accelerations.speed_up import speed_up as attach

    return attach(model, max_length)


def flat_collator(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A data collator: tokenised rows end to end in one row without padding; see `hone.accelerations.speed_up`."""
    from hone.accelerations.speed_up import flat_collator as collate

    return collate(examples)


def load(model: "Run | str | Path") -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Model and tokenizer of a run, an adapter, a model folder or a hub name, ready for use."""
    from hone.data.tokenizer import load_tokenizer
    from hone.models.load import load_finished

    name = _name(model)
    return load_finished(name), load_tokenizer(name)


def evaluate(model: "Run | str | Path", config: "Config", task: "Task | None" = None) -> "Measurement":
    """Loss, perplexity and bits per byte of a model on the validation data of `config`, with intervals."""
    from hone.evaluation.evaluate import evaluate_model

    return evaluate_model(_name(model), config, task)


def compare(a: "Run | str | Path", b: "Run | str | Path | None" = None, *, confidence: float = 0.95) -> "Comparison":
    """Two runs, two files of graded programs, or a run's base and tuned: differences, tests, verdicts."""
    from hone.evaluation.compare import compare as compare_measured

    return compare_measured(a, b, confidence=confidence)


def merge(
    source: "Run | str | Path", target: "str | Path", *, base: str | None = None, dtype: str | None = None
) -> "Merged":
    """Make an adapter and its base one model folder that loads without PEFT; see `hone.convert.merge`."""
    from hone.convert.merge import merge_folders, read_adapter
    from hone.data.tokenizer import load_tokenizer

    folder = Path(_name(source))
    read_adapter(folder)  # what it says is clearer than what the tokenizer's loader says
    return merge_folders(folder, Path(target), load_tokenizer(folder), base=base, dtype=dtype)


def predict(model: "Run | str | Path", texts: Sequence[str]) -> list[dict[str, Any]]:
    """Label, probability, all probabilities and whether it was cut, for each text; of a run of task classification."""
    from hone.inference.predict import predict as predict_texts
    from hone.inference.predict import ready_classifier, trained_length

    name = _name(model)
    loaded, tokenizer = ready_classifier(name)
    return predict_texts(loaded, tokenizer, texts, trained_length(Path(name)))


def generate(
    model: "Run | str | Path", prompt: str, *, template: str | None = None, **options: Unpack["SamplingOptions"]
) -> list[str]:
    """Continue a prompt with the template the model was trained with (or the one given).

    Args:
        options: max_new_tokens, temperature, top_k, top_p, n (how many answers), seed, stop (texts that end one).
            What is not given is as in the section `generate` of the run's configuration; its defaults for any other
            model.
    """
    return next(generate_many(model, [prompt], template=template, **options))


def generate_many(
    model: "Run | str | Path",
    prompts: "Sequence[Prompt | Example | str]",
    *,
    template: str | None = None,
    **options: Unpack["SamplingOptions"],
) -> Iterator[list[str]]:
    """As `generate`, the answers to each of many prompts, decoded together; see `hone.inference.generate`."""
    from hone.inference.generate import chosen_settings, chosen_template, generate_texts, ready_model

    name = _name(model)
    settings = chosen_settings(name, options)
    loaded, tokenizer = ready_model(name)
    return generate_texts(loaded, tokenizer, prompts, settings, chosen_template(name, template, tokenizer))


def _name(model: "Run | str | Path") -> str:
    """What a model is loaded by: the folder of a run, else the folder or hub name given."""
    return str(getattr(model, "folder", model))
