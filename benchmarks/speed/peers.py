"""The peers: transformers' Trainer as the sources, a careful user and an expert set it, TRL, and a plain loop.

All load the same weights, take the same rows in the same order with the same step size, and no warm-up. Each function
sets one of them up and runs until the parent wants no more steps.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from speed.flops import training_flops
from speed.rows import IGNORE_INDEX, read_held_out, read_ordered
from speed.turns import Turns

Task = dict[str, Any]


def load(task: Task, *, dtype: str | None = None) -> Any:
    """The model with the parameters of the task's method set to train."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    model = AutoModelForCausalLM.from_pretrained(task["folder"], dtype=getattr(torch, dtype or task["dtype"]))
    set_seed(task["seed"])  # the adapter's initial weights
    return apply_method(model, task["method"])


def apply_method(model: Any, method: dict[str, Any]) -> Any:
    if method["method"] == "freeze":
        model.requires_grad_(False)
        for block in model.transformer.h[-method["num_unfrozen_layers"] :]:
            block.requires_grad_(True)
        model.transformer.ln_f.requires_grad_(True)
    elif method["method"] == "lora":
        from peft import LoraConfig, get_peft_model

        rank, alpha, dropout, modules = (method[f"lora_{key}"] for key in ("r", "alpha", "dropout", "target_modules"))
        lora = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=modules, task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    return model


# ---- Trainer -------------------------------------------------------------------------------------------------------


def run_trainer(task: Task, turns: Turns, *, layout: str, bf16: bool, dtype: str | None = None) -> None:
    """transformers' Trainer. layout: max_length or longest (padded to it), or flat (DataCollatorWithFlattening)."""
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, Trainer, TrainingArguments

    quieten()
    turns.imported()
    model, examples = load(task, dtype=dtype), read_ordered(task["data"])
    if layout == "flat":
        collate = DataCollatorWithFlattening()
        model.config.use_cache = False  # a cache would turn the mask between examples off
        assert_isolated(model, collate, examples)
    else:
        padding = "max_length" if layout == "max_length" else True
        collate = DataCollatorForSeq2Seq(
            padding_tokenizer(task), padding=padding, max_length=task["max_length"], label_pad_token_id=IGNORE_INDEX
        )
    args = TrainingArguments(**common_arguments(task, len(examples)), bf16=bf16 and task["bf16"], logging_steps=10)
    trainer = Trainer(model, args, train_dataset=examples, data_collator=collate)
    wait_at_the_end_of_turns(trainer, turns, task)
    trainer.train()


def run_trl(task: Task, turns: Turns, *, tuned: bool) -> None:
    """TRL's SFTTrainer on the same ids and labels. tuned: by its options, all that helps on this job."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    quieten()
    turns.imported()
    model, examples = load(task), read_ordered(task["data"])
    options: dict[str, Any] = {"max_length": task["max_length"]}
    if tuned:  # the rows are cut already, which padding_free asks for by max_length=None
        options = {"max_length": None, "padding_free": True, "gradient_checkpointing": False}
    if not task["bf16"]:
        options["bf16"] = False
    args = SFTConfig(**common_arguments(task, len(examples)), **options)
    tokenizer = padding_tokenizer(task)
    trainer = SFTTrainer(model, args, train_dataset=Dataset.from_list(examples), processing_class=tokenizer)
    wait_at_the_end_of_turns(trainer, turns, task)
    trainer.train()


def common_arguments(task: Task, n_examples: int) -> dict[str, Any]:
    return {
        "output_dir": task["scratch"],
        "per_device_train_batch_size": task["batch"],
        "max_steps": n_examples // task["batch"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": task["seed"],
    }


def wait_at_the_end_of_turns(trainer: Any, turns: Turns, task: Task) -> None:
    """Make a Trainer train a turn at a time: from the end of one step to the end of another, everything included."""
    from transformers import TrainerCallback

    losses: list[Any] = []
    inner = trainer.training_step

    @functools.wraps(inner)
    def training_step(*args: Any, **kwargs: Any) -> Any:
        losses.append(inner(*args, **kwargs))
        return losses[-1]

    class InTurns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            turns.ready(flops_per_token=training_flops(trainer.model))

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            progress = getattr(trainer, "progress", None)
            turns.step(losses.pop(), getattr(progress, "tokens", None))

    if rows := read_held_out(task["data"]):
        turns.held_out = functools.partial(held_out_loss, trainer.model, rows)
    trainer.training_step = training_step
    trainer.add_callback(InTurns())


def held_out_loss(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """Nats per supervised token, one row at a time, in the precision of the weights."""
    import torch
    from torch.nn import functional as F

    total, count, training = 0.0, 0, model.training
    model.eval()
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += float(F.cross_entropy(logits, labels[1:], reduction="sum"))
            count += int((labels[1:] != IGNORE_INDEX).sum())
    model.train(training)
    return total / count


def padding_tokenizer(task: Task) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(task["tokenizer"])
    tokenizer.pad_token = tokenizer.eos_token  # padding is excluded by the labels and the mask
    tokenizer.padding_side = "right"
    return tokenizer


def assert_isolated(model: Any, collate: Any, examples: list[dict[str, list[int]]]) -> None:
    """The flat row's last example must be computed as it is alone: else the mask between examples is not there."""
    import torch

    def hidden(batch: dict[str, Any]) -> Any:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return model(**inputs, output_hidden_states=True).hidden_states[-1][0]  # (T, width)

    few = [{key: value[:48] for key, value in example.items()} for example in examples[:3]]
    training = model.training
    model.eval()
    with torch.no_grad():
        together, alone = hidden(collate(few)).float(), hidden(collate(few[-1:])).float()
    model.train(training)
    error = (together[-len(alone) :] - alone).abs().max() / alone.std()
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.15
    assert error < tolerance, f"examples of a flat row see each other: {error:.3g}"


