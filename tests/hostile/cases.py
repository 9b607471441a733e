"""Hostile cases as a table: what is written, what is typed, and the words that the one message must have.

Those of models alone need torch. `tests/hostile/test_cases.py` runs and counts them.
"""

import gzip
import json
from dataclasses import dataclass, field

HEAD = "model_name_or_path: ./model\noutput_dir: out\nuse_cpu: true\n"
DEEP = 3000


@dataclass(frozen=True)
class Case:
    """files: name -> content. words: of the message. code: 0 where it is harmless, None where it may be either."""

    name: str
    command: tuple[str, ...]
    words: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    code: int | None = 1


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def rows(name: str, content: str | bytes, *words: str, keys: tuple[str, ...] = (), code: int = 1) -> Case:
    """A file of rows, given to `hone check`."""
    command = ("check", "cfg.yaml", f"train_file={name}", *keys)
    return Case(f"{name} {content[:30]!r} {' '.join(keys)}", command, words or (name,), {name: _bytes(content)}, code)


GOOD = '{"text": "good"}\n'
BAD_LINES: dict[str, tuple[str, ...]] = {
    '{"text": "a"': ("not valid JSON",),
    '{"text": "a"}}': ("not valid JSON",),
    '{"text": "a"} {"text": "b"}': ("not valid JSON",),
    '{"text": "a",}': ("not valid JSON",),
    "{'text': 'a'}": ("not valid JSON",),
    '{text: "a"}': ("not valid JSON",),
    '{"text": "a\tb"}': ("not valid JSON",),
    '{"text": "a"},': ("not valid JSON",),
    '{"text": undefined}': ("not valid JSON",),
    '{"text": 01}': ("not valid JSON",),
    '{"text": "\\x41"}': ("not valid JSON",),
    '{"text": "\\u12"}': ("not valid JSON",),
    '// {"text": "a"}': ("not valid JSON",),
    "[": ("not valid JSON",),
    "[]": ("a list",),
    '["text"]': ("a list",),
    '"text"': ("a string",),
    "3.5": ("a number",),
    "true": ("true or false",),
    "null": ("null",),
    "NaN": ("a number",),
    "{}": ("mixed forms",),
    '{"text": 3}': ("must be text, not int",),
    '{"text": 3.5}': ("must be text, not float",),
    '{"text": true}': ("must be text, not bool",),
    '{"text": NaN}': ("must be text, not float",),
    '{"text": 1e999}': ("must be text, not float",),
    '{"text": []}': ("must be text, not list",),
    '{"text": {}}': ("must be text, not dict",),
    '{"text": "\\ud800"}': ("half a character",),
    '{"text": "a\\udc00b"}': ("half a character", "position 1"),
    '{"TEXT": "a"}': ("mixed forms",),
    '{"text ": "a"}': ("mixed forms",),
    '{"te\\u0000xt": "a"}': ("mixed forms", "\\x00"),
    '{"\\u202etxet": "a"}': ("mixed forms", "\\u202e"),
    '{"text": ' + "[" * DEEP + "]" * DEEP + "}": ("not valid JSON",),
    '{"text": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}": ("not valid JSON",),
    '{"text": ' + "9" * 5000 + "}": ("not valid JSON",),
    '{"text": -' + "9" * 5000 + "}": ("not valid JSON",),
    "\x00": ("not valid JSON",),
    "\x1f\x8b": ("not",),
    "<html>": ("not valid JSON",),
    "version https://git-lfs.github.com/spec/v1": ("not valid JSON",),
}
BAD_BYTES = {
    b'{"text": "\xff"}': ("not UTF-8", "0xff"),
    b'{"text": "\xc3"}': ("not UTF-8",),
    b'{"text": "\xc0\xaf"}': ("not UTF-8", "0xc0"),
    b'{"text": "\xed\xa0\x80"}': ("not UTF-8",),
    b'{"text": "\xf4\x90\x80\x80"}': ("not UTF-8",),
    b'\xef\xbb\xbf{"text": "second mark"}': ("not valid JSON",),
}
LINES = [rows("r.jsonl", f"{GOOD}{line}\n{GOOD}", "r.jsonl:2: ", *words) for line, words in BAD_LINES.items()]
LINES += [rows("r.jsonl", GOOD.encode() + line + b"\n", "r.jsonl:2: ", *words) for line, words in BAD_BYTES.items()]
LINES += [rows("r.ndjson", f"{GOOD}{line}\n", "r.ndjson:2: ") for line in list(BAD_LINES)[:3]]
LINES += [
    rows("r.jsonl", GOOD.encode("utf-16"), "r.jsonl", "not UTF-8"),
    rows("r.jsonl", GOOD.encode("utf-16-le"), "r.jsonl"),
    rows("r.jsonl", "\n\n  \n", "r.jsonl", "no usable rows"),
    rows("r.jsonl", "\x00" * 5000, "r.jsonl:1"),
    rows("r.jsonl", "PK\x03\x04" + "\x00" * 60, "r.jsonl:1"),
    rows("r.jsonl", '{"text": "a", "text": "b"}\n' * 3, code=0),
    rows("r.jsonl", '{"text": "a"}\r\n{"text": "b"}\r\n', code=0),
    rows("r.jsonl", '{"text": "a"}\n\n\n{"text": "b"}', code=0),
    rows("r.jsonl", '{"text": "\\ud83d\\ude00 \\u0000 \\u202e"}\n' * 3, code=0),
    rows("r.jsonl", json.dumps({"text": "a", **{f"c{i}": i for i in range(2000)}}) + "\n", code=0),
]

