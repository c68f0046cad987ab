"""What makes a sound: whether a seen fact names it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ...metrics.text.porter2 import stem
from .fact import Fact

#: Words of labels that name no source.
_GENERAL = {
    "sound",
    "noise",
    "vocalization",
    "call",
    "cry",
    "song",
    "horn",
    "door",
    "music",
    "infant",
    "human",
    "animal",
}
#: Words of sounds, and what makes them: a seen fact with one of these words shows the source.
_MAKERS = {
    "bark": "dog dogs puppy",
    "bow-wow": "dog dogs",
    "growling": "dog dogs lion tiger bear",
    "meow": "cat cats kitten",
    "purr": "cat cats kitten",
    "moo": "cow cows cattle bull",
    "neigh": "horse horses",
    "oink": "pig pigs",
    "bleat": "sheep goat goats lamb",
    "crowing": "rooster cock",
    "quack": "duck ducks",
    "chirp": "bird birds cricket",
    "tweet": "bird birds",
    "siren": "ambulance police firetruck",
    "applause": "clap claps clapping applauds applauding",
    "clapping": "clap claps applauds applauding",
    "laughter": "laugh laughs laughing",
    "cheering": "cheer cheers cheering",
    "cry": "cry cries crying baby",
    "singing": "sing sings singing singer choir",
    "music": "band orchestra musician musicians guitar guitars guitarist piano pianist drum drums drummer violin choir",
    "stream": "brook river stream creek waterfall",
    "waves": "sea ocean beach surf",
    "rain": "rain rains raining",
    "thunder": "lightning",
    "typing": "keyboard laptop type types typing typewriter",
    "engine": "car cars truck motorcycle bus tractor",
    "helicopter": "helicopter",
    "chop": "chop chops chopping axe",
    "gunshot": "gun rifle pistol shoots shooting",
    "footsteps": "walk walks walking steps runs",
    "bell": "bell bells church",
}


def named_source(facts: Sequence[Fact], sound: Fact, makers: Collection[str] = ()) -> int:
    """Return the number of the seen fact that names what makes a sound; 0 if none does.

    Args:
        facts: facts of an event; a number is an index in them plus one.
        sound: one of them.
        makers: words for what makes the sound, beside those that are known here.

    Example:
        >>> street, siren = Fact("visual", "video", "An empty street.", 0, 9), Fact("audio", "sounds", "Siren", 0, 9)
        >>> ambulance = Fact("visual", "video", "An ambulance passes.", 0, 9)
        >>> named_source([street, siren], siren), named_source([street, ambulance, siren], siren)
        (0, 2)
    """
    words = _content(sound.text)
    sought = {stem(word) for word in (*words, *makers) if word not in _GENERAL}
    sought |= {stem(maker) for word in words for maker in _MAKERS.get(word, "").split()}
    for number, fact in enumerate(facts, 1):
        shown = _content(fact.text) if fact.source in ("video", "keyframe") else ()
        if sought & {stem(word) for word in shown}:
            return number
    return 0


def _content(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z-]+", text.lower()) if len(word) > 2]
