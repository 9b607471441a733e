"""The base model's corpus: what is read, what is refused, what is dropped, and that held-out text stays out."""

import json
import random
import re
import sys
import zipfile
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest
import torch

from conftest import BASE_MODEL, load_script
from hone.errors import HoneError


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    return load_script(BASE_MODEL / "base_corpus.py")


def program(seed: int, functions: int = 12) -> str:
    """A file of functions that share no passage with those of another seed."""
    rng = random.Random(seed)
    return "\n\n".join(
        f'def f{rng.randrange(10**9)}(x{rng.randrange(10**6)}):\n    """Return {rng.randrange(10**9)} of it."""\n'
        f"    y{rng.randrange(10**6)} = {rng.randrange(10**9)}\n    return {rng.randrange(10**9)}\n"
        for _ in range(functions)
    )


def make_wheel(folder: Path, name: str, about: str, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n{about}\n")
        for path, text in files.items():
            archive.writestr(path, text)


def metadata(text: str) -> Message:
    import email

    return email.message_from_string(f"Name: it\n{text}\n")


@pytest.mark.parametrize(
    "about",
    [
        "License-Expression: MIT",
        "License-Expression: Apache-2.0 AND (BSD-3-Clause OR GPL-2.0-only)",
        "Classifier: License :: OSI Approved :: BSD License",
        "Classifier: License :: OSI Approved :: Python Software Foundation License",
        "Classifier: License :: OSI Approved\nLicense: Apache 2.0",
        "License: new BSD License",
    ],
)
def test_permissive_licences_are_taken(corpus: ModuleType, about: str) -> None:
    assert corpus.licence(metadata(about))


@pytest.mark.parametrize(
    "about",
    [
        "",
        "License-Expression: GPL-3.0-only",
        "License-Expression: MIT AND LGPL-2.1-or-later",
        "License-Expression: LicenseRef-BSD-derived",
        "Classifier: License :: OSI Approved :: BSD License\nClassifier: License :: OSI Approved :: "
        "GNU General Public License (GPL)",
        "Classifier: License :: Other/Proprietary License\nLicense: MIT",
        "License: Proprietary",
        "License: Mitre's own",
    ],
)
def test_other_licences_are_refused(corpus: ModuleType, about: str) -> None:
    with pytest.raises(HoneError, match="permissive"):
        corpus.licence(metadata(about))


CODE = "def f(x):\n    return x + 1\n" * 10


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("a/tests/x.py", CODE, "test"),
        ("a/test_x.py", CODE, "test"),
        ("a/_vendor/x.py", CODE, "vendored"),
        ("a/x.py", "import os\n", "short"),
        ("a/x.py", "# This file was automatically generated.\n" + CODE, "generated"),
        ("a/x.py", f"x = '{'y' * 1200}'\n" + CODE, "long lines"),
        ("a/x.py", "# " + "ü" * 30 + "\n" + CODE, "not English"),
        ("a/x.py", CODE + "print 'no'\n", "does not parse"),
        ("a/x.py", "x = [\n" + "    1,\n" * 200 + "]\n" + CODE, "table or demo"),
        ("a/attest/vendors.py", CODE, None),
    ],
)
def test_what_is_left_out(corpus: ModuleType, path: str, text: str, reason: str | None) -> None:
    assert corpus.unfit(path, text) == reason


def test_addresses_and_keys_are_masked_and_code_is_not(corpus: ModuleType) -> None:
    token = "a1" * 25
    text = f'mail = "jane.doe+x@mail.site.org"\nkey = "{token}"\nghp_{"A1b2" * 10}\nproduct = A@B.T @ x\n@app.route\n'
    kept = corpus.masked(text)
    assert "jane" not in kept and "site" not in kept and token not in kept and "A1b2" not in kept
    assert "product = A@B.T @ x\n@app.route\n" in kept
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"
    assert corpus.masked(f"x = '''{block}'''") == "x = '''SECRET'''"
    assert corpus.masked("to = 'a@example.com'") == "to = 'a@example.com'"


def test_a_notice_goes_and_another_comment_stays(corpus: ModuleType) -> None:
    assert corpus.without_notice("#!/usr/bin/python\n#\n# Copyright me\n\n\nimport os\n# Licence\n") == (
        "import os\n# Licence\n"
    )
    assert corpus.without_notice("# Numbers.\nimport os\n") == "# Numbers.\nimport os\n"


