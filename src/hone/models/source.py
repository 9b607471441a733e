"""What lies behind a model's name: a folder with weights, an adapter and the base it names, or a hub name.

Nothing heavy is imported. Weights are not loaded; those that hone wrote are compared with their manifest.

>>> check_source("runs/light-lab")                            # doctest: +SKIP
>>> base_of(Path("runs/lora"))                                # doctest: +SKIP
'distilgpt2'
"""

from pathlib import Path

from hone import bundled
from hone.errors import HoneError
from hone.files import read_json
from hone.hub import WEIGHTS, file_in_cache
from hone.manifest import MANIFEST, refuse_damaged
from hone.runs import find_runs, no_such_folder

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")  # what configs call the length of their window
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # weights in files that can run code: named, never read
MOST = {  # sizes in a config.json; today's largest models have 128 layers, 18,432 features, 262,144 tokens
    **dict.fromkeys(("n_layer", "num_hidden_layers", "num_layers", "num_decoder_layers"), 10_000),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "n_layers", "n_head", "num_attention_heads"), 10_000),
    **dict.fromkeys(("n_embd", "hidden_size", "d_model", "n_inner", "intermediate_size", "d_ff"), 1_000_000),
    **dict.fromkeys(("vocab_size", "num_local_experts", "num_experts"), 10_000_000),
}
COPY_AGAIN = "the file is damaged or was not copied whole: copy the adapter again"
BASE_FIX = (
    "put back the base that it was trained on; or name it: hone export RUN --to merged --base BASE makes one model of "
    "both"
)


def check_source(name: str, *, weights: bool = True) -> None:
    """Refuse a name that is not a model folder and cannot be a hub name either, and a model that has been damaged.

    Args:
        weights: False where the shapes alone are wanted, and config.json is enough.

    Raises:
        HoneError: no such folder, a file, or a folder without config or weights.
    """
    folder = Path(bundled.resolve(name))
    if folder.is_dir():
        _check_folder(folder, weights)
        if weights:
            refuse_damaged(folder)
    elif folder.is_file():
        raise HoneError("a model is named by its folder, not by a file", where=name, fix=f"use {folder.parent}")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or _among_runs(folder):
        raise no_such_folder(name)


def _among_runs(folder: Path) -> bool:
    """Would this `owner/name` lie among the runs of this place? Then it means a folder, unless it is in the cache.

    A folder of models that were downloaded is named after their owner, so a name in it may be one of the hub.
    """
    if len(folder.parts) != 2:
        return False
    near_runs = folder.parts[0] == "runs" or (folder.parent.is_dir() and not _holds_models(folder.parent))
    return near_runs and file_in_cache(str(folder), "config.json") is None


def _holds_models(owner: Path) -> bool:
    return any(one.is_dir() for one in owner.iterdir()) and not find_runs(owner)


def _check_folder(folder: Path, weights: bool) -> None:
    if (folder / ADAPTER).is_file():
        base = check_adapter(folder)
        try:
            check_source(base)
        except HoneError as error:
            if (Path(bundled.resolve(base)) / "config.json").is_file():  # it is there, and damaged: to be repaired
                raise
            what = f"its base {base} is missing: {error.what}"
            raise HoneError(what, where=str(folder / ADAPTER), fix=BASE_FIX) from error
        return
    if not (folder / "config.json").is_file():
        if (folder / ADAPTER_WEIGHTS).is_file():
            what = f"{ADAPTER}: missing, and {ADAPTER_WEIGHTS} is nothing without it"
            fix = "copy it again, or train again with overwrite=true"
        elif (folder / MANIFEST).is_file():
            what = "config.json: missing, and the model's manifest names it"
            fix = "copy it again, or train again with overwrite=true"
        elif (folder / "status.json").is_file():
            what = "this run has no model yet: it has not been trained to its end"
            fix = "finish it with the `hone train` it was begun with, or name one of its checkpoint-N folders"
        elif (folder / "hparams.json").is_file():
            what = "these are OpenAI's raw GPT-2 files, not a model folder"
            fix = f"convert them once: hone convert {folder} {folder}-hf"
        else:
            what, fix = "not a model folder: it has no config.json", "name a run folder, a model folder or a hub name"
        raise HoneError(what, where=str(folder), fix=fix)
    _check_sizes(folder / "config.json")
    if weights and not any((folder / name).is_file() for name in WEIGHTS):
        pickled = _pickled(folder)
        raise HoneError(
            f"the model folder has no weights: expected {WEIGHTS[0]}",
            where=str(folder),
            fix=f"found {', '.join(pickled)}: convert it to safetensors first (pickle is never loaded)"
            if pickled
            else "copy the weights there, or name another folder",
        )


def _pickled(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)


def _check_sizes(path: Path) -> None:
    """Sizes that no model has would be built before the weights are compared with them: for hours, or in all memory."""
    config = read_json(path, "copy or download the model again")
    inner = config.get("text_config") if isinstance(config, dict) else None
    for part in (config, inner):
        for key, most in MOST.items():
            value = part.get(key) if isinstance(part, dict) else None
            if isinstance(value, int) and value > most:
                fix = f"at most {most:,} is read: the file is damaged, or made to do harm"
                raise HoneError(f"{key} is {value:,}, which no model has", where=str(path), fix=fix)


# ---- adapters ------------------------------------------------------------------------------------------------------


def base_of(folder: Path) -> str | None:
    """The base that an adapter says it is for: a folder or a hub name; None where it says nothing.

    Raises:
        HoneError: adapter_config.json is damaged.
    """
    about = read_json(folder / ADAPTER, COPY_AGAIN)
    if not isinstance(about, dict):
        raise HoneError("is not a valid adapter config", where=str(folder / ADAPTER), fix=COPY_AGAIN)
    return about.get("base_model_name_or_path") or None


def check_adapter(folder: Path) -> str:
    """The base of an adapter that has its files.

    Raises:
        HoneError: it has no weights, or names no base.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = ", ".join(_pickled(folder))
        raise HoneError(
            f"the adapter has no weights: expected {ADAPTER_WEIGHTS}",
            where=str(folder),
            fix=f"found {pickled}: convert it to safetensors first (pickle is never loaded)"
            if pickled
            else "copy the weights there, or name another folder",
        )
    base = base_of(folder)
    if base is None:
        raise HoneError("base_model_name_or_path is missing", where=str(folder / ADAPTER), fix=COPY_AGAIN)
    return base


def refuse_adapter(name: str) -> None:
    """Raise a HoneError if `name` is an adapter's folder: training starts from whole models."""
    folder = Path(name)
    if (folder / ADAPTER).is_file():
        raise HoneError(
            f"this is an adapter for {base_of(folder)}: it cannot be trained further as it is",
            where=name,
            fix=f"make one model of both, `hone export {name} --to merged`, and train that; or train the base",
        )
