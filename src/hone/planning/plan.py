"""What a config will cost, before anything is loaded: parameters, steps, tokens, memory, disk, and time if measured.

Nothing of the model is read but its config. Lengths come from the token store, or from a sample of the rows; which
accelerations apply, and the memory, from the engine on a model without numbers (`memory.py`); time, with `measure`,
from two real optimizer steps of the engine on this machine.

>>> plan = make_plan(load_config("recipe.yaml"))             # doctest: +SKIP
>>> plan.memory.total, plan.memory.free                      # doctest: +SKIP
(3120562176, 9663676416)
"""

import itertools
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from hone.accelerations.attach import Attached
from hone.accelerations.precision import resolve_precision
from hone.cache import token_cache
from hone.config.checks import require_training
from hone.config.schema import Config
from hone.config.sections.train import TrainSection
from hone.data.batches import EpochBatches
from hone.data.prepare import Prepared, is_prepared, prepare
from hone.data.tokenizer import tokenizer_of
from hone.errors import HoneError
from hone.hardware import peak_memory_bytes
from hone.models.build import build_model
from hone.models.fallback import planned_shape, with_fallback
from hone.models.freeze import Group, groups
from hone.models.inspect import flops_per_token
from hone.models.load import quiet_libraries
from hone.planning.group import in_group
from hone.planning.lengths import estimated_data
from hone.planning.memory import Footprint, engine_without_weights, footprint, fullest_batches
from hone.progress import stage
from hone.runs import Run
from hone.tasks import chosen
from hone.tasks.task import Task
from hone.training.callbacks import StopRequest
from hone.training.setup import build_trainer, refuse_missing_trackers

TIMED_STEPS = 2


@dataclass(frozen=True)
class Schedule:
    """How much is trained on. tokens: of all epochs. largest: tokens of the fullest micro-batch, padding included."""

    n_examples: int
    epoch_tokens: int
    supervised_tokens: int
    validation_tokens: int
    how: str
    exact: bool
    steps_per_epoch: int
    steps: int
    epochs: float
    tokens: int
    largest: int


@dataclass(frozen=True)
class Disk:
    """Bytes written to output_dir. checkpoint: each; kept: how many there are at most at one time."""

    model: int
    checkpoint: int
    kept: int
    total: int
    free: int


@dataclass(frozen=True)
class Timing:
    """Two real steps of the engine, and what follows from the second. Seconds, tokens a second, bytes.

    Of several processes: the share of one, which was measured alone; a machine's processors are shared by all that
    train on it. What it takes to send the gradients is not in it.
    """

    step_s: float
    tokens_per_s: float
    train_s: float
    evaluations: int
    evaluation_s: float
    peak_memory: int


@dataclass(frozen=True)
class Change:
    """Settings that lower the memory, all of those before it included, and what is then needed at the fullest."""

    settings: dict[str, Any]
    total: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """Everything `hone plan` says. accelerations: what the engine would do, and leave out, and why."""

    model: str
    method: str
    device: str
    groups: list[Group]
    accelerations: list[str]
    schedule: Schedule
    memory: Footprint
    disk: Disk
    timing: Timing | None
    changes: list[Change]

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return self.memory.fits and self.disk.total <= self.disk.free

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "fits": self.fits}


