"""Removal of the reasoning that models write before or around an answer."""

from __future__ import annotations

import re

#: Names of reasoning blocks in current models: Qwen3, DeepSeek-R1, GLM (`think`), Claude-like prompts (`thinking`),
#: Gemma and Kimi (`thought`), InternVL and others that are prompted to reason.
_NAMES = "think|thinking|thought|thoughts|reason|reasoning|analysis|reflection|scratchpad"
#: Opening and closing of a block: `<think>`, `[THINK]` (Magistral) and `◁think▷` (Kimi-VL).
_OPEN = rf"(?:<\s*(?:{_NAMES})\s*>|\[(?:{_NAMES})\]|◁(?:{_NAMES})▷)"
_CLOSE = rf"(?:<\s*/\s*(?:{_NAMES})\s*>|\[/(?:{_NAMES})\]|◁/(?:{_NAMES})▷)"
_MARK = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
#: Channels of gpt-oss: everything before the last `final` message is reasoning.
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final\b[^<]*<\|message\|>", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>", re.IGNORECASE)
_END_OF_MESSAGE = re.compile(r"<\|(?:return|end|start)\|>", re.IGNORECASE)
_ANSWER_OPEN = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)


def strip_reasoning(reply: str) -> str:
    """Return the answer of a reply, without the reasoning that the model wrote with it.

    Blocks such as `<think>...</think>` are dropped, including nested ones. A closing mark whose opening is in the
    prompt ends reasoning that began with the reply. A block that is never closed extends to the end, so nothing is left
    of a reply that was cut off during reasoning. If the answer is marked (`<answer>...</answer>`, the `final` channel
    of gpt-oss), the last marked one counts. Takes time linear in the length of the reply.

    Args:
        reply: any text.

    Returns:
        The answer without surrounding whitespace, empty if the reply contains only reasoning.

    Example:
        >>> strip_reasoning("<think>From 2 to 6? No.</think>\\n\\nFrom 30 to 54 seconds.")
        'From 30 to 54 seconds.'
        >>> strip_reasoning("Perhaps at 3 s.</think>At 5 s."), strip_reasoning("<think>Let me see")
        ('At 5 s.', '')
        >>> strip_reasoning("I think <answer>1 to 2</answer>, or rather <answer>3 to 4</answer>.")
        '3 to 4'
    """
    if _CHANNEL.search(reply):
        starts = [message.end() for message in _FINAL_CHANNEL.finditer(reply)]
        if not starts:
            return ""
        reply = _END_OF_MESSAGE.split(reply[starts[-1] :], maxsplit=1)[0]
    kept: list[str] = []
    depth, at = 0, 0
    for mark in _MARK.finditer(reply):
        if mark["open"]:
            if depth == 0:
                kept.append(reply[at : mark.start()])
            depth += 1
        elif depth == 0:  # opened in the prompt: everything before it was reasoning
            kept.clear()
        else:
            depth -= 1
        at = mark.end()
    if depth == 0:
        kept.append(reply[at:])
    return _marked_answer("".join(kept)).strip()


def _marked_answer(text: str) -> str:
    """Return the last non-empty `<answer>`, closed or not; the whole text if none is marked."""
    for part in reversed(_ANSWER_OPEN.split(text)[1:]):
        answer = _ANSWER_CLOSE.split(part, maxsplit=1)[0]
        if answer.strip():
            return answer
    return text
