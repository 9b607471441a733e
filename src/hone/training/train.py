"""The story of a run: data, model, the base measured, training, saved, the tuned model measured from its files.

Each stage leaves its result in the run folder and is not repeated: the same command after a crash, a Ctrl-C or a
SIGTERM goes on where it was, and after the end it only says so.

Of several processes all tell the same story, and share what is computed; what touches the run folder is the primary's,
and the others wait for it (`hone.processes`).

>>> run = train(load_config("recipe.yaml"))       # doctest: +SKIP
>>> run.tuned.value("perplexity")                  # doctest: +SKIP
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from hone.accelerations.allocator import give_back_freed_memory
from hone.accelerations.precision import resolve_precision
from hone.cache import token_cache
from hone.config.checks import require_training
from hone.config.rates import lower_rate
from hone.config.schema import Config, Where
from hone.config.sections.data import DataSection
from hone.config.sections.launch import LaunchSection
from hone.config.sections.train import TrainSection
from hone.data.dataset import Dataset
from hone.data.prepare import Prepared, describe, places, prepare
from hone.data.special_tokens import padding_id
from hone.data.tokenizer import tokenizer_of
from hone.errors import HoneError, Interrupted, said
from hone.evaluation.bench import Bench
from hone.evaluation.run import compare, measure
from hone.files import disk_errors, write_sealed, write_text_atomic
from hone.grading.tasks import tasks_of
from hone.loss import Diverged
from hone.models.build import build_model, describe_model
from hone.models.fallback import with_fallback
from hone.models.load import load_finished, quiet_libraries
from hone.processes import BY_HONE, Elsewhere, any_of, causes_named, from_primary, joined, primary, primary_first, world
from hone.report.build import write_report_or_say
from hone.report.card import model_card
from hone.report.folder import read_folder
from hone.runs import REPORT, Run, discard_unstarted, environment, open_run
from hone.tasks import chosen
from hone.tasks.task import Task
from hone.training.arguments import slots
from hone.training.callbacks import interrupted_by_signals, stop_on_signals
from hone.training.checkpoint import (
    checkpoint_problems,
    checkpoint_to_resume,
    reached_at,
    refuse_other_base,
    refuse_other_steps,
    restore,
    save_model,
    saved_problems,
    seal_run,
    sweep,
    written_metrics,
)
from hone.training.setup import build_trainer, refuse_foreign_ids, refuse_missing_trackers

log = logging.getLogger("hone")

ROWS_NAMED = 8  # of a step that went wrong
STOPPED = {  # where an interruption finds a run, by the stage that status.json names
    "start": "stopped before the first step",
    "training": "stopped while training",
    "saved": "trained and saved, but not measured",
    "finished": "this run is finished, only its report is missing",
}


def train(config: Config, task: Task | None = None, callbacks: Sequence[TrainerCallback] = ()) -> Run:
    """Train as the config says, measure before and after, and leave everything in its run folder.

    Args:
        task: one of your own, in the place of the one that the config names.
        callbacks: called around each step, beside those of the engine.

    Raises:
        HoneError: a mistake the user can repair; nothing half-written is left.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on from it.
    """
    with joined():
        config, task = chosen(config, task)
        require_training(config)
        _refuse_unstarted(config.launch, config.where)
        config = resolve_precision(with_fallback(config), token_cache(config.data.token_cache_dir))
        if config.output.overwrite and from_primary(Path(config.output.output_dir).is_dir):
            from_primary(lambda: _rehearse(config, task))
        opening = open_run(config) if primary() else nullcontext(Run(Path(config.output.output_dir)))
        with _opened(opening) as run, _interruptible(run):
            if _stage(run) == "finished":
                log.info("this run is finished: %s (overwrite=true trains it again)", run.folder)
            else:
                with _discarded_if_unstarted(run), _logged(run), _status(run), causes_named(), _rate_named(config):
                    _run(run, config, task, callbacks)
            from_primary(lambda: _write_missing_report(run))
    return run


def _run(run: Run, config: Config, task: Task, callbacks: Sequence[TrainerCallback]) -> None:
    """All that is left to do of a run."""
    quiet_libraries()
    refuse_missing_trackers(config.train.report_to, config.where)
    tasks_of(config.eval.code_tasks, config.where)  # a mistake in their file is better said now
    tokenizer = tokenizer_of(config.model)
    data = primary_first(lambda: prepare(config, task, tokenizer))
    from_primary(lambda: _remember_inputs(run, config.train.seed, data))
    for line in _described(run, config.train):
        log.info("%s", line)
    for line in describe(data, config.data.batching):
        log.info("%s", line)
    if not len(data.validation):
        log.warning(
            "no validation rows: nothing will be measured, neither before nor after nor in between "
            "(set validation_file, or a validation_split_percentage above 0, with enough rows; "
            "a corpus is made with a validation_percentage)"
        )
    bench = Bench(run, config, task, tokenizer, data)
    if from_primary(lambda: _is_saved(run)):
        _look_again(bench)
    else:
        _train_and_save(run, config, task, tokenizer, data, bench, callbacks)
        give_back_freed_memory()
    _finish(bench)


# ---- the pieces of the story, in its order ------------------------------------------------------------------------


def _refuse_unstarted(section: LaunchSection, where: Where) -> None:
    """Only the command line starts processes: a script or a notebook is one already.

    Of several machines one may be left, whose process was started all the same.
    """
    if section.asks_for_several and world() == 1 and BY_HONE not in os.environ:
        raise HoneError(
            "nproc_per_node asks for several processes, and this is one",
            where=where("nproc_per_node") or where("nnodes"),
            fix="use `hone train` on the command line, start your script by torchrun --nproc_per_node 2 script.py, or "
            "leave the key out",
        )


@contextmanager
def _opened(opening: AbstractContextManager[Run]) -> Iterator[Run]:
    """The run folder, held by the primary; the others read it once it is in order."""
    with opening as run:
        from_primary(lambda: sweep(run))
        yield run


def _stage(run: Run) -> str | None:
    return from_primary(lambda: run.status.get("stage"))


def _described(run: Run, section: TrainSection) -> list[str]:
    """How a step is shared, where it is."""
    if world() == 1 and run.processes == 1:
        return []
    n, size = slots(section, run), section.per_device_train_batch_size
    began = "" if run.processes == world() else f", as when it began on {run.processes}"
    line = f"{world()} processes share each step: {n} micro-batches of {size}, {n * size} examples{began}"
    return [line if world() > 1 else f"one process takes each step: {n} micro-batches of {size}{began}"]


def _is_saved(run: Run) -> bool:
    """Whether the tuned model is there, as it was written."""
    if run.status.get("stage") == "saved" and (damages := saved_problems(run.folder)):
        log.warning("the saved model is damaged and is made again: %s", "; ".join(damages))
        run.update(stage="training")
    return run.status.get("stage") == "saved"


def _look_again(bench: Bench) -> None:
    """What an earlier call has left of a training that ended: its metrics, and the base's numbers."""
    run, config, data = bench.run, bench.config, bench.data
    from_primary(lambda: _written_metrics(run))
    if config.eval.eval_base and len(data.validation) and not from_primary(lambda: run.has("base")):
        log.warning("%s is not there: the base is measured again", run.file_of("base"))
        measure(bench, "base", _build(config, bench.task, bench.tokenizer, data))


