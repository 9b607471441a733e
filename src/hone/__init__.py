"""hone: fine-tune language models on the machine you have, and prove what that changed.

The command line is a thin skin over these functions; each imports what it needs when it is called. Every one that
takes a configuration takes a YAML file, a dictionary, a `Config`, or keys alone, and keys over any of them.

>>> import hone                                                            # doctest: +SKIP
>>> run = hone.train("light-lab.yaml", learning_rate=1e-4)                 # doctest: +SKIP
>>> print(run)                                                             # doctest: +SKIP
Run('runs/light-lab'): finished, hone-base, loss 1.512 -> 1.204 (better)
>>> run.generate("def add(a, b):")[0]                                      # doctest: +SKIP
>>> model, tokenizer = hone.load(run)                                      # doctest: +SKIP
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hone.errors import HoneError, Interrupted
from hone.imports import calm_threads, importing
from hone.progress import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from hone.config.grid import Space
    from hone.config.load import Source
    from hone.config.schema import Config
    from hone.convert.export import Exported
    from hone.data.prepare import Prepared
    from hone.data.records import Example
    from hone.inference.generate import SamplingOptions
    from hone.inference.prompts import Prompt
    from hone.notebook import Run, Runs
    from hone.planning.plan import Plan
    from hone.results import Comparison, Measurement
    from hone.results.repeat import Repeat
    from hone.results.search import Search
    from hone.tasks.task import Task

__version__ = "0.1.0"
__all__ = [
    "HoneError",
    "Interrupted",
    "Run",
    "compare",
    "evaluate",
    "export",
    "find_runs",
    "flat_collator",
    "generate",
    "generate_many",
    "load",
    "load_config",
    "plan",
    "predict",
    "prepare",
    "repeat",
    "search",
    "speed_up",
    "text",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "Run":  # when it is asked for: what it imports would cost every command its start
        from hone.notebook import Run

        return Run
    raise AttributeError(f"module 'hone' has no attribute '{name}'")


def load_config(source: "Source" = None, overrides: Sequence[str] = (), **keys: Any) -> "Config":
    """Read a configuration and check all of it; every other function does this with what it is given.

    Args:
        source: a YAML file, a dictionary (nested or flat), a `Config` to change, or None for the defaults.
        overrides: `key=value` texts, as on the command line.
        keys: any keys, as Python values; they win. Relative paths in them start from the current folder.

    Raises:
        HoneError: an unknown key (the nearest one is named), a wrong value, a contradiction.
    """
    import logging

    from hone.config.load import load_config as load

    config = load(source, overrides, keys)
    for notice in config.notices if config is not source else ():
        logging.getLogger("hone").warning("note: %s", notice)
    return config


def prepare(source: "Source" = None, /, *, task: "Task | str | None" = None, **keys: Any) -> "Prepared":
    """Tokenise the data into the token store, or open it if that was done before; arguments as of `hone.train`."""
    from hone.config.checks import require_training

    with importing():
        from hone.data.prepare import prepare as prepare_data
        from hone.data.tokenizer import tokenizer_of
        from hone.models.fallback import with_fallback
        from hone.tasks import chosen

    config, task = chosen(*_asked(source, task, keys))
    require_training(config)
    config = with_fallback(config)
    return prepare_data(config, task, tokenizer_of(config.model))


def plan(source: "Source" = None, /, *, measure: bool = False, task: "Task | str | None" = None, **keys: Any) -> "Plan":
    """What a training will cost: parameters, steps, memory, disk, and with `measure` time; see `hone.planning.plan`.

    The other arguments are those of `hone.train`; `print(hone.text(plan))` shows it as `hone plan` does.
    """
    with importing():
        from hone.planning.plan import make_plan

    return make_plan(*_asked(source, task, keys), measure=measure)


def train(
    source: "Source" = None,
    /,
    *,
    task: "Task | str | None" = None,
    callbacks: "Sequence[TrainerCallback]" = (),
    **keys: Any,
) -> "Run":
    """Measure the base, train, save, measure the tuned model; everything is in the returned run's folder.

    The same call again resumes what was interrupted, and returns what is finished without training it again.

        hone.train("light-lab.yaml")                            # a file; `hone init light-lab` writes one
        hone.train("light-lab.yaml", learning_rate=1e-4)        # keys over it
        hone.train({"train_file": "rows.jsonl", "model_name_or_path": "hone-base"})
        hone.train(train_file="rows.jsonl", model_name_or_path="hone-base", output_dir="runs/first")

    Args:
        source: a YAML file, a dictionary (nested or flat), a `Config` of `hone.load_config`, or nothing.
        task: causal (the default), classification or seq2seq; or a `Task` of your own (`hone.tasks.task`).
        callbacks: transformers' `TrainerCallback` objects of your own, called around each step.
        keys: any key of the configuration, over the source. Ten that matter most:

            model_name_or_path           the model to start from: a folder, a hub name, or the bundled "hone-base"
            train_file                   rows: .jsonl, .json, .csv, .parquet, .txt, .md, .py, or a folder of them
            validation_file              rows to measure on; without it validation_split_percentage holds some out
            template                     how a row becomes text: plain, instruction, chat (default: by its columns)
            max_length                   tokens of the longest example
            method                       full, freeze (only the upper layers) or lora (small added matrices)
            learning_rate                5e-5 for large models; hone-base learns at 1e-3
            num_train_epochs             how often each row is seen
            per_device_train_batch_size  rows in a step
            output_dir                   the run folder; another training needs another one, or overwrite=True

            `hone explain` on the command line lists all of them, `hone explain KEY` says what one does and costs;
            the same as a page: docs/reference/config.md.

    Returns:
        A `hone.Run`. run.base and run.tuned hold the numbers before and after, run.comparison their difference and
        its verdict; run.metrics() is a table of the steps, run.samples() what both wrote, run.report() a page;
        run.generate(prompt) asks the tuned model, run.compare(other) compares two runs, run.export("merged") removes an
        adapter. A notebook shows a run as a table, `print(hone.text(run))` prints what `hone train` does.

    Raises:
        HoneError: a mistake that you can repair: what is wrong, where, and what to do. Nothing half-written is left.
        Interrupted: Ctrl-C, a notebook's stop button or SIGTERM; a checkpoint is saved, the same call goes on.

    What happens is shown while it trains, unless you have set up logging yourself; see `hone.progress`.
    """
    calm_threads()
    with importing():
        from hone.notebook import Run
        from hone.training.train import train as train_run

    with shown():
        config, own = _asked(source, task, keys)
        return Run(train_run(config, own, callbacks).folder)


def repeat(
    source: "Source" = None,
    /,
    seeds: "int | Sequence[int]" = 6,
    *,
    task: "Task | str | None" = None,
    jobs: int = 1,
    **keys: Any,
) -> "Repeat":
    """Train with each seed, in folders of their own, and say what they tell together; see `hone.training.repeat`.

    Args:
        seeds: how many, from the configuration's seed on, or which ones.
        jobs: so many trainings at a time, in processes of their own.

    The other arguments are those of `hone.train`; `print(hone.text(found))` shows it as `hone repeat` does.
    """
    calm_threads()
    with importing():
        from hone.training.repeat import repeat as repeat_runs

    with shown():
        config, own = _asked(source, task, keys)
        first = config.train.seed
        return repeat_runs(config, range(first, first + seeds) if isinstance(seeds, int) else seeds, own, jobs=jobs)


def search(
    source: "Source" = None,
    /,
    space: "Space | None" = None,
    *,
    trials: int | None = None,
    jobs: int = 1,
    task: "Task | str | None" = None,
    **keys: Any,
) -> "Search":
    """Train with several values of some keys; half of the held-out items choose, the others judge the winner.

    Args:
        space: key -> a list of values, or (lowest, highest): {"learning_rate": [1e-4, 3e-4]}.
        trials: how many settings to try; every combination of the lists where it is not given.
        jobs: so many trainings at a time, in processes of their own.

    The other arguments are those of `hone.train`; `print(hone.text(found))` shows it as `hone search` does. See
    `hone.training.search`.
    """
    calm_threads()
    with importing():
        from hone.training.search import search as search_runs

    with shown():
        config, own = _asked(source, task, keys)
        return search_runs(config, space or {}, trials=trials, jobs=jobs, task=own)


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
    with importing():
        from hone.data.tokenizer import load_tokenizer
        from hone.models.load import load_finished

    name = _name(model)
    return load_finished(name), load_tokenizer(name)


def evaluate(
    model: "Run | str | Path", source: "Source" = None, /, *, task: "Task | str | None" = None, **keys: Any
) -> "Measurement":
    """Loss, perplexity and bits per byte of a model on held-out rows, with intervals.

    Args:
        model: a run, a run's folder, an adapter, a model folder or a hub name.
        source: whose validation rows, as of `hone.train`; by default, and for a run, its own.
        keys: over the source; `validation_file="others.jsonl"` measures on these.
    """
    with importing():
        from hone.evaluation.evaluate import evaluate_model

    name = _name(model)
    own = Path(name) / "config.resolved.yaml"
    return evaluate_model(name, *_asked(own if source is None and own.is_file() else source, task, keys))


def find_runs(folder: "str | Path" = ".") -> "Runs":
    """The runs in a folder, up to three levels down: what `hone runs` lists. A notebook shows them as a table."""
    from hone.notebook import find_runs as find

    return find(folder)


def text(found: "Run | Measurement | Comparison | Repeat | Search | Plan") -> str:
    """A run, a measurement, a comparison, a repetition, a search or a plan as the command of that name prints it."""
    from hone.notebook import text as text_of

    return text_of(found)


def compare(a: "Run | str | Path", b: "Run | str | Path | None" = None, *, confidence: float = 0.95) -> "Comparison":
    """Two runs, two files of graded programs, or a run's base and tuned: differences, tests, verdicts."""
    from hone.evaluation.compare import compare as compare_measured

    return compare_measured(_name(a), None if b is None else _name(b), confidence=confidence)


