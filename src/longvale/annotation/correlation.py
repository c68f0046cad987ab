"""Correlation of the modalities of an event, and one caption that describes it.

A language model gets the facts of the event, numbered, with their times, and writes one caption. What it writes is
checked against the facts (`facts/claims.py`): a caption that says more is asked for again with the reason, and in the
end replaced by the plain sentences. Whether the source of a sound is visible follows from the facts: a seen one names
what makes the sound. What makes it, the model is asked once per sound; a model of 1.5B that is asked whether the source
is visible, or which seen fact it is, gives the same answer for every event (`benchmarks/correlation.py`). This leaves
the relations that are possible, of which the model chooses one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..chat_client import Chat, NoAnswer
from ..events import Modality, Seconds
from ..registry import reasoners
from .captions import Role, read_prompt
from .facts.claims import unsupported
from .facts.fact import Fact, numbered, phrase
from .facts.sound_sources import named_source
from .language_models import ModelOptions

#: Longest caption in characters; a longer one means that the model did not stop.
MAX_CAPTION = 600

#: Longest answer in tokens: a caption of [`MAX_CAPTION`] characters and numbers. The small questions need fewer.
MAX_TOKENS = 256
_FEW_TOKENS = 24

#: Longest answer that is read, in characters.
_MAX_ANSWER = 16_384

#: Most facts that a language model gets; the longest words of one, in characters.
_MOST_FACTS, _LONGEST_FACT = 40, 400

#: JSON schema of a caption, enforced if the server or model supports it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "caption": {"type": "string", "minLength": 1, "maxLength": MAX_CAPTION},
        "facts": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["caption", "facts"],
    "additionalProperties": False,
}

#: Relations that are possible if the source of a sound is visible, if it is not, and if that is not known.
POSSIBLE: dict[str, tuple[str, ...]] = {
    "yes": ("synchronicity", "causality", "temporal association", "enhancement"),
    "no": ("complementary", "scene-aware", "enhancement", "temporal association", "causality", "corrective"),
    "unknown": ("complementary", "scene-aware", "enhancement", "temporal association", "causality"),
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
        facts: what is known of the event; empty in stages of earlier versions.
    """

    start: Seconds
    end: Seconds
    captions: Mapping[Role, str]
    modalities: tuple[Modality, ...]
    previous: str = ""
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Correlation:
    """Output for an event: caption, relations and answers.

    Args:
        caption: one text.
        relations: types from [`longvale.events.RELATIONS`], the most important first.
        answers: `source_visible` (yes, no, unknown), `source` (what makes the sound), `facts` (numbers of those used).
        attempts: number of requests for a caption.
        repairs: repairs of its answer, one line each.
        refused: reason if the model's answers were refused; the caption is then a concatenation.
        unsupported: what the model's captions said that no fact supports, one line per caption.
        replaced: whether none of its captions was supported; the caption is then a concatenation.
        first: the model's first caption that could be read, before the check.
    """

    caption: str
    relations: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    repairs: tuple[str, ...] = ()
    refused: str | None = None
    unsupported: tuple[str, ...] = ()
    replaced: bool = False
    first: str = ""


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
        >>> concatenate(Evidence(0, 5, {"video": "A dog runs", "speech": 'A voice says: "Sit!"'}, ("visual", "speech")))
        'A dog runs. A voice says: "Sit!"'
    """
    said = evidence.captions.get("speech", "")
    texts = [evidence.captions.get(role, "") for role in ("video", "keyframe", "audio")] + [said]
    texts = [text.strip() for text in texts if text.strip()]
    sentences = [text if text.rstrip('"').endswith((".", "!", "?")) else f"{text}." for text in texts]
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
        attempts: maximum number of requests for a usable caption.
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
        self._makers: dict[str, tuple[str, ...]] = {}  # what makes a sound, by its name

    def __call__(self, evidence: Evidence) -> Correlation:
        """Ask until a caption is supported; after `attempts` requests, or if an answer is repeated, concatenate and
        record the reason."""
        if alone := of_one_modality(evidence):
            return Correlation(self._named(concatenate(alone), evidence), _relations_of(evidence))
        facts = known_facts(evidence)
        written = self._write(evidence, facts)
        if written.refused:
            return written
        visible, source = self._source(facts)
        relations = _relations_of(evidence) or self._relation(facts, visible)
        answers = {"source_visible": visible, "source": source, **written.answers}
        return replace(written, relations=relations, answers=answers)

    def _write(self, evidence: Evidence, facts: Sequence[Fact]) -> Correlation:
        """Ask for a caption until one can be read and is supported by the facts."""
        messages: list[dict[str, str]] = [{"role": "user", "content": self._question(evidence, facts)}]
        problem, attempt, first = "", 0, ""
        invented: list[str] = []
        while attempt < self._attempts:
            attempt += 1
            try:
                answer = self._chat(messages, schema=SCHEMA, max_tokens=MAX_TOKENS)
            except NoAnswer as error:  # the same request would give the same result
                problem = str(error)
                break
            try:
                found, repairs = read_answer(answer)
            except ValueError as error:
                problem, prompt = str(error), "retry"
            else:
                first = first or found["caption"]
                if not (problems := unsupported(found["caption"], facts)):
                    caption = self._named(found["caption"], evidence)
                    used = ", ".join(str(number) for number in found["facts"] if 1 <= number <= len(facts))
                    extra = {"unsupported": tuple(invented), "first": first}
                    return Correlation(caption, (), {"facts": used}, attempt, tuple(repairs), **extra)
                problem, prompt = "; ".join(problems), "unsupported"
                invented.append(problem)
            before = messages
            messages = [*messages[:1], {"role": "assistant", "content": answer[:2000]}]
            messages.append({"role": "user", "content": read_prompt(prompt).format(problem=problem)})
            if messages == before:  # the same request would give the same answer
                break
        caption = self._named(concatenate(evidence), evidence)
        if invented:
            return Correlation(caption, (), {}, attempt, unsupported=tuple(invented), replaced=True, first=first)
        return Correlation(caption, _relations_of(evidence), {}, attempt, refused=problem)

    def _source(self, facts: Sequence[Fact]) -> tuple[str, str]:
        """Return whether the source of the most prominent sound is visible, and what it is."""
        sounds = [fact for fact in facts if fact.source in ("sounds", "audio")]
        if not sounds or not any(fact.source in ("video", "keyframe") for fact in facts):
            return "unknown", ""
        sound = max(sounds, key=lambda fact: (fact.confidence or 0.0) * (fact.end - fact.start))
        label = phrase(sound)
        if label not in self._makers:
            self._makers[label] = makers_of(self._chat, label)
        number = named_source(facts, sound, self._makers[label])
        return ("yes", facts[number - 1].text) if number else ("no", "")

    def _relation(self, facts: Sequence[Fact], visible: str) -> tuple[str, ...]:
        """Return the relation that the model chooses of those that are possible; of an unusable answer, the first."""
        possible = POSSIBLE[visible]
        lines = [f"{number}. {name}: {_MEANING[name]}" for number, name in enumerate(possible, 1)]
        prompt = read_prompt("relation").format(facts=_listed(facts), relations="\n".join(lines))
        number = _ask_number(self._chat, prompt)
        return (possible[number - 1] if 1 <= number <= len(possible) else possible[0],)

    def _named(self, caption: str, evidence: Evidence) -> str:
        return without_names(caption, evidence) if self._remove_names else caption

    def _question(self, evidence: Evidence, facts: Sequence[Fact]) -> str:
        return read_prompt("correlation").format(
            names=" Do not name people: say what they are, such as a man." if self._remove_names else "",
            previous=json.dumps(evidence.previous, ensure_ascii=False) if evidence.previous else "(nothing)",
            facts=numbered(facts, evidence.start, evidence.end),
        )


#: What each relation means, for the question that asks for one.
_MEANING = {
    "synchronicity": "sight and sound happen at the same moment",
    "complementary": "each tells a part that the other does not",
    "enhancement": "one makes the other stronger, as music a mood",
    "scene-aware": "the sound tells where this is",
    "temporal association": "one comes after the other",
    "causality": "one is the reason of the other",
    "corrective": "one corrects what the other alone would make believe",
}


def known_facts(evidence: Evidence) -> list[Fact]:
    """Return the facts of the evidence, bounded in number and length; without any, its captions as facts."""
    facts = list(evidence.facts)
    if not facts:
        roles = [(modality, role) for modality, roles in _ROLES_OF.items() for role in roles]
        captions = [(modality, role, evidence.captions.get(role, "").strip()) for modality, role in roles]
        facts = [Fact(m, role, text, evidence.start, evidence.end) for m, role, text in captions if text]
    return [replace(fact, text=fact.text[:_LONGEST_FACT]) for fact in facts[:_MOST_FACTS]]


def makers_of(chat: Chat, sound: str) -> tuple[str, ...]:
    """Ask a model what makes a sound: words in lower case; none without a usable answer.

    That is a question about words, which small models answer; whether one of these things is seen then follows.
    """
    prompt = read_prompt("makers").format(sound=sound)
    try:
        answer = chat([{"role": "user", "content": prompt}], schema=_THINGS, max_tokens=_MAKERS_TOKENS)
    except NoAnswer:
        return ()
    found = re.search(r"\[.*", answer, re.DOTALL)
    words = re.findall(r"[a-z-]{3,}", found[0].lower()) if found else []
    return tuple(dict.fromkeys(words))


#: Longest list of things that make a sound, in tokens.
_MAKERS_TOKENS = 48
_THINGS: dict[str, Any] = {
    "type": "object",
    "properties": {"things": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 5}},
    "required": ["things"],
    "additionalProperties": False,
}
_NUMBER: dict[str, Any] = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
    "additionalProperties": False,
}


def _ask_number(chat: Chat, prompt: str) -> int:
    """Ask for one number; -1 if the answer holds none."""
    try:
        answer = chat([{"role": "user", "content": prompt}], schema=_NUMBER, max_tokens=_FEW_TOKENS)
    except NoAnswer:
        return -1
    found = re.search(r"\d{1,3}", answer)
    return int(found[0]) if found else -1


def _listed(facts: Sequence[Fact]) -> str:
    return "\n".join(f"- {fact.modality}: {phrase(fact)}" for fact in facts)


def read_answer(text: str) -> tuple[dict[str, Any], list[str]]:
    """Read the JSON object of an answer, repairing what is unambiguous.

    Args:
        text: the answer; other text or a code fence may enclose the object.

    Returns:
        The fields of [`SCHEMA`], and the list of repairs.

    Raises:
        ValueError: if the answer cannot be used; the message names the problem.

    Example:
        >>> read_answer('Sure! {"caption": "A dog barks at a car.", "facts": "1 and 3"}')
        ({'caption': 'A dog barks at a car.', 'facts': [1, 3]}, ['text around the object', 'facts was a text'])
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
    numbers = value.get("facts")
    if isinstance(numbers, str):
        repairs.append("facts was a text")
        numbers = [int(number) for number in re.findall(r"\d{1,3}", numbers)]
    if not isinstance(numbers, list):
        repairs.append("facts was missing")
        numbers = []
    return {"caption": caption, "facts": [n for n in numbers if isinstance(n, int) and n is not True]}, repairs


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


