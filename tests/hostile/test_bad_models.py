"""Models, adapters and checkpoints that are cut off, mixed up or missing; and methods that do not fit the model.

Through the command line: one clear message, exit code 1, nothing half-written.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.errors import Interrupted
from hone.manifest import describe_model

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]

LORA = ("method=lora", "lora_r=2")
OPENAI = Path(__file__).parents[1] / "fixtures" / "openai-gpt2-tiny"


def cut_off(path: Path) -> None:
    """Lose the last bytes, as a full disk or a broken download would."""
    path.write_bytes(path.read_bytes()[:-37])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A finished LoRA run with its base beside it: adapter/, model/, texts.jsonl. Copy it to spoil it."""
    import hone

    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(model_folder, folder / "model")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"x = {i}\n" * 3}) + "\n" for i in range(20)))
    settings = {
        "model_name_or_path": str(folder / "model"),
        "train_file": str(folder / "texts.jsonl"),
        "token_cache_dir": str(folder / "cache"),
        "method": {"method": "lora", "lora_r": 2},
        "max_length": 32,
        "max_steps": 2,
        "save_strategy": "no",
        "sample_prompts": 0,
        "eval_base": False,
        "use_cpu": True,
        "output_dir": str(folder / "adapter"),
    }
    hone.train(hone.load_config(settings))
    return folder


@pytest.fixture
def adapter(trained: Path, project: Path) -> Path:
    """A copy of the adapter in the current folder whose base is a copy of its own, base/, that may be spoiled."""
    shutil.copytree(trained / "adapter", project / "adapter")
    shutil.copytree(trained / "model", project / "base")
    path = project / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(project / "base")}))
    return project / "adapter"


def every_use(hone: Hone) -> list[Any]:
    """What generate, chat and eval say of the adapter."""
    return [
        hone("generate", "adapter", "-p", "x", "--max-new-tokens", "2"),
        hone("chat", "adapter", stdin="x\n"),
        hone("eval", "adapter"),
    ]


# ---- adapters ------------------------------------------------------------------------------------------------------


def test_an_adapter_on_its_base_is_used(adapter: Path, hone: Hone) -> None:
    for result in every_use(hone):
        assert result.exit_code == 0, result.output


def test_a_base_of_the_same_shape_with_other_weights(
    adapter: Path, project: Path, hone: Hone, refused: Refused, tiny_model: Any
) -> None:
    tiny_model("gpt2", seed=1).save_pretrained(project / "base")
    for result in [*every_use(hone), hone("export", "adapter", "--to", "merged", "-o", "merged")]:
        words = "adapter: the adapter was trained on other weights than those of"
        refused(result, words, str(project / "base" / "model.safetensors"), "the same shape", "--base")
    assert not (project / "merged").exists()


