"""Rules between keys: which combinations contradict each other, which keys have no effect, what training needs.

The rules about one key alone (type, bounds) are in the sections. Every message names both keys.

>>> [conflict.what for conflict in conflicts(Config(train=TrainSection(bf16=True, fp16=True)))]      # doctest: +SKIP
['bf16 and fp16 are both true']
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hone import bundled
from hone.config.fields import as_paths
from hone.config.schema import Config, leaf_field, leaves
from hone.config.sections.data import DataSection
from hone.config.sections.eval import EvalSection
from hone.config.sections.generate import GenerateSection
from hone.config.sections.launch import LaunchSection
from hone.config.sections.method import TASKS, MethodSection
from hone.config.sections.model import ModelSection
from hone.config.sections.train import TrainSection
from hone.errors import HoneError


@dataclass
class Conflict:
    """Keys that contradict each other. The first of `leaves` that was given names the line."""

    leaves: tuple[str, ...]
    what: str
    fix: str


def conflicts(config: Config) -> list[Conflict]:
    """Every contradiction in a configuration, in the order of the sections."""
    return [
        *_model_conflicts(config.model, config.method),
        *_data_conflicts(config.data),
        *_task_conflicts(config),
        *_train_conflicts(config.train, config.method),
        *_schedule_conflicts(config.train, config.data),
        *_eval_conflicts(config.eval, config.data.max_length),
        *_generate_conflicts(config.generate),
        *_launch_conflicts(config.launch),
        *_output_conflicts(config),
    ]


def require_training(config: Config) -> None:
    """Check that a configuration can be trained: a model, data, and no contradiction.

    Raises:
        HoneError: something is missing, or keys contradict each other (they may have been assigned after loading).
    """
    found = [*conflicts(config), *training_conflicts(config)]
    if found:
        raise conflict_error(found, config)


def training_conflicts(config: Config) -> Iterator[Conflict]:
    """What only a training needs; a model can be measured without it."""
    if config.model.model_name_or_path is None and config.model.model_type is None:
        yield Conflict(
            ("model_name_or_path",),
            "no model: neither model_name_or_path nor model_type is set",
            "write model_name_or_path: hone-base (the bundled model), or a hub name or folder; or model_type for a "
            "model from scratch",
        )
    if config.data.train_file is None and config.data.dataset_name is None:
        yield Conflict(
            ("train_file",),
            "no training data: neither train_file nor dataset_name is set",
            "name a file or folder, `train_file: train.jsonl` in the config or `hone train data.jsonl`; "
            "`hone init` lists recipes to start from",
        )
    if config.train.fp16 and config.train.use_cpu:  # for training alone: a run of fp16 can be measured on a CPU
        yield Conflict(("fp16", "use_cpu"), f"fp16 needs a CUDA GPU, and use_cpu is true: {FP16_WHY}", FP16_FIX)


def conflict_error(found: list[Conflict], config: Config) -> HoneError:
    """One message for one or several conflicts, with the lines the configuration remembers."""
    located = [(each, next((line for leaf in each.leaves if (line := config.where(leaf))), None)) for each in found]
    source = str(config.source_path) if config.source_path else None
    if len(located) == 1:
        conflict, line = located[0]
        return HoneError(conflict.what, where=line or source, fix=conflict.fix)
    rows = [f"\n  {line + ': ' if line else ''}{conflict.what}\n    {conflict.fix}" for conflict, line in located]
    return HoneError(f"{len(rows)} mistakes{''.join(rows)}", where=source)


def _model_conflicts(model: ModelSection, method: MethodSection) -> Iterator[Conflict]:
    if model.model_name_or_path is not None and model.model_type is not None:
        yield Conflict(
            ("model_type", "model_name_or_path"),
            "model_name_or_path and model_type are both set",
            "keep model_name_or_path to fine-tune existing weights, or model_type to start from random ones",
        )
    if model.model_type is not None and model.tokenizer_name_or_path is None:
        yield Conflict(
            ("model_type",),
            "model_type (from scratch) needs tokenizer_name_or_path",
            "set tokenizer_name_or_path to a hub name or a folder: its vocabulary decides the model's size",
        )
    if model.model_type is not None and method.method == "lora":
        yield Conflict(
            ("method", "model_type"),
            "method: lora saves only an adapter, and a model from scratch is saved nowhere else",
            "use method: full, or adapt a saved model with model_name_or_path",
        )
    if model.config_overrides and model.model_type is None:
        yield Conflict(
            ("config_overrides",),
            "config_overrides is set without model_type",
            "existing weights fix the architecture: remove config_overrides, or set model_type to train from scratch",
        )


def _data_conflicts(data: DataSection) -> Iterator[Conflict]:
    for name in ("train_file", "validation_file"):
        if data.dataset_name is not None and getattr(data, name) is not None:
            yield Conflict(
                (name, "dataset_name"),
                f"dataset_name and {name} are both set",
                "keep one source: dataset_name with dataset_train_split and dataset_validation_split, or the files",
            )
    for name in ("dataset_config_name", "dataset_validation_split"):
        if getattr(data, name) is not None and data.dataset_name is None:
            yield Conflict(
                (name,), f"{name} is set without dataset_name", f"set dataset_name, or remove {name} (files need none)"
            )


def refuse_unknown_task(config: Config) -> None:
    """Raise a HoneError unless the task is one of the bundled ones."""
    task = config.method.task
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        raise HoneError(
            f"unknown task '{task}'",
            where=config.where("task") or (str(config.source_path) if config.source_path else None),
            fix=f"did you mean '{near[0]}'?" if near else f"use {', '.join(TASKS)}; in Python, pass task= your own",
        )


def _task_conflicts(config: Config) -> Iterator[Conflict]:
    """Values that the task cannot do; what a task of the caller's own can do is not known here."""
    task = config.method.task
    for leaf, values, able, fix in FOR_TASKS:
        value = getattr(getattr(config, leaves()[leaf]), leaf)
        given = value is not None if values is None else value in values
        if given and task in TASKS and task not in able:
            yield Conflict((leaf, "task"), f"{leaf}: {value} is for task: {' or '.join(able)}, not {task}", fix)