CONVERSATIONS: dict[str, tuple[str, ...]] = {
    "[]": ("empty list",),
    "{}": ("must be a list",),
    '"hello"': ("must be a list",),
    "[[]]": ("turn 1",),
    '["hi"]': ("turn 1",),
    "[{}]": ("turn 1",),
    '[{"role": "user"}]': ("turn 1",),
    '[{"role": "tool", "content": "x"}]': ("unknown role 'tool'",),
    '[{"role": "User", "content": "x"}]': ("unknown role 'User'",),
    '[{"role": 3, "content": "x"}]': ("unknown role 3",),
    '[{"role": ["user"], "content": "x"}]': ("unknown role",),
    '[{"role": "user", "content": ["x"]}]': ("[0].content", "not list"),
    '[{"role": "user", "content": 3}]': ("[0].content", "not int"),
    '[{"role": "user", "content": "\\ud800"}]': ("half a character",),
    '[{"from": "human", "value": "x"}]': ("turn 1",),
    '[{"role": "\\u001b[2J", "content": "x"}]': ("unknown role",),
}
FORMS = [
    *(rows("m.jsonl", f'{{"messages": {turns}}}\n', "m.jsonl:1", *words) for turns, words in CONVERSATIONS.items()),
    rows("m.jsonl", '{"conversations": [{"from": "bot", "value": "x"}]}\n', "unknown role 'bot'", "gpt"),
    rows("m.jsonl", '{"messages": null}\n', "m.jsonl:1", "must be a list"),
    rows("p.jsonl", '{"prompt": "a"}\n', "p.jsonl:1", "no known form", "prompt+completion"),
    rows("p.jsonl", '{"prompt": 1, "completion": "b"}\n', "p.jsonl:1", "'prompt' must be text"),
    rows("p.jsonl", '{"prompt": "a", "completion": {"b": 1}}\n', "p.jsonl:1", "'completion' must be text"),
    rows("p.jsonl", '{"instruction": "a", "output": "b", "input": 3}\n', "p.jsonl:1", "'input' must be text"),
    rows("p.jsonl", '{"question": "a", "context": "c", "answer": "b"}\n', "no known form", "column_mapping"),
    rows("p.jsonl", '{"a": "1", "b": "2"}\n', "no known form in columns: a, b"),
    rows("p.jsonl", "{" + ", ".join(f'"c{i}": 1' for i in range(40)) + "}\n", "no known form", "40 in all"),
    rows("p.jsonl", GOOD, keys=("column_mapping={text: body}",), code=0),
    rows("p.jsonl", GOOD, "unknown name 'body'", keys=("column_mapping={body: text}",)),
    rows("p.jsonl", '{"text": "a", "label": "x"}\n' * 2, "unknown task", keys=("task=clasify",)),
    *(
        rows("l.jsonl", f'{{"text": "a", "label": "x"}}\n{{"text": "b", "label": {label}}}\n', "l.jsonl:2", "label",
             keys=("task=classification",))
        for label in ("null", "1.5", "[]", "{}", "NaN", "1e999", '""', '" "', '"\\ud800"')
    ),
    rows("s.jsonl", '{"source": "a"}\n', "s.jsonl:1", "source+target", keys=("task=seq2seq",)),
    rows("s.jsonl", '{"source": "a", "target": 1}\n', "s.jsonl:1", "'target'", keys=("task=seq2seq",)),
    rows("t.jsonl", GOOD, "template 'chat'", keys=("template=chat",)),
    rows("t.jsonl", GOOD, "template 'instruction'", keys=("template=instruction",)),
]  # fmt: skip

