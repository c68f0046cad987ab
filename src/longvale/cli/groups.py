"""Groups of options that commands share: dataclasses whose fields become parameters, as with HfArgumentParser.

Typer reads the parameters of a function. [`grouped`] replaces each parameter whose type is a group by one parameter per
field, and passes the group to the function:

    @dataclass(eq=False, repr=False)  # other methods are not needed and would slow down --help
    class RunOptions(Group, panel="Run"):
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False

    @app.command()
    @grouped
    def features(videos: Path, run: RunOptions) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

from typer.core import TyperCommand


class Group:
    """Base class of groups; `panel` is their heading in the help of a command."""

    panel: ClassVar[str]

    def __init_subclass__(cls, panel: str) -> None:
        cls.panel = panel

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the library's function, by default the fields."""
        return dict(vars(self))


def arguments(*groups: Group) -> dict[str, Any]:
    """Return the arguments of several groups."""
    return {name: value for group in groups for name, value in group.arguments().items()}


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameters of a command that are groups by their fields; a field of two groups is one option."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            parameters[parameter.name] = parameter.replace(
                kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]
            )
            continue
        group = groups[parameter.name]
        types = get_type_hints(group, include_extras=True)
        for field in fields(group):
            parameters.setdefault(field.name, _parameter(field, types[field.name], group.panel))

    @wraps(function)
    def call(**values: Any) -> None:
        made = {
            name: group(**{field.name: values[field.name] for field in fields(group)}) for name, group in groups.items()
        }
        function(**{name: values[name] for name in hints if name not in groups}, **made)

    call.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    call.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return call


def _parameter(field: Field, annotation: Any, panel: str) -> inspect.Parameter:
    kind, option = get_args(annotation)
    option = copy(option)
    option.rich_help_panel = panel
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


class PanelCommand(TyperCommand):
    """Command whose help lists the options of each group under its heading."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options of no group, and the options of each group."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                place = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or place, []).append(record)
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
