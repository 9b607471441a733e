"""Which models are served: base and tuned that differ, adapters over one base, and what is refused before the start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from serving import serving

import hone
from hone.data.tokenizer import save_tokenizer
from hone.errors import HoneError
from hone.inference.base import share_weights
from hone.serve.models import served_models

pytest_plugins = ["serving", "talking"]


@pytest.fixture
def make_adapter(tmp_path: Path, tiny_model: Callable[..., Any], tokenizer: Any) -> Callable[..., Path]:
    """make_adapter("a", seed=1) -> a run folder with an adapter over tmp_path/base, as PEFT saves it."""
    from peft import LoraConfig, get_peft_model

    def make(name: str, seed: int, base: str = "base", base_seed: int = 0) -> Path:
        if not (tmp_path / base).is_dir():
            tiny_model("llama", seed=base_seed).save_pretrained(tmp_path / base)
            save_tokenizer(tokenizer, tmp_path / base)
        model = hone.load(str(tmp_path / base))[0]
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
        draws = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_B" in parameter_name and seed:
                    parameter.normal_(generator=draws)
        adapted.save_pretrained(tmp_path / name)
        save_tokenizer(tokenizer, tmp_path / name)
        (tmp_path / name / "template.json").write_text('{"template": "plain"}')
        return tmp_path / name

    return make


def tensors(model: Any) -> set[int]:
    return {parameter.data_ptr() for parameter in model.parameters()}


def test_adapters_share_their_base_and_answer_as_themselves(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    a, b = make_adapter("a", 1), make_adapter("b", 2)
    base, *adapters = served_models(str(tmp_path / "base"), [("a", str(a)), ("b", str(b))], {}, None)
    own = {name: len([n for n, _ in one.model.named_parameters() if "lora_" in n]) for name, one in zip("ab", adapters)}
    for one in adapters:
        assert tensors(base.model) <= tensors(one.model), "the base is in memory once"
        assert len(tensors(one.model) - tensors(base.model)) == own[one.name]
    with serving(tmp_path / "base", adapters=[("a", str(a)), ("b", str(b))]) as client:
        found = {name: client.complete("def add(", model=name, max_tokens=12) for name in ("base", "a", "b")}
        assert len({one["system_fingerprint"] for one in found.values()}) == 3
        for name, one in found.items():
            expected = hone.generate(str(tmp_path / name), "def add(", max_new_tokens=12, template="plain")
            assert one["choices"][0]["text"] == (expected if isinstance(expected, str) else expected[0])
        listed = {one["id"]: one for one in client.get("/v1/models")["data"]}
        assert listed["a"]["weights_sha256"] == listed["base"]["weights_sha256"] and listed["a"]["adapter_sha256"]


def test_a_lora_run_brings_its_base(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    base, tuned = served_models(str(make_adapter("a", 1)), [], {}, None)
    assert (base.name, tuned.name, base.folder) == ("base", "tuned", str(tmp_path / "base"))
    assert tensors(base.model) <= tensors(tuned.model)
    assert [one.name for one in served_models(str(tmp_path / "a"), [], {}, None, with_base=False)] == ["tuned"]


def test_an_adapter_of_another_base_is_refused(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    make_adapter("a", 1)
    other = make_adapter("b", 1, base="other", base_seed=5)
    with pytest.raises(HoneError, match=r"trained over .*other.*weights differ") as found:
        served_models(str(tmp_path / "base"), [("b", str(other))], {}, None)
    assert f"hone serve {tmp_path / 'other'} --adapter NAME={other}" in str(found.value)
    for pairs, word in (
        ([("a", str(tmp_path / "base"))], "not an adapter"),
        ([("base", str(tmp_path / "a"))], "two models are named"),
        ([("x", str(tmp_path / "none"))], "none"),
    ):
        with pytest.raises(HoneError, match=word):
            served_models(str(tmp_path / "base"), pairs, {}, None)
    with pytest.raises(HoneError, match="name its base first"):
        served_models(str(tmp_path / "a"), [("x", str(tmp_path / "a"))], {}, None)


def test_base_and_tuned_that_are_one_model_are_refused(
    make_run: Callable[..., Path], make_adapter: Callable[..., Path]
) -> None:
    """A training that changed nothing, and an adapter that adds nothing."""
    for run in (make_run("plain", seed=0), make_adapter("untrained", 0)):
        with pytest.raises(HoneError, match="'base' and 'tuned' give the same scores"):
            served_models(str(run), [], {}, None)


def test_missing_bases_and_runs_without_one(make_run: Callable[..., Path]) -> None:
    run = make_run("plain")
    shutil.rmtree(run.parent / "base")
    with pytest.raises(HoneError, match="base of this run does not load") as found:
        served_models(str(run), [], {}, None)
    assert "--no-base" in str(found.value)
    assert len(served_models(str(run), [], {}, None, with_base=False)) == 1
    (run / "config.resolved.yaml").write_text("model_type: gpt2\ntokenizer_name_or_path: hone-base\ntrain_file: y\n")
    assert [one.name for one in served_models(str(run), [], {}, None)] == ["tuned"], "it began with nothing"


def test_one_model(make_run: Callable[..., Path]) -> None:
    folder = make_run("chat").parent / "base"
    (one,) = served_models(str(folder), [], {"temperature": 0.5}, None)
    assert (one.name, one.aliases, one.template) == ("base", ("default",), "chat")
    assert one.settings.temperature == 0.5
    plain = served_models(str(folder), [], {}, "plain")[0]
    assert plain.fingerprint != one.fingerprint, "the template is part of what answers"
    with pytest.raises(HoneError, match="no such"):
        served_models(str(folder / "none"), [], {}, None)
    plain_folder = make_run("plain").parent / "base"
    with pytest.raises(HoneError, match="no chat template"):
        served_models(str(plain_folder), [], {}, "chat")


def test_sharing_takes_only_what_is_the_same(tiny_model: Callable[..., Any]) -> None:
    kept, other = tiny_model("gpt2"), tiny_model("gpt2")
    with torch.no_grad():
        other.transformer.h[1].mlp.c_fc.bias[3] += 1e-6
    assert share_weights(kept, other) == ["transformer.h.1.mlp.c_fc.bias"]
    assert len(tensors(other) - tensors(kept)) == 1


def test_the_fingerprint_is_of_the_content(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("plain")
    copied = tmp_path / "copy"
    shutil.copytree(run, copied)
    prints = [served_models(str(one), [], {}, None, with_base=False)[0].fingerprint for one in (run, copied)]
    assert prints[0] == prints[1], "another place, the same model"
    (copied / "template.json").write_text(json.dumps({"template": "instruction"}))
    assert served_models(str(copied), [], {}, None, with_base=False)[0].fingerprint != prints[0]
