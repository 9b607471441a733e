"""The story of a run: data, model, the base measured, training, saved, the tuned model measured from its files.

Each stage leaves its result in the run folder and is not repeated: the same command after a crash, a Ctrl-C or a
SIGTERM goes on where it was, and after the end it only says so.

>>> run = train(load_config("recipe.yaml"))       # doctest: +SKIP
>>> run.read_eval("tuned")["perplexity"]          # doctest: +SKIP
"""

import functools
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.config.checks import require_training
from hone.config.schema import Config
from hone.data.batches import PackedDataset, flat, packed, padded
from hone.data.prepare import Prepared, describe, prepare
from hone.data.tokenizer import load_tokenizer, save_tokenizer
from hone.errors import HoneError, placed
from hone.evaluation.before_after import compare, loss_only, measure
from hone.files import disk_errors, fsync_path, write_json_atomic, write_text_atomic
from hone.models.freeze import count_trainable, freeze
from hone.models.load import load_finished, load_model, max_positions
from hone.models.lora import add_lora
from hone.runs import COMPLETE, Run, discard_unstarted, environment, lock, open_run
from hone.training.card import model_card

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.training.trainer import HoneTrainer

log = logging.getLogger("hone")


def train(config: Config) -> Run:
    """Train as the config says, measure before and after, and leave everything in its run folder.

    Raises:
        HoneError: a mistake the user can repair; nothing half-written is left.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on from it.
    """
    require_training(config)
    if config.output.overwrite and Path(config.output.output_dir).is_dir():
        _rehearse(config)
    run = open_run(config)
    with lock(run), _discarded_if_unstarted(run), _logged(run), _status(run):
        if run.status.get("stage") == "finished":
            log.info("this run is finished: %s (overwrite=true trains it again)", run.folder)
            return run
        _quiet_libraries()
        checkpoint = _checkpoint_to_resume(run, config)
        _refuse_missing_trackers(config)
        tokenizer = _load_tokenizer(config)
        data = prepare(config, tokenizer)
        _remember_inputs(run, config, data)
        for line in describe(data, config.data.batching):
            log.info("%s", line)
        if not len(data.validation):
            log.warning(
                "no validation rows: nothing will be measured, neither before nor after nor in between "
                "(set validation_file, or a validation_split_percentage above 0, with enough rows)"
            )
        if run.status.get("stage") != "saved":
            model = _build_model(config, tokenizer, data)
            log.info("%s", _describe_model(config, model))
            if config.eval.eval_base:
                measure(run, "base", model, tokenizer, data.validation, config)
            model = _fit(run, config, tokenizer, model, data, checkpoint)
            save_model(model, tokenizer, data.template, run.folder)
            run.update(stage="saved")
            log.info("saved the model to %s", run.folder)
            del model
        measure(run, "tuned", load_finished(str(run.folder)), tokenizer, data.validation, config)
        compare(run, config)
        write_text_atomic(run.folder / "README.md", model_card(run, config))
        run.update(stage="finished", status="finished")
    return run


# ---- the pieces of the story, in its order ------------------------------------------------------------------------


def _rehearse(config: Config) -> None:
    """Read and build everything once before `overwrite` deletes a run: a mistake must not cost the old one."""
    _quiet_libraries()
    tokenizer = _load_tokenizer(config)
    _build_model(config, tokenizer, prepare(config, tokenizer))


def _load_tokenizer(config: Config) -> "PreTrainedTokenizerBase":
    name = config.model.tokenizer_name_or_path or config.model.model_name_or_path
    return load_tokenizer(str(name), trust_remote_code=config.model.trust_remote_code)


@contextmanager
def _discarded_if_unstarted(run: Run) -> Iterator[None]:
    """A run that fails before anything was measured leaves no folder, so that the corrected config may use it."""
    try:
        yield
    except BaseException:
        discard_unstarted(run)
        raise


