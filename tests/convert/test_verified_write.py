"""A folder has its name only when what was read back from it is what was meant; otherwise nothing is there."""

import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hone.convert.verified_write import refuse_existing, same_logits, verified_write
from hone.errors import HoneError

REFERENCE = torch.linspace(-3, 3, 12).reshape(3, 4)


def read(folder: Path) -> torch.Tensor:
    return load_file(folder / "a.safetensors")["logits"]


@pytest.mark.parametrize("prepared", [False, True])
def test_what_reads_back_right_gets_its_name(tmp_path: Path, prepared: bool) -> None:
    target = tmp_path / "deep" / "out"
    if prepared:
        target.mkdir(parents=True)  # an empty folder counts as none
    refuse_existing(target)
    card = "off by {:.2f}".format
    with verified_write(target, same_logits(REFERENCE, read, tolerance=0.1), card) as written:
        assert written.path != target and written.path.parent == target.parent and written.found is None
        save_file({"logits": REFERENCE + 0.05}, written.path / "a.safetensors")
    assert written.found == pytest.approx(0.05, abs=1e-6)
    assert (target / "README.md").read_text() == "off by 0.05"
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "a.safetensors", "manifest.json"]
    assert len({path.stat().st_mode for path in target.iterdir()}) == 1, "weights are as readable as the card"
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    with pytest.raises(HoneError, match="exists already"):
        refuse_existing(target)


@pytest.mark.parametrize("logits", [REFERENCE + 0.2, REFERENCE * float("nan"), REFERENCE[:2]])
def test_what_reads_back_wrong_is_gone(tmp_path: Path, logits: torch.Tensor) -> None:
    with (
        pytest.raises(HoneError, match="answers differently") as caught,
        verified_write(tmp_path / "out", same_logits(REFERENCE, read, tolerance=0.1, fix="try again")) as written,
    ):
        save_file({"logits": logits.clone()}, written.path / "a.safetensors")
    assert caught.value.where == str(tmp_path / "out") and "try again" in str(caught.value.fix)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError("x")])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    expected = HoneError if isinstance(error, OSError) else type(error)
    with (
        pytest.raises(expected),
        verified_write(tmp_path / "out", same_logits(REFERENCE, read, tolerance=0.1)) as written,
    ):
        (written.path / "half").write_text("…")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_the_writer_can_let_its_model_go_before_the_other_is_loaded(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    gone = weakref.ref(model)

    def read_back(folder: Path) -> torch.Tensor:
        assert gone() is None, "two copies of the weights in memory"
        return read(folder)

    with verified_write(tmp_path / "out", same_logits(REFERENCE, read_back, tolerance=0.1)) as written:
        save_file({"logits": REFERENCE}, written.path / "a.safetensors")
        del model
