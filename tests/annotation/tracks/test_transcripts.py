"""The transcript: parts of speech, guards against inventions, passages with words and speakers, and recognisers."""

import functools
import itertools
import pickle
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_whisper import build_whisper
from transformers import pipeline

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks import Found, Span, Word, within
from longvale.annotation.tracks.guards import Heard, is_known_invention, needs_another_try, reject, repeated
from longvale.annotation.tracks.recognisers.local import SpeechRecogniser
from longvale.annotation.tracks.recognisers.word_times import token_times
from longvale.annotation.tracks.speakers import with_speakers
from longvale.annotation.tracks.transcript import TranscriptTracker, speech_parts
from longvale.registry import recognisers


def sound_of(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, round(seconds * 16_000)).astype(np.float32)


def reader_of(waveform):
    audio = lambda start, end: waveform[round(start * 16_000) : round(end * 16_000)]  # noqa: E731
    return SimpleNamespace(duration=len(waveform) / 16_000, audio=audio)


def timed(text, start=0.0, each=0.4):
    """Words that follow each other."""
    return tuple(Word(start + each * n, start + each * (n + 1), f" {word}") for n, word in enumerate(text.split()))


class Told:
    """A recogniser that hears what it is told, part by part."""

    name = "told"

    def __init__(self, *heard):
        self.heard, self.lengths = list(heard), []

    def __call__(self, parts):
        self.lengths += [len(part) / 16_000 for part in parts]
        return [self.heard.pop(0) for _ in parts]


def track(heard, turns, seconds=30.0, speakers=()):
    found = TranscriptTracker(Told(*heard))(reader_of(sound_of(seconds)), turns, {"speakers": speakers})
    assert isinstance(found, Found)
    return found


# --- parts -----------------------------------------------------------------------------------------------------------


def test_long_speech_is_cut_where_it_is_quiet():
    waveform = sound_of(70.0)
    waveform[round(25.0 * 16_000) : round(25.5 * 16_000)] = 0  # pauses
    waveform[round(51.0 * 16_000) : round(51.4 * 16_000)] = 0
    parts = speech_parts([(0.0, 70.0)], reader_of(waveform).audio, 70.0)
    assert len(parts) == 3 and all(b - a <= 30 for a, b in parts)
    assert 25.0 <= parts[0][1] <= 25.5 and 51.0 <= parts[1][1] <= 51.4
    assert all(0 <= after[0] - before[1] < 0.01 for before, after in itertools.pairwise(parts))


def test_two_hours_without_a_pause_stay_in_parts():
    parts = speech_parts([(0.0, 7200.0)], lambda a, b: np.ones(round((b - a) * 16_000), np.float32), 7200.0)
    assert max(b - a for a, b in parts) <= 30 and sum(b - a for a, b in parts) == pytest.approx(7200, abs=0.1)
    assert len(parts) < 7200 / 20


# --- guards ----------------------------------------------------------------------------------------------------------


SURE = {"log_probability": -0.2, "no_speech": 0.02}


def test_what_is_said_is_kept_with_words_and_confidence():
    words = timed("Thanks for watching! See you.", 0.5)
    heard = Heard("Thanks for watching! See you.", words, **SURE, probabilities=(0.9, 0.8, 1.0, 0.9, 0.7))
    first, second = track([heard], [(2.0, 5.0)])
    assert (first.text, first.start, first.end, first.score) == ("Thanks for watching!", 2.3, 3.5, 0.9)
    assert first.words[2] == Word(3.1, 3.5, "watching!") and second.text == "See you."


@pytest.mark.parametrize(("heard", "reason"), [
    (Heard("Thank you.", timed("Thank you."), -1.2, 0.9), "probably no speech (0.90)"),
    (Heard("He it was an if.", timed("He it was an if."), -1.4, 0.1), "a guess (log-probability -1.40)"),
    (Heard("la di da " * 40, (), -0.3, 0.1), "repeats itself (compression"),
    (Heard("All these words in a second of sound, nobody can speak so fast.", (), -0.3), "13 words in 1.0 s"),
    (Heard("Thanks for watching!", timed("Thanks for watching!"), -0.7, 0.1), "a phrase that recognisers invent"),
])  # fmt: skip
def test_inventions_are_dropped_and_the_reason_is_recorded(heard, reason):
    found = track([heard], [(2.0, 3.0)])
    assert list(found) == [] and len(found.dropped) == 1
    start, end, text, why = found.dropped[0]
    assert 5 < len(text) <= 200
    assert why.startswith(reason) and " ".join(heard.text.split()).startswith(text) and 1.5 <= start < end <= 3.5


