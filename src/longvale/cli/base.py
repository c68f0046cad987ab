"""The command `longvale` itself: its name, its errors, its exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from longvale import __version__, interruption
from longvale.names import printable

#: Exit code of bad input, as of errors in the command line itself; of Ctrl-C, as shells have it.
BAD_INPUT, INTERRUPTED = 2, 130

#: Set unless the user has: idle threads of torch that spin make small machines many times slower, what transformers
#: notes while it loads is checked by us, and Python's cleaner of shared memory need not report that it had work to do
#: after Ctrl-C.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
}


#: What typer raises about the command line; the class has had several homes.
UsageError = typer.BadParameter.__bases__[0]


#: Other names of options, as the recipes and libraries around have them; underscores may stand for hyphens.
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
    """Print a line for people: what a terminal would obey, from captions, names of files or servers, as escapes.

    Args:
        text: to print.
        err: on stderr.
    """
    typer.echo(printable(str(text)), err=err)


class _Printable(logging.Formatter):
    """Of what the library logs while a command runs."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _FirstArgument(TyperCommand):
    """A command whose first argument may be given as an option too, as the recipes take it."""

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
    """A command whose first argument is a model: `--model`, too."""

    option = "model"


class OutputCommand(_FirstArgument):
    """A command whose first argument is what it writes: `--output`, too."""

    option = "output"


class _Group(TyperGroup):
    """Turns what a command raises about its input into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            name = getattr(error, "option_name", "")  # of one that is not known
            if name and not getattr(error, "possibilities", None):
                error.message += f" (a name that begins with a hyphen comes last, behind --: ... -- {name}...)"
            error.message = printable(error.message)
            raise
        except BrokenPipeError:  # whoever read our output has gone, as `| head` does
            raise
        except (ValueError, OSError) as error:
            if interruption.exit_code():  # what the interrupted call has made of the signal
                raise _stopped() from None
            if os.environ.get("LONGVALE_DEBUG"):
                echo(traceback.format_exc(), err=True)
            echo(f"longvale: error: {_one_line(error)}", err=True)
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            raise _stopped() from None


def _stopped() -> typer.Exit:
    echo(interruption.last_words(), err=True)
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
    """Entry point of `longvale` and of `python -m longvale`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):  # a terminal of another encoding gets escapes, too, and no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.lastResort.setFormatter(_Printable("longvale: %(levelname)s: %(message)s"))
    with interruption.prompt_end():
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