def export(
    model: "Run | str | Path",
    to: str,
    *,
    output: "str | Path | None" = None,
    dtype: str | None = None,
    base: str | None = None,
    repo: str | None = None,
    public: bool = False,
) -> "Exported":
    """Write a model for other programs, read it back and compare; see `hone.convert.export`.

    Args:
        to: merged (a plain model folder), gguf (a file for llama.cpp), ollama (that with a Modelfile), or hub.
        output: the folder to write. dtype: of the weights. base: where an adapter's base is now.
        repo, public: of an upload.
    """
    with importing():
        from hone.convert.export import export as export_model

    target = None if output is None else Path(output)
    return export_model(_name(model), to, output=target, dtype=dtype, base=base, repo=repo, public=public)


def predict(model: "Run | str | Path", texts: str | Sequence[str]) -> list[dict[str, Any]]:
    """Label, probability, all probabilities and whether it was cut, for each text; of a run of task classification.

    One text is as good as a list of one.
    """
    with importing():
        from hone.inference.predict import predict as predict_texts
        from hone.inference.predict import ready_classifier, trained_length

    name = _name(model)
    loaded, tokenizer = ready_classifier(name)
    return predict_texts(loaded, tokenizer, [texts] if isinstance(texts, str) else texts, trained_length(Path(name)))


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
    with importing():
        from hone.inference.generate import answers

    return answers(_name(model), prompts, template, options)


def _asked(source: "Source", task: "Task | str | None", keys: Mapping[str, Any]) -> "tuple[Config, Task | None]":
    """The configuration that was asked for; `task` is a key like any other, or a task of one's own."""
    if isinstance(task, str):
        return load_config(source, **keys, task=task), None
    return load_config(source, **keys), task


def _name(model: "Run | str | Path") -> str:
    """What a model is loaded by: the folder of a run, else the folder or hub name given."""
    name = getattr(model, "folder", model)
    if not isinstance(name, str | Path):
        fix = "give a run, a folder, or a name: hone.load('runs/my')"
        raise HoneError(f"a model was expected, not {type(model).__name__}", fix=fix)
    return str(name)
