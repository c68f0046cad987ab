"""Prompt templates of benchmark questions: text files of published evaluations, by name, or custom text files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

from ...tasks import VIDEO_TOKEN


def load_prompt(name: str, variant: str | None = None, needed: str = "question") -> Template:
    """Load a prompt template of this package or from a file.

    Args:
        name: name of the prompt, such as "music_avqa".
        variant: name of a published evaluation, such as "crema", or path of a text file. None selects the default.
        needed: field that the template must contain.

    Returns:
        A template with fields such as `$question`.

    Raises:
        FileNotFoundError: if the variant or file does not exist.
        ValueError: if the file does not contain the needed field.

    Example:
        >>> load_prompt("music_avqa", "tdc_video").substitute(question="Is it loud?")
        'Is it loud? Answer with a single word or phrase.'
    """
    prompts = files(__package__).joinpath("prompts")
    if variant is None or variant.isidentifier():
        source = prompts.joinpath(f"{name}.txt" if variant is None else f"{name}_{variant}.txt")
    else:
        source = Path(variant)
    if not source.is_file():
        known = sorted(p.name[len(name) + 1 : -4] for p in prompts.iterdir() if p.name.startswith(f"{name}_"))
        raise FileNotFoundError(
            f"{variant}: no such prompt of {name}; give {', '.join(known) or 'none of the published'}, or a text file"
        )
    template = Template(source.read_text(encoding="utf-8-sig").rstrip("\n"))
    if needed not in template.get_identifiers():
        raise ValueError(f"{source}: does not contain ${needed}; write it where the {needed} belongs")
    return template


def ask_about_video(template: Template, **fields: str) -> str:
    """Build the text of a question, with the video first.

    Raises:
        ValueError: if the template contains a field that this task does not have.
    """
    try:
        return f"{VIDEO_TOKEN}\n{template.substitute(fields)}"
    except KeyError as error:
        raise ValueError(f"the prompt names ${error.args[0]}; this task has {', '.join(fields)}") from None
