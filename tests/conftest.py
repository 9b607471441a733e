"""What all tests share: no network, a private token cache, a tiny tokenizer and tiny random models made on the spot."""

import gc
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of huggingface_hub
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models gain nothing from threads, and threads that wait for each other crawl on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # and where a test asks for some, they sleep, as those of `hone` do
os.environ["HONE_NATIVE"] = "0"  # each test has a cache of its own, and would compile the kernel again

import pytest


def sync_nothing(fd: int) -> None:
    """A test's folder need not outlive a power cut, and a tiny run waits for the disk as long as it computes.

    What is synced, and when, is tested by calls (`test_checkpoint_files.py`) and in processes (benchmarks/faults).
    """
    os.fstat(fd)  # a closed file is an error here too


os.fsync = sync_nothing  # type: ignore[assignment]

TESTS = Path(__file__).resolve().parent
BASE_MODEL = TESTS.parent / "base_model"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

LONGEST = ["docs/test_labs.py", "python/test_notebooks.py", "faults/test_faults.py", "docs/test_blocks.py"]


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported meanwhile is no garbage: looking for it takes a fifth of the time, now and in each run later."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: begun at the end, one of them would keep a single process busy for minutes."""
    place = {str(TESTS / name): number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(str(item.path), len(place)))


SIGNALS = pytest.mark.skipif(os.name != "posix", reason="Windows ends a process without a signal it could handle")

CORPUS = [
    "def add(a, b):\n    return a + b\n",
    "def is_even(n):\n    '''True for even n.'''\n    return n % 2 == 0\n",
    "for i in range(10):\n    print(i, 'squared is', i * i)\n",
    "### Instruction:\nAdd the numbers.\n\n### Response:\nThe sum is 3.\n",
    'The quick brown fox jumps over the lazy dog; 0123456789 times, she said: "why?"\n',
] * 4


def load_script(path: Path) -> ModuleType:
    """A script outside the package, imported from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "hone-cache"))


DRAWS = "report"  # where reports have their curves


@pytest.fixture(autouse=True)
def _few_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere a run's report has tables, as without matplotlib: its curves are a third of the time of a tiny run."""
    if request.path.relative_to(TESTS).parts[0] != DRAWS:
        monkeypatch.setattr("hone.report.figures.drawable", lambda: False)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE of 400 tokens; end token <|endoftext|>."""
    from hone.data.tokenizer import train_bpe

    return train_bpe(CORPUS, vocab_size=400)


@pytest.fixture(scope="session")
def tiny_model(tokenizer: Any) -> Callable[..., Any]:
    """tiny_model("llama") -> a random two-layer model of that type, without dropout, weights a function of the seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {
        "gpt2": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 256},
        "gpt_neox": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "opt": {"hidden_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 32, "num_hidden_layers": 2,
                "num_attention_heads": 2, "pad_token_id": 0},
    }  # fmt: skip
    llama_like = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}  # fmt: skip
    dropouts = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "hidden_dropout")

    def build(model_type: str = "gpt2", seed: int = 0, **overrides: Any) -> Any:
        options = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 0}
        options |= dict.fromkeys(dropouts, 0.0) | small.get(model_type, llama_like) | overrides
        if model_type == "gpt2":
            del options["max_position_embeddings"]
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **options))
        with torch.no_grad():  # larger weights than the usual initialisation, so that a wrong attention shows
            for parameter in model.parameters():
                parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, tiny_model: Callable[..., Any]) -> Path:
    """A tiny GPT-2 with its tokenizer, as a model folder. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("model") / "tiny-gpt2"
    tiny_model("gpt2").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    import hone.training.train  # noqa: F401  (and with it whatever a run imports)

    gc.freeze()  # a run collects garbage twice; looking through the libraries' objects each time costs a second
    return folder


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the decoding kernel is compiled once, by the first test that has it for its own."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def compiled_kernel(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The bundled model decodes as it does for users: by the compiled kernel, where there is a compiler."""
    from hone.inference import native

    native._library.cache_clear()
    with monkeypatch.context() as patched:
        patched.setenv("HONE_NATIVE", "1")
        patched.setenv("HONE_CACHE", str(kernels))
        native._library()
    yield
    native._library.cache_clear()


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """write_rows("train.jsonl", [{...}]) -> the path of the written file."""

    def write(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def strict_sandbox() -> Iterator[Any]:
    """A sandbox for programs, checked once. Skips where the machine allows none; fails where one is there and leaks."""
    from hone.grading.sandbox import IsolationError
    from hone.grading.sandbox.selftest import ready

    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(ready("strict"))
        except IsolationError as error:
            if "a program in the sandbox could" in str(error) or "a known program got" in str(error):
                raise
            pytest.skip(f"no isolation here: {error.what}")
        yield sandbox


@pytest.fixture(params=["strict", "none"])
def any_sandbox(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both kinds of sandbox; `none` is there wherever there are process groups."""
    from hone.grading.sandbox.isolation import open_sandbox

    if request.param == "strict":
        yield request.getfixturevalue("strict_sandbox")
    else:
        if os.name != "posix":
            pytest.skip("programs are run on Linux and macOS only")
        with open_sandbox("none") as sandbox:
            yield sandbox


def sigterm_at(step: int) -> Any:
    """A callback that ends the training as a job is ended, within the step after `step`."""
    from transformers import TrainerCallback

    class Sigterm(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

    return Sigterm()


def pairs(n: int) -> list[dict[str, Any]]:
    """n prompt/completion rows of uneven length, all different."""
    return [
        {
            "prompt": f"add {i} and {i * 7 % 13}:" + " please" * (i % 4),
            "completion": f" {i + i * 7 % 13}" + "!" * (i % 9),
        }
        for i in range(n)
    ]


@pytest.fixture(autouse=True)
def _float32_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bf16: null` means float32 here: equalities are stated for it, and must not depend on the processor."""
    monkeypatch.setattr("hone.accelerations.precision.bf16_pays", lambda device, folder: False)
