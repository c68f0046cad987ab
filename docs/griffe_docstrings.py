"""How the docstrings of the library are read for the reference: a part of the documentation's build."""

import re

import griffe

_REFERENCE = re.compile(r"\[(`[^`\n]+`)\](?![\[(])")


class Docstrings(griffe.Extension):
    """Takes an `Example:` for the `Examples:` of Google's style, and the brackets off names."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        todo: list[griffe.Object | griffe.Alias] = [pkg]
        while todo:
            found = todo.pop()
            if found.docstring:
                text = re.sub(r"^Example:$", "Examples:", found.docstring.value, flags=re.MULTILINE)
                found.docstring.value = _REFERENCE.sub(r"\1", text)
            todo += [member for member in found.members.values() if not member.is_alias]