def _train_conflicts(train: TrainSection, method: MethodSection) -> Iterator[Conflict]:
    if train.bf16 and train.fp16:
        yield Conflict(("fp16", "bf16"), "bf16 and fp16 are both true", "keep bf16 (no loss scaling needed), or fp16")
    if train.optim == "muon" and method.method == "lora":
        yield Conflict(
            ("optim", "method"),
            "optim: muon trains whole matrices, and the two thin ones of method: lora do not suit it",
            "write optim: adamw_torch_fused, or method: full",
        )
    if train.max_steps == 0:
        yield Conflict(("max_steps",), "max_steps is 0: nothing to train", "-1 means: as num_train_epochs says")
    if train.lr_scheduler_type == "constant" and train.warmup_steps > 0:
        yield Conflict(
            ("warmup_steps", "lr_scheduler_type"),
            "warmup_steps has no effect with lr_scheduler_type: constant",
            "write lr_scheduler_type: constant_with_warmup, or warmup_steps: 0",
        )
    for name in ("warmup_steps", "logging_steps", "eval_steps", "save_steps"):
        value = getattr(train, name)
        if value is not None and value >= 1 and value != int(value):
            yield Conflict(
                (name,),
                f"{name} is {value}: from 1 on it counts whole steps",
                f"write {name}: {round(value)}, or a value below 1 for a share of all steps",
            )


def _schedule_conflicts(train: TrainSection, data: DataSection) -> Iterator[Conflict]:
    """What choosing the best checkpoint needs; the rules are those of transformers.TrainingArguments."""
    users = {
        "load_best_model_at_end": train.load_best_model_at_end,
        "early_stopping_patience": train.early_stopping_patience is not None,
        "save_strategy: best": train.save_strategy == "best",
    }
    for user, used in users.items():
        leaf = user.split(":")[0]
        if used and train.eval_strategy == "no":
            yield Conflict(
                (leaf, "eval_strategy"),
                f"{user} needs evaluations, but eval_strategy is 'no'",
                "write eval_strategy: epoch (or steps)",
            )
        elif used and not has_validation(data):
            yield Conflict(
                (leaf, "validation_split_percentage"),
                f"{user} needs validation data, but validation_split_percentage is 0 and there is no validation_file",
                "set validation_file, or a validation_split_percentage above 0",
            )
    if not train.load_best_model_at_end or train.eval_strategy == "no" or train.save_strategy == "best":
        return
    if train.save_strategy != train.eval_strategy:
        yield Conflict(
            ("load_best_model_at_end", "save_strategy", "eval_strategy"),
            f"load_best_model_at_end needs save_strategy ('{train.save_strategy}') equal to eval_strategy "
            f"('{train.eval_strategy}')",
            f"write save_strategy: {train.eval_strategy}, or save_strategy: best",
        )
    elif train.eval_strategy == "steps" and not _is_multiple(
        train.save_steps, train.logging_steps if train.eval_steps is None else train.eval_steps
    ):
        yield Conflict(
            ("save_steps", "eval_steps", "load_best_model_at_end"),
            f"load_best_model_at_end needs save_steps ({train.save_steps}) to be a multiple of eval_steps "
            f"({train.logging_steps if train.eval_steps is None else train.eval_steps})",
            "only an evaluated step can be the best one: make save_steps a multiple, both below 1 or both whole",
        )


