"""Words that the check of claims uses: those of grammar, of seeing and hearing, and those that other words imply."""

from __future__ import annotations

from .fact import Source


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words without content: articles, pronouns, prepositions, conjunctions, auxiliaries, and words of order and time, of
#: which nothing can be checked.
FUNCTION_WORDS = _set("""
    a about above across after afterwards again against all along already also although always am among an and another
    any anything apart are around as at away back be became because become becomes been before being between both but by
    came can come comes could did do does doing done during each either else end ended ending ends eventually every
    everything finally first firstly followed following follows for from further gets getting had has have having here
    how i if in into is it its itself just last later let may might more most much must near next now of off on once
    one only onto or other others our out over own part same shall should since so some something soon still such take
    takes than that the their them then there these they thing things this those though through throughout till to
    together too toward towards twice under until up upon us very was we were what when where which while who whole
    whose will with within would yet you
    begin beginning begins begun began start started starting starts continue continued continues continuing keep keeps
    last lasts lasting stop stops stopped remain remains remaining
    accompanied accompanies accompany accompanying contain contains containing include included includes including
    feature featured features featuring present
    """)

#: Words for the event itself, and for what is in front and behind it in sound.
FRAMING = _set("scene scenes video clip moment event segment sequence footage background time times")

NEGATIONS = _set("no not without never neither nor none nobody nothing unseen invisible")

#: Number words and their digits.
_COUNTING = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
NUMBERS = {word: str(number) for number, word in enumerate(_COUNTING.split())}

#: Stems of words that claim sight, and that claim sound.
SEEING = _set(
    "see seen saw show shown visibl appear view watch pictur imag screen camera display depict on-screen look"
)
HEARING = _set("hear heard sound audibl nois listen")

#: Stems of what can only be heard: named after what is seen, no sight is claimed for it.
AUDIBLE = _set("music song sing silenc applaus laughter voic speech chatter melodi")

#: Words that a fact of a source supports although it does not contain them.
OF_SOURCE: dict[Source, str] = {
    "shots": "shot picture image scene view cut seen",
    "camera": "camera picture image view seen steady",
    "fade": "picture image screen view fades dark",
    "colour": "picture image screen plain seen",
    "text": "text words caption title screen reads written displayed shown appears seen",
    "silence": "silence silent",
    "loudness": "sound volume loudness gets heard",
    "sound": "sound heard audio",
    "sounds": "sound heard audio",
    "voices": "voice speaks speech talks someone somebody person speaker heard audio sound says",
    "speakers": "voice speaks speech talks someone somebody person speaker heard audio sound says",
    "transcript": "voice speaks speech talks someone somebody person speaker heard audio sound says words",
    "speech": "voice speaks speech talks someone somebody person speaker heard audio sound says words",
    "video": "seen shown picture appears visible view",
    "keyframe": "seen shown picture appears visible view",
    "audio": "heard sound audio",
}

_PEOPLE = "man men woman women boy girl child person people somebody someone singer speaker player musician"
_SPEAKING = "speaks speech talks says voice narration conversation"
#: Words, each with those of which one in a fact implies it. Only what holds always: a man is a person, a voice speaks;
#: that a siren is an ambulance's does not.
IMPLIED = {
    "person": _PEOPLE,
    "people": _PEOPLE.replace("person ", "").replace("somebody someone ", ""),
    "someone": _PEOPLE,
    "somebody": _PEOPLE,
    "individual": _PEOPLE,
    "figure": _PEOPLE,
    "human": _PEOPLE,
    "he": "man boy male he his him",
    "him": "man boy male he his him",
    "his": "man boy male he his him",
    "she": "woman girl female she her",
    "her": "woman girl female she her",
    "speak": _SPEAKING,
    "speaking": _SPEAKING,
    "spoken": _SPEAKING,
    "talk": _SPEAKING,
    "talking": _SPEAKING,
    "voice": _SPEAKING,
    "say": _SPEAKING,
    "saying": _SPEAKING,
    "said": _SPEAKING,
    "speech": _SPEAKING,
    "speaker": _SPEAKING,
    "speakers": _SPEAKING,
    "play": "music plays guitar piano drum",
    "playing": "music plays guitar piano drum",
    "plays": "music plays guitar piano drum",
    "musical": "music",
    "sing": "singing song singer",
    "sings": "singing song singer",
    "vocal": "singing song singer",
    "song": "singing",
    "laugh": "laughter laughs",
    "laughing": "laughter laughs",
    "clap": "applause clapping",
    "clapping": "applause clapping",
    "applaud": "applause clapping",
    "applauding": "applause clapping",
    "bark": "dog bark",
    "barking": "dog bark",
    "barks": "dog bark",
    "meow": "cat meow",
    "animal": "dog cat bird horse cow sheep pig rabbit chicken",
    "vehicle": "car truck bus motorcycle train ambulance",
    "image": "picture",
    "picture": "image",
    "text": "words caption title",
    "caption": "text words",
    "title": "text words",
    "read": "text words",
    "reads": "text words",
    "written": "text words",
    "display": "screen shown",
    "displayed": "screen shown",
    "show": "seen shown",
    "showing": "seen shown",
    "shows": "seen shown",
    "appear": "seen shown",
    "appears": "seen shown",
    "visible": "seen shown",
    "dark": "black",
    "darkness": "black",
    "silent": "silence",
    "quiet": "silence quiet quieter",
    "quietly": "quiet quieter",
    "loud": "louder loud",
    "loudly": "loud louder",
    "soft": "quiet quieter",
    "softer": "quieter",
    "volume": "louder quieter",
    "increase": "louder",
    "increases": "louder",
    "static": "still",
    "stationary": "still",
    "several": "many three four five six seven eight",
    "multiple": "many two three four five six seven eight",
    "many": "several",
    "series": "many several three four five six seven eight",
    "audio": "heard sound",
    "sounds": "heard sound",
    "audible": "heard",
}
