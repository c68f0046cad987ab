import numpy as np
import pytest

from longvale.annotation.tracks import Span
from longvale.annotation.tracks.audioset import generalizations, is_known, kind_of
from longvale.annotation.tracks.sound_spans import MOST_LABELS, Scores, SoundOptions, most_specific, sound_spans

OPTIONS = SoundOptions(on=0.6, off=0.3, min_s=1.0, gap_s=1.0)


def spans_of(scores, label="Bell", options=OPTIONS, cell_s=0.5):
    scores = np.asarray(scores, float)
    kept = Scores(options.off)
    for first in range(0, len(scores), 4):  # as batches come
        kept.add(first, scores[first : first + 4, None])
    return [(span.start, span.end, span.score) for span in sound_spans(kept.by_label([label]), cell_s, options)]


def test_a_span_starts_at_one_threshold_and_ends_at_another():
    assert spans_of([0, 0.4, 0.7, 0.5, 0.35, 0.2, 0]) == [(0.5, 2.5, 0.488)]
    assert spans_of([0, 0.4, 0.5, 0.59, 0.35, 0.2, 0]) == []  # never sure
    assert spans_of([0.3, 0.6]) == [(0.0, 1.0, 0.45)]  # thresholds themselves are enough


def test_short_gaps_are_bridged():
    two = [0.7, 0.7]
    assert spans_of([*two, 0.1, 0.1, *two]) == [(0.0, 3.0, 0.7)]
    assert spans_of([*two, 0.1, 0.1, 0.1, *two]) == [(0.0, 1.0, 0.7), (2.5, 3.5, 0.7)]
    assert spans_of([*two, 0.1, 0.4, 0.1, *two]) == [(0.0, 1.0, 0.7), (2.5, 3.5, 0.7)]  # the middle was never sure


def test_short_spans_are_dropped_after_gaps_are_bridged():
    assert spans_of([0, 0.9, 0, 0, 0, 0]) == []
    assert spans_of([0, 0.9, 0, 0.9, 0, 0]) == [(0.5, 2.0, 0.9)]


def test_spans_of_a_low_mean_are_dropped():
    sure = SoundOptions(on=0.6, off=0.3, min_s=1.0, gap_s=1.0, mean=0.5)
    assert spans_of([0, 0.4, 0.7, 0.3, 0, 0, 0, 0.4, 0.6, 0.5, 0], options=sure) == [(3.5, 5.0, 0.5)]


@pytest.mark.parametrize("wrong", [{"off": 0.0}, {"on": 0.1, "off": 0.2}, {"on": 1.1}, {"on": float("nan")}])
def test_thresholds_must_be_in_order(wrong):
    with pytest.raises(ValueError, match="thresholds of sounds must be 0 < off <= on <= 1, not off="):
        SoundOptions(**wrong)


def test_the_most_probable_labels_of_a_moment_are_kept():
    labels = [f"sound {index}" for index in range(MOST_LABELS + 5)]
    kept = Scores(0.1)
    kept.add(0, np.linspace(0.5, 0.9, len(labels))[None])
    assert list(kept.by_label(labels)) == labels[5:]


def test_no_scores_give_no_spans():
    assert sound_spans(Scores(0.1).by_label(["Bell"]), 0.5, OPTIONS) == []


def labels_of(*spans):
    return [span.text for span in most_specific([Span(*span) for span in spans])]


def test_one_sound_has_one_label():
    assert labels_of((0, 4, "Animal", 0.9), (0, 4, "Dog", 0.8), (0, 4, "Bark", 0.5)) == ["Bark"]
    assert labels_of((0, 4, "Dog", 0.8), (10, 14, "Bark", 0.5)) == ["Dog", "Bark"]
    # Two barks cover half of the dog together, one does not.
    assert labels_of((0, 8, "Dog", 0.8), (0, 2, "Bark", 0.5), (6, 8, "Bark", 0.5)) == ["Bark", "Bark"]
    assert labels_of((0, 8, "Dog", 0.8), (0, 2, "Bark", 0.5)) == ["Dog"]


def test_the_cry_of_one_animal_is_not_two_animals():
    assert labels_of((0, 4, "Quack", 0.8), (0, 4, "Goose", 0.7), (6, 9, "Goose", 0.7)) == ["Quack", "Goose"]
    # The duck is more probable than the goose, though its quack is less.
    assert labels_of((0, 4, "Duck", 0.8), (0, 4, "Goose", 0.7), (0, 4, "Quack", 0.4)) == ["Quack"]
    assert labels_of((0, 4, "Goat", 0.8), (0, 4, "Bleat", 0.7), (0, 4, "Sheep", 0.4)) == ["Bleat"]
    assert labels_of((0, 4, "Bark", 0.8), (0, 4, "Bird", 0.7)) == ["Bark", "Bird"]  # of two families
    assert labels_of((0, 4, "Siren", 0.8), (0, 4, "Rain", 0.7)) == ["Siren", "Rain"]


def test_music_and_speech_stay_beside_what_is_in_them():
    heard = [(0, 9, "Music", 0.9), (1, 9, "Guitar", 0.9), (1, 9, "Electric guitar", 0.5), (0, 9, "Speech", 0.5)]
    assert labels_of(*heard, (0, 9, "Conversation", 0.4)) == ["Music", "Electric guitar", "Speech", "Conversation"]


def test_labels_of_other_models_are_left_alone():
    assert labels_of((0, 4, "class 1", 0.9), (0, 4, "class 2", 0.8)) == ["class 1", "class 2"]


def test_silence_is_not_a_sound():
    assert spans_of([0.9] * 8, "Silence") == []


def test_families_have_no_circle_and_kinds_cover_them():
    labels = {label: generalizations(label) for label in ("bark", "electric guitar", "mantra", "police car (siren)")}
    assert labels["bark"] == {"animal", "domestic animals, pets", "dog"}
    assert labels["electric guitar"] == {"music", "musical instrument", "plucked string instrument", "guitar"}
    assert all(label not in general for label, general in labels.items())
    kinds = {"Rapping": "singing", "Narration, monologue": "speech", "Drum roll": "music", "Opera": "singing"}
    assert {label: kind_of(label) for label in kinds} == kinds
    assert kind_of("Applause") == kind_of("no such label") == "sound"
    assert is_known("DOG") and not is_known("")
