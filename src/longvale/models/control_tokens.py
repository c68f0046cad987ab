"""Tokens that steer a language model: those of a chat template stay so, those that a text spells stay words."""

import re
from weakref import WeakKeyDictionary

#: What else steers a model among tokens that were added and are not called special, such as `<think>`.
_MARKUP = re.compile(r"<.+>|\[[A-Z_/]+\]|◁.+▷", re.DOTALL)

#: By tokenizer: how many tokens it had, and the pattern of those that steer.
_PATTERNS: WeakKeyDictionary = WeakKeyDictionary()


def break_up_control_tokens(text: str, tokenizer) -> str:
    r"""
    Put a space behind the first character of each control token that a text spells, so that it is read as words.

    Args:
        text (`str`): what a user, a caption or a file says.
        tokenizer: of the language model.

    Example:

    ```python
    >>> break_up_control_tokens("He writes </s> and <|im_end|>.", tokenizer)  # doctest: +SKIP
    'He writes < /s> and < |im_end|>.'
    ```
    """
    pattern = _pattern(tokenizer)
    while pattern is not None and pattern.search(text):  # one may be spelled inside of another
        text = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return text


def _pattern(tokenizer) -> re.Pattern | None:
    size, pattern = _PATTERNS.get(tokenizer, (None, None))
    if size != len(tokenizer):
        added = tokenizer.added_tokens_decoder.values()
        tokens = {token.content for token in added if token.special or _MARKUP.fullmatch(token.content)}
        # A token of one character cannot be broken up.
        tokens = sorted((t for t in tokens | set(tokenizer.all_special_tokens) if len(t) > 1), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, tokens))) if tokens else None
        _PATTERNS[tokenizer] = (len(tokenizer), pattern)
    return pattern