def _is_multiple(larger: float, smaller: float) -> bool:
    """Whether one interval is a multiple of the other; a share of all steps and a count never compare."""
    if (larger < 1) != (smaller < 1):
        return False
    ratio = larger / smaller
    return round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-6


def has_validation(data: DataSection) -> bool:
    """Whether there will be validation rows: of a file, a split, or a share of the training rows."""
    return (
        data.validation_file is not None
        or data.dataset_validation_split is not None
        or data.validation_split_percentage > 0
    )


def _eval_conflicts(section: EvalSection, max_length: int) -> Iterator[Conflict]:
    stride = section.eval_stride
    if stride is not None and stride >= max_length:
        yield Conflict(
            ("eval_stride", "max_length"),
            f"eval_stride is {stride}, but a window has only {max_length} tokens (max_length)",
            f"set eval_stride below {max_length}, e.g. {max(max_length // 2, 1)}: windows have to overlap",
        )


def _generate_conflicts(generate: GenerateSection) -> Iterator[Conflict]:
    if generate.num_return_sequences > 1 and generate.temperature == 0:
        yield Conflict(
            ("num_return_sequences", "temperature"),
            f"num_return_sequences is {generate.num_return_sequences}, but temperature 0 gives the same text each time",
            "set a temperature above 0, e.g. 0.8",
        )


def _launch_conflicts(launch: LaunchSection) -> Iterator[Conflict]:
    machines = str(launch.nnodes)
    least, _, most = machines.partition(":")
    if not all(n.isdigit() and int(n) for n in (least, most or least)) or int(most or least) < int(least):
        yield Conflict(
            ("nnodes",), f"nnodes is '{machines}'", "write a number of machines, or from 1 to 4 of them: 1:4"
        )
    elif machines != "1":
        if launch.nproc_per_node is None:
            yield Conflict(
                ("nproc_per_node", "nnodes"),
                f"nnodes is {machines}, but nproc_per_node is not set",
                "write nproc_per_node: the number of GPUs of each machine",
            )
        if launch.rdzv_endpoint is None:
            yield Conflict(
                ("rdzv_endpoint", "nnodes"),
                f"nnodes is {machines}, but the machines have no place to meet",
                "write rdzv_endpoint: HOST:PORT of one of them, the same on all",
            )
    if launch.rdzv_backend == "static" and launch.node_rank is None:
        yield Conflict(
            ("node_rank", "rdzv_backend"),
            "rdzv_backend: static needs the number of this machine",
            "write node_rank: 0 on the machine of rdzv_endpoint, 1 on the next; or rdzv_backend: c10d",
        )


def _output_conflicts(config: Config) -> Iterator[Conflict]:
    """A run must never write over what it reads."""
    out = config.output.output_dir.absolute()
    for leaf in ("model_name_or_path", "tokenizer_name_or_path"):
        value = getattr(config.model, leaf)
        if value is not None and Path(value) == out:
            yield Conflict(
                ("output_dir", leaf),
                f"output_dir and {leaf} are the same folder",
                "choose another output_dir: the base would be overwritten, and could not be compared",
            )
    if not config.output.overwrite:
        return
    for leaf, paths in _read_paths(config).items():
        if any(path.absolute().is_relative_to(out) for path in paths):
            yield Conflict(
                ("overwrite", leaf, "output_dir"),
                f"overwrite is true and {leaf} lies inside output_dir, which would be deleted",
                f"choose another output_dir, or move what {leaf} names out of it",
            )