def quieten() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")


# ---- a plain loop --------------------------------------------------------------------------------------------------


def run_plain_loop(task: Task, turns: Turns) -> None:
    """A loop as in teaching code: padded to the longest, logits everywhere, bf16 autocast, fused AdamW, clipping."""
    import torch
    from torch.nn import functional as F

    quieten()
    turns.imported()
    model = load(task)
    model.train()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=task["learning_rate"], weight_decay=0.0, fused=True)
    if rows := read_held_out(task["data"]):
        turns.held_out = functools.partial(held_out_loss, model, rows)
    turns.ready(flops_per_token=training_flops(model))
    for ids, labels in padded_batches(read_ordered(task["data"]), task["batch"]):
        with torch.autocast("cpu", torch.bfloat16, enabled=task["bf16"]):
            # (B, T) -> (B, T, V). No mask is needed: padding is on the right, and attention is causal.
            logits = model(input_ids=ids, use_cache=False).logits
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turns.step(loss.detach())


def padded_batches(examples: list[dict[str, list[int]]], batch: int) -> Iterator[tuple[Any, Any]]:
    """ids and labels, (B, T) each; padded with id 0, which no label asks for."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    for at in range(0, len(examples), batch):
        some = examples[at : at + batch]
        ids, labels = ([torch.tensor(example[key]) for example in some] for key in ("input_ids", "labels"))
        yield pad_sequence(ids, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX)


SETUPS: dict[str, Callable[[Task, Turns], None]] = {
    "sources": functools.partial(run_trainer, layout="max_length", bf16=False, dtype="float32"),
    "trainer": functools.partial(run_trainer, layout="longest", bf16=False),
    "trainer-tuned": functools.partial(run_trainer, layout="longest", bf16=True),
    "expert": functools.partial(run_trainer, layout="flat", bf16=True),
    "trl-default": functools.partial(run_trl, tuned=False),
    "trl-tuned": functools.partial(run_trl, tuned=True),
    "nanogpt-style": run_plain_loop,
}
DROPOUT_AS_IT_COMES = ("sources", "trainer", "trainer-tuned", "trl-default")
SAYS = {
    "sources": "Trainer, float32, padded to max_length, dropout as the model comes",
    "trainer": "Trainer, float32, padded to the longest, dropout as the model comes",
    "trainer-tuned": "Trainer, bf16, padded to the longest, dropout as the model comes",
    "expert": "Trainer, DataCollatorWithFlattening, bf16, no dropout",
    "trl-default": "TRL SFTTrainer, its defaults",
    "trl-tuned": "TRL SFTTrainer, padding_free, bf16, no checkpointing, no dropout",
    "nanogpt-style": "a plain loop, bf16 autocast, padded to the longest, no dropout",
    "hone": "hone, bf16, no dropout",
}
