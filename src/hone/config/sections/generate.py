"""The section `generate`: how text is drawn from the model in `generate`, `chat` and `serve`."""

from hone.config.fields import Section, key


class GenerateSection(Section):
    """Sampling: temperature 0 is greedy, anything above draws at random."""

    max_new_tokens: int = key(
        128,
        what="How many tokens a generation has at most.",
        why="A model that never gives its end token would go on without end.",
        how="Generation stops at the end token, at a stop text, or here.",
        benefit="A bound on time and on rambling.",
        tradeoff="Too high: seconds wasted on repetition. Too low: answers break off in the middle of a line.",
        cpu="64 to 256",
        gpu="256 to 1024",
        maps_to="transformers.GenerationConfig.max_new_tokens",
        ge=1,
    )
    temperature: float = key(
        0.0,
        what="Randomness of sampling: 0 takes the most likely token each time (greedy).",
        why="Comparisons want the same text every time, ideas want variety.",
        how="The scores are divided by the temperature before they become probabilities.",
        benefit="0 is repeatable and best for a single program; 0.8 gives different attempts for pass@k.",
        tradeoff="Too high (above 1.2): wrong words and broken syntax. Too low: small models fall into loops that "
        "repeat one line.",
        cpu="0 for code, 0.7 to 1.0 for prose",
        gpu="0 for code, 0.2 for pass@1, 0.8 for pass@100",
        maps_to="transformers.GenerationConfig.temperature",
        ge=0,
        le=100,
    )
    top_k: int = key(
        0,
        what="Sample only among the k most likely tokens; 0 switches this off.",
        why="The long tail of unlikely tokens adds up to a real chance of nonsense.",
        how="All other scores are set to minus infinity before sampling; without effect at temperature 0.",
        benefit="Fewer absurd words at the same temperature.",
        tradeoff="Too high: like off. Too low (1 to 5): dull, close to greedy, repeats itself.",
        cpu="0 or 50",
        gpu="0 or 50",
        maps_to="transformers.GenerationConfig.top_k",
        ge=0,
    )
    top_p: float = key(
        1.0,
        what="Sample only among the most likely tokens that together reach this probability; 1 switches this off.",
        why="Where the model is sure few tokens should stay, where it is not many: a fixed k cannot do both.",
        how="Tokens are sorted by probability and kept until the sum reaches top_p; without effect at temperature 0.",
        benefit="Cuts the tail and adapts to each position.",
        tradeoff="Too high (1.0): rare nonsense at temperature 1. Too low (below 0.5): nearly greedy, repetitive.",
        cpu="0.9 to 1.0",
        gpu="0.9 to 0.95",
        maps_to="transformers.GenerationConfig.top_p",
        gt=0,
        le=1,
    )
    num_return_sequences: int = key(
        1,
        what="How many texts are drawn for each prompt.",
        why="One draw says little about a random process; pass@k needs several.",
        how="The draws run as one batch from the same prompt; needs a temperature above 0.",
        benefit="Several attempts to choose from or to grade.",
        tradeoff="Too high: memory and time grow with it. Too low: pass@k for a larger k cannot be estimated.",
        cpu="1 to 5",
        gpu="1 to 20, 200 for pass@100",
        maps_to="transformers.GenerationConfig.num_return_sequences",
        ge=1,
    )
    stop: list[str] = key(
        [],
        what="Texts that end a generation when they appear, e.g. ['\\ndef ', '\\n### Instruction:'].",
        why="Base models know no end of an answer: they invent the next question.",
        how="Compared with the decoded new text; the stop text itself is cut off. In YAML use double quotes for \\n.",
        benefit="Answers end where the answer ends, in fewer tokens.",
        tradeoff="Too general (like '\\n'): answers are cut after a line. Too special: it never matches.",
        cpu="[]; ['\\ndef ', '\\nclass '] for single functions of a base model",
        gpu="[]; the same stop texts",
        maps_to="transformers.GenerationConfig.stop_strings",
    )
    sampling_seed: int = key(
        0,
        what="Seed of the random draws in generation.",
        why="Base and tuned should be compared under the same random draws.",
        how="A generator of its own: it does not change the training, nor does the training change it.",
        benefit="The same prompt and settings give the same text on the same machine.",
        tradeoff="A single fixed seed can look better or worse than average: vary it before judging a few samples.",
        cpu="0",
        gpu="0",
        maps_to=None,
        ge=0,
        le=2**32 - 1,
    )