def test_words_outside_of_speech_turns_are_dropped():
    words = (*timed("It rains.", 0.2), *timed("Subtitles by nobody.", 3.4))
    found = track([Heard("It rains. Subtitles by nobody.", words, **SURE)], [(2.0, 3.0), (4.9, 5.0), (6.8, 7.0)])
    assert [span.text for span in found] == ["It rains."]
    assert found.dropped == ((5.2, 6.4, "Subtitles by nobody.", "outside of speech turns"),)


def test_a_word_that_repeats_itself_is_cut_short():
    text = "Well no no no no no no no and then we went home."
    found = track([Heard(text, timed(text), **SURE)], [(0.2, 6.0)])
    assert " ".join(span.text for span in found) == "Well no no no and then we went home."
    assert found.dropped == ((1.6, 3.2, "no no no no", "repeats itself"),)
    assert repeated([*"ababababab", "c"]) == [6, 7, 8, 9]
    assert repeated(["very", "very", "good,", "very", "good"]) == []


def test_doubt_is_what_makes_a_phrase_an_invention():
    assert is_known_invention("Untertitel im Auftrag des ZDF, 2017") and is_known_invention(
        "ご視聴ありがとうございました"
    )
    assert not is_known_invention("Thanks for watching over my children while I was away.")
    assert reject(Heard("Thanks for watching", **SURE), 1.0) is None
    assert needs_another_try(Heard("so " * 90, **SURE)) and not needs_another_try(Heard("so", (), -2.0, 0.95))


def test_a_model_without_words_and_probabilities_gives_the_speech_turns():
    (span,) = track([Heard("It rains.")], [(2.0, 3.0), (3.5, 5.0)])
    assert (span.start, span.end, span.score, span.words) == (2.0, 5.0, None, ())


# --- passages --------------------------------------------------------------------------------------------------------


def test_passages_end_with_sentences_and_pauses():
    words = (*timed("Dr. Who came in. He sat", 0.0), *timed("down and said hello", 5.0))
    spans = track([Heard("x", words, **SURE)], [(0.2, 10.0)])
    assert [span.text for span in spans] == ["Dr. Who came in.", "He sat", "down and said hello"]
    # Speakers are assigned once, to the words of every recogniser.
    voices = [Span(0.0, 6.2, "speaker 1"), Span(6.1, 9.0, "speaker 2")]
    assert track([Heard("x", words, **SURE)], [(0.2, 10.0)], speakers=voices) == spans
    assert [(span.text, span.speaker) for span in with_speakers(spans, voices)] == [
        ("Dr. Who came in.", "speaker 1"), ("He sat", "speaker 1"), ("down and said", "speaker 1"),
        ("hello", "speaker 2"),
    ]  # fmt: skip


def test_a_clip_has_the_words_within_it():
    """Those of languages without spaces, too, stay as they were written."""
    words = (Word(0.0, 1.0, "今日"), Word(1.0, 2.0, "は"), Word(2.0, 3.0, "晴れ"))
    tracks = {"transcript": [Span(0.0, 3.0, "今日は晴れ。", words=words)]}
    assert within(tracks, 0.0, 5.0)["transcript"][0].text == "今日は晴れ。"
    assert within(tracks, 1.0, 5.0)["transcript"][0].text == "は晴れ"
    assert within(tracks, 3.0, 5.0)["transcript"] == ()
    voices = [Span(0.0, 2.0, "speaker 1"), Span(2.0, 3.0, "speaker 2")]
    assert [span.text for span in with_speakers(tracks["transcript"], voices)] == ["今日は", "晴れ"]


# --- recognisers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whispers(tmp_path_factory):
    """Folders of a Whisper of four languages, of one of English alone, and of one with word times."""
    made = {}
    for name, languages in {"many": ("en", "zh", "de", "es"), "english": (), "timed": ("en", "de")}.items():
        made[name] = str(tmp_path_factory.mktemp("whispers") / name)
        model, processor = build_whisper(languages)
        if name == "timed":
            model.generation_config.alignment_heads = [[0, 0]]
        for part in (model, processor):
            part.save_pretrained(made[name])
    return made


def recogniser_of(folder):
    return recognisers.create("transformers", ModelOptions(folder, device="cpu"))


def test_whisper_gives_what_the_pipeline_gives(whispers):
    parts = [sound_of(5.0, seed) for seed in range(3)]
    for name in ("many", "english"):
        recogniser = recogniser_of(whispers[name])
        heard = recogniser(parts)
        plain = pipeline("automatic-speech-recognition", model=whispers[name], device="cpu")
        for part, found in zip(parts, heard, strict=True):
            asked = {}
            if recogniser.languages:
                told = recogniser.identify_languages(part)
                asked = {"generate_kwargs": {"task": "transcribe", "language": max(told, key=told.get)}}
            text = plain({"raw": part, "sampling_rate": 16_000}, **asked)["text"]
            # Its length has another limit, and a guess is tried again at a temperature.
            assert text.strip().startswith(found.text) or found.log_probability < -1
            assert found.log_probability <= 0 and found.no_speech is None and found.words == ()
        assert heard == recogniser(parts)  # also where it was sampled


