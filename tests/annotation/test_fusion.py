"""Visual and audio events -> omni-modal events: the published example, and what always holds."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.annotation.boundaries import fuse
from longvale.annotation.boundaries.fusion import split_background


def test_the_published_example():
    sounds = [(5.8, 16.1), (16.1, 19.5), (19.5, 39.6)]
    assert fuse([(4.7, 32.6), (32.6, 38.9)], sounds) == [(4.7, 39.6)]


@pytest.mark.parametrize(
    ("visual", "audio", "events"),
    [
        ([], [], []),
        ([(0, 5), (5, 9)], [], [(0, 5), (5, 9)]),
        ([], [(1, 2), (4, 6)], [(1, 2), (4, 6)]),
        ([], [(1, 3), (2, 6)], [(1, 6)]),
        ([(0, 10), (10, 20)], [(9, 13)], [(0, 9), (9, 20)]),  # to the nearer end of the sound
        ([(0, 10), (10, 20)], [(7, 11)], [(0, 11), (11, 20)]),
        ([(0, 10), (10, 20)], [(8, 12)], [(0, 12), (12, 20)]),  # as near: the later
        ([(0, 10), (10, 20)], [(4, 10), (10, 15)], [(0, 10), (10, 20)]),  # sounds that only touch the boundary
        ([(0, 10), (10, 20)], [(2, 11), (10.5, 19)], [(0, 2), (2, 20)]),  # what overlaps is one sound
        ([(0, 4), (8, 12)], [(5, 6)], [(0, 4), (5, 6), (8, 12)]),  # a sound between two pictures
        ([(0, 4), (8, 12)], [(4, 8)], [(0, 4), (4, 8), (8, 12)]),  # which touches both
        ([(2, 4)], [(0, 1), (5, 9)], [(0, 1), (2, 4), (5, 9)]),  # sounds before the first and after the last
        ([(2, 4)], [(1, 5), (1.5, 3)], [(1, 5)]),  # a sound within a sound, and the picture within both
    ],
)
def test_where_anchors_go(visual, audio, events):
    assert fuse(visual, audio) == events


def test_short_events_join_the_shorter_neighbour_that_they_touch():
    assert fuse([(0, 10), (10, 10.5), (10.5, 13)], [], min_length=1) == [(0, 10), (10, 13)]
    assert fuse([(0, 0.5), (3, 9)], [], min_length=1) == [(0, 0.5), (3, 9)]
    assert fuse([(0, 3), (3, 3.5), (3.5, 13)], [], min_length=1) == [(0, 3.5), (3.5, 13)]
    assert fuse([(0, 0.5), (0.5, 9)], [], min_length=1) == fuse([(0, 8.5), (8.5, 9)], [], min_length=1) == [(0, 9)]
    assert fuse([(0, 1), (1, 9)], [], min_length=1) == [(0, 1), (1, 9)]  # as long as asked for
    assert fuse([(0, 1), (3, 3.5), (3.5, 9)], [], min_length=1) == [(0, 1), (3, 9)]
    # The shortest comes first, although an earlier one is short as well; ties go to the earlier one.
    assert fuse([(0, 2), (2, 2.5), (2.5, 3.25), (3.25, 9)], [], min_length=1) == [(0, 2), (2, 3.25), (3.25, 9)]
    events = [(0, 4), (4, 7.5), (7.5, 8.5), (8.5, 11.5), (11.5, 31.5)]
    assert fuse(events, [], min_length=4) == [(0, 7.5), (7.5, 11.5), (11.5, 31.5)]
    assert fuse([(0, 3), (3, 3.5), (3.5, 6.5)], [], min_length=1) == [(0, 3.5), (3.5, 6.5)]
    assert fuse([(0, 5), (5, 5.5), (5.5, 7), (7, 7.5), (7.5, 13)], [], min_length=1) == [(0, 5), (5, 7.5), (7.5, 13)]


@pytest.mark.parametrize("event", [(3, 3), (5, 2), (-1, 2), (0, float("nan")), (0, float("inf"))])
def test_what_is_no_event_is_refused(event):
    with pytest.raises(ValueError, match=r"^audio event must have finite times with 0 <= start < end, not "):
        fuse([(0, 1)], [event])
    with pytest.raises(ValueError, match=r"^visual event must have finite times with 0 <= start < end, not "):
        fuse([event], [(0, 1)])


@pytest.mark.parametrize("min_length", [-1, float("nan"), "1"])
def test_a_shortest_length_that_is_none_is_refused(min_length):
    with pytest.raises(ValueError, match="min_length must be 0 s or more"):
        fuse([], [], min_length=min_length)


SHOTS = [(0, 10), (10, 14), (14, 20), (20, 30)]


@pytest.mark.parametrize(
    ("audio", "music", "background"),
    [
        ([(5, 9)], [], []),  # contains no boundary
        ([(9, 15)], [], [(9, 15)]),  # contains two
        ([(2, 11)], [], [(2, 11)]),  # more than twice as long as the shot after its boundary
        ([(7, 11)], [], []),
        ([(19, 21)], [(15, 25)], [(19, 21)]),  # within music
        ([(19, 21)], [(20.5, 25)], []),
        ([(16, 18)], [(15, 25)], []),  # within music, but it could move nothing
        ([(7, 12), (11, 15)], [], [(7, 12), (11, 15)]),  # together they contain two
        ([(7, 12), (11, 15), (12.5, 13)], [], [(7, 12), (11, 15)]),  # and the one that contains none stays
    ],
)
def test_what_is_background(audio, music, background):
    foreground, found = split_background(SHOTS, audio, music)
    assert found == background and sorted([*foreground, *found]) == sorted(audio)


def test_without_pictures_nothing_is_background():
    assert split_background([], [(0, 9), (4, 30)], [(0, 40)]) == ([(0, 9), (4, 30)], [])


def test_the_background_moves_no_boundary_and_is_not_lost():
    assert fuse(SHOTS, [], background=[(8, 22)]) == SHOTS
    assert fuse([(5, 10), (10, 14), (17, 20)], [], background=[(2, 22)]) == [
        (2, 5), (5, 10), (10, 14), (14, 17), (17, 20), (20, 22),
    ]  # fmt: skip
    assert fuse(SHOTS, [(9, 11)], background=[(8, 22)]) == [(0, 11), (11, 14), (14, 20), (20, 30)]
    assert fuse([], [], background=[(1, 4), (3, 6)]) == [(1, 6)]
    with pytest.raises(ValueError, match="background event must have finite times"):
        fuse(SHOTS, [], background=[(2, 1)])


TIMES = st.integers(0, 60).map(lambda tick: tick / 2)
EVENTS = st.lists(st.tuples(TIMES, TIMES).filter(lambda e: e[0] < e[1]), max_size=8)


@st.composite
def visual_events(draw):
    """Disjoint, as stitching leaves them; some touch."""
    edges = sorted(draw(st.sets(TIMES, max_size=9)))
    pairs = list(itertools.pairwise(edges))
    kept = draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    return [pair for pair, keep in zip(pairs, kept, strict=True) if keep]


def covered(event, events):
    """Whether a stretch lies within the union of events."""
    at, end = event
    for a, b in sorted(events):
        if a <= at < b:
            at = b
    return at >= end


@given(visual_events(), EVENTS, st.sampled_from([0.0, 1.0, 3.0]))
def test_what_always_holds(visual, audio, min_length):
    events = fuse(visual, audio, min_length=min_length)
    assert events == sorted(events)
    assert all(a < b for a, b in events)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(events))
    assert all(covered(event, events) for event in visual)  # nothing seen is lost ...
    assert all(any(a <= start and end <= b for a, b in events) for start, end in audio)  # ... and no sound is split
    times = [time for event in (*visual, *audio) for time in event]
    assert all(min(times) <= a and b <= max(times) for a, b in events)
    assert fuse(reversed(visual), audio[::-1], min_length=min_length) == events
    assert all(any(a < y and x < b for x, y in (*visual, *audio)) for a, b in events)  # no event where nothing is


@given(visual_events(), EVENTS, EVENTS)
def test_what_always_holds_with_a_background(visual, audio, background):
    events = fuse(visual, audio, background=background)
    assert all(a < b for a, b in events)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(events))
    assert all(covered(event, events) for event in [*visual, *background])
    assert all(any(a <= start and end <= b for a, b in events) for start, end in audio)
    assert set(fuse(visual, audio)) <= set(events)
    foreground, rest = split_background(visual, audio, background)
    assert sorted([*foreground, *rest]) == sorted(set(audio))


@given(visual_events())
def test_without_sounds_these_are_the_visual_events(visual):
    assert fuse(visual, []) == visual


@given(EVENTS)
def test_without_pictures_only_sounds_that_overlap_are_joined(audio):
    events = fuse([], audio)
    starts, ends = {a for a, _ in audio}, {b for _, b in audio}
    assert all(a in starts and b in ends for a, b in events)
