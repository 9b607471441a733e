"""State without pickles: what goes in comes out, of the same types, and nothing else goes in."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hone.errors import HoneError
from hone.training.checkpoint import saved_bytes
from hone.training.state import generators, read_state, set_generators, write_state


def test_everything_that_an_optimizer_may_keep_comes_back(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    value: dict[Any, Any] = {
        "none": None,
        "numbers": [True, 3, 2.5, -0.0, 1e300],
        "words": ("a", "\u00e9", ""),
        7: {"nested": [(), [], {}]},
        "numpy": np.float32(1.5),
        "array": np.arange(4, dtype=np.int64),
        "turned": tensor.T,
        "twice": [tensor, tensor],
        "empty": [torch.zeros(0), torch.zeros(0, dtype=torch.int64)],
        "dtypes": [torch.bfloat16, torch.float32],
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    write_state(tmp_path, "optimizer", value)
    found = read_state(tmp_path, "optimizer")
    assert list(found) == list(value)
    for name in ("none", "numbers", "words", 7, "dtypes"):
        assert found[name] == value[name] and type(found[name]) is type(value[name])
    assert found["numpy"] == 1.5 and type(found["numpy"]) is float
    assert isinstance(found["array"], np.ndarray) and found["array"].tolist() == [0, 1, 2, 3]
    assert torch.equal(found["turned"], tensor.T) and torch.equal(found["half"], value["half"])
    assert found["half"].dtype == torch.bfloat16
    assert found["twice"][0] is found["twice"][1], "a tensor that is there twice is written once"
    assert [part.dtype for part in found["empty"]] == [torch.float32, torch.int64]


def test_what_only_a_pickle_could_hold_is_refused(tmp_path: Path) -> None:
    for value in ({1, 2}, b"bytes", object(), {"a": [print]}):
        with pytest.raises(TypeError, match="cannot be saved without a pickle"):
            write_state(tmp_path, "optimizer", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "{", '{"tensor": "9"}', '{"nothere": []}', '{"dtype": "nothere"}', '{"dict": 3}', "{}"]
)
def test_a_damaged_structure_is_named(text: str, tmp_path: Path) -> None:
    write_state(tmp_path, "optimizer", {"a": torch.ones(2)})
    (tmp_path / "optimizer.json").write_text(text)
    with pytest.raises(HoneError, match="optimizer"):
        read_state(tmp_path, "optimizer")


def test_generators_go_back(tmp_path: Path) -> None:
    device = torch.device("cpu")
    write_state(tmp_path, "random", generators(device))
    drawn = (random.random(), np.random.rand(), torch.rand(1))
    set_generators(read_state(tmp_path, "random"), device)
    assert (random.random(), np.random.rand(), torch.rand(1)) == drawn


def test_generators_of_a_device_go_back_there_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of the test's own, whose generator is one number: of no use on a CPU, nor the reverse."""
    kept: list[torch.Tensor] = [torch.tensor([7], dtype=torch.uint8)]
    module = SimpleNamespace(get_rng_state=lambda: kept[-1], set_rng_state=kept.append)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    device, cpu = torch.device("meta"), torch.device("cpu")
    write_state(tmp_path, "random-0", generators(device))
    states = read_state(tmp_path, "random-0")
    kept.append(torch.tensor([8], dtype=torch.uint8))
    set_generators(states, cpu)
    set_generators(generators(cpu), device)
    assert int(kept[-1]) == 8
    set_generators(states, device)
    assert int(kept[-1]) == 7


def test_bytes_of_a_checkpoint(tiny_model: Callable[..., Any]) -> None:
    """All weights and the optimizer's tensors; of an adapter, what trains."""
    model = tiny_model("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    n_weights = 4 * sum(p.numel() for p in model.parameters())
    assert saved_bytes(model, optimizer) == n_weights
    model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long)).loss.backward()
    optimizer.step()
    steps = 4 * len(list(model.parameters()))
    optimizer.state[next(model.parameters())]["count"] = 3  # some keep plain numbers, too
    assert saved_bytes(model, optimizer) == 3 * n_weights + steps
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.transformer.wte.weight.requires_grad = True
    assert saved_bytes(model, torch.optim.SGD([model.transformer.wte.weight])) == n_weights
    model.peft_config = {}
    assert (
        saved_bytes(model, torch.optim.SGD([model.transformer.wte.weight])) == 4 * model.transformer.wte.weight.numel()
    )