DOCUMENTS: dict[str, tuple[str, ...]] = {
    "[": ("not valid JSON",),
    "{": ("not valid JSON",),
    '[{"text": "a"}': ("middle of the list",),
    '[{"text": "a"},': ("not valid JSON",),
    '[{"text": "a"},]': ("not valid JSON",),
    '[{"text": "a"} {"text": "b"}]': ("expected , or ]",),
    '[{"text": "a"}] x': ("more text after",),
    '[{"text": "a"}]]': ("more text after",),
    '{"data": [{"text": "a"}}': ("expected , or ]",),
    '{"data": [{"text": "a"}]': ("",),
    '{"data": {"text": "a"}}': ("no known form",),
    '{"rows": [{"text": "a"}]}': ("no known form",),
    "[]": ("no usable rows",),
    "{}": ("",),
    "[1]": ("must be a JSON object",),
    "[[]]": ("must be a JSON object",),
    "null": ("must be a JSON object",),
    '"a"': ("must be a JSON object",),
    '[{"text": "a"}, null]': ("must be a JSON object",),
    "[" * DEEP: ("",),
    '[{"a":' * DEEP: ("",),
    '{\n"text": "a"\n}\n{\n"text": \n}': ("not valid JSON",),
    "[" + "9" * 5000 + "]": ("",),
    '[{"text": "a"}\x00]': ("",),
}
FILES = [rows("d.json", text, "d.json", *words) for text, words in DOCUMENTS.items()]
FILES += [rows("d.json", b'[{"text": "caf\xe9"}]', "d.json:1", "not UTF-8", "0xe9")]
TABLES: dict[str, tuple[str, ...]] = {
    "text\n": ("no usable rows",),
    "text,text\na,b\n": ("two columns are named 'text'",),
    "text,label\na\n": ("1 fields where the header has 2",),
    "text\na,b\n": ("2 fields where the header has 1",),
    'text\n"a\n': ("never closed",),
    'text\n"a"b\n': ("not valid CSV",),
    "text;label\na;b\n": ("one column, with ';'",),
    "text\tlabel\na\tb\n": ("tabs",),
    "text|label\na|b\n": ("one column, with '|'",),
    "a,b\n1,2\n": ("no known form",),
    ",\n,\n": ("two columns are named",),
    '"text\n': ("",),
    "\x00\n\x00\n": ("",),
    "text\n\x00\n": ("",),
    "," * 20_000 + "\n": ("20,001 columns",),
    "text\n" + '"' + "a\n" * 1000: ("never closed",),
}
FILES += [rows("c.csv", text, "c.csv", *words) for text, words in TABLES.items() if text != "text\n\x00\n"]
FILES += [
    rows("c.csv", b"text\ncaf\xe9\n", "c.csv:2", "not UTF-8"),
    rows("c.csv", b"te\xe9xt\na\n", "c.csv:1", "header cannot be read"),
    rows("c.csv", "text\na\n".encode("utf-16"), "c.csv"),
    rows("c.tsv", "text\na\n", "unknown kind of file '.tsv'", "commas"),
    rows("c.xlsx", b"PK\x03\x04", "unknown kind of file '.xlsx'"),
    rows("a.parquet", b"PAR1", "a.parquet", "not readable as parquet"),
    rows("a.parquet", b"PAR1" + b"\x00" * 50 + b"PAR1", "a.parquet", "not readable as parquet"),
    rows("a.parquet.gz", gzip.compress(b"PAR1"), "a.parquet.gz", "not readable as parquet"),
    rows("z.jsonl.gz", GOOD, "z.jsonl.gz", "cut off or damaged"),
    rows("z.jsonl.gz", gzip.compress(GOOD.encode())[:-9], "z.jsonl.gz", "cut off or damaged"),
    rows("z.jsonl.gz", gzip.compress(GOOD.encode()) + b"trailing", "z.jsonl.gz", "cut off or damaged"),
    rows("z.jsonl.gz", gzip.compress(GOOD.encode())[:20] + b"\xff" * 20, "z.jsonl.gz"),
    rows("z.jsonl.gz", b"\x1f\x8b", "z.jsonl.gz", "cut off or damaged"),
    rows("z.jsonl.gz", gzip.compress(b""), "z.jsonl.gz", "no usable rows"),
    rows("z.json.gz", gzip.compress(gzip.compress(b"[]")), "z.json.gz"),
    rows("z.csv.gz", gzip.compress(b"text\n"), "z.csv.gz", "no usable rows"),
    rows("z.txt.gz", gzip.compress(b"\xff"), "z.txt.gz", "not UTF-8"),
    rows("t.txt", b"a\nb\xff\n", "t.txt:2", "not UTF-8", "0xff"),
    rows("t.md", b"\xe2\x82", "t.md:1", "not UTF-8"),
    rows("t.py", "x = 1\n".encode("utf-16"), "t.py:1", "not UTF-8"),
    rows("t.txt", "", "the file is empty"),
    rows("t.pickle", b"\x80\x04.", "unknown kind of file '.pickle'"),
    rows("t", GOOD, "unknown kind of file 't'"),
    rows(".hidden", GOOD, "unknown kind of file"),
    rows("t.jsonl.zst", b"(\xb5/\xfd", "unknown kind of file '.zst'"),
    rows("t.jsonl.bz2", b"BZh9", "unknown kind of file '.bz2'"),
    rows("t.bin", b"abc", "t.bin", "not a whole number"),
    rows("t.bin", b"", "t.bin", "the file is empty"),
    rows("t.gz", gzip.compress(b"a"), "unknown kind of file '.gz'"),
]


