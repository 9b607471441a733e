"""The keys of section `train` that make a step cheaper and change nothing that is learned.

Each turns one part of `accelerations/` off; each is checked against the plain computation before the first step.
"""

from hone.config.fields import Section, key


class SpeedKeys(Section):
    """What makes a step cheaper."""

    scored_rows_only: bool = key(
        True,
        what="Whether the output layer is computed only at the positions whose next token is supervised.",
        why="The output layer is a third of a small model's work, and prompts and padding never need it.",
        how="The loss and its gradients are the same; before the first step this is checked on a real example, and a "
        "model that cannot do it computes every position.",
        benefit="Fewer operations and less memory, in proportion to the share of tokens that are masked.",
        tradeoff="true: a check of a second before the first step; and the model gives no scores of the other "
        "positions, so code of your own that reads them turns it off, as does torch_compile. false: slower, most with "
        "long prompts.",
        cpu="true",
        gpu="true",
    )
    segment_attention: bool = key(
        True,
        what="Whether attention on the CPU runs on each example of a flat or packed row alone, without a mask.",
        why="With a mask the CPU computes every pair of tokens of the whole row, also across examples.",
        how="The result is the same; before the first step this is checked on real examples. No effect on a GPU, with "
        "batching padded or windows, or on models with capped scores or attention code of their own.",
        benefit="Attention costs the sum of the squared lengths instead of the square of their sum.",
        tradeoff="true: a check before the first step; nothing is gained where a row holds one example. false: the "
        "more examples in a row, the slower.",
        cpu="true",
        gpu="no effect",
    )
    fused_head: bool = key(
        True,
        what="Whether output layer and loss are computed as one operation, a block of rows at a time.",
        why="The scores of a whole vocabulary for every token often take more memory than the model itself, and time.",
        how="Rows are worked through in blocks, so the scores of the whole vocabulary are never in memory at once. "
        "Before the first step loss and gradients are compared with the plain ones; where they differ (models that cap "
        "or scale their scores), and where an adapter is on the output layer, the plain way is kept. Needs "
        "scored_rows_only.",
        benefit="Less memory and shorter steps, most with a small model and a large vocabulary; the same result.",
        tradeoff="true: a check of a second before the first step; code of your own that reads the scores in training "
        "turns it off. false: 200 kB more for each scored token of a vocabulary of 50,257, and as much for its "
        "gradient.",
        cpu="true",
        gpu="true",
    )
    fused_gelu: bool = key(
        True,
        what="Whether the tanh form of GELU is computed by PyTorch's one operation.",
        why="GPT-2's activation is written out as eight operations in transformers.",
        how="The module is replaced while training; the function is the same up to rounding.",
        benefit="One pass over the widest activations instead of eight.",
        tradeoff="Differences in the last digit; turn it off to compare.",
        cpu="true",
        gpu="true",
    )
    prefix_cache_gb: float = key(
        10.0,
        ge=0,
        what="Up to how many gigabytes of disk may hold what frozen blocks make of each token; 0 turns that off.",
        why="With the bottom of a network frozen, every epoch computes the same numbers there again.",
        how="The first epoch writes the hidden states at the first trained block next to the tokens ($HONE_CACHE); "
        "later epochs begin there, and so do later runs with the same frozen weights and rows. Runs at the same time "
        "each write their own; one stopped in its first epoch keeps nothing. With method freeze, or lora with "
        "lora_layers_to_transform; flat batches, no dropout, several epochs. Checked before use.",
        benefit="From the second epoch on only the trained blocks cost anything.",
        tradeoff="2 bytes x width for each token (4 in float32); with bf16 the states are rounded to it. "
        "`hone cache --remove prefix` frees it.",
        cpu="10",
        gpu="10",
    )
    keep_freed_memory: bool = key(
        True,
        what="Whether memory that a step frees stays with the process for the next one, on the CPU.",
        why="A step frees hundreds of megabytes and asks for them again a moment later. To hand them back to the "
        "system in between costs time: it clears every page before it gives it out again.",
        how="On Linux the C library is told to keep what was freed, for the whole process; no effect on a GPU, on "
        "macOS and on Windows.",
        benefit="A step of a small model takes a third less time.",
        tradeoff="The process holds its peak memory until it ends, in a notebook too.",
        cpu="true",
        gpu="no effect",
    )
    micro_batch_tokens: int | None = key(
        None,
        what="At most how many tokens go forward and backward at once; null takes each micro-batch whole.",
        why="A count of rows says little about memory: rows are short or long.",
        how="A micro-batch of more tokens is cut between examples into pieces whose gradients are added: the same step "
        "in several passes. An example longer than this is a piece of its own. For the causal task.",
        benefit="Large steps with the memory of small ones, and fuller matrix products than with one row at a time "
        "and gradient_accumulation_steps.",
        tradeoff="Too low: small products, slow; too high: out of memory.",
        cpu="null; 256 to 512 for models above 1 billion weights",
        gpu="null, or 8,192 to 65,536",
        ge=1,
    )