def make_plan(config: Config, task: Task | None = None, *, measure: bool = False) -> Plan:
    """Plan a training.

    Args:
        task: one of your own, in the place of the one that the config names.
        measure: load everything and take two optimizer steps, in a folder that is deleted again.

    Raises:
        HoneError: the config cannot be trained, or its model's config, tokenizer or data cannot be read.
    """
    config, task = chosen(config, task)
    require_training(config)
    name = config.model.model_name_or_path
    shape = planned_shape(config.model)
    if shape is not None and measure:
        raise HoneError(f"the weights of {name} are not here: no step can be timed", fix="plan without --measure")
    config = config.changed(shape) if shape else with_fallback(config)
    config = resolve_precision(config, token_cache(config.data.token_cache_dir))
    quiet_libraries()
    refuse_missing_trackers(config.train.report_to, config.where)
    tokenizer = tokenizer_of(config.model)
    exact = measure or not task.token_rows or is_prepared(config.data, task, tokenizer)
    if exact:
        data, how = prepare(config, task, tokenizer), "counted in the data"
    else:
        data, how = estimated_data(config, task, tokenizer)
    stage("building the model without its weights")
    engine = engine_without_weights(config, task, tokenizer, data)
    table, attached, device = groups(engine.model), engine.attached, engine.args.device.type
    stage("counting the memory of a step and an evaluation")
    alone = footprint(engine, config, task, data)
    memory = in_group(alone, engine, config.launch)
    del engine
    schedule = _schedule(config.train, config.launch.processes, attached, data, how, exact)
    saved = alone.trained if config.method.method == "lora" else alone.weights
    return Plan(
        model=(name if shape else config.model.model_name_or_path) or f"{config.model.model_type} from scratch",
        method=config.method.method,
        device=device,
        groups=table,
        accelerations=attached.notes,
        schedule=schedule,
        memory=memory,
        disk=_disk(config.train, config.output.output_dir, saved, alone.optimizer, schedule),
        timing=_measured(config, task, tokenizer, data, schedule) if measure else None,
        changes=[] if memory.fits else _changes(config, task, tokenizer, data),
    )


# ---- steps and tokens ----------------------------------------------------------------------------------------------


def _schedule(
    train: TrainSection, processes: int, attached: Attached, data: Prepared, how: str, exact: bool
) -> Schedule:
    """Steps by the Trainer's rule: a last, smaller step ends each epoch."""
    size, lengths = train.per_device_train_batch_size, attached.dataset.lengths
    slots = train.gradient_accumulation_steps * processes  # micro-batches of a step
    batches = EpochBatches(len(lengths), size, train.seed)
    per_epoch = max(1, math.ceil(len(batches) / slots))
    steps = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * per_epoch)
    whole_epochs, steps_left = divmod(steps, per_epoch)
    batches.set_epoch(whole_epochs)
    begun = list(itertools.chain(*itertools.islice(batches, steps_left * slots)))
    return Schedule(
        n_examples=len(data.train),
        epoch_tokens=data.train.n_tokens,
        supervised_tokens=int(data.train.n_supervised().sum()),
        validation_tokens=data.validation.n_tokens,
        how=how,
        exact=exact,
        steps_per_epoch=per_epoch,
        steps=steps,
        epochs=steps / per_epoch,
        tokens=whole_epochs * data.train.n_tokens + int(lengths[begun].sum()),
        largest=attached.n_tokens(fullest_batches(attached, size, train.seed, train.num_train_epochs)[-1]),
    )


