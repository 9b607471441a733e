"""Fine-tune a GPT-2 with nothing hidden: hone's data and glass-box model, and a training loop that fits a screen.

    python examples/plain_loop.py MODEL_FOLDER rows.jsonl --output out --unfrozen 4

MODEL_FOLDER is a GPT-2 as transformers saves it, as `hone convert` makes it of OpenAI's files, or src/hone/assets/base.
The steps are those of `hone train` with the same settings: in float32 and without dropout the losses are the same.

Use this file to read a whole training, to teach one, or to try an idea in the loop itself. Use `hone train` for a model
that you want to keep: this file leaves out other architectures, LoRA, GPUs, resuming, checkpoints, mixed precision,
gradient accumulation, faster steps, and the comparison of before and after. Side by side: docs/files/index.md.
"""

import argparse
import math
import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import hone
from hone.config.sections.generate import GenerateSection
from hone.data.batches import EpochBatches, padded
from hone.data.tokenizer import load_tokenizer, save_tokenizer
from hone.data.truncate import IGNORE_INDEX, TokenDataset
from hone.errors import HoneError
from hone.inference.sampling import next_tokens
from hone.models.gpt2 import GPT2, load_gpt2, save_gpt2

ROWS_AT_ONCE = 8  # in the evaluation


def sum_and_count(model: GPT2, batch: dict) -> tuple[Tensor, Tensor]:
    """Sum of -log p over the supervised tokens of a batch, and how many there are.

    Padding is on the right, where no real token looks, and its labels are IGNORE_INDEX: it needs no mask.
    """
    logits = model(batch["input_ids"])[:, :-1]  # (B, T - 1, V): what stands at t scores what comes at t + 1
    labels = batch["labels"][:, 1:]  # (B, T - 1)
    nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    return nll, (labels != IGNORE_INDEX).sum()


@torch.no_grad()
def evaluate(model: GPT2, dataset: TokenDataset) -> float:
    """Nats per supervised token over all of a dataset: a mean over tokens, not a mean of the batches' means."""
    total, count = 0.0, 0
    for start in range(0, len(dataset), ROWS_AT_ONCE):
        items = [dataset[i] for i in range(start, min(start + ROWS_AT_ONCE, len(dataset)))]
        nll, n_tokens = sum_and_count(model, padded(items, pad_token_id=0))
        total, count = total + float(nll), count + int(n_tokens)
    return total / max(count, 1)


def freeze_below(model: GPT2, n_unfrozen: int | None) -> None:
    """Train the top blocks and the final norm only; None trains everything."""
    if n_unfrozen is not None:
        if not 0 <= n_unfrozen <= len(model.h):
            raise HoneError(f"{n_unfrozen} blocks to train, but the model has {len(model.h)}", fix="give fewer")
        model.requires_grad_(False)
        for module in [*model.h[len(model.h) - n_unfrozen :], model.ln_f]:
            module.requires_grad_(True)


@torch.no_grad()
def complete(model: GPT2, ids: list[int], n_tokens: int, seed: int = 0) -> list[int]:
    """Sample a continuation. Each token costs a pass over all before it: this model keeps no cache."""
    settings, draws = GenerateSection(temperature=0.8, top_p=0.95), random.Random(seed)
    for _ in range(n_tokens):
        logits = model(torch.tensor([ids[-model.config.n_ctx :]]))[:, -1]  # (1, V)
        ids = [*ids, *next_tokens(logits, settings, [draws])]
    return ids


def train(
    model_folder: Path,
    train_file: Path,
    output: Path,
    *,
    epochs: int = 3,
    learning_rate: float = 5e-5,
    batch_size: int = 8,
    max_length: int = 256,
    unfrozen: int | None = None,
    max_grad_norm: float = 1.0,
    seed: int = 42,
) -> list[float]:
    """Fine-tune, save a model folder, and return the loss of each step."""
    model = load_gpt2(model_folder)
    max_length = min(max_length, model.config.n_ctx)  # the model knows no further positions
    settings = {"model_name_or_path": str(model_folder), "train_file": str(train_file), "max_length": max_length}
    data = hone.prepare(hone.load_config(settings))
    freeze_below(model, unfrozen)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    print(f"{sum(p.numel() for p in trained):,} of {sum(p.numel() for p in model.parameters()):,} parameters train")

    batches = EpochBatches(len(data.train), batch_size, seed)
    n_steps = epochs * len(batches)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)  # straight down to 0

    losses: list[float] = []
    print(f"before: validation loss {evaluate(model, data.validation):.4f}")
    for epoch in range(epochs):
        batches.set_epoch(epoch)  # another order, of the seed and the epoch alone
        for indices in batches:
            nll, n_tokens = sum_and_count(model, padded([data.train[i] for i in indices], pad_token_id=0))
            loss = nll / n_tokens
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        validation = evaluate(model, data.validation)
        perplexity = math.exp(validation)
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}, validation {validation:.4f}, perplexity {perplexity:.2f}")

    tokenizer = load_tokenizer(model_folder)
    save_gpt2(model, output, end_id=tokenizer.eos_token_id)
    save_tokenizer(tokenizer, output)
    prompt = data.train[0]["input_ids"][:8].tolist()
    print(f"saved {output}\n{tokenizer.decode(complete(model, prompt, 24))}")
    return losses


def parser() -> argparse.ArgumentParser:
    """The command line; docs/files/plain-loop.md lists it."""
    found = argparse.ArgumentParser(description="Fine-tune a GPT-2 in a plain PyTorch loop.")
    found.add_argument("model_folder", type=Path, metavar="MODEL_FOLDER", help="a GPT-2 as transformers saves it")
    found.add_argument(
        "train_file", type=Path, metavar="TRAIN_FILE", help="rows, as hone reads them; a part is held out"
    )
    found.add_argument("--output", type=Path, default=Path("out/plain-loop"), help="the model folder to write")
    found.add_argument("--epochs", type=int, default=3, help="how often every row is read")
    found.add_argument("--learning-rate", type=float, default=5e-5, help="of the first step; it falls straight to 0")
    found.add_argument("--batch-size", type=int, default=8, help="rows a step")
    found.add_argument("--max-length", type=int, default=256, help="tokens a row at most")
    found.add_argument("--unfrozen", type=int, help="how many of the top blocks train; default all of the model")
    found.add_argument("--seed", type=int, default=42, help="of the order of the rows")
    return found


def main() -> None:
    try:
        train(**vars(parser().parse_args()))
    except HoneError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
