"""The main command `longvale`: entry point, error handling and exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from longvale import __version__
from longvale.system import interruption
from longvale.system.names import printable

from .groups import PanelCommand

#: Exit codes: of bad input, the same as for usage errors, and of Ctrl-C, the same as in shells.
BAD_INPUT, INTERRUPTED = 2, 130

#: Environment variables, set unless the user sets them. Idle threads of torch that spin make small machines many times
#: slower. Messages of transformers during loading are replaced by our own checks. Python's resource tracker does not
#: warn that it had to clean up shared memory after Ctrl-C.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
}


#: The usage error that typer raises; different versions define the class in different modules.
UsageError = typer.BadParameter.__bases__[0]


#: Alternative option names, used by the recipes and related libraries; underscores are accepted for hyphens.
_OTHER_NAMES = {
    "output-dir": "output",
    "data-dir": "data",
    "features-dir": "features",
    "videos-dir": "videos",
    "model-name-or-path": "model",
}


def _usual_name(name: str) -> str:
    name = name.replace("_", "-")
    return _OTHER_NAMES.get(name, name)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a line, escaping terminal control characters that captions, file names or servers may contain.

    Args:
        text: text to print.
        err: print to stderr.
    """
    typer.echo(printable(str(text)), err=err)


class _Printable(logging.Formatter):
    """Log formatter that escapes terminal control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _FirstArgument(PanelCommand):
    """Command whose first argument may also be given as an option, as in the recipes."""

    option: str

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for place, text in enumerate(args[:end]):
            name, equals, value = text.partition("=")
            if name.startswith("--") and _usual_name(name[2:]) == self.option and (equals or place + 1 < end):
                rest = args[:place] + args[place + (1 if equals else 2) :]
                args = [value if equals else args[place + 1], *rest]
                break
        return super().parse_args(ctx, args)


class ModelCommand(_FirstArgument):
    """Command whose first argument is a model, also accepted as `--model`."""

    option = "model"


class OutputCommand(_FirstArgument):
    """Command whose first argument is its output, also accepted as `--output`."""

    option = "output"


class _Group(TyperGroup):
    """Command group that reports input errors of a command as one line on stderr, with an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            name = getattr(error, "option_name", "")  # set for an unknown option
            if name and not getattr(error, "possibilities", None):
                error.message += f" (a name that begins with a hyphen comes last, behind --: ... -- {name}...)"
            error.message = printable(error.message)
            raise
        except BrokenPipeError:  # the reader of our output has closed it, as `| head` does
            raise
        except (ValueError, OSError) as error:
            if interruption.exit_code():  # the error is caused by the signal
                raise _stopped() from None
            if os.environ.get("LONGVALE_DEBUG"):
                echo(traceback.format_exc(), err=True)
            echo(f"longvale: error: {_one_line(error)}", err=True)
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            raise _stopped() from None


def _stopped() -> typer.Exit:
    echo(interruption.final_message(), err=True)
    return typer.Exit(interruption.exit_code() or INTERRUPTED)


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _usual_name},
)


def main() -> None:
    """Run the command line: entry point of `longvale` and of `python -m longvale`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):  # a terminal with another encoding gets escapes instead of an error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.lastResort.setFormatter(_Printable("longvale: %(levelname)s: %(message)s"))
    with interruption.prompt_exit():
        app(prog_name="longvale")


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"longvale {__version__}")
        raise typer.Exit


@app.callback(epilog="LONGVALE_DEBUG=1 shows where an error comes from.")
def _longvale(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Videos that are seen, heard and spoken: data, features, answers and scores of LongVALE."""
