"""How to read this: the words of the field that occur on a page, in one sentence each."""

from collections.abc import Callable

from hone.report.blocks import Section, Text, Word, Words
from hone.report.folder import Folder


def words(folder: Folder) -> Section | None:
    """Those words that this run's page uses; `hone explain` says more about each."""
    found = [word for word, used in GLOSSARY if used(folder)]
    if not found:
        return None
    return Section("How to read this", [Text("Each word in one sentence; the command says more."), Words(found)])


def _has(name: str) -> Callable[[Folder], bool]:
    """Whether a metric was measured."""
    return lambda folder: any(name in one.metrics for one in folder.measured.values())


def _measured(folder: Folder) -> bool:
    return bool(folder.measured or folder.code)


def _compared(folder: Folder) -> bool:
    return bool(folder.comparison or folder.code_comparison)


def _detectable(folder: Folder) -> bool:
    found = folder.comparison.metrics.values() if folder.comparison else ()
    return any(change.minimum_detectable_effect is not None for change in found)


def _logged(name: str) -> Callable[[Folder], bool]:
    return lambda folder: any(line.get(name) is not None for line in folder.metrics)


GLOSSARY: tuple[tuple[Word, Callable[[Folder], bool]], ...] = (
    (Word("base, tuned", "The model before and after the training.", "fine-tuning"), _measured),
    (Word("held out", "Kept away from the training, so that the model cannot have learned it.", "held-out"),
     _measured),
    (Word("pass@1", "The share of tasks for which one written program passes all tests.", "pass@1"),
     lambda folder: bool(folder.code)),
    (Word("accuracy", "The share of rows that get the right class.", "accuracy"), _has("accuracy")),
    (Word("F1", "High only if a class is found, and rarely claimed wrongly; 1 is perfect.", "f1"), _has("macro_f1")),
    (Word("loss", "How much the true next token surprises the model, on average; lower is better.", "loss"),
     _has("loss")),
    (Word("nats", "The unit of the loss: 0 is no surprise, 0.69 that of a fair coin.", "nats"), _has("loss")),
    (Word("perplexity", "The loss as a number of equally likely tokens to choose from; 1 is the best there is.",
          "perplexity"), _has("perplexity")),
    (Word("bits per byte", "The loss per byte of text, which models with other tokenizers share.", "bits per byte"),
     _has("bits_per_byte")),
    (Word("interval", "In brackets: where the number would mostly be with other rows of the same kind.", "interval"),
     _measured),
    (Word("paired", "Both models on the same items, item by item, so that hard items do not blur it.", "paired"),
     _compared),
    (Word("p", "How often chance alone would give such a difference if nothing had changed; below 0.05 counts.",
          "p-value"), _compared),
    (Word("MDE", "The smallest change that so many items would show 8 times in 10.", "minimum detectable effect"),
     _detectable),
    (Word("gradient norm", "How strongly a step pulls at the weights; it should settle and not explode.",
          "gradient norm"), _logged("grad_norm")),
    (Word("learning rate", "How far each step moves the weights.", "learning rate"), _logged("learning_rate")),
)  # fmt: skip