def test_a_base_with_another_config_is_named(
    adapter: Path, project: Path, hone: Hone, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped digit of an epsilon, say: the weights are the same, and the answers may not be."""
    about = project / "base" / "config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"layer_norm_epsilon": 1e-2}))
    done = hone("generate", "adapter", "-p", "x", "--max-new-tokens", "2")
    assert done.exit_code == 0 and f"{about}: not the config that the adapter was trained with" in caplog.text


def test_a_base_of_another_shape(adapter: Path, project: Path, hone: Hone, refused: Refused, tiny_model: Any) -> None:
    tiny_model("gpt2", n_embd=64).save_pretrained(project / "base")
    for result in [*every_use(hone), hone("export", "adapter", "--to", "merged", "-o", "merged")]:
        refused(result, "the adapter does not fit", "lora_A", "the base that it was trained on")
    tiny_model("llama").save_pretrained(project / "base")
    for result in [*every_use(hone), hone("export", "adapter", "--to", "merged", "-o", "merged")]:
        refused(result, "adapter: the adapter ", str(project / "base"))
    assert not (project / "merged").exists()


def test_a_base_that_has_gone(adapter: Path, project: Path, hone: Hone, refused: Refused) -> None:
    (project / "base").rename(project / "moved")
    for result in every_use(hone):
        refused(
            result,
            f"adapter_config.json: its base {project / 'base'} is missing",
            "hone export RUN --to merged --base BASE",
        )
    refused(hone("export", "adapter", "--to", "merged"), "the adapter's base does not load", "--base")
    done = hone("export", "adapter", "--to", "merged", "--base", "moved")
    assert done.exit_code == 0, done.output


def test_a_base_whose_weights_are_cut_off(adapter: Path, project: Path, hone: Hone, refused: Refused) -> None:
    """A base that others wrote has no manifest: its own file is named, not the adapter that does not fit it."""
    cut_off(project / "base" / "model.safetensors")
    for result in every_use(hone):
        refused(result, f"{project / 'base' / 'model.safetensors'}: the base's weights are damaged", "copy it again")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "base.json"])
def test_a_cut_off_adapter(adapter: Path, project: Path, hone: Hone, refused: Refused, name: str) -> None:
    cut_off(adapter / name)
    for result in [*every_use(hone), hone("export", "adapter", "--to", "merged", "-o", "merged")]:
        refused(result, f"adapter/{name}: ", "copy")
    assert not (project / "merged").exists()


def test_an_adapter_without_weights_or_base(adapter: Path, hone: Hone, refused: Refused) -> None:
    about = adapter / "adapter_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"base_model_name_or_path": None}))
    refused(hone("generate", "adapter", "-p", "x"), "adapter_config.json: base_model_name_or_path is missing", "copy")
    (adapter / "adapter_model.safetensors").unlink()
    refused(hone("generate", "adapter", "-p", "x"), "the adapter has no weights", "adapter_model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    refused(hone("generate", "adapter", "-p", "x"), "found adapter_model.bin", "pickle is never loaded")


@pytest.mark.parametrize("described", [True, False])
def test_an_adapter_whose_config_has_gone(adapter: Path, hone: Hone, refused: Refused, described: bool) -> None:
    if described:
        describe_model(adapter)
    else:
        (adapter / "manifest.json").unlink(missing_ok=True)
    (adapter / "adapter_config.json").unlink()
    for result in every_use(hone):
        refused(result, "adapter_config.json: missing", "copy it again")


def test_an_adapter_is_no_model_to_train(adapter: Path, project: Path, hone: Hone, refused: Refused) -> None:
    for command in ("train", "plan"):
        message = refused(
            hone(command, "cfg.yaml", "model_name_or_path=./adapter"), "this is an adapter for", "--to merged"
        )
        assert str(project / "base") in message
    assert not (project / "out").exists()


# ---- models and checkpoints ----------------------------------------------------------------------------------------


def test_a_cut_off_model(project: Path, hone: Hone, refused: Refused) -> None:
    cut_off(project / "model/model.safetensors")
    words = ("model: cannot load the model", "damaged or incomplete", "again")
    refused(hone("train", "cfg.yaml"), *words)
    refused(hone("train", "cfg.yaml", *LORA), *words)
    refused(hone("generate", "model", "-p", "x"), *words)
    refused(hone("eval", "model", "cfg.yaml"), *words)
    assert not (project / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_cut_off_checkpoint_is_named_and_the_one_before_is_as_good(
    project: Path, hone: Hone, refused: Refused, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hone.training.train as story

    command = ("train", "cfg.yaml", f"method={method}", "lora_r=2", "save_strategy=steps", "save_steps=1")
    command += ("max_steps=3", "eval_base=false", "sample_prompts=0", "save_total_limit=9")

    def crash(*_: Any) -> None:
        raise Interrupted("here")

    with monkeypatch.context() as patched:
        patched.setattr(story, "save_model", crash)
        assert hone(*command).exit_code == 130
    weights = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    damages = (("checkpoint-3", weights), ("checkpoint-2", "optimizer.safetensors"))
    for checkpoint, name in damages:
        cut_off(project / "out" / checkpoint / name)
        refused(hone(*command, f"resume_from_checkpoint={project / 'out' / checkpoint}"), name, "is damaged")
    done = hone(*command)
    assert done.exit_code == 0, done.output
    assert "resuming from checkpoint-1" in done.stderr
    for checkpoint, name in damages:
        assert f"{checkpoint}/{name}: " in done.stderr
        assert (project / "out" / f"{checkpoint}.damaged").is_dir()


@pytest.mark.parametrize(
    "name", ["model.ckpt.data-00000-of-00001", "model.ckpt.index", "hparams.json", "encoder.json", "vocab.bpe"]
)
def test_cut_off_files_of_openai(project: Path, hone: Hone, refused: Refused, name: str) -> None:
    shutil.copytree(OPENAI, project / "raw")
    cut_off(project / "raw" / name)
    refused(hone("convert", "raw", "converted"), "raw", name, "again")
    assert not (project / "converted").exists()


# ---- methods that do not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "plan"])
def test_layers_and_modules_that_the_model_does_not_have(
    project: Path, hone: Hone, refused: Refused, command: str
) -> None:
    freeze = (command, "cfg.yaml", "method=freeze")
    refused(hone(*freeze, "num_unfrozen_layers=3"), "num_unfrozen_layers is 3", "2 blocks (transformer.h)", "2 or less")
    refused(hone(*freeze, "num_unfrozen_layers=-1"), "num_unfrozen_layers must be a whole number, at least 0, not -1")
    refused(hone(*freeze, "num_unfrozen_layers=all"), "num_unfrozen_layers must be a whole number", "'all'")
    lora = (command, "cfg.yaml", *LORA)
    names = "c_attn, c_fc, c_proj"
    refused(hone(*lora, "lora_target_modules=[c_attn, query]"), "no linear layer 'query'", names, "all-linear")
    refused(hone(*lora, "lora_modules_to_save=[head]"), "no module 'head'", "lm_head", "wte")
    refused(hone(*lora, "lora_layers_to_transform=[0, 2]"), "there is no layer 2", "from 0 to 1")
    assert not (project / "out").exists()


# ---- prompts -------------------------------------------------------------------------------------------------------


def test_prompts_that_are_empty_or_longer_than_the_window(project: Path, hone: Hone, refused: Refused) -> None:
    def answers(*arguments: str) -> Any:
        return hone("generate", "model", *arguments, "--max-new-tokens", "2")

    empty = answers("-p", "")
    assert empty.exit_code == 0 and "Traceback" not in empty.output, "the model writes from nothing"
    refused(answers("-p", "word " * 400), "the prompt has ", "window 256", "shorten the prompt")
    rows = [{"prompt": "x"}, {"prompt": ""}, {"prompt": "word " * 400}]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(answers("--prompts", "rows.jsonl"), "rows.jsonl:3: the prompt has", "window 256")
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    done = answers("--prompts", "rows.jsonl", "--json")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["x", ""]
    (project / "none.txt").write_text("\n\n")
    refused(answers("--prompts", "none.txt"), "none.txt: no prompts", "one prompt a line")
    said = hone("chat", "model", "--max-new-tokens", "2", stdin="word " * 400 + "\nx\n")
    assert said.exit_code == 0 and "Traceback" not in said.output
    assert "window 256" in said.stderr, "a message that is too long is said, and the talk goes on"
