"""Everything that a run measures of its base and of its tuned model, and the difference: three measurements, alike.

Each has a `measure`, which does nothing where its file is there already (or the config does not ask for it), and a
`compare`, which does nothing where one of the two models was not measured. All processes of a training measure: they
share the items (`hone.processes.shared`), and the primary writes. It alone compares.

>>> bench = Bench(run, config, task, tokenizer, data)                                  # doctest: +SKIP
>>> measure(bench, "base", model); measure(bench, "tuned", tuned); compare(bench)      # doctest: +SKIP
"""

from transformers import PreTrainedModel

from hone.evaluation import code_tasks, held_out, memorization
from hone.evaluation.bench import Bench


def measure(bench: Bench, name: str, model: PreTrainedModel) -> None:
    """Write the files of eval/ about the model `name`, "base" or "tuned"."""
    held_out.measure(bench, name, model)
    memorization.measure(bench, name, model)  # the samples of held_out serve it, too
    code_tasks.measure(bench, name, model)


def compare(bench: Bench) -> None:
    """Write the files of eval/ about the difference of the two."""
    held_out.compare(bench)
    memorization.compare(bench)
    code_tasks.compare(bench)
