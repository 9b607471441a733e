"""The command that shows the page."""

from pathlib import Path
from typing import Annotated

import typer

from hone.errors import HoneError


def ui(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path(),
    host: Annotated[str, typer.Option(help="Where to listen; only this machine can reach the default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes any that is free.")] = 7860,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
) -> None:
    """Show the runs of a folder on a live page: curves, comparisons, base and tuned side by side."""
    from hone.serve.place import listen, place

    if not folder.is_dir():
        raise HoneError("no such folder", where=str(folder), fix="name the folder that your runs are in: hone ui runs")
    from hone.cache import cache_root
    from hone.page.run import kept_token, serve

    token = kept_token(cache_root() / "page-token")
    where = place(host, port, token, [], [])
    listener = listen(host, port)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listener.getsockname()[1]}/#token={token}"
    typer.echo(f"the runs of {folder.resolve()}: {address}\n(Ctrl-C ends; trainings go on)", err=True)
    if open_browser:
        import webbrowser

        webbrowser.open(address)
    with listener:
        serve(folder.resolve(), where, token=token, listener=listener)
