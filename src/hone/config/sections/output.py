"""The section `output`: where the run is written."""

from pathlib import Path

from hone.config.fields import FilePath, Section, key


class OutputSection(Section):
    """The run folder."""

    output_dir: FilePath = key(
        Path("out"),
        what="The folder of the run: model, tokenizer, checkpoints, metrics and reports.",
        why="Everything that later commands read (compare, report, chat) is found there.",
        how="Created when missing; its root loads with from_pretrained. A relative path in a YAML file starts at that "
        "file's folder, one on the command line at the folder you are in.",
        benefit="One folder a run: easy to copy, to compare and to delete.",
        tradeoff="The same folder with other settings is refused (unless overwrite: true). On a small disk: each "
        "checkpoint of full training takes about 12 bytes a weight.",
        cpu="runs/NAME",
        gpu="runs/NAME on a local disk",
        maps_to="transformers.TrainingArguments.output_dir",
    )
    overwrite: bool = key(
        False,
        what="Whether a run that is already in output_dir is deleted and begun anew.",
        why="A second start with the same YAML must not destroy hours of training by accident.",
        how="false resumes an unfinished run, shows a finished one, and refuses one with other settings. Folders that "
        "hold no run are never deleted.",
        benefit="true saves deleting by hand while trying things out.",
        tradeoff="true: the former run is lost, its numbers included. false: choose a new output_dir for each run.",
        cpu="false",
        gpu="false",
        maps_to=None,
    )
