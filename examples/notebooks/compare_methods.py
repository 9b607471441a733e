# %% [markdown]
# # Full, freeze, LoRA: which one?
#
# Three ways to train the same model on the same rows: all weights (`full`), only the upper layers (`freeze`), or small
# matrices added to frozen weights (`lora`). This notebook trains each, measures each on the same held-out rows, and
# compares them in pairs. No network, no GPU, about half a minute on two cores.

# %%
from pathlib import Path

import pandas as pd

import hone
from hone.demo import lay_out

lay_out(Path("rows"))  # instructions and functions that come with hone

# %% [markdown]
# ## One configuration, three methods
#
# What all three share stands in one dictionary. The learning rates differ: adapters start at zero and want a higher
# one. `hone.plan` says what each will train, before anything is trained.

# %%
common = {
    "model_name_or_path": "hone-base",
    "train_file": "rows/functions.train.jsonl",
    "validation_file": "rows/functions.test.jsonl",
    "max_train_samples": 64,
    "max_eval_samples": 30,
    "overlap": "drop",
    "max_length": 192,
    "num_train_epochs": 2,
    "lr_scheduler_type": "cosine",
    "logging_steps": 8,
    "eval_strategy": "epoch",
    "save_strategy": "no",
    "sample_prompts": 0,
}
methods = {
    "full": {"method": "full", "learning_rate": 1e-3},
    "freeze": {"method": "freeze", "num_unfrozen_layers": 2, "learning_rate": 1e-3},
    "lora": {"method": "lora", "lora_r": 8, "learning_rate": 4e-3},
}
plans = {name: hone.plan({**common, **keys, "output_dir": f"runs/{name}"}) for name, keys in methods.items()}
trained = {name: sum(group.n_parameters for group in plan.groups if group.trains) for name, plan in plans.items()}
pd.DataFrame({"weights that train": trained}).map("{:,}".format)

# %% [markdown]
# ## Train

# %%
runs = {name: hone.train(common, **keys, output_dir=f"runs/{name}") for name, keys in methods.items()}

# %% [markdown]
# ## Side by side
#
# All are measured on the same 30 functions. The loss is in nats per token; lower is better.

# %%
rows = {}
for name, run in runs.items():
    loss = run.tuned.metrics["loss"]
    rows[name] = {
        "base": round(run.base.value("loss"), 3),
        "tuned": round(loss.value, 3),
        "interval": f"{loss.low:.3f} to {loss.high:.3f}",
        "verdict": run.comparison.verdict,
        "seconds": run.status["seconds"],
    }
pd.DataFrame(rows).T

# %% [markdown]
# The validation loss after each epoch:

# %%
pd.DataFrame({name: run.metrics().set_index("epoch")["eval_loss"].dropna() for name, run in runs.items()})

# %% [markdown]
# ## Is the difference between two methods real?
#
# The intervals above overlap, and that says little: the three were measured on the same functions, so they are
# compared function by function. B is better or worse than A, or the 30 functions cannot tell.

# %%
print(hone.text(runs["full"].compare(runs["freeze"])))

# %%
print(hone.text(runs["full"].compare(runs["lora"])))

# %% [markdown]
# One seed each: another seed would give slightly other numbers. `hone.repeat` measures by how much. A LoRA run keeps
# its base apart; `export` makes one model folder of the two that any other tool loads:

# %%
merged = runs["lora"].export("merged", output="merged")
print(f"{merged.details['n_parameters']:,} parameters in {merged.path}")
