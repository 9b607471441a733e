"""Libraries are imported without a search for garbage, and afterwards Python searches as before."""

import gc
import os
import sys

import pytest

from hone.imports import calm_threads, importing


@pytest.mark.parametrize("frozen", [0, 5])
def test_no_garbage_is_looked_for_meanwhile(frozen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported is frozen where the process freezes its objects, and only there: a notebook's would leak."""
    freezes: list[bool] = []
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils", raising=False)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: frozen)
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append(gc.isenabled()))
    with pytest.raises(ImportError), importing():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() and len(freezes) == bool(frozen)


def test_what_is_imported_already_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: pytest.fail("frozen"))
    monkeypatch.setitem(sys.modules, "transformers.modeling_utils", sys)
    with importing():
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils")
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled(), "whoever has switched it off keeps it off"
    finally:
        gc.enable()


def test_threads_are_calm_unless_somebody_has_set_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    calm_threads()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # restored afterwards
    monkeypatch.delenv("GOMP_SPINCOUNT")
    calm_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