def test_copies_go_and_held_out_passages_go_from_training(corpus: ModuleType) -> None:
    train, held = corpus.Package("t", "1", "MIT"), corpus.Package("h", "1", "MIT", held_out=True)
    first = program(1, 40)
    touched = first.replace("return", "return 1 +", 2)  # near, not equal
    reindented = first.replace("    ", "\t")
    quoting = program(2, 40) + "\n\n" + "\n\n".join(program(3, 40).split("\n\n")[10:18])
    documents = [
        corpus.Document(held, "held", program(3, 40)),
        corpus.Document(train, "first", first),
        corpus.Document(train, "near", touched),
        corpus.Document(train, "copy", reindented),
        corpus.Document(train, "quoting", quoting),
        corpus.Document(train, "other", program(4, 40)),
    ]
    assert [document.path for document in corpus.without_copies(documents)] == ["held", "first", "other"]
    assert train.dropped == {"near copy": 1, "copy": 1, "held-out passage": 1}


def test_the_sketch_estimates_what_two_texts_share(corpus: ModuleType) -> None:
    """Against the Jaccard index itself; the standard error of 64 hashes is at most 0.063, allowed are three."""
    words = [f"w{i}" for i in range(3000)]
    for shift in (0, 300, 1000, 3000):
        other = words[shift:] + [f"v{i}" for i in range(shift)]
        grams = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (words, other)]
        true = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        found = (corpus.sketch(" ".join(words)) == corpus.sketch(" ".join(other))).mean()
        assert abs(found - true) < 0.19, shift


def test_from_wheels_to_rows(corpus: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path without a network: the wheels are there, so pip is not asked."""
    wheels, mit = tmp_path / "out" / "wheels", "License-Expression: MIT"
    make_wheel(wheels, "one", mit, {"one/a.py": program(1), "one/tests/b.py": program(2), "one/c.txt": "no"})
    make_wheel(wheels, "held_one", mit, {"held_one/a.py": program(3), "held_one/copy.py": program(1)})
    packages = tmp_path / "packages.txt"
    packages.write_text("# a comment\none==1.0\nheld-one==1.0  # held out\n", encoding="utf-8")
    library = tmp_path / "lib"
    (library / "site-packages").mkdir(parents=True)
    bare = "\n\ndef bare(x):\n    y = x + 1\n    return y\n"
    shelf = program(5) + bare + "\n\n@cache\ndef decorated(x):\n    'It.'\n    return x\n"
    (library / "shelf.py").write_text(shelf, encoding="utf-8")
    (library / "site-packages" / "x.py").write_text(program(6), encoding="utf-8")
    monkeypatch.setattr(corpus, "PACKAGES", packages)
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda name: str(library))
    monkeypatch.setattr(sys, "argv", ["base_corpus.py", "--out", str(tmp_path / "out")])
    corpus.main()
    rows = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "held_out", "functions", "last")
    }
    assert [row["path"] for row in rows["train"]] == ["shelf.py"], "one/a.py is a copy of a held-out file"
    assert [row["path"] for row in rows["held_out"]] == ["held_one/a.py", "held_one/copy.py"]
    assert len(rows["functions"]) == 12 and all(row["text"].startswith("def f") for row in rows["functions"])
    assert rows["last"] == [*rows["functions"], *rows["train"]], "the library is plain code, and read in full"
    table = {p["name"]: p for p in json.loads((tmp_path / "out" / "corpus.json").read_text())}
    assert table["one"]["files"] == 0 and table["one"]["dropped"] == {"test": 1, "copy": 1}
    assert table["python"]["n_bytes"] == len(shelf) and not table["python"]["dropped"]
    assert "| held_one 1.0 | MIT | held out | 2 |" in (tmp_path / "out" / "corpus.md").read_text()


def test_the_list_is_pinned_and_holds_five_packages_out(corpus: ModuleType) -> None:
    listed = corpus.read_packages(BASE_MODEL / "base-packages.txt")
    assert all(pin.count("==") == 1 for pin in listed)
    assert sum(listed.values()) == 5


def test_the_recipe_is_a_model_of_at_most_24_mb() -> None:
    """In bfloat16, with the vocabulary of the tokenizer's own default."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from hone.config.load import load_config

    config = load_config(BASE_MODEL / "base.yaml")
    spec = (BASE_MODEL / "base_tokenizer.py").read_text(encoding="utf-8")
    found = re.search(r'"--vocab-size", type=int, default=(\d+)', spec)
    assert found
    vocab_size = int(found[1])
    built = AutoConfig.for_model(config.model.model_type, vocab_size=vocab_size, **config.model.config_overrides)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(built)
    assert 8e6 < model.num_parameters() <= 12e6
    assert config.data.max_length == built.n_positions