class _LogFile(logging.FileHandler):
    """train.log; a full disk is reported by whatever must be saved, not by a traceback from each log line."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Everything said is also in train.log."""
    with disk_errors(run.folder / "train.log"):
        handler = _LogFile(run.folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    if log.level == logging.NOTSET:  # a notebook that has set up no logging: the file is to have it all the same
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def _status(run: Run) -> Iterator[None]:
    """Keep status.json true however the run ends."""
    from hone.training.callbacks import Interrupted

    began, before = time.time(), run.status.get("seconds", 0.0)
    if run.status.get("status") != "finished":
        run.update(status="running", stage=run.status.get("stage", "start"), error=None)

    def seconds() -> float:
        return round(before + time.time() - began, 1)

    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        with suppress(HoneError):  # the disk may be full: the interruption is the news
            run.update(status="interrupted", error=None, seconds=seconds())
        raise
    except Exception as exception:
        with suppress(HoneError):
            run.update(status="failed", error=str(exception), seconds=seconds())
        raise
    run.update(status="finished", error=None, seconds=seconds())


def _quiet_libraries() -> None:
    """Our lines say what matters; the libraries' progress bars and advice would bury them."""
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator.*")


def _remember_inputs(run: Run, config: Config, data: Prepared) -> None:
    """env.json: on the first call written, on a later one compared, because resuming on other data is another run."""
    path = run.folder / "env.json"
    sources = data.store.meta["sources"]
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["data"] != sources:
            raise HoneError(
                "the data has changed since this run began",
                where=str(run.folder),
                fix="choose another output_dir, or give overwrite=true to begin again",
            )
        return
    write_json_atomic(path, {**environment(), "seed": config.train.seed, "data": sources})


def _build_model(config: Config, tokenizer: "PreTrainedTokenizerBase", data: Prepared) -> "PreTrainedModel":
    from transformers import set_seed

    model = load_model(config.model, tokenizer, seed=config.train.seed, where=config.where)
    positions = max_positions(model)
    if positions is not None and config.data.max_length > positions:
        raise HoneError(
            f"max_length is {config.data.max_length}, but the model has {positions} positions",
            where=config.where("max_length"),
            fix=f"set max_length to {positions} or less",
        )
    if data.store.folder is None:
        _refuse_foreign_ids(config, model, data)
    method = config.method
    set_seed(config.train.seed)  # the adapter's initial weights
    if method.method == "freeze":
        with placed(config.where("num_unfrozen_layers") or config.where("method")):
            freeze(
                model,
                method.num_unfrozen_layers,
                unfreeze_head=method.unfreeze_head,
                unfreeze_embeddings=method.unfreeze_embeddings,
            )
    elif method.method == "lora":
        with placed(config.where("lora_target_modules") or config.where("method")):
            model = add_lora(model, method)
    return model


def _refuse_foreign_ids(config: Config, model: "PreTrainedModel", data: Prepared) -> None:
    """Token files of another tool may be of another vocabulary, which would read beyond the embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    for key, split in (("train_file", data.store.train), ("validation_file", data.store.val)):
        top = int(split.tokens.max()) if len(split.tokens) else 0
        if top >= rows:
            raise HoneError(
                f"the token file has id {top:,}, but the model's embedding only {rows:,} rows",
                where=config.where(key) or config.where("train_file"),
                fix=f"use the model whose tokenizer wrote it, or set bin_dtype (now {config.data.bin_dtype})",
            )


def _describe_model(config: Config, model: "PreTrainedModel") -> str:
    count = count_trainable(model)
    name = config.model.model_name_or_path or f"{config.model.model_type} from scratch"
    return (
        f"model: {name}, {count.n_parameters:,} parameters, {count.n_trainable:,} trainable ({100 * count.share:.4f} %)"
    )


def _fit(
    run: Run,
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    model: "PreTrainedModel",
    data: Prepared,
    checkpoint: Path | None,
) -> "PreTrainedModel":
    """The training itself, from the start or from a complete checkpoint."""
    from hone.training.callbacks import Interrupted, stop_on_signals
    from hone.training.trainer import restore

    with stop_on_signals() as request:
        trainer, stopper = build_trainer(run, config, tokenizer, model, data, request)
        if checkpoint is not None:
            restore(run, checkpoint, trainer.progress)
            log.info("resuming from %s", checkpoint.name)
        elif (run.folder / "metrics.jsonl").is_file():
            (run.folder / "metrics.jsonl").unlink()  # of an attempt that never reached a checkpoint
        run.update(stage="training")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if request.signal_number is not None and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(f"stopped at step {trainer.state.global_step}: the same command goes on from there")
        if stopper.timed_out:
            log.info("max_train_seconds is up at step %d of %d", trainer.state.global_step, trainer.state.max_steps)
    return trainer.model


def _checkpoint_to_resume(run: Run, config: Config) -> Path | None:
    wanted = config.train.resume_from_checkpoint
    if wanted == "never":
        return None
    if wanted != "auto":
        if not (Path(wanted) / COMPLETE).is_file():
            raise HoneError(
                f"no complete checkpoint there: {wanted}",
                where=config.where("resume_from_checkpoint"),
                fix="name a checkpoint-N folder, or remove resume_from_checkpoint: the newest is found by itself",
            )
        return Path(wanted)
    checkpoints = run.checkpoints()
    return checkpoints[-1] if checkpoints else None


def _refuse_missing_trackers(config: Config) -> None:
    """Say now, not after the base has been measured, that a tracker of report_to is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    installed = get_available_reporting_integrations()
    wanted = config.train.report_to
    missing = [name for name in ([wanted] if isinstance(wanted, str) else wanted or []) if name not in installed]
    if missing and missing not in (["none"], ["all"]):
        raise HoneError(
            f"report_to: the tracker '{missing[0]}' is not known or not installed",
            where=config.where("report_to"),
            fix=f"installed here: {', '.join(installed) or 'none'}; or install its package, or remove report_to",
        )


def build_trainer(
    run: Run,
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    model: "PreTrainedModel",
    data: Prepared,
    request: Any,
) -> tuple["HoneTrainer", Any]:
    """The engine for this data and model, and the callback that stops it on `request`."""
    import torch
    from transformers import EarlyStoppingCallback

    from hone.training.arguments import training_arguments
    from hone.training.callbacks import MetricsLog, Progress, Stopper, peak_memory_bytes
    from hone.training.flops import flops_per_token, matmul_gflops
    from hone.training.trainer import HoneTrainer

    dataset, collate = layout(config, tokenizer, model, data)
    measured = len(data.validation) > 0
    args = training_arguments(config, run, has_validation=measured)
    compute = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else model.dtype
    size = 1024 if args.device.type == "cpu" else 8192
    progress, stopper = Progress(), Stopper(request, config.train.max_train_seconds)
    callbacks = [
        stopper,
        MetricsLog(
            run.folder / "metrics.jsonl",
            progress,
            flops_per_token(model),
            matmul_gflops(compute, str(args.device), size) * 1e9,
            peak_memory_bytes,
        ),
    ]
    if measured and config.train.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.train.early_stopping_patience))
    trainer = HoneTrainer(
        model,
        args,
        run=run,
        train_dataset=dataset,
        tokenizer=tokenizer,
        collate=collate,
        measure=functools.partial(loss_only, tokenizer=tokenizer, validation=data.validation, config=config)
        if measured
        else None,
        keep_checkpoints=config.train.save_total_limit,
        progress=progress,
        callbacks=callbacks,
    )
    return trainer, stopper


