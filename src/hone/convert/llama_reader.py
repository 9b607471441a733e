"""llama.cpp reads a GGUF file and answers questions about it: a process of its own, for it ends itself on some files.

Run as `python -m hone.convert.llama_reader FILE N_CTX N_THREADS`. A question is a line of JSON, an answer a line of
JSON, followed by raw float32 values where it says how many.

>>> with open_reader(Path("my-f16.gguf"), 512) as reader:                 # doctest: +SKIP
...     reader.ids(["def f():"], special=False)
[[262, 277, 7]]
"""

import ctypes
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from hone.errors import HoneError

PACKAGE = "llama_cpp"
Said = Mapping[str, Any]  # a question or an answer


def installed() -> bool:
    """Is llama-cpp-python there?"""
    return importlib.util.find_spec(PACKAGE) is not None


class Reader:
    """A GGUF file that llama.cpp has loaded, in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self._process, self._log = process, log
        self.about: Said = self._answer()

    def ids(self, texts: list[str], *, special: bool) -> list[list[int]]:
        """Ids of texts, nothing added. special: parse special tokens that are spelled out in them."""
        found: list[list[int]] = self._ask({"do": "ids", "texts": texts, "special": special})["ids"]
        return found

    def texts(self, ids: list[list[int]]) -> list[bytes]:
        """What ids stand for: their pieces, as a program that streams an answer joins them."""
        return [bytes.fromhex(text) for text in self._ask({"do": "texts", "ids": ids})["texts"]]

    def logits(self, ids: list[int]) -> np.ndarray:
        """(len(ids), n_vocab) float32."""
        rows, columns = self._ask({"do": "logits", "ids": ids})["shape"]
        assert self._process.stdout is not None
        raw = self._process.stdout.read(4 * rows * columns)
        if len(raw) < 4 * rows * columns:
            raise self._gone()
        return np.frombuffer(raw, dtype=np.float32).reshape(rows, columns)

    def greedy(self, ids: list[int], n: int, *, ends: bool = False) -> list[int]:
        """The likeliest next token, n times. ends: up to a token that ends an answer in llama.cpp, with it."""
        found: list[int] = self._ask({"do": "greedy", "ids": ids, "n": n, "ends": ends})["ids"]
        return found

    def _ask(self, question: Said) -> Said:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._gone() from error
        return self._answer()

    def _answer(self) -> Said:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        found: Said = json.loads(line)
        return found

    def _gone(self) -> HoneError:
        self._process.wait()
        self._log.seek(0)
        said = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        why = next((line for line in reversed(said) if "error" in line.lower() or "ASSERT" in line), "")
        return HoneError(f"llama.cpp does not read the file: {why or (said or ['it ended without a word'])[-1]}")


@contextmanager
def open_reader(path: Path, n_ctx: int) -> Iterator[Reader]:
    """Load a file for sequences of up to `n_ctx` tokens.

    Raises:
        HoneError: llama.cpp does not load it.
    """
    import torch

    arguments = [str(path), str(n_ctx), str(torch.get_num_threads())]
    command = [sys.executable, "-P", "-m", "hone.convert.llama_reader", *arguments]  # -P: nothing of this folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            yield Reader(process, log)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


# ---- inside the other process ----------------------------------------------------------------------------------------


def serve(path: str, n_ctx: int, n_threads: int) -> None:
    """Answer questions on stdin until it is closed."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints is no answer
    llama_cpp: Any = importlib.import_module(PACKAGE)

    exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False}
    model = llama_cpp.Llama(
        path, n_ctx=n_ctx, n_batch=n_ctx, n_threads=n_threads, logits_all=True, n_gpu_layers=0, verbose=True, **exact
    )
    _say(out, {"n_vocab": model.n_vocab(), "version": llama_cpp.__version__, "n_ctx": model.n_ctx()})
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if question["do"] == "ids":
            found = [model.tokenize(t.encode(), add_bos=False, special=question["special"]) for t in question["texts"]]
            _say(out, {"ids": found})
        elif question["do"] == "texts":
            _say(out, {"texts": [_text(llama_cpp, model, ids).hex() for ids in question["ids"]]})
        elif question["do"] == "logits":
            model.reset()
            model.eval(question["ids"])
            logits = np.ascontiguousarray(model.scores[: len(question["ids"])], dtype=np.float32)
            _say(out, {"shape": logits.shape}, logits.tobytes())
        else:
            _say(out, {"ids": _greedy(llama_cpp, model, question)})


def _say(out: IO[bytes], answer: Said, raw: bytes = b"") -> None:
    out.write(json.dumps(answer).encode() + b"\n" + raw)
    out.flush()


def _text(llama_cpp: Any, model: Any, ids: list[int]) -> bytes:
    """The pieces of ids joined, special tokens spelled out."""
    vocabulary, pieces, room = llama_cpp.llama_model_get_vocab(model.model), [], ctypes.create_string_buffer(1024)
    for token in ids:
        n = llama_cpp.llama_token_to_piece(vocabulary, token, room, 1024, 0, True)
        pieces.append(room.raw[: max(n, 0)])
    return b"".join(pieces)


def _greedy(llama_cpp: Any, model: Any, question: Said) -> list[int]:
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    model.reset()
    model.eval(question["ids"])
    found: list[int] = []
    for _ in range(question["n"]):
        found.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        if question["ends"] and llama_cpp.llama_vocab_is_eog(vocabulary, found[-1]):
            break
        model.eval(found[-1:])
    return found


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