def _written_metrics(run: Run) -> None:
    for checkpoint in run.checkpoints()[-1:]:
        if not checkpoint_problems(checkpoint):
            written_metrics(run, reached_at(checkpoint))


def _finish(bench: Bench) -> None:
    """From the saved model to the finished run."""
    measure(bench, "tuned", load_finished(str(bench.run.folder), bench.task.model))
    from_primary(lambda: _conclude(bench))


def _conclude(bench: Bench) -> None:
    """All that follows from what is measured."""
    run, task, data = bench.run, bench.task, bench.data
    if data.contamination is not None:
        run.write("contamination", data.contamination)
    compare(bench)
    card = model_card(read_folder(run.folder), task.pipeline_tag)
    write_text_atomic(run.folder / "README.md", card)
    seal_run(run)
    (run.folder / REPORT).unlink(missing_ok=True)  # of an earlier stage
    run.update(stage="finished", status="finished")


def _write_missing_report(run: Run) -> None:
    if not (run.folder / REPORT).is_file():
        write_report_or_say(run.folder)


def _train_and_save(
    run: Run,
    config: Config,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    data: Prepared,
    bench: Bench,
    callbacks: Sequence[TrainerCallback],
) -> None:
    """From the base, or from a checkpoint, to the saved model; the base is measured on the way."""
    checkpoint = _checkpoint(run, config.train, config.where)
    model = _build(config, task, tokenizer, data)
    refuse_foreign_ids(data, model, config.where)
    log.info("%s", describe_model(config.model, config.method.method, model))
    if checkpoint is not None:
        refuse_other_base(model, checkpoint, str(config.model.model_name_or_path))
    if config.eval.eval_base:
        measure(bench, "base", model)
    with _rows_named(run, config.data, task, tokenizer, data.train):
        model, stop = _fit(run, config, task, tokenizer, model, data, checkpoint, callbacks)
    from_primary(lambda: save_model(model, tokenizer, data.template, run.folder))
    run.update(stage="saved", try_it=task.try_it)
    log.info("saved the model to %s", run.folder)
    if stop:
        raise Interrupted("trained and saved, but not measured: the same command goes on from there")


