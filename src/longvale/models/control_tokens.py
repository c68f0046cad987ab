"""Control tokens of a language model: kept in chat templates, broken up in the texts of users."""

import re
from weakref import WeakKeyDictionary

#: Added tokens that also control a model but are not marked as special, such as `<think>`.
_MARKUP = re.compile(r"<.+>|\[[A-Z_/]+\]|◁.+▷", re.DOTALL)

#: Tokenizer -> (its number of tokens, pattern of its control tokens).
_PATTERNS: WeakKeyDictionary = WeakKeyDictionary()


def break_up_control_tokens(text: str, tokenizer) -> str:
    r"""
    Insert a space after the first character of each control token in a text, so that it is tokenized as plain text.

    Args:
        text (`str`): untrusted text of a user, a caption or a file.
        tokenizer: of the language model.

    Example:

    ```python
    >>> break_up_control_tokens("He writes </s> and <|im_end|>.", tokenizer)  # doctest: +SKIP
    'He writes < /s> and < |im_end|>.'
    ```
    """
    pattern = _pattern(tokenizer)
    while pattern is not None and pattern.search(text):  # one token may be nested in another
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