def config(text: str | bytes, *words: str, code: int = 1) -> Case:
    """A configuration, given to `hone check`."""
    name = f"config {text[:50]!r}"
    return Case(name, ("check", "bad.yaml"), ("bad.yaml", *words) if code else (), {"bad.yaml": _bytes(text)}, code)


DOCUMENTS_OF_YAML: dict[str | bytes, tuple[str, ...]] = {
    "": ("empty",),
    "# nothing\n": ("empty",),
    "- a\n": ("a list",),
    "just words": ("a single value",),
    "3": ("a single value",),
    "a: b: c\n": ("not valid YAML",),
    "a: [1, 2\n": ("not valid YAML",),
    "a: {b: 1\n": ("not valid YAML",),
    'a: "b\n': ("not valid YAML",),
    "a: 'b\n": ("not valid YAML",),
    "\ta: 1\n": ("tab",),
    "train:\n\tseed: 1\n": ("tab",),
    "a: @b\n": ("not valid YAML", "quotes"),
    "a: %b\n": ("not valid YAML",),
    "a: *b\n": ("not valid YAML",),
    "a: &x *x\n": ("",),
    "seed: 1\n---\nseed: 2\n": ("second YAML document",),
    "seed: 1\nseed: 2\n": ("duplicate key 'seed'",),
    "train:\n  seed: 1\nseed: 2\n": ("given twice",),
    "? [a]\n: 1\n": ("plain word",),
    "? {a: 1}\n: 1\n": ("plain word",),
    "a: !!python/object/apply:os.system [ls]\n": ("unknown key",),
    "seed: !!python/object/apply:os.system ['touch ran']\n": ("seed",),
    "a: &a [*a]\n": ("refers to itself",),
    "<<: {seed: 1}\n": ("",),
    'stop: ["\\ud800"]\n': ("half a character",),
    '"\\udc00": 1\n': ("half a character",),
    b"seed: \xff\n": ("not UTF-8",),
    b"\x00\x01\x02": ("",),
    b"\xff\xfes\x00": ("not UTF-8",),
    b"PK\x03\x04\x00\x00": ("",),
    "seed: 1\n\x00": ("not valid YAML",),
    "{" * 2000: ("nested too deep",),
    "a: " + ("[" * 900 + "]" * 900 + " ") * 100: ("nested too deep",),
    "".join(" " * i + "a:\n" for i in range(300)): ("",),
    "- " * 300 + "a": ("",),
    "a: " + "&b " * 300: ("not valid YAML",),
    "a: " + "x, " * 20_000: ("unknown key 'a'",),
    'a: "' + "\\x41" * 20_000 + '"': ("unknown key 'a'",),
    "a: " + "!" * 2000 + "\n": ("",),
    "1: 2\n": ("unknown key '1'",),
    "null: 2\n": ("unknown key",),
    "true: 2\n": ("unknown key",),
    "'': 2\n": ("unknown key",),
    "nothere.seed: 2\n": ("unknown key",),
    "train: 3\n": ("'train' is a section",),
    "train: [seed]\n": ("'train' is a section",),
    "data:\n  seed: 1\n": ("belongs to the section 'train'",),
    "x" * 5000 + ": 1\n": ("not valid YAML",),
    "x" * 500 + ": 1\n": ("unknown key",),
    "\u202eseed: 1\n": ("unknown key",),
    "lerning_rate: 1\nmx_length: 2\nsede: 3\n": ("3 mistakes", "learning_rate", "max_length", "seed"),
}
VALUES: dict[str, tuple[str, ...]] = {
    "seed": ("1.5", "-1", "abc", "[1]", "{a: 1}", "99999999999999999999999"),
    "learning_rate": ("0", "-1", "abc", ".nan", ".inf", "[1e-4]", "true", "1e-4x"),
    "max_length": ("0", "1", "-5", "1.5", "abc", "1e3x"),
    "num_train_epochs": ("0", "-1", ".nan", "many"),
    "per_device_train_batch_size": ("0", "-1", "2.5", "auto"),
    "gradient_accumulation_steps": ("0", "-3", "x"),
    "lora_r": ("0", "-1", "x", "1.5"),
    "lora_dropout": ("1", "-0.1", "x", ".nan"),
    "warmup_steps": ("-1", "x"),
    "bf16": ("maybe", "2", "[true]"),
    "method": ("magic", "3", "[lora]"),
    "batching": ("quick", "3"),
    "eval_strategy": ("sometimes", "3", "true"),
    "on_bad_row": ("ignore", "1"),
    "column_mapping": ("text", "[text]", "3"),
    "validation_split_percentage": ("100", "-1", "x", "101"),
    "output_dir": ("[a]", "{a: 1}", '"a\\0b"'),
    "train_file": ("{a: 1}", '"a\\0b"', "3"),
    "temperature": ("-1", "x", ".nan"),
    "top_p": ("0", "1.5", "-1"),
    "dtype": ("float8", "3"),
    "save_total_limit": ("0", "-1", "x"),
    "max_steps": ("-7", "1.5", "x"),
}
CONFIGS = [config(text, *words) for text, words in DOCUMENTS_OF_YAML.items()]
CONFIGS += [
    Case(
        f"{key}: {value}", ("check", "bad.yaml"), ("bad.yaml:4", key), {"bad.yaml": f"{HEAD}{key}: {value}\n".encode()}
    )
    for key, values in VALUES.items()
    for value in values
]


