import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.metrics.text.porter2 import stem

#: word:stem as Snowball 2.2.0 gives them; every rule has a word that it changes and one that it must leave.
STEMS = """
    a:a is:is dog:dog dogs:dog skis:ski skies:sky dying:die news:news sky:sky inning:inning innings:inning
    proceed:proceed exceeds:exceed succeed's:succeed 'dog:dog dog's:dog dogs':dog dogs's':dog caresses:caress
    ties:tie cries:cri ied:ie gas:gas this:this gaps:gap kiwis:kiwi bus:bus glass:glass agreed:agre feed:feed
    agreedly:agre fed:fed hopped:hop hoping:hope hopping:hop conflated:conflat troubled:troubl sized:size
    falling:fall fizzed:fizz filing:file bled:bled sing:sing singing:sing plastered:plaster motoring:motor red:red
    bed:bed cry:cri by:by say:say enjoy:enjoy youth:youth boy's:boy yyy:yyy syzygy:syzygi relational:relat
    conditional:condit rational:ration valenci:valenc hesitanci:hesit digitizer:digit conformabli:conform
    radicalli:radic differentli:differ vileli:vile analogousli:analog vietnamization:vietnam predication:predic
    operator:oper feudalism:feudal decisiveness:decis hopefulness:hope callousness:callous formaliti:formal
    sensitiviti:sensit sensibiliti:sensibl ogi:ogi analogi:analog geologi:geolog hopelessli:hopeless badli:bad
    triplicate:triplic formative:format formalize:formal electriciti:electr electrical:electr hopeful:hope
    goodness:good negative:negat revival:reviv allowance:allow inference:infer airliner:airlin gyroscopic:gyroscop
    adjustable:adjust defensible:defens irritant:irrit replacement:replac adjustment:adjust dependent:depend
    adoption:adopt homologou:homologou communism:communism activate:activ angulariti:angular effective:effect
    bowdlerize:bowdler onion:onion nation:nation probate:probat rate:rate cease:ceas controll:control roll:roll
    generate:generat generously:generous communes:commune arsenal:arsenal over:over ate:ate use:use 1990s:1990s
    2nd:2nd café:café cafés:café naïveté:naïveté o'clock:o'clock y'all:y'all eyes:eye toying:toy
"""


@pytest.mark.parametrize(("word", "expected"), [tuple(pair.split(":")) for pair in STEMS.split()])
def test_stems(word, expected):
    assert stem(word) == expected


@given(st.text() | st.text("aeiouybdlst'yngY", max_size=12))
def test_any_text_has_a_stem(word):
    assert len(stem(word)) <= len(word) + 1