def _checkpoint(run: Run, section: TrainSection, where: Where) -> Path | None:
    """The checkpoint to go on from, as the primary chooses it."""

    def choose() -> str | None:
        found = checkpoint_to_resume(run, section.resume_from_checkpoint, where)
        if found is not None:
            refuse_other_steps(found, slots(section, run), section.gradient_accumulation_steps, where)
        return str(found) if found else None

    found = from_primary(choose)
    return Path(found) if found else None


def _rehearse(config: Config, task: Task) -> None:
    """Read and build everything once before `overwrite` deletes a run: a mistake must not cost the old one."""
    quiet_libraries()
    tasks_of(config.eval.code_tasks, config.where)
    tokenizer = tokenizer_of(config.model)
    _build(config, task, tokenizer, prepare(config, task, tokenizer))


def _build(config: Config, task: Task, tokenizer: PreTrainedTokenizerBase, data: Prepared) -> PreTrainedModel:
    """The model for this data; where it pads, the tokenizer saved with it pads alike."""
    if not task.model.continues:
        tokenizer.pad_token_id, tokenizer.padding_side = padding_id(tokenizer), "right"
    return build_model(config, task.model, tokenizer, data.train.outputs)


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """SIGTERM, SIGHUP and Ctrl-C at any stage end in one line that says how to go on."""
    try:
        with interrupted_by_signals():
            yield
    except KeyboardInterrupt:
        reached = STOPPED.get(str(run.status.get("stage")), "stopped before anything was measured")
        raise Interrupted(f"{reached}: the same command goes on from there") from None


@contextmanager
def _discarded_if_unstarted(run: Run) -> Iterator[None]:
    """A run that fails before anything was measured leaves no folder, so that the corrected config may use it."""
    try:
        yield
    except BaseException:
        if primary():
            discard_unstarted(run)
        raise