def _times(strategy: str, every: float | None, schedule: Schedule) -> int:
    """How often something happens in a run that is done never, each epoch, or every so many steps."""
    if strategy in ("no", "best"):
        return 0
    if strategy == "epoch" or every is None:
        return math.ceil(schedule.epochs)
    step = every if every >= 1 else max(1, math.ceil(every * schedule.steps))
    return int(schedule.steps // step)


# ---- disk ----------------------------------------------------------------------------------------------------------


def _disk(train: TrainSection, folder: Path, model: int, optimizer: int, schedule: Schedule) -> Disk:
    """Model (or adapter) and checkpoints with their optimizer; the new one is written before the oldest goes."""
    checkpoint = model + optimizer
    saves = _times(train.save_strategy, train.save_steps, schedule)
    if train.save_strategy == "best" and schedule.validation_tokens:
        saves = _evaluations(train, schedule)
    limit = math.inf if train.save_total_limit is None else train.save_total_limit + 1 + train.load_best_model_at_end
    kept = int(min(saves, limit))
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return Disk(model, checkpoint, kept, model + kept * checkpoint, shutil.disk_usage(folder).free)


def _evaluations(train: TrainSection, schedule: Schedule) -> int:
    """Measurements between the one before and the one after."""
    return _times(train.eval_strategy, train.logging_steps if train.eval_steps is None else train.eval_steps, schedule)


# ---- what to lower first -------------------------------------------------------------------------------------------


def _changes(config: Config, task: Task, tokenizer: PreTrainedTokenizerBase, data: Prepared) -> list[Change]:
    """Lower the memory step by step until it suffices, the settings that cost the least learning first."""
    found: list[Change] = []
    settings: dict[str, Any] = {}
    for step in _lowering(config):
        settings = {**settings, **step}
        changed = config.changed(settings)
        stage(f"it does not fit: trying {' '.join(f'{key}={value}' for key, value in settings.items())}")
        engine = engine_without_weights(changed, task, tokenizer, data)
        alone = footprint(engine, changed, task, data)
        memory = in_group(alone, engine, changed.launch)
        found.append(Change(settings, memory.needed, memory.fits))
        if memory.fits:
            break
    return found


def _lowering(config: Config) -> list[dict[str, Any]]:
    """What to try, one after another. The first keep every step the same, the later ones change what is learned."""
    train = config.train
    size, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    steps: list[dict[str, Any]] = [{"eval_tokens_per_batch": 512}] if config.eval.eval_tokens_per_batch > 512 else []
    while size > 1:
        size, accumulation = -(-size // 2), accumulation * 2
        steps.append({"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation})
    if not train.gradient_checkpointing:
        steps.append({"gradient_checkpointing": True})
    if config.method.method != "lora" and config.model.model_name_or_path:
        steps.append({"method": "lora"})
        if config.model.dtype == "float32":
            steps.append({"dtype": "bfloat16"})
    return steps


# ---- time ----------------------------------------------------------------------------------------------------------


def _measured(
    config: Config, task: Task, tokenizer: PreTrainedTokenizerBase, data: Prepared, schedule: Schedule
) -> Timing:
    """Two optimizer steps as the run would take them; the first one also warms up, the second one counts."""
    quick = config.changed(
        {
            "max_steps": TIMED_STEPS,
            "logging_strategy": "steps",
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "early_stopping_patience": None,
            "max_train_seconds": None,
            "report_to": "none",
        },
    )
    stage("timing two steps")
    before = peak_memory_bytes()
    model = build_model(quick, task.model, tokenizer, data.train.outputs)
    with tempfile.TemporaryDirectory() as folder, _silent():
        run = Run(Path(folder))
        trainer, _ = build_trainer(run, quick, task, tokenizer, model, data, StopRequest())
        trainer.train()
        lines = [line for line in run.metric_lines() if "step_s" in line]
    launch = config.launch
    at_once = (
        launch.processes if trainer.args.device.type != "cpu" else launch.processes // (launch.nproc_per_node or 1)
    )
    tokens_per_s = at_once * float(lines[-1]["tokens_per_s"])
    n_weights = sum(p.numel() for p in model.parameters())
    # an evaluation is the forward pass alone: 2 operations for each weight and token
    evaluation_s = schedule.validation_tokens / tokens_per_s * 2 * n_weights / flops_per_token(model)
    return Timing(
        step_s=float(lines[-1]["step_s"]) * launch.processes / at_once,
        tokens_per_s=tokens_per_s,
        train_s=min(schedule.tokens / tokens_per_s, config.train.max_train_seconds or math.inf),
        evaluations=_evaluations(config.train, schedule) + 1 + config.eval.eval_base
        if schedule.validation_tokens
        else 0,
        evaluation_s=min(evaluation_s, schedule.validation_tokens / tokens_per_s),
        peak_memory=max(0, peak_memory_bytes() - before),
    )


@contextmanager
def _silent() -> Iterator[None]:
    """The engine's progress lines are not for a plan."""
    log = logging.getLogger("hone")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
