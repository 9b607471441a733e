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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.config.checks import require_training
from hone.config.schema import Config
from hone.data.batches import PackedDataset, flat, packed, padded
from hone.data.prepare import Prepared, describe, prepare
from hone.data.tokenizer import load_tokenizer, save_tokenizer
from hone.errors import HoneError
from hone.evaluation.before_after import compare, loss_only, measure
from hone.files import disk_errors, fsync_path, write_json_atomic, write_text_atomic
from hone.models.freeze import count_trainable, freeze
from hone.models.load import load_finished, load_model, max_positions
from hone.models.lora import add_lora
from hone.runs import Run, environment, lock, open_run
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
    run = open_run(config)
    with lock(run), _logged(run), _status(run):
        if run.status.get("stage") == "finished":
            log.info("this run is finished: %s (overwrite=true trains it again)", run.folder)
            return run
        _quiet_libraries()
        tokenizer = load_tokenizer(
            str(config.model.tokenizer_name_or_path or config.model.model_name_or_path),
            trust_remote_code=config.model.trust_remote_code,
        )
        data = prepare(config, tokenizer)
        _remember_inputs(run, config, data)
        for line in describe(data, config.data.batching):
            log.info("%s", line)
        if run.status.get("stage") != "saved":
            model = _build_model(config, tokenizer, data)
            if config.eval.eval_base:
                measure(run, "base", model, tokenizer, data.validation, config)
            model = _fit(run, config, tokenizer, model, data)
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


@contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Everything said is also in train.log."""
    with disk_errors(run.folder / "train.log"):
        handler = logging.FileHandler(run.folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


@contextmanager
def _status(run: Run) -> Iterator[None]:
    """Keep status.json true however the run ends."""
    from hone.training.callbacks import Interrupted

    began, before = time.time(), run.status.get("seconds", 0.0)
    if run.status.get("status") != "finished":
        run.update(status="running", stage=run.status.get("stage", "start"), error=None)
    ended = "failed"
    error: str | None = None
    try:
        yield
        ended = "finished"
    except (Interrupted, KeyboardInterrupt):
        ended = "interrupted"
        raise
    except Exception as exception:
        error = str(exception)
        raise
    finally:
        if run.status.get("status") != "finished" or ended != "finished":
            run.update(status=ended, error=error, seconds=round(before + time.time() - began, 1))
        else:
            run.update(seconds=round(before + time.time() - began, 1))


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

    model = load_model(config.model, tokenizer, seed=config.train.seed)
    positions = max_positions(model)
    if positions is not None and config.data.max_length > positions:
        raise HoneError(
            f"max_length is {config.data.max_length}, but the model has {positions} positions",
            where=config.where("max_length"),
            fix=f"set max_length to {positions} or less",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if data.store.folder is None and (top := int(data.store.train.tokens.max())) >= rows:
        raise HoneError(
            f"the token file has id {top}, but the model's embedding only {rows} rows",
            where=config.where("train_file"),
            fix="use the tokenizer's own model, or set bin_dtype",
        )
    method = config.method
    set_seed(config.train.seed)  # the adapter's initial weights
    if method.method == "freeze":
        freeze(
            model,
            method.num_unfrozen_layers,
            unfreeze_head=method.unfreeze_head,
            unfreeze_embeddings=method.unfreeze_embeddings,
        )
    elif method.method == "lora":
        model = add_lora(model, method)
    count = count_trainable(model)
    log.info(
        "model: %s, %s parameters, %s trainable (%.4f %%)",
        config.model.model_name_or_path or f"{config.model.model_type} from scratch",
        f"{count.n_parameters:,}",
        f"{count.n_trainable:,}",
        100 * count.share,
    )
    return model


def _fit(
    run: Run, config: Config, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel", data: Prepared
) -> "PreTrainedModel":
    """The training itself; resumes from the newest complete checkpoint."""
    from hone.training.callbacks import Interrupted, stop_on_signals
    from hone.training.trainer import restore

    with stop_on_signals() as request:
        trainer, stopper = build_trainer(run, config, tokenizer, model, data, request)
        checkpoint = _checkpoint_to_resume(run, config)
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
        return Path(wanted)
    checkpoints = run.checkpoints()
    return checkpoints[-1] if checkpoints else None


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
    temporary = folder / ".model.tmp"
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