class _LogFile(logging.FileHandler):
    """train.log; a full disk is reported by whatever must be saved, not by a traceback from each log line."""

    def format(self, record: logging.LogRecord) -> str:
        return said(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Everything said is also in train.log."""
    if not primary():
        yield
        return
    with disk_errors(run.folder / "train.log"):
        handler = _LogFile(run.folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    level = log.level
    log.addHandler(handler)
    if level == logging.NOTSET:  # nobody has set up logging: the file is to have it all the same
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def _status(run: Run) -> Iterator[None]:
    """Keep status.json true however the run ends."""
    began, before = time.monotonic(), run.status.get("seconds", 0.0)
    run.update(status="running", stage=run.status.get("stage", "start"), error=None)

    def seconds() -> float:
        return round(before + time.monotonic() - began, 1)

    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        with suppress(HoneError):  # the disk may be full: the interruption is the news
            is_done = run.status.get("stage") == "finished"
            run.update(status="finished" if is_done else "interrupted", error=None, seconds=seconds())
        raise
    except BaseException as exception:
        if not isinstance(exception, Exception | Elsewhere):
            raise
        with suppress(HoneError):
            run.update(status="failed", error=str(exception.__cause__ or exception), seconds=seconds())
        raise
    run.update(status="finished", error=None, seconds=seconds())


@contextmanager
def _rows_named(
    run: Run, section: DataSection, task: Task, tokenizer: PreTrainedTokenizerBase, train: Dataset
) -> Iterator[None]:
    """A training that diverged names the rows of the step, and the last checkpoint of finite weights."""
    try:
        yield
    except Diverged as error:
        some = error.examples[:ROWS_NAMED]
        texts = [tokenizer.decode(train.preview(i).ids.tolist()) for i in some]
        found = dict.fromkeys(place for place in places(section, task, "train", texts) if place)
        more = f" and {len(error.examples) - len(some):,} more" if len(error.examples) > len(some) else ""
        rows = f", with the rows {', '.join(found)}{more}" if found else ""
        kept = f"; {run.checkpoints()[-1]} has the last weights that are saved" if run.checkpoints() else ""
        raise Diverged(f"{error.what}{rows}{kept}") from error


@contextmanager
def _rate_named(config: Config) -> Iterator[None]:
    """A training that diverged names the rate to begin again with."""
    try:
        yield
    except Diverged as error:
        rate, words = lower_rate(config.model, config.method, config.train)
        fix = f"begin again with {words}: learning_rate={rate:.3g} overwrite=true, or another output_dir; or add "
        raise HoneError(error.what, fix=f"{fix}warmup_steps=0.1") from error


def _remember_inputs(run: Run, seed: int, data: Prepared) -> None:
    """env.json: on the first call written, on a later one compared, because resuming on other data is another run."""
    path = run.folder / "env.json"
    sources = data.store.meta["sources"]
    if path.is_file():
        if "data" not in run.env:
            fix = "put it back, or give overwrite=true to begin again"
            raise HoneError("says nothing of the run's data: the file is damaged", where=str(path), fix=fix)
        if run.env["data"] != sources:
            raise HoneError(
                "the data has changed since this run began",
                where=str(run.folder),
                fix="choose another output_dir, or give overwrite=true to begin again",
            )
        return
    write_sealed(path, {**environment(), "seed": seed, "data": sources})


def _fit(
    run: Run,
    config: Config,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    data: Prepared,
    checkpoint: Path | None,
    callbacks: Sequence[TrainerCallback],
) -> tuple[PreTrainedModel, bool]:
    """The training itself, from the start or from a complete checkpoint; and whether a signal came in its last step."""
    with stop_on_signals() as request:
        trainer, stopper = build_trainer(run, config, task, tokenizer, model, data, request)
        for callback in callbacks:
            trainer.add_callback(callback)
        if checkpoint is not None:
            trainer.resumed = restore(run, checkpoint, trainer.progress)
            log.info("resuming from %s", checkpoint.name)
            if trainer.resumed.ended:
                trainer.finish(checkpoint)
                return trainer.model, False
        elif primary():
            (run.folder / "metrics.jsonl").unlink(missing_ok=True)  # of an attempt that never reached a checkpoint
        run.update(stage="training")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if request.signal_number is not None and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(f"stopped at step {trainer.state.global_step}: the same command goes on from there")
        if stopper.timed_out:
            log.info("max_train_seconds is up at step %d of %d", trainer.state.global_step, trainer.state.max_steps)
        return trainer.whole_model(), any(any_of([request.signal_number is not None]))
