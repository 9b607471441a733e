"""hone's side: `hone.train` on the same rows and weights, through its own engine, with keys as a user writes them."""

from pathlib import Path
from typing import Any

from speed.turns import Turns


def run_hone(task: dict[str, Any], turns: Turns) -> None:
    """Train as the command would; the engine is only told to wait at the end of a turn's last step."""
    import hone.training.trainer
    from hone.training import train as story
    from speed.peers import wait_at_the_end_of_turns

    turns.imported()
    build = story.build_trainer

    def build_waiting(*args: Any, **kwargs: Any) -> Any:
        trainer, stopper = build(*args, **kwargs)
        wait_at_the_end_of_turns(trainer, turns, task)
        return trainer, stopper

    story.build_trainer = build_waiting
    hone.train(hone.load_config(keys(task), task["keys"]))


def keys(task: dict[str, Any]) -> dict[str, Any]:
    """The config: what the peers are given too, and nothing that tunes hone for speed."""
    precision = {"dtype": "bfloat16"} if task["dtype"] == "bfloat16" else {"bf16": task["bf16"]}
    return {
        "model_name_or_path": task["folder"],
        "tokenizer_name_or_path": task["tokenizer"],
        "train_file": str(Path(task["data"], "rows.jsonl")),
        "token_cache_dir": str(Path(task["scratch"], "tokens")),
        "output_dir": str(Path(task["scratch"], "run")),
        "max_length": task["max_length"],
        "validation_split_percentage": 0,
        "per_device_train_batch_size": task["batch"],
        "num_train_epochs": task["epochs"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "use_cpu": True,
        "seed": task["seed"],
        **task["method"],
        **precision,
    }
