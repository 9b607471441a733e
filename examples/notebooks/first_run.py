# %% [markdown]
# # A first fine-tune: ten functions
#
# You have ten Python functions and a small language model. This notebook trains the model on eight of them, keeps two
# back, and asks: does it now write the two better than before? Then it does the same with more functions, because ten
# cannot answer that question.
#
# It needs `hone` and nothing else: no network, no GPU, about half a minute on two cores. The model is `hone-base`, 10
# million weights, which comes with the package.

# %%
import json
from pathlib import Path

import hone
from hone.demo import lay_out

# %% [markdown]
# ## The rows
#
# One row is one text, here a function. `hone` reads rows of several forms from `.jsonl`, `.csv`, `.parquet`, `.txt`
# and more; this is the simplest one.

# %%
functions = [
    "def double(x):\n    return 2 * x\n",
    "def triple(x):\n    return 3 * x\n",
    "def half(x):\n    return x / 2\n",
    "def square(x):\n    return x * x\n",
    "def cube(x):\n    return x * x * x\n",
    "def negate(x):\n    return -x\n",
    "def plus_one(x):\n    return x + 1\n",
    "def minus_one(x):\n    return x - 1\n",
    "def is_even(x):\n    return x % 2 == 0\n",
    "def is_odd(x):\n    return x % 2 == 1\n",
]
with Path("ten.jsonl").open("w", encoding="utf-8") as file:
    file.writelines(json.dumps({"text": function}) + "\n" for function in functions)

# %% [markdown]
# ## Train
#
# Every key of a configuration can be given by its name. What is not given has a default; `hone explain KEY` on the
# command line says what a key does. Two of the ten functions are held out: they are measured before and after, and
# never trained on.

# %%
run = hone.train(
    model_name_or_path="hone-base",
    train_file="ten.jsonl",
    validation_split_percentage=20,
    max_length=64,
    per_device_train_batch_size=2,
    num_train_epochs=3,
    learning_rate=1e-3,
    logging_steps=4,
    output_dir="runs/ten",
)

# %% [markdown]
# ## What it showed
#
# A run shows itself. The loss is the model's surprise at the held-out functions: lower is better. In brackets are
# intervals: the measurement does not know it better than that.

# %%
run

# %% [markdown]
# Lower, and yet "not distinguishable": with two held-out functions no change could be told from luck, however large.
# That is what the verdict says, and it is right.
#
# The steps are a table, and the tuned model answers:

# %%
run.metrics()[["step", "epoch", "loss", "learning_rate"]].dropna()

# %%
prompt = "def plus_two(x):\n    return"
print(prompt + run.generate(prompt, max_new_tokens=8)[0])

# %% [markdown]
# ## More functions
#
# The same with rows that come with `hone`: instructions, each with a function that answers it. 96 to train on, 40
# held out; rows that nearly repeat a held-out one are left out (`overlap`).

# %%
lay_out(Path("rows"))
more = hone.train(
    model_name_or_path="hone-base",
    train_file="rows/functions.train.jsonl",
    validation_file="rows/functions.test.jsonl",
    max_train_samples=96,
    max_eval_samples=40,
    overlap="drop",
    max_length=192,
    num_train_epochs=2,
    learning_rate=1e-3,
    sample_prompts=2,
    output_dir="runs/more",
)
more

# %% [markdown]
# Now the interval of the difference lies below zero: the model got better at functions that it has never seen. What
# both wrote for a held-out instruction:

# %%
sample = more.samples()[0]
print(sample.prompt, "\n--- base\n" + str(sample.base), "\n--- tuned\n" + str(sample.tuned), sep="\n")

# %%
hone.find_runs("runs")

# %% [markdown]
# ## Next
#
# - `more.report()` writes a page with curves, samples and settings into the run's folder.
# - The same call again trains nothing: the run is finished. Other settings need another `output_dir`.
# - `hone.repeat(…, seeds=6)` trains with several seeds: is the change larger than what the seed does?
# - `compare_methods.ipynb`, beside this notebook: all weights, the upper layers, or LoRA?
