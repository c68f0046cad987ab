"""Prompts of LongVALE models: the chat template, control tokens in the texts of users, and published tokenization."""

import re
from weakref import WeakKeyDictionary

from transformers.tokenization_utils_base import BatchEncoding

#: The conversation template of the published model (Vicuna v1.1) in Jinja. `generation` marks the tokens to train on:
#: the assistant's answer and the end token. A message refers to a video by `<video>` or by a content part. Sound
#: belongs to the video of its message; in a message without a video, it takes the place of the video.
CHAT_TEMPLATE = (
    "{%- macro words(content) -%}"
    "{%- if content is string -%}{{- content -}}"
    "{%- else -%}"
    "{%- for part in content -%}"
    "{%- if part['type'] == 'video' -%}{{- '<video>\\n' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- elif part['type'] != 'audio' -%}{{- raise_exception('unknown content: ' ~ part['type']) -}}"
    "{%- elif not content | selectattr('type', 'equalto', 'video') | list and "
    "'<video>' not in content | selectattr('text', 'defined') | map(attribute='text') | join -%}{{- '<video>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endmacro -%}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{{- words(messages[0]['content']) -}}{%- set turns = messages[1:] -%}"
    "{%- else -%}"
    "{{- 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' -}}"
    "{%- set turns = messages -%}"
    "{%- endif -%}"
    "{{- ' ' -}}"
    "{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}{{- 'USER: ' ~ words(message['content']) ~ ' ASSISTANT:' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- ' ' ~ words(message['content']) ~ eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- raise_exception('unknown role: ' ~ message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

#: Part of [`CHAT_TEMPLATE`] that those of earlier versions lack, and part that they had for official preprocessing, in
#: place of [`tokenize_parts`].
_ADDED = CHAT_TEMPLATE[
    CHAT_TEMPLATE.index("{%- elif not content") : CHAT_TEMPLATE.index("{%- endif -%}{%- endfor -%}{%- endif")
]
_REMOVED = " | replace('<video>', '<video> ')"

#: Templates of this and of earlier versions.
CHAT_TEMPLATES = (CHAT_TEMPLATE, CHAT_TEMPLATE.replace(_ADDED, ""))

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


def current_template(chat_template, video_token: str, preprocessing: str):
    """Return a chat template for a processor; those of earlier versions are replaced by the current one.

    Args:
        chat_template (`str` or `dict`, *optional*): Jinja template; [`CHAT_TEMPLATE`] by default.
        video_token (`str`): the video placeholder.
        preprocessing (`str`): of the processor, see [`LongVALEProcessor`].
    """
    if isinstance(chat_template, str) and preprocessing == "official":
        chat_template = chat_template.replace(_REMOVED, "")
    templates = [template.replace("<video>", video_token) for template in CHAT_TEMPLATES]
    return templates[0] if not chat_template or chat_template in templates else chat_template


def add_placeholder(tokenizer, video_token: str) -> None:
    """Add the video placeholder to the special tokens of a tokenizer, and pad on the left: for generation in batches,
    all prompts must end at the same position.

    Args:
        tokenizer: of the language model, changed in place.
        video_token (`str`): the placeholder.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special -= set(tokenizer.special_tokens_map.values())
    # Tokens of the list that are not special would become special when the tokenizer is saved and loaded.
    kept = [str(token) for token in tokenizer.extra_special_tokens if str(token) in special]
    tokenizer.add_special_tokens({"extra_special_tokens": [*kept, video_token]})
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"  # the latter is saved


def tokenize_parts(
    tokenizer,
    texts: str | list[str],
    placeholder: str,
    add_special_tokens: bool = True,
    padding: bool | str = False,
    truncation: bool | str | None = None,
    max_length: int | None = None,
    return_attention_mask: bool | None = None,
    return_offsets_mapping: bool = False,
    return_tensors: str | None = None,
    **padding_options,
) -> BatchEncoding:
    r"""
    Tokenize the texts before and after placeholders separately, as the published code does.

    A tokenizer of sentencepiece begins each part with a space.

    Args:
        tokenizer: of the language model.
        texts (`str` or `list[str]`): prompts.
        placeholder (`str`): a token of the tokenizer.
        padding_options: `pad_to_multiple_of` and `padding_side`; the other arguments are those of the tokenizer.

    Raises:
        TypeError: for other arguments of the tokenizer.
    """
    unknown = {name for name, value in padding_options.items() if value} - {
        "pad_to_multiple_of",
        "padding_side",
        "verbose",
    }
    if unknown:
        raise TypeError(
            f"{min(unknown)} is not available with official preprocessing, which tokenizes prompts in parts"
        )
    rows = [
        _parts(tokenizer, text, placeholder, add_special_tokens)
        for text in ([texts] if isinstance(texts, str) else texts)
    ]
    cut = slice(max_length if truncation else None)
    ids, offsets = ([row[place][cut] for row in rows] for place in (0, 1))
    if isinstance(texts, str) and not padding:
        ids, offsets = ids[0], offsets[0]
    options = {
        name: padding_options[name] for name in ("pad_to_multiple_of", "padding_side") if padding_options.get(name)
    }
    encoding = tokenizer.pad(
        {"input_ids": ids}, padding=padding, max_length=max_length if padding == "max_length" else None,
        return_attention_mask=return_attention_mask is not False, verbose=False, **options,
    )  # fmt: skip
    if return_offsets_mapping:
        left = (padding_options.get("padding_side") or tokenizer.padding_side) == "left"
        encoding["offset_mapping"] = _pad_offsets(offsets, encoding["input_ids"], left) if padding else offsets
    return encoding.convert_to_tensors(return_tensors)


def _parts(tokenizer, text: str, placeholder: str, add_special_tokens: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of a text and the characters [begin, end) of each."""
    ids, offsets, begin = [], [], 0
    size, place = len(placeholder), tokenizer.convert_tokens_to_ids(placeholder)
    # Sentencepiece puts a space before each part; its reimplementation does so only if there is none.
    space = " " if tokenizer.tokenize("a") == tokenizer.tokenize(" a") else ""
    special = tuple(tokenizer.all_special_tokens)
    for part in re.split(f"((?:{re.escape(placeholder)})+)", text):
        if part.startswith(placeholder):
            count = len(part) // size
            ids += [place] * count
            offsets += [(begin + k * size, begin + (k + 1) * size) for k in range(count)]
        elif part or not ids:
            added = space if part and not part.startswith(special) else ""
            encoding = tokenizer(
                added + part,
                add_special_tokens=add_special_tokens and not ids,
                return_offsets_mapping=tokenizer.is_fast,
            )
            ids += encoding["input_ids"]
            for span in encoding.get("offset_mapping", ()):
                offsets.append(tuple(begin + max(end - len(added), 0) for end in span))
        begin += len(part)
    return ids, offsets


def _pad_offsets(offsets: list[list[tuple[int, int]]], ids: list[list[int]], left: bool) -> list[list[tuple[int, int]]]:
    padded = []
    for row, wanted in zip(offsets, ids, strict=True):
        empty = [(0, 0)] * (len(wanted) - len(row))
        padded.append(empty + row if left else row + empty)
    return padded
