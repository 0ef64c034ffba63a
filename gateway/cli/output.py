"""What every command shares: exit codes, options, tables, JSON, and how a failure is told.

Answers go to stdout; everything said about them goes to stderr, so that a pipe gets the answer
alone. Imports of ours are late everywhere in this package: `--help` must not load the web server.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.config import Settings

WIDE = 240  # columns of what goes into a pipe: nothing is wrapped
NARROW = 20  # columns of a terminal that a table's last column is content with


class Code(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3


EXIT_CODES = """\b
Exit codes:
  0  done
  1  it failed, or something is wrong
  2  the command line or the settings are wrong
  3  there is nothing of that name"""

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="GATEWAY_CONFIG",
        help="gateway.toml. Without it: SQLite in ./data and the sandbox's routes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


class Failure(Exception):
    """A command that did not work: one message, one exit code."""

    def __init__(self, message: str, code: Code = Code.FAILED) -> None:
        super().__init__(message)
        self.code = code


def settings(file: Path | None, **given: Any) -> "Settings":
    """The settings, from the environment and a file. Raises SettingsError."""
    from gateway import config

    if file is None and Path("gateway.toml").exists():
        say("note: the gateway.toml here is not read; name it with --config")
    return config.load(config.environment(), file, **given)


def say(message: str = "") -> None:
    """Words for the person at the terminal, on stderr."""
    typer.echo(message, err=True)


def console() -> "Console":
    """Where tables go: stdout; wide and plain when that is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def dump(body: object) -> None:
    """One JSON value on stdout."""
    import orjson

    option = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    if sys.stdout.isatty():
        option |= orjson.OPT_INDENT_2
    typer.echo(orjson.dumps(body, option=option, default=str).decode(), nl=False)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], out: "Console | None" = None
) -> None:
    """A table on stdout: plain where that is no terminal, and one entry below the other where a
    terminal is too narrow for it. Only the last column is ever wrapped."""
    out = out or console()
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    if not out.is_terminal:
        for row in (columns, *cells):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            out.print(line.rstrip(), soft_wrap=True)
    elif sum(widths[:-1]) + 2 * len(widths) + min(widths[-1], NARROW) <= out.width:
        _drawn(columns, cells, out)
    else:
        for row in cells:
            for column, cell in zip(columns, row, strict=True):
                entry = f"{column:<{max(map(len, columns))}}  {cell}"
                out.print(entry.rstrip(), soft_wrap=True)
            out.print()


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], out: "Console") -> None:
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=column is not columns[-1], overflow="fold")
    for row in rows:
        made.add_row(*row)
    out.print(made)


def told(error: Exception) -> tuple[str, Code] | None:
    """How a failure is told; None for one that nobody foresaw."""
    if isinstance(error, Failure):
        return str(error), error.code
    foreseen: Mapping[str, Callable[[Any], tuple[str, Code]]] = {
        "DefinitionError": lambda wrong: (_listed(wrong.mistakes), Code.USAGE),
        "SettingsError": lambda wrong: (_listed(wrong.mistakes), Code.USAGE),
        "KeyringError": lambda wrong: (f"the keyring does not fit: {wrong}", Code.FAILED),
        "StoreError": lambda wrong: (f"the database: {wrong}", Code.FAILED),
        "OSError": lambda wrong: (str(wrong), Code.FAILED),
    }
    for kind in type(error).__mro__:  # by name: importing the classes would cost what is saved
        if kind.__name__ in foreseen:
            return foreseen[kind.__name__](error)
    return None


def _listed(mistakes: Mapping[str, str]) -> str:
    lines = [f"{key}: {problem}" if key else problem for key, problem in mistakes.items()]
    if len(lines) == 1:
        return lines[0]
    return "\n  ".join(["these settings are wrong:", *lines])


def leave(message: str, code: Code) -> NoReturn:
    """End with a message."""
    say(f"gateway: {message}")
    raise SystemExit(int(code))