def typed(*command: str, words: tuple[str, ...] = (), code: int = 1) -> Case:
    """A line as somebody types it."""
    return Case(" ".join(part[:40] for part in command), command, words, {}, code)


ARGUMENTS = [
    typed("check", "cfg.yaml", "=1", words=("key=value",)),
    typed("check", "cfg.yaml", "=", words=("key=value",)),
    typed("check", "cfg.yaml", "seed", words=("key=value",)),
    typed("check", "cfg.yaml", "seed 1", words=("key=value",)),
    typed("check", "cfg.yaml", "seed:1", words=("key=value",)),
    typed("check", "cfg.yaml", "se ed=1", words=("key=value",)),
    typed("check", "cfg.yaml", "1seed=1", words=("key=value",)),
    typed("check", "cfg.yaml", "$(touch ran)=1", words=("key=value",)),
    typed("check", "cfg.yaml", "seed=$(touch ran)", words=("seed",)),
    typed("check", "cfg.yaml", "seed==1", words=("seed",)),
    typed("check", "cfg.yaml", "seed=[1", words=("not readable",)),
    typed("check", "cfg.yaml", "stop=['a", words=("not readable",)),
    typed("check", "cfg.yaml", "stop={a", words=("not readable",)),
    typed("check", "cfg.yaml", "train.nothere=1", words=("unknown key 'nothere'",)),
    typed("check", "cfg.yaml", "data.seed=1", words=("belongs to the section",)),
    typed("check", "cfg.yaml", "a.b.c.d=1", words=("unknown key",)),
    typed("check", "cfg.yaml", "seed=\ud800", words=("seed",)),
    typed("check", "cfg.yaml", "\ud800=1", words=("key=value",)),
    typed("check", "cfg.yaml", "x" * 10_000 + "=1", words=("unknown key",)),
    typed("check", "cfg.yaml", "seed=" + "9" * 10_000, words=("seed",)),
    typed("check", "cfg.yaml", "stop=[" + "[" * 2000, words=("not readable",)),
    typed("check", "cfg.yaml", "--seed", words=("has no value",)),
    typed("check", "cfg.yaml", "--nothere", "3", words=("unknown key 'nothere'",)),
    typed("check", "cfg.yaml", "--nothere", words=("unknown option --nothere",)),
    typed("check", "cfg.yaml", "other.yaml", words=("out of place",)),
    typed("check", "nothere.yaml", words=("nothere.yaml: no such file",)),
    typed("check", "model", words=("is a folder",)),
    typed("check", "train.jsonl", code=0),
    typed("check", "model/model.safetensors", words=("model.safetensors",)),
    typed("check", "/dev/null", words=("/dev/null",)),
    typed("check", "a\0b.yaml", words=("cannot read",)),
    typed("check", "cfg.yaml", "train_file=nothere.jsonl", words=("nothere.jsonl: no such file",)),
    typed("check", "cfg.yaml", "train_file=/dev/null", words=("/dev/null",)),
    typed("check", "cfg.yaml", "train_file=.", words=("no known form",)),
    typed("check", "cfg.yaml", "train_file=model", words=("model",)),
    typed("check", "cfg.yaml", "train_file=*.nothere", words=("no data files",)),
    typed("check", "cfg.yaml", "train_file=**x/*.py", words=("**x",)),
    typed("check", "cfg.yaml", "train_file=[]", words=("train_file",)),
    typed("check", "cfg.yaml", "train_file=[train.jsonl, nothere.txt]", words=("nothere.txt",)),
    typed("check", "cfg.yaml", "train_file=~nobody/x.jsonl", words=("x.jsonl",)),
    typed("check", "cfg.yaml", "train_file=http://example.org/x.jsonl", words=("no such file",)),
    typed("check", "cfg.yaml", "train_file=train.jsonl/x.jsonl", words=("x.jsonl",)),
    typed("check", "cfg.yaml", "model_name_or_path=./nothere", words=("nothere: no such folder",)),
    typed("check", "cfg.yaml", "model_name_or_path=./train.jsonl", words=("not by a file",)),
    typed("check", "cfg.yaml", "model_name_or_path=../../../../etc", words=("etc",)),
    typed("explain", "nothere", words=("unknown key or concept",)),
    typed("explain", "\x1b[2J", words=("unknown key or concept", "\\x1b")),
    typed("init", "nothere", words=("no recipe",)),
    typed("init", "../../etc/passwd", words=("no recipe",)),
    typed("init", "light-lab", "-o", "model", words=("model",)),
    typed("init", "light-lab", "-o", "nothere/x.yaml", words=("no such folder",)),
    typed("runs", "nothere", words=("no such folder",)),
    typed("runs", "cfg.yaml", words=("cfg.yaml",)),
    typed("report", "nothere", words=("nothere",)),
    typed("report", "model", words=("model",)),
    typed("report", "cfg.yaml", words=("cfg.yaml",)),
    typed("compare", "nothere", words=("nothere",)),
    typed("compare", "model", words=("model",)),
    typed("compare", "model", "nothere", words=("",)),
    typed("verify", "nothere", words=("nothere",)),
    typed("verify", "cfg.yaml", words=("cfg.yaml",)),
    typed("grade", "nothere.jsonl", "nothere.jsonl", words=("nothere.jsonl",)),
    typed("grade", "train.jsonl", "train.jsonl", words=("train.jsonl:1", "task_id")),
]

