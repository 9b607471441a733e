"""The section `data`: where rows come from, how they become tokens, and how tokens meet in a batch."""

from typing import Literal

from hone.config.fields import FileOrFiles, FilePath, Section, key


class DataSection(Section):
    """Either files (`train_file`) or a hub data set (`dataset_name`), never both."""

    train_file: FileOrFiles = key(
        None,
        what="The training data: a file, a folder, or a list of them.",
        why="The rows are what the model will imitate; nothing else in this file matters as much.",
        how=".jsonl .json .csv .parquet .txt .md .py, .gz of those, .bin token files, or a corpus (`hone corpus`). "
        "The form is recognised by the columns (text, prompt + completion, messages, instruction + output). A relative "
        "path in a YAML file starts at that file's folder, one on the command line at the folder you are in.",
        benefit="No registry and no conversion: point at the file.",
        tradeoff="Too few rows (tens): memorized after some epochs. Many careless rows: the model copies their "
        "faults; `hone prepare --show 3` shows what is trained.",
        cpu="50 to 20,000 rows",
        gpu="1,000 to 1,000,000 rows",
        maps_to=None,
    )
    validation_file: FileOrFiles = key(
        None,
        what="The validation data, in the same forms; it is measured and never trained on.",
        why="Only rows the model has not seen show whether it learned or memorized.",
        how="Without it, validation_split_percentage holds out part of the training rows. A relative path in a YAML "
        "file starts at that file's folder, one on the command line at the folder you are in.",
        benefit="The same rows in every run: numbers of different runs can be compared.",
        tradeoff="Too small (below 50 rows): wide intervals. Also trained on: a perplexity too good to be true.",
        cpu="100 to 500 rows",
        gpu="500 to 5,000 rows",
        maps_to=None,
    )
    dataset_name: str | None = key(
        None,
        what="A data set of the Hugging Face hub, e.g. sahil2801/CodeAlpaca-20k, in place of files.",
        why="Many sets are published there and cached after the first download.",
        how="Read with datasets.load_dataset; a value that starts with . / or ~ is a local folder.",
        benefit="One line instead of a download script.",
        tradeoff="Needs a network once, and the set can change; a local file cannot.",
        cpu="null or a set below 100 MB",
        gpu="any",
        maps_to="datasets.load_dataset.path",
    )
    dataset_config_name: str | None = key(
        None,
        what="The configuration (subset) of a hub data set, e.g. main for openai/gsm8k.",
        why="Some sets hold several tables under one name and cannot be read without choosing.",
        how="Passed as the second argument of load_dataset; only with dataset_name.",
        benefit="Reads only the part you mean.",
        tradeoff="Missing: an error that lists the choices. Wrong: other columns than expected.",
        cpu="null",
        gpu="null",
        maps_to="datasets.load_dataset.name",
    )
    dataset_train_split: str = key(
        "train",
        what="Which split of the hub data set is trained on.",
        why="Splits keep test rows out of the training.",
        how="A name, or a slice such as train[:1000]; quote it in YAML.",
        benefit="A slice is a quick first run.",
        tradeoff="Training on test rows makes every published comparison void.",
        cpu="'train[:1000]' to try out",
        gpu="train",
        maps_to="datasets.load_dataset.split",
    )
    dataset_validation_split: str | None = key(
        None,
        what="Which split of the hub data set is measured; null holds out part of the training split.",
        why="The authors' own split makes your number comparable with theirs.",
        how="A name or a slice; only with dataset_name. It replaces validation_split_percentage.",
        benefit="The same rows as other people's results.",
        tradeoff="A large split costs minutes at each evaluation (max_eval_samples bounds it); null costs training "
        "rows.",
        cpu="validation or 'test[:200]'",
        gpu="validation or test",
        maps_to="datasets.load_dataset.split",
    )
    column_mapping: dict[str, str] = key(
        {},
        what="Your column names for ours: {ours: yours}, e.g. {text: content} or {prompt: question}.",
        why="The form of a row is recognised by its columns, and yours may have other names.",
        how="Ours: text; prompt, completion; messages; instruction, input, output; conversations; text, label; source, "
        "target. Without a mapping, usual names (question, answer, response …) are taken where they can mean one thing "
        "only, with a notice.",
        benefit="No copy of the data with renamed columns.",
        tradeoff="A name that no row has is an error with file and line. A wrong pair trains the wrong text.",
        cpu="{}",
        gpu="{}",
        maps_to=None,
    )
    template: Literal["auto", "plain", "instruction", "chat"] = key(
        "auto",
        what="How prompt and answer are written around each other: auto, plain, instruction or chat.",
        why="The model must later be asked in the form it was trained in.",
        how="plain joins the texts as they are; instruction writes '### Instruction:' and '### Response:' headings; "
        "chat uses the tokenizer's own template. auto: chat for conversations, instruction for rows of "
        "instruction+output or question+answer, else plain.",
        benefit="The template is saved with the run, so that generate and chat ask in the same form.",
        example="""\
### Instruction:
Write a function double(x) that returns twice x.

### Response:
def double(x):
    return 2 * x<|endoftext|>""",
        tradeoff="instruction on a base model: it has to learn the headings first. chat without a template in the "
        "tokenizer is an error. A form unlike the base's own: higher loss in the first steps.",
        cpu="auto",
        gpu="auto",
        maps_to=None,
    )
    completion_only_loss: bool = key(
        True,
        what="Whether only the answer counts in the loss, not the prompt.",
        why="The model should learn to answer, not to invent questions.",
        how="Prompt tokens get the label -100. Plain text has no prompt: all of it is trained.",
        benefit="Every update goes into the answers; the loss measures answers only.",
        tradeoff="true with answers of one word: few trained tokens a step, a noisy loss. false: long prompts rule, "
        "and the loss falls while answers stay the same.",
        cpu="true",
        gpu="true",
        maps_to=None,
    )
    append_eos: bool = key(
        True,
        what="Whether the end token is appended to every row and trained.",
        why="A model that was never shown an end does not stop.",
        how="One token per row; a file of plain text is one row. A chat template that closes its turn gets no second.",
        benefit="Generations end by themselves.",
        tradeoff="false: endless answers until max_new_tokens. true on fragments of text: the model learns to stop in "
        "the middle.",
        cpu="true; false for windows of continuous text",
        gpu="true; false for windows of continuous text",
        maps_to=None,
    )
    max_length: int = key(
        512,
        what="The longest example in tokens, prompt and answer together.",
        why="Memory and time grow with it, attention with its square.",
        how="What is longer is treated as on_long_row says. At most the model's own limit (1,024 for GPT-2), "
        "which is taken where it is below 512 and no max_length is given.",
        benefit="Just above your longest useful row, nothing is lost and nothing wasted.",
        tradeoff="Too high: out of memory on one long row. Too low: answers are cut, the end token is never seen, and "
        "generations do not stop.",
        cpu="128 to 512",
        gpu="1024 to 4096",
        maps_to=None,
        ge=2,
    )
    max_target_length: int = key(
        128,
        what="With task: seq2seq: the longest target in tokens; max_length is then that of the source.",
        why="Source and target meet in different halves of the model, and often differ much in length.",
        how="What is longer is treated as on_long_row says (truncate or drop); a cut target gets no end token.",
        benefit="Short targets keep the decoder, and generation, cheap.",
        tradeoff="Too high: memory, and slow generation when the model does not stop. Too low: targets are cut, and "
        "the model does not learn to end them.",
        cpu="32 to 128",
        gpu="64 to 512",
        maps_to=None,
        ge=2,
    )
    on_long_row: Literal["truncate", "drop", "split"] = key(
        "truncate",
        what="What happens to a row longer than max_length: cut its end, drop it, or split it into pieces.",
        why="Each choice loses something else; the counts are printed by prepare.",
        how="truncate keeps the first max_length tokens; split keeps all of them as consecutive examples, where later "
        "pieces do not see earlier ones. batching: windows always splits.",
        benefit="truncate keeps the start of every row, drop keeps only whole rows, split keeps every token.",
        tradeoff="truncate: the end token of long rows is lost. drop: a too low max_length empties the data. split: "
        "pieces start in the middle of a sentence.",
        cpu="truncate; drop for instructions",
        gpu="drop for instructions, split for plain text",
        maps_to=None,
    )
    batching: Literal["flat", "packed", "windows", "padded"] = key(
        "flat",
        what="How examples are laid into the rows of a batch: flat, packed, windows or padded.",
        why="Padding is computed and thrown away: with rows of mixed length that is often half of the work.",
        how="flat: the micro-batch end to end in one row. packed: whole examples in rows of max_length. In both, "
        "positions restart and no example sees another. windows: each text cut into exactly max_length tokens, the "
        "rest dropped and counted. padded: one example a row, filled up to the longest.",
        benefit="flat gives the same loss as padded without computing any padding.",
        tradeoff="padded: slow on mixed lengths. packed: the number of examples in a step varies. windows: texts "
        "shorter than max_length vanish. flat: memory varies with the rows' lengths.",
        cpu="flat; windows for books and code files",
        gpu="flat or packed; windows for pre-training",
        maps_to=None,
    )
    on_bad_row: Literal["error", "skip"] = key(
        "error",
        what="What happens at a row that cannot be read: stop with file and line, or skip and count it.",
        why="A broken row is usually a sign of a broken export; sometimes it is one of a million.",
        how="Bad: invalid JSON, missing columns, or values that are not text.",
        benefit="error finds the mistake before hours of training.",
        tradeoff="error: one row stops the run. skip: a wrong column name silently costs a whole file; look at the "
        "counts that prepare prints.",
        cpu="error",
        gpu="error; skip for scraped data",
        maps_to=None,
    )
    deduplicate: bool = key(
        False,
        what="Whether training examples that occur several times are kept only once.",
        why="Copies are trained several times an epoch: the model memorizes them.",
        how="Examples are equal when their tokens and labels are; the first one stays. Similar ones are not found.",
        benefit="Less memorization, and a smaller set.",
        tradeoff="true: rows repeated on purpose, as a weight, count once. false: copied licence texts are the first "
        "thing the model recites.",
        cpu="true for collected code",
        gpu="true for collected code",
        maps_to=None,
    )
    overlap: Literal["flag", "drop", "off"] = key(
        "flag",
        what="What happens to training rows that hold a validation item, word for word or nearly.",
        why="A model that has trained on the answers looks better than it is.",
        how="Looked for before training: the same words; for code also with other variable names, comments or layout; "
        "or half of an item's runs of 13 words in one row. flag: logged, and written to eval/contamination.json. drop: "
        "those rows are not trained. off: not looked for.",
        benefit="Every before-and-after comparison comes with how many of its items were in the training rows.",
        tradeoff="flag: some seconds at the first start with some data (a second for 5,000 short rows). drop: somewhat "
        "less to train on. off: nobody knows what a good number means.",
        cpu="flag, or drop for collected code",
        gpu="drop",
        maps_to=None,
    )
    validation_split_percentage: float = key(
        10.0,
        what="Percentage of the training rows held out for validation when there is no validation file or split.",
        why="Without rows it has not seen, a model cannot be measured.",
        how="Chosen by the content of each row and split_seed: equal rows land on the same side. A single text loses "
        "its end. 0 means no validation.",
        benefit="A before-and-after comparison without preparing a second file.",
        tradeoff="Too high: less to train on. Too low: intervals wider than the improvement.",
        cpu="10, at least some 50 rows",
        gpu="1 to 5 of a large set",
        maps_to=None,
        ge=0,
        le=50,
    )
    split_seed: int = key(
        0,
        what="Seed of the choice which rows are held out.",
        why="It is apart from the training seed, so that repeated runs are measured on the same rows.",
        how="Rows are ranked by a hash of this seed and their content.",
        benefit="Several training seeds give comparable numbers.",
        tradeoff="Changing it between runs adds the choice of rows to what is compared.",
        cpu="0",
        gpu="0",
        maps_to=None,
        ge=0,
        le=2**32 - 1,
    )
    max_train_samples: int | None = key(
        None,
        what="Train on the first so many examples only; null takes all.",
        why="A short run finds mistakes before a long one.",
        how="Counted after cutting and splitting; applied at every start without tokenising again.",
        benefit="A whole run, comparison included, in a minute.",
        tradeoff="The first rows of a sorted file are not like the rest: shuffle the file, or take a slice you know.",
        cpu="50 to 500 to try out",
        gpu="null",
        maps_to=None,
        ge=1,
    )
    max_eval_samples: int | None = key(
        None,
        what="Measure the first so many validation examples only; null takes all.",
        why="Evaluation at each epoch, and of the base, costs a pass over them.",
        how="Base and tuned are measured on the same ones.",
        benefit="Time for training instead of measuring.",
        tradeoff="Too high: evaluation takes longer than training. Too low: wide intervals, 'not distinguishable'.",
        cpu="100 to 200",
        gpu="null or 1,000",
        maps_to=None,
        ge=1,
    )
    bin_dtype: Literal["uint16", "uint32"] = key(
        "uint16",
        what="Number format of .bin token files that come without our description file.",
        why="Such files are bare numbers; nothing in them tells how wide a number is.",
        how="uint16 is what nanoGPT writes; vocabularies above 65,536 entries need uint32.",
        benefit="Token files of other tools are read as they are.",
        tradeoff="Wrong: every token is wrong, the loss starts near ln(vocabulary), or ids exceed the vocabulary, "
        "which is an error.",
        cpu="uint16 (GPT-2)",
        gpu="uint32 for Qwen2 and Llama 3 vocabularies",
        maps_to=None,
    )
    token_cache_dir: FilePath | None = key(
        None,
        what="Folder for prepared tokens; null is $HONE_CACHE/tokens, else ~/.cache/hone/tokens.",
        why="Tokenising a large set takes minutes and gives the same tokens every time.",
        how="One folder for each combination of data, tokenizer and settings, named by their hash; safe to delete.",
        benefit="The second start with the same data begins at once.",
        tradeoff="Takes 2 to 5 bytes a token of disk; on a network disk reading can slow the training down.",
        cpu="null",
        gpu="null, or a fast local disk",
        maps_to=None,
    )
