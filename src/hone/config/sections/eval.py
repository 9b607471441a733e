"""The section `eval`: how base and tuned are measured and compared."""

from hone.config.fields import FilePath, Section, key


class EvalSection(Section):
    """Measurements on the validation rows, each with its uncertainty."""

    eval_base: bool = key(
        True,
        what="Whether the base model is measured on the validation rows before training.",
        why="A perplexity alone says nothing: only base against tuned, on the same rows, shows what training changed.",
        how="Runs once before the first step and writes eval/base.json; tuned is measured on the same items after.",
        benefit="Every run ends with a before and after and an interval of the difference.",
        tradeoff="true: one more pass over the validation rows. false: no comparison at the end, unless you run "
        "`hone eval` on the base later.",
        cpu="true; lower max_eval_samples if it takes too long",
        gpu="true",
        maps_to=None,
    )
    eval_tokens_per_batch: int = key(
        2048,
        what="How many tokens one evaluation batch holds at most in `hone eval` and the base/tuned measurement.",
        why="Rows differ in length: counting tokens instead of rows keeps memory and speed even.",
        how="Rows are grouped by length up to this number; it never changes the result, only time and memory.",
        benefit="Full use of the machine without running out of memory on one long row.",
        tradeoff="Too high: out of memory, because each token needs a score for the whole vocabulary (about 200 kB in "
        "float32 at 50,257 entries). Too low: slow.",
        cpu="1024 to 4096",
        gpu="8192 to 65536",
        maps_to=None,
        ge=1,
    )
    eval_stride: int | None = key(
        None,
        what="How many tokens each further window scores of a validation document longer than max_length.",
        why="Cut into separate pieces, each piece begins without context, and its first tokens look harder than they "
        "are in the document.",
        how="Windows of max_length tokens overlap: the first scores all it holds, each further one its last "
        "eval_stride tokens, with the ones before as context. Each token counts once. null: separate pieces, and rows "
        "with a prompt only up to max_length.",
        benefit="The loss of a long document as a reader of the whole would see it, and comparable between models "
        "with different windows.",
        tradeoff="Too low: max_length / eval_stride times the work (at 1, one pass for each token). Too high (near "
        "max_length): little context at each window's first tokens.",
        cpu="null; half of max_length for a number to publish",
        gpu="half of max_length",
        maps_to=None,
        ge=1,
    )
    code_tasks: FilePath | None = key(
        None,
        what="Programming tasks with tests that base and tuned are to solve: HumanEval's file, MBPP's or your own.",
        why="A lower loss does not say whether the programs run; passed tests do.",
        how="Each task is formatted as the training rows are; answers are generated as the section generate says "
        "(num_return_sequences, temperature, max_new_tokens …), run in a sandbox and compared by task. Where programs "
        "cannot be isolated it says so and measures only the rest. A relative path in a YAML file starts at that "
        "file's folder, one on the command line at the folder you are in.",
        benefit="pass@k before and after, in eval/base.code.json and eval/tuned.code.json, with a paired test.",
        tradeoff="Many tasks: minutes to hours of generation before and after each run on a CPU. Few: 164 tasks rarely "
        "show a difference below 10 points.",
        cpu="20 to 200 tasks, temperature 0",
        gpu="all of HumanEval or MBPP; num_return_sequences 10 and more for pass@10",
        maps_to=None,
    )
    confidence_level: float = key(
        0.95,
        what="Probability that the printed intervals stand for.",
        why="A difference smaller than its interval may come from the choice of rows alone.",
        how="The intervals come from resampling the validation items (bootstrap_resamples).",
        benefit="Says how far to trust 'better by x'.",
        tradeoff="Too high (0.999): intervals so wide that nothing is certain. Too low (0.5): half of them miss.",
        cpu="0.95",
        gpu="0.95",
        maps_to=None,
        gt=0,
        lt=1,
    )
    bootstrap_resamples: int = key(
        2000,
        what="How many times the validation items are drawn anew to estimate an interval.",
        why="The interval is itself an estimate; more draws make its ends steadier.",
        how="Items are drawn with replacement, the same draws for base and tuned; the model does not run again.",
        benefit="Intervals without assuming a bell curve, in milliseconds.",
        tradeoff="Too high: seconds for nothing. Too low (below 500): the ends of the interval jump from seed to seed.",
        cpu="2000",
        gpu="2000 to 10000",
        maps_to=None,
        ge=100,
    )
    eval_generate_samples: int = key(
        100,
        what="With task: seq2seq: for how many validation rows targets are generated and compared with the true ones.",
        why="Loss looks at one token at a time, with the true tokens before it; a generated text shows what users get.",
        how="Greedy, on evenly spaced rows, the same for base and tuned: exact match, chrF, BLEU, ROUGE-L. 0 is off.",
        benefit="Numbers that other people's papers report, next to the loss.",
        tradeoff="Too high: minutes of generation before and after each run. Too low: wide intervals.",
        cpu="50 to 200",
        gpu="500 or more",
        maps_to=None,
        ge=0,
    )
    memorization_samples: int = key(
        0,
        what="How many beginnings of training rows, and as many of validation rows, base and tuned are to continue.",
        why="A model can get better by memorizing its rows; then it recites them, secrets included.",
        how="Greedy, sample_max_new_tokens each: a text copies if 50 characters in a row or 13 words stand just so in "
        "a training row. The shares, and tuned - base, go to eval/memorization.json. 0 is off; task: causal only.",
        benefit="Says how much of what the model writes is its training data, and how much of that base knew before.",
        tradeoff="Too high: four times as many generations as this number, minutes on a CPU. Too low: an interval from "
        "0 to a third.",
        cpu="0; 20 for a model to hand on",
        gpu="100 to 500",
        maps_to=None,
        ge=0,
    )
    sample_prompts: int = key(
        20,
        what="How many validation prompts are continued greedily by base and tuned.",
        why="A lower loss can hide answers that got worse to read; two texts side by side show it.",
        how="Evenly spaced over the validation rows, the first and the last among them, and written together; the "
        "texts go to eval/samples.jsonl and into the report. From ten texts on, what they look like is counted too: "
        "do they parse, do they end, do they repeat themselves. 0 is off.",
        benefit="The change can be seen, and counted in the texts themselves.",
        tradeoff="Too high: minutes of generation on a CPU. Too low: below 10 nothing is counted, and an odd prompt "
        "misleads.",
        cpu="10 to 20; 2 for a model of a billion weights",
        gpu="20 to 100",
        maps_to=None,
        ge=0,
    )
    sample_max_new_tokens: int = key(
        64,
        what="How many tokens each of these sample generations has at most.",
        why="Samples are written before and after every run, so their length is paid twice.",
        how="Counts new tokens only; the end token may stop a text earlier.",
        benefit="Long enough to judge a short function or answer.",
        tradeoff="Too high: slow runs. Too low: the texts break off before they differ.",
        cpu="64",
        gpu="128 to 256",
        maps_to=None,
        ge=1,
    )
