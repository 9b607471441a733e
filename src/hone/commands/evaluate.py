"""Commands that measure models and read runs: eval, grade, compare, report, runs."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import hone
from hone.commands.shared import AsJson, Settings, check_isolation, check_output, config_of, log_to_stderr
from hone.errors import HoneError


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    settings: Settings = None,
    text: Annotated[list[str] | None, typer.Option(help="Measure this text (may be repeated).")] = None,
    code_tasks: Annotated[
        Path | None, typer.Option(help="Measure pass@k on these programming tasks: a file as of `hone grade`.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Answers to each programming task [1].")] = None,
    isolation: Annotated[str, typer.Option(help="strict, or none: programs then run as you do.")] = "strict",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answers, as JSON lines.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Public benchmarks by name, as arc_easy,piqa (lm-eval).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items of each benchmark.")] = None,
    as_json: AsJson = False,
) -> None:
    """Loss, perplexity and bits per byte of a model: on a run's own held-out rows, a file's, a config's, or a text."""
    if sum(given is not None for given in (text or None, code_tasks, tasks)) > 1:
        raise HoneError("more than one of --text, --code-tasks and --tasks is given", fix="give one of them")
    from hone.commands.given import is_config

    own = Path(model) / "config.resolved.yaml"
    tokens = list(settings or [])
    if own.is_file() and not any(is_config(token) for token in tokens):
        tokens = [str(own), *tokens]
    tokens += [f"num_return_sequences={samples}"] if samples else []
    if code_tasks is not None:
        _evaluate_code(model, code_tasks, _config_for(tokens), isolation, output, as_json)
    elif tasks is not None:
        _evaluate_public(model, tasks, _config_for(tokens), limit, as_json)
    else:
        from hone.config.checks import FORMS
        from hone.results import json_text
        from hone.show import measurement_line

        with texts_as_rows(text or []) as instead:
            config = _config_for([*tokens, *instead])
            if text and FORMS.get(config.method.task) is not None:
                what = f"a text alone has no loss for a model of task {config.method.task}"
                raise HoneError(what, where="--text", fix=f"write hone predict {model} --text '…', or name rows")
            result = hone.evaluate(model, config)
        typer.echo(json_text(result) if as_json else measurement_line(result))


def _config_for(tokens: list[str]) -> Any:
    return config_of(tokens, "validation_file", assume=False)


@contextmanager
def texts_as_rows(texts: list[str]) -> Iterator[list[str]]:
    """Settings that make texts the rows to measure, in a folder that is deleted again; none without texts."""
    if not texts:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text.jsonl")
        file.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts), encoding="utf-8")
        nothing = ("train_file", "dataset_name", "dataset_config_name", "dataset_validation_split", "max_eval_samples")
        yield [
            *(f"{key}=" for key in nothing),
            *("column_mapping={}", "template=auto"),
            *(f"validation_file={file}", f"token_cache_dir={folder}"),
        ]


def _evaluate_code(model: str, path: Path, config: Any, isolation: str, output: Path | None, as_json: bool) -> None:
    check_isolation(isolation)
    if output is not None:
        check_output(output, path)
    from hone.evaluation.code_tasks import evaluate_code, rows_text
    from hone.files import write_text_atomic
    from hone.results import json_text
    from hone.tables.results import code_text

    log_to_stderr()
    template = None if config.data.template == "auto" else config.data.template
    kind: Any = isolation  # checked above
    result, rows = evaluate_code(model, path, config.generate, template=template, isolation=kind)
    if output is not None:
        write_text_atomic(output, rows_text(rows))
    typer.echo(json_text(result) if as_json else code_text(result))


def _evaluate_public(model: str, tasks: str, config: Any, limit: int | None, as_json: bool) -> None:
    from hone.evaluation.public_tasks import evaluate_public
    from hone.results import json_text
    from hone.tables.results import public_text

    names = [name.strip() for name in tasks.split(",")]
    result = evaluate_public(model, names, config.eval, as_chat=config.data.template == "chat", limit=limit)
    typer.echo(json_text(result) if as_json else public_text(result))


def grade(
    tasks: Annotated[Path, typer.Argument(help="Tasks with tests: HumanEval's or MBPP's file, or your own.")],
    samples: Annotated[
        Path | None,
        typer.Argument(
            help="JSON lines of task_id and completion (or solution); without it, the tasks' own solutions."
        ),
    ] = None,
    k: Annotated[str, typer.Option("--k", help="pass@k for these k.")] = "1,10,100",
    workers: Annotated[int | None, typer.Option(min=1, help="Programs at a time; default: processors + 1.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a program may compute.")] = 3.0,
    isolation: Annotated[str, typer.Option(help="strict, or none: programs then run as you do.")] = "strict",
    as_json: AsJson = False,
) -> None:
    """Run generated programs against the tests of their tasks, isolated, and print pass@k."""
    check_isolation(isolation)
    if not all(part.strip().isdecimal() and int(part) > 0 for part in k.split(",")):
        raise HoneError(f"'{k}' is not a list of numbers", where="--k", fix="for example --k 1,10")
    from hone.grading.grade import grade as grade_samples
    from hone.grading.grade import read_samples, references, results_path, summary, write_results
    from hone.grading.tasks import read_tasks
    from hone.results import json_text
    from hone.tables.results import code_text

    known = read_tasks(tasks)
    asked = read_samples(samples) if samples else references(known)
    if not asked:
        raise HoneError("no samples, and the tasks bring no solutions", where=str(tasks), fix="name a file of samples")
    results = grade_samples(known, asked, isolation=isolation, timeout=timeout, workers=workers)  # type: ignore[arg-type]
    found = summary(results, map(int, k.split(",")), known)
    if samples:
        write_results(results_path(samples), results, found)
    if as_json:
        typer.echo(json_text(found))
    else:
        typer.echo(code_text(found) + (f"\nresults: {results_path(samples)}" if samples else ""))


def compare(
    a: Annotated[Path, typer.Argument(help="A run folder, or the results of `hone grade` (*_results.jsonl).")],
    b: Annotated[Path | None, typer.Argument(help="The other; without it, the run's base and its tuned model.")] = None,
    fail_if_worse: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Exit with code 3 if B is distinguishably worse in it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """B compared with A on the same items: difference, interval, test, and the minimum detectable effect."""
    from hone.evaluation.compare import compare_code
    from hone.results import json_text
    from hone.tables.results import comparison_text, worse

    result, code = hone.compare(a, b), compare_code(a, b)
    why = worse(result, fail_if_worse, code) if fail_if_worse is not None else None
    both = json.dumps({**result.model_dump(mode="json"), "code": code and code.model_dump(mode="json")})
    typer.echo((both if code else json_text(result)) if as_json else comparison_text(result, code))
    if why:
        typer.echo(f"failed: {why}", err=True)
        raise typer.Exit(3)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or the folder of `hone repeat`.")],
) -> None:
    """Write report.html and report.md into a run folder, of its files alone; print what they say first."""
    from hone.errors import printable
    from hone.report.build import write_report

    verdict = write_report(run).verdict
    typer.echo(" ".join(printable(f"{verdict.word}: {verdict.rest}").split()))
    typer.echo(f"wrote {run / 'report.html'} and report.md")


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, up to three levels down.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List runs: status, base, data, last loss, before and after, duration."""
    from hone.runs import find_runs
    from hone.tables.run import run_row, runs_table

    found = find_runs(folder)
    typer.echo(json.dumps([run_row(run) for run in found]) if as_json else runs_table(found))
