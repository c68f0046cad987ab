"""Chat templates of untrusted checkpoints: rendered within limits of time, memory and length.

The sandbox of Jinja keeps a template from files and code, not from loops of hours and texts of gigabytes. So a template
is rendered here only if its form bounds what it can make; all others are rendered in a process of their own, which is
ended when it takes too long.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

#: Limits of rendering: seconds, bytes beside what the process takes by itself, characters.
RENDER_S, RENDER_BYTES, RENDER_CHARACTERS = 10.0, 1 << 30, 16 << 20

#: Starting the process imports transformers, on a busy machine for long.
_START_S = 120.0

#: Longest template that may count as bounded by its form, and how deep its loops may lie in each other.
_PLAIN_CHARACTERS, _PLAIN_LOOPS = 1 << 16, 2

_GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_PLAIN_VALUES = {
    "Const",
    "Name",
    "Getattr",
    "Getitem",
    "Slice",
    "Neg",
    "Compare",
    "Operand",
    "And",
    "Or",
    "Not",
    "Test",
}
_PLAIN_NODES = _PLAIN_VALUES | {
    *("Template", "Output", "TemplateData", "If", "CondExpr", "Add", "Sub", "Concat", "For", "Filter", "Call", "Assign")
}
_PLAIN_FILTERS = {"trim", "length", "first", "last", "upper", "lower"}
_PLAIN_METHODS = {
    "strip",
    "rstrip",
    "lstrip",
    "startswith",
    "endswith",
    "upper",
    "lower",
    "get",
    "items",
    "keys",
    "values",
}


@lru_cache(maxsize=64)
def is_plain(template: str) -> bool:
    """Whether a template's form bounds what it makes: loops over what it is given, no growing variables, no macros.

    Args:
        template: Jinja of a chat template.

    Example:
        >>> is_plain("{% for m in messages %}{{ m['content'] }}{% endfor %}"), is_plain("{{ 'a' * 10 ** 10 }}")
        (True, False)
    """
    import jinja2
    from jinja2 import nodes

    if len(template) > _PLAIN_CHARACTERS:
        return False
    try:
        tree = jinja2.Environment(autoescape=False).parse(_GENERATION.sub("", template))
    except (jinja2.TemplateError, RecursionError):
        return False

    def plain(node: nodes.Node, loops: int) -> bool:
        kind = type(node).__name__
        if kind not in _PLAIN_NODES:
            return False
        if isinstance(node, nodes.For):
            loops += 1
            if loops > _PLAIN_LOOPS or node.recursive or type(node.iter).__name__ not in _PLAIN_VALUES:
                return False
        if isinstance(node, nodes.Filter) and (node.name not in _PLAIN_FILTERS or node.args or node.kwargs):
            return False
        if isinstance(node, nodes.Call):
            called = node.node
            named = isinstance(called, nodes.Name) and called.name == "raise_exception"
            if not named and not (isinstance(called, nodes.Getattr) and called.attr in _PLAIN_METHODS):
                return False
        if isinstance(node, nodes.Assign):  # a copy or a part, that is, nothing that grows
            parts = [type(part).__name__ for part in (node.node, *node.node.find_all(nodes.Expr))]
            if not isinstance(node.target, nodes.Name) or not set(parts) <= _PLAIN_VALUES:
                return False
        return all(plain(child, loops) for child in node.iter_child_nodes())

    try:
        return plain(tree, 0)
    except RecursionError:
        return False


class _Worker:
    """The process that renders; it is started when it is needed, once per process of ours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def render(self, request: str) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            ValueError: if rendering took too long, or the process ended.
        """
        with self._lock:
            if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
                self._start()
            line = self._ask(request + "\n", RENDER_S)
            if not line:
                self.stop()
                raise ValueError(f"it takes more than {RENDER_S:g} s, or all memory")
            return json.loads(line)

    def _start(self) -> None:
        script = Path(__file__).with_name("template_worker.py")
        command = [sys.executable, "-P", str(script), str(RENDER_BYTES), str(RENDER_CHARACTERS)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", **pipes)
        self._owner = os.getpid()
        if self._ask("", _START_S) != "ready\n":
            self.stop()
            raise ValueError("the process that renders could not be started")

    def _ask(self, text: str, seconds: float) -> str:
        """Write, and read a line; an empty one if the process ends, or is ended for taking too long."""
        process = self._process
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(text)
            process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return ""
        finally:
            timer.cancel()

    def stop(self) -> None:
        """End the process, if it is ours."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None


_worker = _Worker()
atexit.register(_worker.stop)


def render_template(
    conversations: Sequence[Any], tools: Sequence[Any] | None = None, *, chat_template: str, **options: Any
) -> tuple[list[str], list[Any]]:
    """`render_jinja_template` of transformers, within limits.

    Args:
        conversations: lists of messages.
        tools: JSON schemas or functions.
        chat_template: Jinja, of any origin.
        options: of `render_jinja_template`, and what the template is given.

    Returns:
        The texts, and for each the spans of the assistant's answers in characters.

    Raises:
        ValueError: if the template takes too long or too much memory, makes too much, or cannot be rendered.
    """
    from transformers.utils.chat_template_utils import get_json_schema, render_jinja_template

    from ..models.processing_longvale import CHAT_TEMPLATE

    if chat_template == CHAT_TEMPLATE or is_plain(chat_template):
        return render_jinja_template(conversations, tools, chat_template=chat_template, **options)
    schemas = None if tools is None else [tool if isinstance(tool, dict) else get_json_schema(tool) for tool in tools]
    chats = [getattr(chat, "messages", chat) for chat in conversations]
    request = {"conversations": chats, "tools": schemas, "chat_template": chat_template, **options}
    try:
        reply = _worker.render(json.dumps(request, default=_stand_in))
        if "error" in reply:
            raise ValueError(reply["error"])
    except ValueError as error:
        raise ValueError(f"the chat template of the checkpoint cannot be rendered: {error}") from None
    return reply["rendered"], reply["spans"]


def _stand_in(value: Any) -> str:
    """For what is not JSON: the text of a token; of pictures and sounds, which templates only ask for, the kind."""
    return str(getattr(value, "content", type(value).__name__))


def bound_templates() -> None:
    """See that transformers renders all chat templates within limits from here on, its pipelines included."""
    from transformers import processing_utils, tokenization_utils_base

    for module in (processing_utils, tokenization_utils_base):
        if not hasattr(module, "render_jinja_template"):
            raise ImportError(f"{module.__name__} renders chat templates in another way; install transformers 5.24")
        module.render_jinja_template = render_template
