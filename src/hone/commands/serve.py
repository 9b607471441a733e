"""The command that serves models."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from hone.commands.generate import SAMPLING, Template, with_sampling
from hone.errors import HoneError, said
from hone.imports import importing

if TYPE_CHECKING:
    from hone.inference.generate import SamplingOptions

KEY = "HONE_API_KEY"


@with_sampling(*(name for name in SAMPLING if name != "n"))
def serve(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=RUN", help="An adapter over MODEL, under this name (may be repeated)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other machines reach it only with an API key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes any that is free.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help=f"Asked of every client; better set {KEY}: others see options.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="A page elsewhere that may ask: https://chat.example.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that this server answers to.")
    ] = None,
    base: Annotated[bool, typer.Option("--base/--no-base", help="Of a run, serve its base too.")] = True,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests open at once; more get a 429.")] = 256,
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest time for one request.")] = 600,
    *,
    sampling: "SamplingOptions",
    template: Template = None,
) -> None:
    """Serve a run's base and tuned model, or any model, behind OpenAI's API; each answer says which gave it."""
    from hone.serve.place import listen, place

    key = api_key if api_key is not None else os.environ.get(KEY)
    where = place(host, port, key or None, allow_host or [], allow_origin or [])
    pairs = [_named(one) for one in adapter or []]
    listener = listen(host, port)  # a port that is taken is better known before a model is loaded

    with importing():
        from hone.serve.app import Limits
        from hone.serve.models import served_models
        from hone.serve.run import serve as serve_models
        from hone.serve.run import start_lines

    def say(line: str) -> None:
        typer.echo(said(line), err=True)

    with listener:
        models = served_models(model, pairs, sampling, template, with_base=base)
        name = f"[{host}]" if ":" in host else host
        for line in start_lines(models, f"http://{name}:{listener.getsockname()[1]}/v1"):
            say(line)
        limits = Limits(open_requests=max_requests, seconds=max_seconds)
        serve_models(models, where, limits, listener=listener, default_seed=sampling.get("seed"), say=say)


def _named(given: str) -> tuple[str, str]:
    name, equals, folder = given.partition("=")
    if not (name and equals and folder):
        raise HoneError(f"'{given}' names no adapter", where="--adapter", fix="write --adapter NAME=RUN")
    return name, folder