def layout(
    config: Config, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel", data: Prepared
) -> tuple[Any, Callable[[Sequence[Any]], dict[str, Any]]]:
    """Dataset and collator of `data.batching`; flat and packed step aside where the model would mix examples."""
    from hone.training.verify import keeps_examples_apart

    batching = config.data.batching
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    if batching in ("flat", "packed") and not keeps_examples_apart(model, data.train):
        log.warning("%s lets examples of one row see each other: batching padded instead", type(model).__name__)
        batching = "padded"
    if batching == "flat":
        return data.train, flat
    if batching == "packed":
        rows = PackedDataset(data.train, config.data.max_length)
        return rows, functools.partial(packed, max_length=config.data.max_length, pad_token_id=pad)
    return data.train, functools.partial(padded, pad_token_id=pad)


def save_model(model: Any, tokenizer: "PreTrainedTokenizerBase", template: str, folder: Path) -> None:
    """Model (or adapter), tokenizer and template name, written aside, synced and moved to the run's root, weights last.

    Weights are safetensors; a tied tensor is written once and tied again by the loader.
    """
    from hone.training.loss import refuse_diverged

    temporary = folder / ".model.tmp"
    refuse_diverged(model)
    with disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            model.save_pretrained(temporary, safe_serialization=True)
            save_tokenizer(tokenizer, temporary)
            write_json_atomic(temporary / "template.json", {"template": template})
            files = sorted(temporary.iterdir(), key=lambda path: path.suffix == ".safetensors")
            for path in files:
                fsync_path(path)
            for path in files:
                path.replace(folder / path.name)
            fsync_path(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