#: A title and the name after it, which are replaced by "a person".
_TITLES = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|President|Senator|Sir|Lady)\.?\s+[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)*"
)
_NAMED = re.compile(
    r"\b((?:man|woman|boy|girl|person|singer|speaker|child|player)),? (?:called|named) [A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)*"
)
_QUOTED = re.compile(r'("[^"]*")')
_PAIR = re.compile(r"(?<![.!?\"'] )(?<!^)\b[A-Z][a-z'-]+ [A-Z][a-z'-]+\b")


def without_names(caption: str, evidence: Evidence) -> str:
    """Remove text that looks like the name of a person: after a title, after "called", or two capitalised words.

    The last rule also replaces place names of two words. Titles and word pairs that the key-frame caption contains
    (text on screen), or a fact of text on screen, are kept; so is what is quoted.

    Args:
        caption: the text.
        evidence: input of the event, whose key-frame caption is used.

    Example:
        >>> evidence = Evidence(0, 5, {}, ())
        >>> without_names("A man named John Smith greets Dr. Jones while Barack Obama waves.", evidence)
        'A man greets a person while a person waves.'
    """
    pieces = _QUOTED.split(caption)  # what is between quotation marks was said or read, and stays
    return "".join(piece if index % 2 else _anonymous(piece, evidence) for index, piece in enumerate(pieces))


def _anonymous(text: str, evidence: Evidence) -> str:
    text = _NAMED.sub(r"\1", text)
    written = " ".join([evidence.captions.get("keyframe", ""), *(f.text for f in evidence.facts if f.source == "text")])
    for pattern in (_TITLES, _PAIR):
        text = pattern.sub(lambda match: match[0] if match[0] in written else "a person", text)
    return text
