"""What frozen blocks made once against running them again: the same losses, gradients and trained weights (float32)."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_batching import make_items

import hone
from hone.accelerations.attach import Options, attach
from hone.accelerations.frozen_cache import FrozenCache, cache_place, frozen_bottom, numbered
from hone.config.sections.speed import SpeedKeys
from hone.data.batches import filled, flat
from hone.loss import causal_lm_loss
from hone.models.freeze import freeze


class Examples:
    """As much of a TokenDataset as the cache asks for."""

    def __init__(self, items: list[dict[str, np.ndarray]]) -> None:
        self.items = items
        self.lengths = np.array([len(item["input_ids"]) for item in items])
        self.n_tokens = int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return dict(self.items[index])


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    names = ("input_ids", "position_ids")
    loss = causal_lm_loss(model(**{n: batch[n] for n in names}, use_cache=False).logits, batch["labels"])
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "mistral", "gpt_neox"])
def test_the_second_pass_equals_the_first(architecture: str, tiny_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model(architecture).train()
    freeze(model, num_unfrozen_layers=1, unfreeze_embeddings=False, unfreeze_head=False)
    data: Any = Examples(make_items(len(tokenizer), [5, 9, 3, 7]))
    cache = FrozenCache(model, data, cache_place(model, data, tmp_path, torch.float32), torch.float32)
    assert cache.cut == 1 and cache.difference(model, data, 1e-5) is None
    assert not cache.known.any(), "a check leaves nothing behind"
    starts = np.cumsum(data.lengths) - data.lengths
    items = [{**data[i], "cache_start": starts[i]} for i in range(4)]
    collate = functools.partial(flat, size=filled)
    first, mixed, again = items[:2], [items[1], items[2], items[3]], [items[3], items[0]]  # known in part, then all
    calls: list[str] = []
    handle = cache.stack[0].register_forward_pre_hook(lambda *_: calls.append("run"))
    mlp = next(m for n, m in cache.stack[0].named_modules() if n.endswith("mlp"))
    inner: list[str] = []
    mlp.register_forward_pre_hook(lambda *_: inner.append("run"))
    for expected_runs, chosen in ((1, first), (2, mixed), (2, again)):
        batch = numbered(chosen, collate)
        assert batch["input_ids"].shape[1] % 8 == 0
        before = len(inner)
        want = loss_and_gradients(model, batch)
        del inner[before:]
        with cache.at(batch["cache_rows"]):
            got = loss_and_gradients(model, batch)
        assert len(inner) == expected_runs
        torch.testing.assert_close(got[0], want[0], atol=1e-6, rtol=1e-6)
        assert got[1].keys() == want[1].keys()
        for name in want[1]:
            torch.testing.assert_close(got[1][name], want[1][name], atol=1e-6, rtol=1e-5, msg=name)
    handle.remove()
    assert cache.known.all()


@pytest.fixture
def settings(model_folder: Path, write_rows: Any, tmp_path: Path) -> dict[str, Any]:
    rows = [{"prompt": f"def f{i}(x):", "completion": f" return x + {i}"} for i in range(24)]
    return {
        "model_name_or_path": str(model_folder), "train_file": str(write_rows("rows.jsonl", rows)), "use_cpu": True,
        "token_cache_dir": str(tmp_path / "tokens"), "method": "freeze", "num_unfrozen_layers": 1,
        "num_train_epochs": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "logging_steps": 1,
        "learning_rate": 1e-2, "save_strategy": "no", "eval_base": False, "eval_strategy": "no", "sample_prompts": 0,
        "max_length": 64,
    }  # fmt: skip


def trained(settings: dict[str, Any], out: Path, **more: Any) -> tuple[list[float], dict[str, torch.Tensor], str]:
    run = hone.train(hone.load_config({**settings, **more, "output_dir": str(out)}))
    losses = [line["loss"] for line in run.metric_lines() if "loss" in line]
    return losses, load_file(out / "model.safetensors"), (out / "train.log").read_text()


@pytest.mark.slow
def test_training_ends_with_the_same_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    losses, weights, log = trained(settings, tmp_path / "cached")
    assert "0 % there already" in log
    plain_losses, plain, log = trained(settings, tmp_path / "plain", prefix_cache_gb=0)
    assert "frozen cache" not in log
    assert losses == pytest.approx(plain_losses, abs=1e-5) and len(losses) == 9
    for name in plain:
        torch.testing.assert_close(weights[name], plain[name], atol=1e-5, rtol=1e-5, msg=name)
    # another seed finds what the first run left
    assert "100 % there already" in trained(settings, tmp_path / "seed", seed=7, learning_rate=1e-3)[2]
    # other frozen weights, or other rows, do not
    assert "0 % there already" in trained(settings, tmp_path / "rows", max_length=9)[2]


@pytest.mark.slow
def test_lora_on_the_top_layer(settings: dict[str, Any], tmp_path: Path) -> None:
    lora = {"method": "lora", "num_unfrozen_layers": None, "lora_layers_to_transform": [1], "lora_r": 4}
    settings = {k: v for k, v in {**settings, **lora}.items() if v is not None}
    runs = []
    for name, gigabytes in (("cached", 1), ("plain", 0)):
        run = hone.train(
            hone.load_config({**settings, "prefix_cache_gb": gigabytes, "output_dir": str(tmp_path / name)})
        )
        assert ("frozen cache: the 1 frozen blocks" in (run.folder / "train.log").read_text()) is bool(gigabytes)
        runs.append([line["loss"] for line in run.metric_lines() if "loss" in line])
    assert runs[0] == pytest.approx(runs[1], abs=1e-5)


def test_where_it_does_not_apply(tiny_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    data: Any = Examples(make_items(len(tokenizer), [5, 9]))
    whole = tiny_model("gpt2")
    assert frozen_bottom(whole) is None, "everything trains"
    dropout = tiny_model("gpt2", resid_pdrop=0.1)
    embeddings = tiny_model("gpt2")
    for model, trains in ((dropout, False), (embeddings, True)):
        freeze(model, num_unfrozen_layers=1, unfreeze_embeddings=trains, unfreeze_head=trains)
        assert frozen_bottom(model) is None
    frozen = tiny_model("gpt2")
    freeze(frozen, num_unfrozen_layers=1, unfreeze_embeddings=False, unfreeze_head=False)

    def attached(gigabytes: float = 1.0, several_epochs: bool = True) -> Any:
        speed = SpeedKeys(prefix_cache_gb=gigabytes, keep_freed_memory=False)
        folder = tmp_path / "prefix"
        return attach(frozen, data, Options(speed, "cpu", 64, cache_folder=folder, several_epochs=several_epochs))

    for options, reason in (((1e-7,), "more than prefix_cache_gb"), ((1.0, False), "each token is seen once")):
        found = attached(*options)
        assert found.cache is None
        assert any(note.startswith("no frozen cache") and reason in note for note in found.notes), found.notes
    assert not (tmp_path / "prefix").exists()
    found = attached()
    assert found.cache is not None and not found.cache.place.folder.exists(), "nothing is published before all is known"
    found.cache.known[:] = True
    found.cache.close()
    assert attached(several_epochs=False).cache is not None, "one epoch uses what is there"