def _read_paths(config: Config) -> dict[str, list[Path]]:
    """Leaf -> the files and folders that a run reads, as far as they are given as absolute paths."""
    names = {
        "model_name_or_path": config.model.model_name_or_path,
        "tokenizer_name_or_path": config.model.tokenizer_name_or_path,
        "dataset_name": config.data.dataset_name,
        "resume_from_checkpoint": config.train.resume_from_checkpoint,
    }
    return {
        "train_file": as_paths(config.data.train_file),
        "validation_file": as_paths(config.data.validation_file),
        **{leaf: [Path(name)] for leaf, name in names.items() if name and Path(name).is_absolute()},
    }


FP16_WHY = "float16 overflows without loss scaling, which there is for CUDA alone"
FP16_FIX = "remove fp16; bf16: null (the default) takes bfloat16 where it is faster"

# The forms of rows that each task can use, None for all of them; a test compares it with the tasks, which are heavy.
_FORMS = (None, ("labelled",), ("source_target", "instruction", "pair"))
FORMS: Mapping[str, tuple[str, ...] | None] = dict(zip(TASKS, _FORMS, strict=True))

# leaf, the values that not every task can do (None: all), the tasks that can, and what to do
FOR_TASKS: tuple[tuple[str, tuple[str, ...] | None, tuple[str, ...], str], ...] = (
    ("batching", ("packed", "windows"), ("causal",), "remove batching: rows are padded to the longest of their batch"),
    ("on_long_row", ("split",), ("causal",), "write on_long_row: truncate, or drop"),
    ("template", ("chat",), ("causal",), "remove template"),
    ("template", ("plain", "instruction"), ("causal", "seq2seq"), "remove template"),
    ("eval_stride", None, ("causal",), "remove eval_stride, or set task"),
    ("code_tasks", None, ("causal",), "remove code_tasks, or set task"),
)

# leaf -> (controlling leaf, the values with which it has an effect)
ACTIVE_WITH: dict[str, tuple[str, tuple[object, ...]]] = {
    "batching": ("task", ("causal",)),
    "completion_only_loss": ("task", ("causal",)),
    "append_eos": ("task", ("causal",)),
    "class_weights": ("task", ("classification",)),
    "max_target_length": ("task", ("seq2seq",)),
    "eval_generate_samples": ("task", ("seq2seq",)),
    "memorization_samples": ("task", ("causal",)),
    "num_unfrozen_layers": ("method", ("freeze",)),
    "unfreeze_head": ("method", ("freeze",)),
    "unfreeze_embeddings": ("method", ("freeze",)),
    "lora_r": ("method", ("lora",)),
    "lora_alpha": ("method", ("lora",)),
    "lora_dropout": ("method", ("lora",)),
    "lora_target_modules": ("method", ("lora",)),
    "lora_layers_to_transform": ("method", ("lora",)),
    "lora_modules_to_save": ("method", ("lora",)),
    "use_rslora": ("method", ("lora",)),
    "on_long_row": ("batching", ("flat", "packed", "padded")),
    "logging_steps": ("logging_strategy", ("steps",)),
    "eval_steps": ("eval_strategy", ("steps",)),
    "save_steps": ("save_strategy", ("steps",)),
}


BUNDLED_TASKS = ("causal", "classification")  # what a decoder can do


def bundled_settings(method: MethodSection, column_mapping: Mapping[str, str]) -> list[str]:
    """`key=value` of what trains the bundled model on the same rows, by a task that it can do, at its own rate."""
    settings = [f"model_name_or_path={bundled.NAME}", f"learning_rate={bundled.RATES[method.method]:g}"]
    if method.task in BUNDLED_TASKS or method.task not in TASKS:
        return settings
    settings.insert(0, f"task={BUNDLED_TASKS[0]}")
    if {"source", "target"} <= column_mapping.keys():
        pair = f"prompt: {column_mapping['source']}, completion: {column_mapping['target']}"
        settings.append(f"'column_mapping={{{pair}}}'")
    return settings


def idle_notices(config: Config, given: Iterable[str]) -> list[str]:
    """One line for every given key that another key switches off.

    Args:
        config: the checked configuration.
        given: the leaves that were set by the user; one that repeats its default is never reported.
    """
    sections = leaves()
    notices = []
    for leaf in given:
        if leaf not in ACTIVE_WITH or getattr(getattr(config, sections[leaf]), leaf) == leaf_field(leaf).default:
            continue
        control, active = ACTIVE_WITH[leaf]
        value = getattr(getattr(config, sections[control]), control)
        if value not in active and (control != "task" or value in TASKS):
            notices.append(f"{leaf} has no effect with {control}: {value} (it needs {' or '.join(map(str, active))})")
    return notices
