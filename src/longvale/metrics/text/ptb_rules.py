"""The rules of the caption tokenizer: how tokens are found and how they are written.

They describe the behavior of the Stanford tokenizer 3.4.1 as run by pycocoevalcap. At each position of a text, the rule
that examines the most characters, including lookahead, is applied. Of rules with the same number of characters, the
first one in [`RULES`] is applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from .ptb_parts import (
    ACRONYM,
    ALPHA,
    ANY_APOSTROPHE,
    APOSTROPHE,
    APOSTROPHE_START,
    CLITIC,
    CURRENCY,
    DATA,
    DIGIT,
    HYPHEN,
    LETTER,
    LETTER_OR_DIGIT,
    LINE_END,
    MID,
    NOT,
    SPACE,
    SPACE_OR_LINE_END,
    SYMBOL,
    UPPER,
    WORD,
    WORD_CHARACTER,
    WORD_LETTERS,
    WORD_START,
    any_capitalised,
    any_of,
    compiled,
)
from .ptb_runs import (
    BARE_CHARACTER,
    WEB_ADDRESS,
    Found,
    Source,
    find_bare_address,
    find_file_name,
    find_hyphenated,
    find_mail_address,
    find_odd_face,
    find_tag,
    find_www_address,
)

#: The token for the end of a line; it differs from all other tokens.
NEW_LINE = "\n"

_LOOK_ALIKE = {
    **dict.fromkeys("\u2018\u201b\x91\u2039", "`"),
    **dict.fromkeys("\u2019\x92\u203a", "'"),
    **dict.fromkeys("\u201c\xab\x93", "``"),
    **dict.fromkeys("\u201d\xbb\x94", "''"),
}
_PLAIN_QUOTES = str.maketrans(_LOOK_ALIKE)
_ROUND_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
_BRACKET_NAMES = {"{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-", "(": "-lrb-", ")": "-rrb-"}


def _unchanged(token: str) -> str:
    return token


def _always(written: str, _token: str) -> str:
    return written


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


def _with_fixed_spaces(token: str) -> str:
    return token.replace(" ", "\xa0")


def _with_plain_ampersands(token: str) -> str:
    return re.sub("(?i)&amp;", "&", token)


def _with_plain_quotes(token: str) -> str:
    return token.replace("&apos;", "'").translate(_PLAIN_QUOTES)


def _with_round_brackets_named(token: str) -> str:
    return token.translate(_ROUND_BRACKETS)


def _as_telephone(token: str) -> str:
    return _with_fixed_spaces(_with_round_brackets_named(token))


def _replaced(token: str) -> str:
    return DATA["replaced"].get(token, token)


def _bracket_name(token: str) -> str:
    return _BRACKET_NAMES[token]


def _dashes(token: str) -> str:
    return "--" if len(token) in (3, 4) else token


@dataclass(frozen=True)
class Rule:
    """A kind of token.

    Args:
        first: pattern of the first character; it may accept characters that `find` then rejects.
        find: pattern whose last matched group is the token (the whole match without groups) and whose rest is
            lookahead, or a function that finds the token at a position.
        write: function that returns the written token, "" to omit it. All tokens are then converted to lower case.
        reread: number of characters at the token's end that are read again, as part of the next token.
    """

    first: str
    find: str | Callable[[Source, int], Found | None]
    write: Callable[[str], str] = _unchanged
    reread: int = 0

    def begins_with(self, character: str) -> bool:
        """Return whether a token may start with this character."""
        return compiled(self.first).match(character) is not None

    def match(self, source: Source, pos: int) -> Found | None:
        """Return the ends of the lookahead and of the token, or None if this position has no such token."""
        if not isinstance(self.find, str):
            return self.find(source, pos)
        found = compiled(self.find).match(source.text, pos)
        return (found.end(), found.end(found.lastindex or 0)) if found else None


def _initials(*words: str) -> str:
    return rf"(?i:[{re.escape(''.join(sorted({word[0] for word in words})))}])"


def _before_tag(head: str, tail: str) -> Callable[[Source, int], Found | None]:
    """Return a function that matches `head`, whose first group is the token, if a tag and then `tail` follow."""

    def find(source: Source, pos: int) -> Found | None:
        start = compiled(head).match(source.text, pos)
        tag = find_tag(source, start.end()) if start and source.text.startswith("<", start.end()) else None
        end = compiled(tail).match(source.text, tag[0]) if tag else None
        return (end.end(), start.end(1)) if start and end else None

    return find


_WORDS, _ABBREVIATIONS = DATA["words"], DATA["abbreviations"]
_ANY_LETTER = rf"(?i:[{LETTER}])"
_ANY = r"[\s\S]"
_CLITIC_OR_NOT = rf"(?:{CLITIC}|{NOT})"
_CLITIC_START = rf"[{APOSTROPHE_START}nN]"
_SHORT_NUMBER = rf"[{DIGIT}]{{1,4}}"
_ITEM = rf"[{LETTER_OR_DIGIT}]++(?:-[{LETTER}]++){{0,2}}"
_SENTENCE_START = rf"{SPACE_OR_LINE_END}++{any_capitalised(_WORDS['sentence starters'])}{SPACE_OR_LINE_END}"
_ENDING = (
    rf"(?:{any_of(_ABBREVIATIONS['may end a sentence'])}|"
    rf"{any_capitalised(_ABBREVIATIONS['may end a sentence, capitalised'])}|(?i:p?pt)[ye](?i:s)?)\."
)
_TITLE = (
    rf"(?:{any_of(_ABBREVIATIONS['inside a sentence'])}|"
    rf"{any_capitalised(_ABBREVIATIONS['inside a sentence, capitalised'])}|(?i:m)[ft](?i:g))\."
)
_TITLE_START = _initials(*_ABBREVIATIONS["inside a sentence"])
SPLIT_WORD = any_of(_WORDS["split before the last three"] + _WORDS["split before the last two"])
#: Abbreviations: they start with a letter and end with a period, and their tokens depend on the following text.
ABBREVIATION = rf"(?:{_ENDING}|{_TITLE}|{any_of(_ABBREVIATIONS['before a number'])}\.)"
_NUMBER_MARK = r"[.:,\xad\u066b\u066c]"
_PHONE_GAP = r"[- \xa0]"
_PHONE_END = rf"[0-9]{{3,4}}{_PHONE_GAP}?[0-9]{{3,5}}"
_EYES, _EYES_OR_DASH = r"[\^x=~<>']", r"[\^x=~<>'\-]"
_PART = rf"(?:[dDoOlL]{ANY_APOSTROPHE}(?=[{ALPHA}{DIGIT}]{{2}}))?+[{ALPHA}{DIGIT}]++"
_COMPOUND = rf"{_PART}(?:{HYPHEN}{_PART})*+"
_CAPITALS = r"[A-Z]++(?:(?:\+|(?i:&amp;)|&)[A-Z]++)++"
_QUOTES = r"`\u2018\u2019\u201a-\u201f\x91-\x94\u2039\u203a\xab\xbb"
_SIGNS = r"\u207a\u207b\u208a\u208b"
_SINGLE = rf"{SYMBOL}.=/+%&~\^|\\\xb2\xb3\xb9\u2044{_SIGNS}"

RULES: tuple[Rule, ...] = (
    Rule("[cCfF]", r"(?i:c\+\+|c#|f#)"),
    # Words that are split in two: `can not`, `'t was`, `gon na`.
    Rule("[cC']", r"(?i:(can)not|('t)was)"),
    Rule(_initials(*_WORDS["split before the last two"]), r"(?i:('t)is|(gim)me|(gon)na|(got)ta|(lem)me|(wan)na)"),
    Rule("<", find_tag, _with_fixed_spaces),
    Rule(r"[\x96\x97\u2013-\u2015&]", r"[\x96\x97\u2013-\u2015]|(?i:&(?:md|mdash|ndash);)", partial(_always, "--")),
    Rule("&", r"(?i:&amp;)", partial(_always, "&")),
    Rule("&", r"(?i:&(?:ht|tl|ur|lr|qc|ql|qr|odq|cdq);)|&#[0-9]++;"),
    # Words, also before a clitic (`it 's`) or a "not" (`do n't`, with the "n" in the second token).
    Rule(f"[{WORD_START}]", rf"({WORD}){CLITIC}", _without_soft_hyphens),
    Rule(rf"[{LETTER}\xad]", rf"([{LETTER}\xad]*[A-MO-Za-mo-z]\xad*){NOT}", _without_soft_hyphens),
    Rule(f"[{WORD_START}]", WORD, _without_soft_hyphens),
    # Words with an apostrophe.
    Rule(f"[{APOSTROPHE_START}]", rf"{APOSTROPHE}(?i:n){APOSTROPHE}?"),
    Rule("[lLdDjJ]", rf"[lLdDjJ]{APOSTROPHE}"),
    Rule("(?i:[dso])", rf"(?i:dunkin|somethin|ol){APOSTROPHE}"),
    Rule(f"[{APOSTROPHE_START}]", rf"{APOSTROPHE}(?:(?i:em|till?|cause)|[2-9]0(?i:s))"),
    Rule("[oO]", rf"(?i:o){ANY_APOSTROPHE}(?i:o)"),
    Rule(_initials(*_WORDS["with an apostrophe"]), any_of(_WORDS["with an apostrophe"])),
    Rule("[A-HJ-XZn]", rf"[A-HJ-XZn]{ANY_APOSTROPHE}[{ALPHA}]{{2,}}"),
    Rule(f"[{ALPHA}]", rf"[{ALPHA}]{{2,}}+(?<=[aeiouyAEIOUY]){ANY_APOSTROPHE}[aeiouA-Z][{ALPHA}]*"),
    Rule("[yY]", rf"([yY]{APOSTROPHE})[{ALPHA}]"),
    # Web addresses and names.
    Rule("[hH]", WEB_ADDRESS),
    Rule("[wW]", find_www_address),
    Rule(BARE_CHARACTER, find_bare_address),
    Rule(f"[{LETTER_OR_DIGIT}<&]", find_mail_address),
    Rule("@", rf"@[{LETTER}_][{LETTER_OR_DIGIT}_]*+"),
    Rule("#", rf"#{WORD_LETTERS}"),
    # Clitics.
    Rule(_CLITIC_START, rf"({_CLITIC_OR_NOT})[^{LETTER}]", _with_plain_quotes),
    # Numbers.
    Rule(f"[{DIGIT}]", rf"[{DIGIT}]{{1,2}}[-/][{DIGIT}]{{1,2}}[-/][{DIGIT}]{{2,4}}"),
    Rule(
        rf"[-+{_NUMBER_MARK[1:-1]}{DIGIT}]",
        rf"[-+]?(?:[{DIGIT}]*(?:{_NUMBER_MARK}[{DIGIT}]++)++|[{DIGIT}]++)",
        _without_soft_hyphens,
    ),
    Rule(
        rf"[{_SIGNS}\xb2\xb3\xb9\u2070-\u2089]",
        rf"[{_SIGNS}]?(?:[\u2070\xb9\xb2\xb3\u2074-\u2079]++|[\u2080-\u2089]++)",
    ),
    Rule(
        f"[{DIGIT}]",
        rf"(?:{_SHORT_NUMBER}[- \xa0])?{_SHORT_NUMBER}(?:\\?/|\u2044){_SHORT_NUMBER}",
        _with_fixed_spaces,
    ),
    Rule(r"[\xbc-\xbe\u2153-\u215e]", r"[\xbc-\xbe\u2153-\u215e]", _replaced),
    # Fixed terms.
    Rule("-", r"(?i:-(?:rrb|lrb|rcb|lcb|rsb|lsb)-)"),
    Rule(
        "(?i:[acps])",
        rf"(?i:c\.d\.s|pro-|anti-|s&(?:amp;)?p-500|s&(?:amp;)?ls|cap{APOSTROPHE}n|c{APOSTROPHE}est)",
        _with_plain_ampersands,
    ),
    Rule(f"[{LETTER_OR_DIGIT}]", rf"{_ITEM}(?:\\?/{_ITEM}){{1,2}}"),
    Rule("[A-Z$#]", r"[A-Z]*+\$|#"),
    Rule(f"[{CURRENCY}]", f"[{CURRENCY}]", _replaced),
    # Abbreviations. Before an apparent new sentence, the period is a separate token that ends the sentence.
    Rule(f"[{LETTER}]", rf"([{LETTER}])\.{_SENTENCE_START}"),
    Rule(f"[{LETTER}]", _before_tag(rf"([{LETTER}])\.{SPACE_OR_LINE_END}++", SPACE_OR_LINE_END)),
    Rule(_ANY_LETTER, rf"({ACRONYM}\.){_SENTENCE_START}", reread=1),
    Rule(_ANY_LETTER, _before_tag(rf"({ACRONYM}\.){SPACE_OR_LINE_END}++", SPACE_OR_LINE_END), reread=1),
    Rule(
        _initials(*_ABBREVIATIONS["before a number"]),
        rf"({any_of(_ABBREVIATIONS['before a number'])}\.){SPACE_OR_LINE_END}?[{DIGIT}]",
    ),
    Rule("[pPcC]", rf"((?:(?i:pt)[eyEY]|(?i:co))\.){SPACE}(?i:ltd|lim)"),
    Rule(_ANY_LETTER, rf"({_ENDING}){SPACE_OR_LINE_END}(?:{SPACE_OR_LINE_END}|[{UPPER}])", reread=1),
    Rule(_ANY_LETTER, _before_tag(rf"({_ENDING}){SPACE_OR_LINE_END}", ""), reread=1),
    Rule(_ANY_LETTER, rf"({_ENDING}){_ANY}{_ANY}"),
    Rule(_ANY_LETTER, _ENDING, reread=1),
    Rule(_TITLE_START, _TITLE),
    Rule(_ANY_LETTER, rf"{ACRONYM}\."),
    Rule(_ANY_LETTER, rf"({ACRONYM}){SPACE_OR_LINE_END}"),
    Rule(f"[{APOSTROPHE_START}]", rf"({APOSTROPHE}[0-9][0-9]){SPACE_OR_LINE_END}"),
    Rule(f"[{WORD_CHARACTER}]", find_file_name),
    Rule(f"[{WORD_START}]", rf"({WORD}\.){MID}", _without_soft_hyphens),
    # Telephone numbers, and text that looks like one: `1990 1991 1992`.
    Rule(r"\(", rf"\([0-9]{{2,3}}\)[ \xa0]?{_PHONE_END}", _as_telephone),
    Rule("[+0-9]", rf"\+{{0,2}}[0-9]{{2,4}}{_PHONE_GAP}{_PHONE_END}", _as_telephone),
    Rule("[+0-9]", rf"\+{{0,2}}(?:[0-9]{{2,4}}{_PHONE_GAP}){{2}}{_PHONE_END}", _as_telephone),
    Rule("[+0-9]", r"(?:\+{0,2}[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}", _as_telephone),
    # Quotation marks, symbols, emoticons and brackets.
    Rule('["&]', '"|&quot;', partial(_always, "''")),
    Rule("&", "(?i:&quot;)"),
    Rule("\x7f", "\x7f", partial(_always, "")),
    Rule("[<&]", "<|(?i:&lt;)", partial(_always, "<")),
    Rule("[>&]", ">|(?i:&gt;)", partial(_always, ">")),
    Rule("[<>:;=]", rf"([<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]])[^{LETTER_OR_DIGIT}]", _with_round_brackets_named),
    Rule(_EYES_OR_DASH, rf"{_EYES_OR_DASH}_{_EYES_OR_DASH}", _with_round_brackets_named),
    Rule(
        r"\(",
        rf"\((?:{_EYES_OR_DASH}[_.]?{_EYES_OR_DASH}|{_EYES}-(?:{_EYES}|`))\)",
        _with_round_brackets_named,
    ),
    Rule(r"[\^x=~<>]", find_odd_face, _with_round_brackets_named),
    Rule(r"[{}\[\]()]", r"[{}\[\]()]", _bracket_name),
    # Punctuation.
    Rule("-", "-++", _dashes),
    Rule(r"[.\u2026\x85]", r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\u2026\x85]", partial(_always, "...")),
    Rule(r"[@#_*\\?!,;:\u3001]", rf"@++|#++|_++|\*++|(?:\\\*){{1,3}}|[?!]++|{MID}"),
    # Compounds.
    Rule(f"[{LETTER_OR_DIGIT}]", find_hyphenated, _without_soft_hyphens),
    Rule(f"[{ALPHA}{DIGIT}]", rf"({_COMPOUND}\.){MID}|({_COMPOUND})"),
    Rule("[A-Z]", rf"({_CAPITALS}\.){MID}|({_CAPITALS})", _with_plain_ampersands),
    # Single quotation marks and clitics that no rule above matched.
    Rule("'", rf"(')[{LETTER}][^ \t\n\r\xa0]", partial(_always, "`")),
    Rule(_CLITIC_START, _CLITIC_OR_NOT, _with_plain_quotes),
    Rule(f"[{APOSTROPHE_START}{_QUOTES}]", rf"''|[{_QUOTES}]{{1,2}}|{APOSTROPHE}", _with_plain_quotes),
    Rule("[<>]", "<<|>>"),
    Rule(rf"[{_SINGLE}]", rf"[{_SINGLE}]"),
    # Spaces, line ends, and all omitted characters.
    Rule(LINE_END, LINE_END, partial(_always, NEW_LINE)),
    Rule(_ANY, rf"{SPACE}++|(?i:&nbsp;)|{_ANY}", partial(_always, "")),
)


@lru_cache(maxsize=2**12)
def rules_for(character: str) -> tuple[Rule, ...]:
    """Return the rules whose tokens may start with this character, in order."""
    return tuple(rule for rule in RULES if rule.begins_with(character))
