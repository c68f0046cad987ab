"""Admission: each filter's yes and no, and how they are counted."""

import pytest

from longvale.annotation.filters import ALL, Facts, FilterOptions, Rejection, admit, format_funnel, funnel

GOOD = Facts(60.0, 720, speech=0.3, static=0.1)


def changed(**facts):
    return Facts(**{**vars(GOOD), **facts})


def test_a_good_video_is_admitted():
    assert admit(GOOD, FilterOptions(language="en", min_agreement=0.1)) == []  # what is not known passes


@pytest.mark.parametrize(
    ("facts", "name", "value", "threshold"),
    [
        ({"duration": 29.9}, "duration", 29.9, 30.0),
        ({"duration": 601.0}, "duration", 601.0, 600.0),
        ({"height": 359}, "resolution", 359, 360),
        ({"has_picture": False}, "pictures", None, None),
        ({"has_sound": False}, "sound", None, None),
        ({"speech": 0.96}, "speech", 0.96, 0.95),
        ({"static": 0.81}, "static", 0.81, 0.8),
        ({"language": "fr"}, "language", "fr", "en"),
        ({"agreement": 0.05}, "agreement", 0.05, 0.1),
    ],
)
def test_each_filter_says_what_it_measured(facts, name, value, threshold):
    options = FilterOptions(language="en", min_agreement=0.1)
    (rejection,) = admit(changed(**facts), options)
    assert (rejection.filter, rejection.value, rejection.threshold) == (name, value, threshold)
    assert admit(changed(**facts), ALL) == []


@pytest.mark.parametrize("facts", [{"duration": 30.0}, {"duration": 600.0}, {"height": 360}, {"speech": 0.95}])
def test_thresholds_themselves_are_admitted(facts):
    assert admit(changed(**facts), FilterOptions()) == []


def test_the_funnel_counts_all_reasons():
    rejections = {
        "a": [],
        "b": [Rejection("duration", "too short"), Rejection("sound", "no sound")],
        "c": [Rejection("sound", "no sound")],
    }
    rows = {name: (left, against) for name, left, against in funnel(rejections)}
    assert rows["duration"] == (2, 1) and rows["sound"] == (1, 2) and rows["agreement"] == (1, 0)
    assert format_funnel(rejections).splitlines()[-1].split() == ["sound", "1", "2"]