def test_words_get_times_from_the_attention(whispers):
    recogniser = recogniser_of(whispers["timed"])
    (found,) = recogniser([sound_of(4.0)])
    assert "".join(word.text for word in found.words).strip() == found.text != ""
    assert len(found.probabilities) == len(found.words) and all(0 <= p <= 1 for p in found.probabilities)
    assert all(0 <= word.start <= word.end <= 4.0 for word in found.words)
    attention = np.zeros((2, 5, 100), np.float32)
    for token, frame in enumerate((0, 20, 30, 70, 90)):
        attention[:, token, frame : frame + 10] = 1.0
    assert token_times(attention) == pytest.approx([0.0, 0.4, 0.6, 1.4, 1.8], abs=0.1)


def test_a_whisper_of_many_languages_identifies_them(whispers):
    recogniser = recogniser_of(whispers["many"])
    assert set(recogniser.languages) == {"en", "zh", "de", "es"} and recogniser_of(whispers["english"]).languages == ()
    for seed in range(3):
        sound = sound_of(5.0, seed)
        told = recogniser.identify_languages(sound)
        assert tuple(told) == recogniser.languages and sum(told.values()) == pytest.approx(1)
        model, extractor = recogniser._pipeline.model, recogniser._pipeline.feature_extractor
        features = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
        (token,) = model.detect_language(features)  # transformers' own: the likeliest, without its probability
        assert f"<|{max(told, key=told.get)}|>" == recogniser._pipeline.tokenizer.decode(token)


def test_it_is_told_to_transcribe(whispers, monkeypatch):
    """Else it may translate, or fall into repeating itself."""
    recogniser, prompts = recogniser_of(whispers["many"]), []
    forward = recogniser._pipeline.model.forward

    @functools.wraps(forward)
    def watch(*arguments, **inputs):
        prompts.append(recogniser._pipeline.tokenizer.decode(inputs["decoder_input_ids"][0]))
        return forward(*arguments, **inputs)

    monkeypatch.setattr(recogniser._pipeline.model, "forward", watch)
    recogniser([sound_of(5.0)])
    language = max(told := recogniser.identify_languages(sound_of(5.0)), key=told.get)
    assert f"<|startoftranscript|><|{language}|><|transcribe|><|notimestamps|>" in prompts


def test_a_stray_guess_of_the_language_is_overruled(whispers, monkeypatch):
    recogniser = recogniser_of(whispers["many"])
    sure, stray = [0.9, 0.04, 0.03, 0.03], [0.4, 0.5, 0.05, 0.05]
    rows = np.array([sure, sure, stray], np.float32)
    monkeypatch.setattr(recogniser, "_identify", lambda states: rows)
    assert len(set(recogniser._languages_of([np.zeros(16_000)] * 3, [None]))) == 1


def test_a_model_of_ctc_gives_words_with_times(tmp_path):
    import json

    import transformers

    letters = ["<pad>", "|", "a", "b", "c"]
    (tmp_path / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(letters)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", unk_token="<pad>")
    config = transformers.Wav2Vec2Config(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(160, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path / "ctc")
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path / "ctc")
    (found,) = recogniser_of(str(tmp_path / "ctc"))([sound_of(2.0)])
    assert " ".join(word.text.strip() for word in found.words) == found.text
    assert found.log_probability is None and all(0 <= w.start <= w.end <= 2.1 for w in found.words)


def test_a_recogniser_of_another_module_is_named_by_its_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Mine=lambda options: Told()))
    assert recognisers.create("mine:Mine", ModelOptions("x")).name == "told"


def test_damaged_weights_are_named(whispers, tmp_path):
    shutil.copytree(whispers["many"], tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"^{tmp_path}/cut: cannot be loaded: "):
        recogniser_of(str(tmp_path / "cut"))


def test_a_recogniser_travels_to_other_processes(whispers):
    recogniser, sound = recogniser_of(whispers["many"]), sound_of(5.0)
    again = pickle.loads(pickle.dumps(recogniser))  # noqa: S301
    assert isinstance(again, SpeechRecogniser)
    assert again.identify_languages(sound) == recogniser.identify_languages(sound) and again([sound]) == recogniser(
        [sound]
    )