TASK = {"task_id": "a", "prompt": "def f(x):\n", "entry_point": "f", "tests": ["assert f(1) == 1"]}


def tasks(change: dict[str, object], *words: str) -> Case:
    """A file of programming tasks, given to `hone grade`."""
    content = json.dumps({key: value for key, value in {**TASK, **change}.items() if value != "GONE"}) + "\n"
    files = {"tasks.jsonl": content.encode(), "answers.jsonl": b'{"task_id": "a", "completion": "    return x"}\n'}
    return Case(f"task {change}"[:60], ("grade", "tasks.jsonl", "answers.jsonl"), ("tasks.jsonl:1", *words), files)


TASKS = [
    *(tasks({"task_id": value}, "task_id") for value in (None, [], {}, 1.5, True, "GONE")),
    *(tasks({"prompt": value}) for value in (None, 3, [], {}, "GONE")),
    *(tasks({"entry_point": value}) for value in (3, [], {}, "not a name", "1f", "f()", "__import__('os')")),
    *(tasks({"tests": value}) for value in (None, 3, {}, [], [3], "", "assert f(", ["x ="], "GONE")),
    *(tasks({"reference": value}) for value in (3, [], {})),
]


def model(name: str, content: str | bytes, *words: str, code: int | None = 1) -> Case:
    """One file of the model's folder is this."""
    command = ("generate", "model", "-p", "x", "--max-new-tokens", "1")
    files = {f"model/{name}": _bytes(content)}
    return Case(f"{name} {content[:40]!r}", command, ("model", *words) if code else (), files, code)


