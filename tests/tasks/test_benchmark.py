"""The benchmark of classification runs anywhere and prints one line for each classifier."""

import re
import sys
from pathlib import Path

import pytest

from conftest import load_script
from tiny_tasks import labelled_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_classification_baseline_prints_a_table(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "bad"):
        texts = [row["text"] for row in labelled_rows(90) if row["label"] == name]
        (tmp_path / f"{name}.txt").write_text("\n".join([*texts, texts[0], ""]), encoding="utf-8")
    command = ["classification_baseline.py", "--out", str(tmp_path / "out"), "--epochs", "1"]
    command += ["--data", f"good={tmp_path / 'good.txt'}", f"bad={tmp_path / 'bad.txt'}", "--model", str(model_folder)]
    monkeypatch.setattr(sys, "argv", [*command, "--vocabulary", "300"])
    load_script(ROOT / "benchmarks" / "classification_baseline.py").main()
    said = capsys.readouterr().out
    assert "72 training rows, 18 test rows" in said, "equal texts are kept once"
    lines = [line for line in said.splitlines() if line.startswith("|") and "---" not in line]
    assert len(lines) == 1 + 5
    assert "TF-IDF of words" in lines[1]
    for line in lines[1:]:
        shares = [float(n) for n in re.findall(r"\b[01]\.\d{4}\b", line)]
        assert len(shares) == 6
        assert all(0 <= n <= 1 for n in shares)
    assert all("newly right" in line and " p = " in line for line in lines[3:])
