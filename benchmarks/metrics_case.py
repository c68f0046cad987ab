"""A generated test split with a model's answers, for timing the metrics.

The sizes are close to those of the LongVALE test split (1,171 videos, 13,867 events, 27 words per caption) and of a
model that finds most of the events and describes them in other words. The answers have the defects of real ones: events
that are missing, shifted, repeated or made up, abbreviations, quotations, symbols and letters outside ASCII, and
sometimes no event at all. The same number of videos gives the same case on every machine.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

from longvale.metrics.dense_captioning.soda import CaptionedInterval
from longvale.timecodes import parse_events

VIDEOS = 1171
_EVENTS_A_VIDEO = 13867 / VIDEOS

#: Words of captions, and a model's alternatives for each.
_ACTORS = {
    "woman": ["lady", "person", "women"], "man": ["guy", "person", "men"], "child": ["kid", "children", "boy"],
    "girl": ["young woman", "girls"], "cook": ["chef", "cooks"], "singer": ["vocalist", "singers"],
    "crowd": ["audience", "spectators"], "dog": ["puppy", "dogs"], "reporter": ["journalist", "host"],
    "carpenter": ["craftsman", "worker"], "driver": ["drivers", "man"], "coach": ["trainer", "coaches"],
    "drummer": ["musician"], "gardener": ["farmer", "gardeners"], "pilot": ["captain"], "nurse": ["doctor"],
}  # fmt: skip
_THINGS = {
    "car": ["automobile", "vehicle", "cars"], "bicycle": ["bike", "bicycles"], "telephone": ["phone"],
    "couch": ["sofa"], "television": ["TV", "screen"], "guitar": ["instrument", "guitars"], "knife": ["blade"],
    "bowl": ["dish", "bowls"], "jacket": ["coat"], "lamp": ["light", "lamps"], "rope": ["cord"], "boat": ["ship"],
    "engine": ["motor", "engines"], "hammer": ["tool"], "loaf of bread": ["bread"], "bucket of water": ["water"],
    "wooden box": ["crate"], "camera": ["cameras"], "bottle": ["glass bottle"], "newspaper": ["paper"],
}  # fmt: skip
_QUALITIES = {
    "big": ["large", "huge"], "small": ["little", "tiny"], "old": ["elderly", "aged"], "bright": ["shiny"],
    "quiet": ["silent", "calm"], "loud": ["noisy"], "high-pitched": ["shrill"], "red": ["crimson"], "happy": ["glad"],
    "slow-moving": ["slow"], "black-and-white": ["grey"], "well-known": ["famous"], "fast": ["quick"], "green": [],
}  # fmt: skip
_DEEDS = {
    "lifts": ["raises", "lifted"], "holds": ["is holding", "carries"], "repairs": ["fixes", "repaired"],
    "cleans": ["washes", "cleaning"], "shows": ["displays", "showed"], "opens": ["opened", "is opening"],
    "examines": ["inspects", "looks at"], "describes": ["explains", "described"], "throws": ["tosses", "threw"],
    "buys": ["purchases", "bought"], "builds": ["assembles", "built"], "paints": ["painting"], "cuts": ["slices"],
    "drives": ["drove", "steers"], "pulls": ["drags", "pulled"], "tightens": ["fastens"], "watches": ["looks at"],
}  # fmt: skip
_PLACES = ("kitchen", "workshop", "park", "stadium", "living room", "studio", "harbour", "café", "street", "classroom")
_SOUNDS = (
    "applause", "laughter", "soft piano music", "a ringing bell", "engine noise", "birds chirping", "footsteps",
    "upbeat rock music", "sirens", "water splashing", "wind noise", "drum beats", "crowd chatter", "a dog's barking",
)  # fmt: skip
_SAYINGS = (
    "Let's begin, shall we?", "I can't believe it!", "It's $12.50, please", "We're at No. 3 now", "Don't stop",
    "See you at 6:30 p.m.", "Dr. Weiss isn't in", "That's 50% off", "You cannot park here", "I'm gonna try again",
    "Wir sind müde", "Visit www.example.org", "They've lost 2-1",
)  # fmt: skip
_REMARKS = (
    "There's no dialogue.", "It was filmed in the U.S. in 2018.", "The clock reads 7:45 a.m.", "A sign says “OPEN”.",
    "She isn't facing the camera.", "Snow lies on St. Anne's roof\u2026", "It weighs 3.5 kg (about 7.7 lbs).",
    "The sign reads 'No. 9', etc.", "They're in Portland, Ore., by the river.", "A 12-year-old wins the 200m race.",
    "The view pans left/right; then it zooms in 3x.", "Temperature: 31°C.", "The rock'n'roll band's logo is seen.",
)  # fmt: skip
_ADVERBS = ("slowly", "carefully", "again", "in the background", "with both hands", "happily", "together", "twice")
_INSTEAD = {**_ACTORS, **_THINGS, **_QUALITIES, **_DEEDS}


@dataclass(frozen=True)
class Case:
    """Events of each video, and captions of each reference event.

    Args:
        found: predicted events of each video, in seconds.
        wanted: reference events of each video.
        retold: a model's caption of each reference event.
        captions: of the reference events, in the same order.
    """

    found: list[list[CaptionedInterval]]
    wanted: list[list[CaptionedInterval]]
    retold: list[str]
    captions: list[str]


def make_case(videos: int = VIDEOS) -> Case:
    """Make a case of `videos` videos, with as many events per video as the test split has."""
    rng = random.Random(f"metrics:{videos}")
    durations = [round(rng.uniform(30, 620), 2) for _ in range(videos)]
    wanted = [_events(rng, duration, count) for duration, count in zip(durations, _counts(rng, videos), strict=True)]
    answers = [_answer(rng, duration, events) for duration, events in zip(durations, wanted, strict=True)]
    found = [
        [(*span.seconds(duration), span.caption) for span in parse_events(answer, "official")]
        for duration, answer in zip(durations, answers, strict=True)
    ]
    captions = [caption for events in wanted for _, _, caption in events]
    retold = [rng.choice(["", "..."]) if rng.random() < 0.02 else _retell(rng, caption) for caption in captions]
    return Case(found, wanted, retold, captions)


def _counts(rng: random.Random, videos: int) -> list[int]:
    """Draw the number of events of each video: few videos have many."""
    counts = [max(1, int(rng.gammavariate(2.2, _EVENTS_A_VIDEO / 2.2))) for _ in range(videos)]
    while sum(counts) != round(videos * _EVENTS_A_VIDEO):
        place = rng.randrange(videos)
        counts[place] = max(1, counts[place] + (1 if sum(counts) < videos * _EVENTS_A_VIDEO else -1))
    return counts


def _events(rng: random.Random, duration: float, count: int) -> list[CaptionedInterval]:
    """Draw events, mostly one after another; in every fourth video they overlap."""
    if rng.random() < 0.75:
        cuts = sorted(rng.uniform(0, duration) for _ in range(count + 1))
        spans = list(pairwise(cuts))
    else:
        starts = sorted(rng.uniform(0, 0.95 * duration) for _ in range(count))
        spans = [(start, min(duration, start + rng.uniform(1, duration / 3))) for start in starts]
    return [(round(start, 2), round(max(end, start + 0.5), 2), _caption(rng)) for start, end in spans]


def _answer(rng: random.Random, duration: float, events: list[CaptionedInterval]) -> str:
    """Make a model's answer about a video: one event per line or, for about one video in nine, another format."""
    if rng.random() < 0.11:
        return rng.choice(["", _caption(rng), "From 0.5 to 9.5, " + _caption(rng)])
    lines = []
    for start, end, caption in events:
        if rng.random() < 0.12:
            continue
        shift = rng.choice([0, 0, 1, 2, 5, 12])
        span = [min(99, max(0, round(100 * time / duration) + rng.randint(-shift, shift))) for time in (start, end)]
        lines.append((*span, _retell(rng, caption)))
        if rng.random() < 0.06:  # repeated
            lines.append((span[1], min(99, span[1] + 5), lines[-1][2]))
    if rng.random() < 0.15:  # made up
        starts = [rng.randint(0, 93) for _ in range(rng.randint(3, 10))]
        lines += [(start, start + rng.randint(0, 6), _caption(rng)) for start in starts]
    return "\n".join(f"From {start:02d} to {end:02d}, {caption}" for start, end, caption in lines)