def _config(**keys: object) -> str:
    about = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 32, "n_head": 2}
    return json.dumps({**about, "n_positions": 256, "vocab_size": 400, **keys})


def _weights(about: object, tail: bytes = b"") -> bytes:
    text = json.dumps(about).encode()
    return len(text).to_bytes(8, "little") + text + tail


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NO_JSON = ("", "{", "[]", "null", "3", '"gpt2"', "\x00", '{"model_type": }', "[" * DEEP)
MODELS = [
    *(model("config.json", text) for text in NO_JSON),
    model("config.json", "{}"),
    model("config.json", b"\xff\xfe"),
    *(model("config.json", _config(model_type=kind)) for kind in (None, 3, [], "nothere", "../gpt2", "GPT2" * 1000)),
    *(
        model("config.json", _config(**{key: value}))
        for key in ("n_layer", "n_embd", "n_head", "vocab_size")
        for value in (0, -1, "two", [2], 2.5)
    ),
    *(model("config.json", _config(n_positions=value), code=None) for value in (0, -1, "x", 10**12)),
    model("config.json", _config(architectures=["os.system"]), code=None),
    model("config.json", _config(torch_dtype="evil"), code=None),
    model("config.json", _config(activation_function="nothere")),
    model("config.json", _config(quantization_config={"quant_method": "nothere"}), code=None),
    model("config.json", _config(auto_map={"AutoModelForCausalLM": "evil--evil.M"}), code=None),
    *(model("tokenizer.json", text) for text in NO_JSON),
    model("tokenizer.json", "{}"),
    model("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}', code=None),
    model("tokenizer.json", '{"version": "1.0", "model": {"type": "Nothere"}}'),
    model("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'),
    model("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}'),
    *(model("tokenizer_config.json", text, code=None) for text in NO_JSON),
    model("tokenizer_config.json", '{"tokenizer_class": "os.system"}', code=None),
    model("tokenizer_config.json", '{"eos_token": 3}', code=None),
    model("tokenizer_config.json", '{"model_max_length": "x"}', code=None),
    *(model("generation_config.json", text, code=None) for text in NO_JSON),
    model("generation_config.json", '{"eos_token_id": "x"}', code=None),
    model("generation_config.json", '{"eos_token_id": 99999999, "max_length": -1}', code=None),
    *(model("chat_template.jinja", text, code=None) for text in ("{%", "{{ x.y.z }}", "{% include '/etc/passwd' %}")),
    *(model("model.safetensors", content) for content in (b"", b"\x00" * 7, b"\x00" * 8, b"\xff" * 100, b"PK\x03\x04")),
    *(model("model.safetensors", _weights(about, b"\x00" * 8)) for about in ([], None, 3, {"a": 3}, {"a": {}})),
    model("model.safetensors", _weights({"a": ONE})),
    model("model.safetensors", _weights({"a": ONE}, b"\x00" * 8)),
    model("model.safetensors", _weights({"a": {**ONE, "dtype": "F999"}}, b"\x00" * 8)),
    model("model.safetensors", _weights({"a": {**ONE, "shape": [-2]}}, b"\x00" * 8)),
    model("model.safetensors", _weights({"a": {**ONE, "data_offsets": [0, 2**60]}}, b"\x00" * 8)),
]

CASES: list[Case] = [*LINES, *FORMS, *FILES, *CONFIGS, *ARGUMENTS, *TASKS, *MODELS]
