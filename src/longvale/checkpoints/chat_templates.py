"""Chat templates of untrusted checkpoints: rendered within limits of time, memory and length.

The sandbox of Jinja blocks access to files and code, but not loops of hours or texts of gigabytes. A template is
therefore rendered in this process only if its syntax bounds its output. All others are rendered in a separate process,
which is killed if it takes too long.
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

#: Limits of rendering: seconds, bytes in addition to the baseline of the process, characters.
RENDER_S, RENDER_BYTES, RENDER_CHARACTERS = 10.0, 1 << 30, 16 << 20

#: Time limit of starting the process, which imports transformers; this takes long on a busy machine.
_START_S = 120.0

#: Maximum length of a template that may be rendered in this process, and maximum nesting of its loops.
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
    """Return whether a template's syntax bounds its output: loops over inputs only, no growing variables, no macros.

    Args:
        template: Jinja source of a chat template.

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
        if isinstance(node, nodes.Assign):  # a copy or a part of a value, which cannot grow
            parts = [type(part).__name__ for part in (node.node, *node.node.find_all(nodes.Expr))]
            if not isinstance(node.target, nodes.Name) or not set(parts) <= _PLAIN_VALUES:
                return False
        return all(plain(child, loops) for child in node.iter_child_nodes())

    try:
        return plain(tree, 0)
    except RecursionError:
        return False


class _Worker:
    """The rendering process; started on demand, once per calling process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def render(self, request: str) -> dict[str, Any]:
        """Send a request and return the reply.

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
        """Write the text and read one line; it is empty if the process ended, or was killed at the time limit."""
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
        """Kill the rendering process if the current process started it."""
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
    """Render a chat template as `render_jinja_template` of transformers does, within limits.

    Args:
        conversations: lists of messages.
        tools: JSON schemas or functions.
        chat_template: Jinja template of any origin.
        options: options of `render_jinja_template`, and variables of the template.

    Returns:
        The texts, and for each text the spans of the assistant's answers in characters.

    Raises:
        ValueError: if the template exceeds the limits of time, memory or output, or cannot be rendered.
    """
    from transformers.utils.chat_template_utils import get_json_schema, render_jinja_template

    from ..models.prompts import CHAT_TEMPLATES

    if chat_template in CHAT_TEMPLATES or is_plain(chat_template):
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
    """Serialize values that are not JSON: the text of a token; for images and sounds, only the name of the type."""
    return str(getattr(value, "content", type(value).__name__))


def bound_templates() -> None:
    """Patch transformers, including its pipelines, to render all chat templates within limits."""
    from transformers import processing_utils, tokenization_utils_base

    for module in (processing_utils, tokenization_utils_base):
        if not hasattr(module, "render_jinja_template"):
            raise ImportError(f"{module.__name__} renders chat templates in another way; install transformers 5.24")
        module.render_jinja_template = render_template
