"""Correlation of the modalities of an event, and one caption that describes it.

A language model answers the questions of the paper (is the source visible, who or what makes the sound and why, what
does it convey, which mood), chooses relations from the nine types, and writes one caption, given the previous event's
caption. Its answer is checked and, where that is safe, repaired. Otherwise the model is asked again, and in the end its
answer is refused with a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..chat_client import Chat, NoAnswer
from ..events import RELATIONS, Modality, Seconds
from ..registry import reasoners
from .captions import Role, read_prompt
from .language_models import ModelOptions

#: Longest caption in characters; a longer one means that the model did not stop.
MAX_CAPTION = 600

#: Longest answer in tokens: the questions, the relations and a caption of [`MAX_CAPTION`] characters.
MAX_TOKENS = 512

#: Longest answer that is read, in characters.
_MAX_ANSWER = 16_384

#: JSON schema of an answer, enforced if the server or model supports it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "source_visible": {"type": "string", "enum": ["yes", "no", "unknown"]},
        "cause": {"type": "string"},
        "tells": {"type": "string"},
        "mood": {"type": "string"},
        "relations": {"type": "array", "items": {"type": "string", "enum": list(RELATIONS)}, "minItems": 1},
        "caption": {"type": "string", "minLength": 1, "maxLength": MAX_CAPTION},
    },
    "required": ["source_visible", "cause", "tells", "mood", "relations", "caption"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Evidence:
    """Input for the caption of an event.

    Args:
        start: seconds.
        end: seconds.
        captions: captions by role; "" or missing if there is nothing to describe.
        modalities: modalities in which the event can be perceived.
        previous: caption of the previous event; "" for the first.
    """

    start: Seconds
    end: Seconds
    captions: Mapping[Role, str]
    modalities: tuple[Modality, ...]
    previous: str = ""


@dataclass(frozen=True)
class Correlation:
    """Output for an event: caption, relations and answers.

    Args:
        caption: one text.
        relations: types from [`longvale.events.RELATIONS`], the most important first.
        answers: answers to the questions of the paper, the first four fields of [`SCHEMA`].
        attempts: number of requests to the model.
        repairs: repairs of its answer, one line each.
        refused: reason if the model's answers were refused; the caption is then a concatenation.
    """

    caption: str
    relations: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    repairs: tuple[str, ...] = ()
    refused: str | None = None


class Reasoner(Protocol):
    """Interface of a writer of event captions.

    A registered class or function is called with [`ModelOptions`], and returns a reasoner.

    Example:
        >>> @reasoners.register()
        ... class SeenReasoner:
        ...     "Keeps what is seen."
        ...     name = "seen"
        ...     def __init__(self, options):
        ...         pass
        ...     def __call__(self, evidence):
        ...         return Correlation(evidence.captions["video"])
        >>> SeenReasoner(ModelOptions())(Evidence(0, 5, {"video": "A dog runs."}, ("visual",))).caption
        'A dog runs.'
    """

    #: Name in the provenance.
    name: str

    def __call__(self, evidence: Evidence) -> Correlation:
        """Write the caption. Raises [`longvale.chat_client.ServerError`] if a server gives no answer."""


def ask_reasoner(reasoner: Reasoner, evidence: Evidence) -> Correlation:
    """Return what a reasoner writes; the captions of the modalities, and why, if it fails or writes no caption.

    Raises:
        ServerError: if a server gives no answer.

    Example:
        >>> ask_reasoner(Concatenation(), Evidence(0, 5, {"video": "A dog runs."}, ("visual",))).caption
        'A dog runs.'
    """
    try:
        written = reasoner(evidence)
    except RuntimeError as error:  # torch raises it, also without enough memory
        problem = f"{reasoner.name}: {' '.join(str(error).split())[:300] or type(error).__name__}"
    else:
        caption = getattr(written, "caption", None)
        if isinstance(written, Correlation) and isinstance(caption, str) and caption.strip():
            return written
        problem = f"{reasoner.name}: wrote no caption"
    return Correlation(concatenate(evidence), _relations_of(evidence), refused=problem)


class Concatenation:
    """Baseline reasoner: the captions of the modalities, concatenated."""

    name = "concatenation"

    def __call__(self, evidence: Evidence) -> Correlation:
        """Concatenate the captions; the only relation is the one that the modalities alone determine."""
        return Correlation(concatenate(evidence), _relations_of(evidence))


def concatenate(evidence: Evidence) -> str:
    """Join the captions of the modalities into one text.

    Example:
        >>> concatenate(Evidence(0, 5, {"video": "A dog runs.", "audio": "It barks"}, ("visual", "audio")))
        'A dog runs. It barks.'
    """
    said = evidence.captions.get("speech", "")
    texts = [evidence.captions.get(role, "") for role in ("video", "keyframe", "audio")] + [said]
    sentences = [text if text[-1] in ".!?" else f"{text}." for text in map(str.strip, texts) if text]
    return " ".join(sentences) or "Nothing can be seen or heard."


#: Roles of each modality.
_ROLES_OF: dict[Modality, tuple[Role, ...]] = {
    "visual": ("video", "keyframe"),
    "audio": ("audio",),
    "speech": ("speech",),
}


def of_one_modality(evidence: Evidence) -> Evidence | None:
    """Return the evidence with the captions of its only modality; None if it is perceived and described in several.

    Example:
        >>> seen = {"video": "A dog runs.", "audio": "It is quiet."}
        >>> concatenate(of_one_modality(Evidence(0, 5, seen, ("visual",))))
        'A dog runs.'
        >>> of_one_modality(Evidence(0, 5, seen, ("visual", "audio"))) is None
        True
    """
    described = {m for m, roles in _ROLES_OF.items() if any(evidence.captions.get(role, "").strip() for role in roles)}
    left = described & set(evidence.modalities) or described
    if len(left) > 1:
        return None
    roles = [role for modality in left for role in _ROLES_OF[modality]]
    return replace(evidence, captions={role: evidence.captions.get(role, "") for role in roles})


def _relations_of(evidence: Evidence) -> tuple[str, ...]:
    if evidence.modalities == ("visual",):
        return ("visual-only",)
    if evidence.modalities and "visual" not in evidence.modalities:
        return ("audio-only",)
    return ()


@reasoners.register("concatenation")
def _build_concatenation(options: ModelOptions) -> Reasoner:
    """The captions of the modalities, one after the other."""
    return Concatenation()


@reasoners.register("language_model")
def _build_language_model(options: ModelOptions) -> Reasoner:
    """A language model that correlates the modalities, loaded here or on a server."""
    return LanguageModelReasoner(options.chat(), remove_names=options.remove_names)


class LanguageModelReasoner:
    """Reasoner that asks a language model about events of several modalities; events of one are concatenated.

    Args:
        chat: chat client, such as a [`longvale.chat_client.ChatClient`].
        attempts: maximum number of requests for a usable answer.
        remove_names: ask the model not to name people, and replace text that looks like the name of a person.

    Raises:
        ValueError: if `attempts` is below 1.
    """

    def __init__(self, chat: Chat, *, attempts: int = 3, remove_names: bool = True) -> None:
        if attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {attempts}")
        # The name identifies finished work on resuming, so it must include every option that changes the captions.
        self.name = chat.name + ("" if attempts == 3 else f", {attempts} attempts")
        self.name += "" if remove_names else ", names kept"
        self._chat, self._attempts, self._remove_names = chat, attempts, remove_names

    def __call__(self, evidence: Evidence) -> Correlation:
        """Ask until an answer is usable; after `attempts` requests, concatenate and record the reason."""
        if alone := of_one_modality(evidence):
            return Correlation(self._named(concatenate(alone), evidence), _relations_of(evidence))
        messages: list[dict[str, str]] = [{"role": "user", "content": self._question(evidence)}]
        problem, attempt = "", 0
        while attempt < self._attempts:
            attempt += 1
            try:
                answer = self._chat(messages, schema=SCHEMA, max_tokens=MAX_TOKENS)
            except NoAnswer as error:  # the same request would give the same result
                problem = str(error)
                break
            try:
                found, repairs = read_answer(answer, evidence.modalities)
            except ValueError as error:
                problem = str(error)
                retry = read_prompt("retry").format(problem=problem)
                messages = [*messages[:1], {"role": "assistant", "content": answer[:2000]}]
                messages.append({"role": "user", "content": retry})
                continue
            caption = self._named(found["caption"], evidence)
            answers = {name: found[name] for name in ("source_visible", "cause", "tells", "mood")}
            return Correlation(caption, tuple(found["relations"]), answers, attempt, tuple(repairs))
        caption = self._named(concatenate(evidence), evidence)
        return Correlation(caption, _relations_of(evidence), {}, attempt, (), problem)

    def _named(self, caption: str, evidence: Evidence) -> str:
        return without_names(caption, evidence) if self._remove_names else caption

    def _question(self, evidence: Evidence) -> str:
        texts = {
            role: _or_nothing(evidence.captions.get(role, "")) for role in ("video", "keyframe", "audio", "speech")
        }
        return read_prompt("correlation").format(
            names=" Do not name people: say what they are, such as a man." if self._remove_names else "",
            previous=_or_nothing(evidence.previous),
            start=f"{evidence.start:.1f}",
            end=f"{evidence.end:.1f}",
            visual=texts["video"],
            keyframe=texts["keyframe"],
            audio=texts["audio"],
            speech=texts["speech"],
        )


def _or_nothing(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else "(nothing)"


def read_answer(text: str, modalities: Sequence[Modality] = ()) -> tuple[dict[str, Any], list[str]]:
    """Read the JSON object of an answer, repairing what is unambiguous.

    Args:
        text: the answer; other text or a code fence may enclose the object.
        modalities: modalities of the event, to check the relations.

    Returns:
        The fields of [`SCHEMA`], and the list of repairs.

    Raises:
        ValueError: if the answer cannot be used; the message names the problem.

    Example:
        >>> answer = '{"relations": "Causality", "caption": "A dog barks at a car."}'
        >>> found, repairs = read_answer("Sure! " + answer)
        >>> found["relations"], found["source_visible"], repairs
        (['causality'], 'unknown', ['text around the object', 'relations was a text', 'source_visible was missing'])
    """
    repairs: list[str] = []
    value = _find_object(text, repairs)
    caption = value.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError("field 'caption' must be a text that is not empty")
    caption = " ".join(caption.split())
    if len(caption) > MAX_CAPTION:
        raise ValueError(f"field 'caption' has {len(caption)} characters, more than {MAX_CAPTION}")
    if re.search(r"<\|?\w+\|?>|\bcaption\b\s*:", caption, re.IGNORECASE):
        raise ValueError("field 'caption' holds a token of the prompt")
    relations = _read_relations(value.get("relations"), modalities, repairs)
    found: dict[str, Any] = {"relations": relations, "caption": caption}
    for name, default in (("source_visible", "unknown"), ("cause", ""), ("tells", ""), ("mood", "")):
        if not isinstance(value.get(name), str):
            if name == "source_visible":
                repairs.append(f"{name} was missing")
            value[name] = {True: "yes", False: "no"}.get(value.get(name), default)
        found[name] = " ".join(value[name].split())[:MAX_CAPTION]
    if found["source_visible"].lower() not in ("yes", "no", "unknown"):
        repairs.append("source_visible was none of yes, no, unknown")
        found["source_visible"] = "unknown"
    found["source_visible"] = found["source_visible"].lower()
    return found, repairs


def _find_object(text: str, repairs: list[str]) -> dict[str, Any]:
    """Return the first JSON object with a caption in a text."""
    text = text[:_MAX_ANSWER]  # bounds the work: every brace is tried as a start
    decoder, start = json.JSONDecoder(), text.find("{")
    problem = "it holds no JSON object"
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError) as error:
            problem = f"it is not JSON: {error}"
        else:
            if isinstance(value, dict) and "caption" in value:
                if text[:start].strip() or text[end:].strip():
                    repairs.append("text around the object")
                return value
            problem = "field 'caption' is missing"
        start = text.find("{", start + 1)
    raise ValueError(problem)


def _read_relations(value: Any, modalities: Sequence[Modality], repairs: list[str]) -> list[str]:
    if isinstance(value, str):
        repairs.append("relations was a text")
        value = re.split(r"[,;/]| and ", value)
    if not isinstance(value, list):
        raise ValueError(f"field 'relations' must be a list of some of: {', '.join(RELATIONS)}")
    known = {re.sub(r"[\s_-]+", " ", name): name for name in RELATIONS}
    names = [known.get(re.sub(r"[\s_-]+", " ", str(item)).strip().lower()) for item in value]
    if None in names and any(names):
        repairs.append("unknown relations were left out")
    relations = list(dict.fromkeys(name for name in names if name))
    if not relations:
        raise ValueError(f"field 'relations' must name at least one of: {', '.join(RELATIONS)}")
    impossible = {"audio-only"} if tuple(modalities) == ("visual",) else set()
    if modalities and "visual" not in modalities:
        impossible = {"visual-only"}
    if set(relations) & impossible:
        raise ValueError(f"relation {(set(relations) & impossible).pop()!r} contradicts what is seen and heard")
    return relations


#: A title and the name after it, which are replaced by "a person".
_TITLES = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|President|Senator|Sir|Lady)\.?\s+[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)*"
)
_NAMED = re.compile(
    r"\b((?:man|woman|boy|girl|person|singer|speaker|child|player)),? (?:called|named) [A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)*"
)
_PAIR = re.compile(r"(?<![.!?\"'] )(?<!^)\b[A-Z][a-z'-]+ [A-Z][a-z'-]+\b")


def without_names(caption: str, evidence: Evidence) -> str:
    """Remove text that looks like the name of a person: after a title, after "called", or two capitalised words.

    The last rule also replaces place names of two words. Titles and word pairs that the key-frame caption contains
    (text on screen) are kept.

    Args:
        caption: the text.
        evidence: input of the event, whose key-frame caption is used.

    Example:
        >>> evidence = Evidence(0, 5, {}, ())
        >>> without_names("A man named John Smith greets Dr. Jones while Barack Obama waves.", evidence)
        'A man greets a person while a person waves.'
    """
    caption = _NAMED.sub(r"\1", caption)
    written = evidence.captions.get("keyframe", "")
    for pattern in (_TITLES, _PAIR):
        caption = pattern.sub(lambda match: match[0] if match[0] in written else "a person", caption)
    return caption