def _caption(rng: random.Random) -> str:
    """Make one to three sentences, and sometimes a remark."""
    sentences = [_sentence(rng) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    if rng.random() < 0.3:
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(_REMARKS))
    return " ".join(sentences)


def _sentence(rng: random.Random) -> str:
    actor, other = _noun(rng, _ACTORS), _noun(rng, _ACTORS)
    thing, second = _noun(rng, _THINGS), _noun(rng, _THINGS)
    deed, next_deed = rng.choice(list(_DEEDS)), rng.choice(list(_DEEDS))
    place, sound = rng.choice(_PLACES), rng.choice(_SOUNDS)
    sentence = rng.choice(
        (
            f"{actor} {deed} {thing} in the {place} while {other} {next_deed} {second}",
            f"{sound} can be heard as {actor} {deed} {thing} near the {place}",
            f'{actor} says, "{rng.choice(_SAYINGS)}" and {deed} {thing}',
            f"the camera shows {actor} who {deed} {thing} (with {sound} in the background)",
            f"{actor} doesn't move; instead, {other} {deed} it {rng.choice(_ADVERBS)}",
            f"there are {rng.choice(['two', '3', '25', '1,000'])} people in the {place}, and {actor} {deed} {thing}",
            f"accompanied by {sound}, {actor} {deed} {thing} and {next_deed} {second} {rng.choice(_ADVERBS)}",
        )
    )
    return sentence[0].upper() + sentence[1:] + rng.choice([".", ".", ".", ".", "!", " .", "..."])


def _noun(rng: random.Random, nouns: dict[str, list[str]]) -> str:
    words = [rng.choice(["the", "a", "the", "one"]), rng.choice(list(nouns))]
    if rng.random() < 0.6:
        words.insert(1, rng.choice(list(_QUALITIES)))
    return " ".join(words)


def _retell(rng: random.Random, caption: str) -> str:
    """Rephrase a caption: some words replaced, dropped or added, sometimes the end moved to the front."""
    if rng.random() < 0.04:
        return _caption(rng)
    rate = rng.choice([0.05, 0.15, 0.3, 0.5])
    words = []
    for word in caption.split(" "):
        if rng.random() >= rate:
            words.append(word)
        elif _INSTEAD.get(word):
            words.append(rng.choice(_INSTEAD[word]))
        elif rng.random() < 0.5:
            words += [word, rng.choice(_ADVERBS)]
    if len(words) > 4 and rng.random() < rate / 2:
        cut = rng.randrange(1, len(words))
        words = words[cut:] + words[:cut]
    return " ".join(words) or "nothing"
