import io
import json
import wave

import numpy as np
import pytest
from chat_server import Server, send

from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks.recognisers.server import ServerRecogniser, read_heard
from longvale.chat_client import ServerError
from longvale.registry import recognisers

SPOKEN = {
    "text": ' Good morning, "Mr. Smith" - twenty-one.',
    "segments": [
        {"avg_logprob": -0.1, "no_speech_prob": 0.02, "tokens": [1] * 9, "compression_ratio": 0.8},
        {"avg_logprob": -1.1, "no_speech_prob": 0.12, "tokens": [1], "compression_ratio": 0.8},
    ],
    "words": [
        {"word": word, "start": 0.25 * n, "end": 0.25 * (n + 1)}
        for n, word in enumerate(["Good", "morning", "Mr", "Smith", "twenty", "one"])
    ],
}


def saying(value):
    return lambda handler: send(handler, 200, json.dumps(value).encode())


@pytest.fixture
def served():
    servers = []

    def start(*script, **options):
        servers.append(Server(*script))
        named = ModelOptions("openai/whisper-large-v3", servers[-1].url, **options)
        return servers[-1], recognisers.create("server", named)

    yield start
    for server in servers:
        server.stop()


def test_a_server_gives_words_with_times_and_confidence(served):
    server, recogniser = served(saying(SPOKEN))
    (heard,) = recogniser([np.full(32_000, 0.5, np.float32)])
    assert [word.text for word in heard.words] == ["Good", " morning,", ' "Mr.', ' Smith" -', " twenty-", "one."]
    assert "".join(word.text for word in heard.words) == heard.text
    assert (heard.words[1].start, heard.words[1].end) == (0.25, 0.5)
    assert heard.log_probability == pytest.approx(-0.2) and heard.no_speech == pytest.approx(0.03)
    (fields,) = server.asked
    assert server.paths == ["/v1/audio/transcriptions"]
    assert fields["model"] == [b"openai/whisper-large-v3"] and fields["response_format"] == [b"verbose_json"]
    assert fields["timestamp_granularities[]"] == [b"segment", b"word"]
    with wave.open(io.BytesIO(fields["file"][0])) as sound:
        assert (sound.getframerate(), sound.getnframes(), sound.getnchannels()) == (16_000, 32_000, 1)


def test_parts_stay_in_their_order(served):
    server, recogniser = served(saying({"text": "one"}), saying({"text": "two"}), saying({"text": "three"}))
    heard = recogniser([np.zeros(1600 * n, np.float32) for n in (1, 2, 3)])
    sizes = {len(fields["file"][0]): n for n, fields in enumerate(server.asked)}
    said = ["one", "two", "three"]
    assert [h.text for h in heard] == [said[sizes[44 + 3200 * n]] for n in (1, 2, 3)]


def test_a_server_without_times_is_asked_for_the_text(served):
    server, recogniser = served(400, saying({"text": "Good morning."}))
    for _ in range(2):
        (heard,) = recogniser([np.zeros(1600, np.float32)])
        assert (heard.text, heard.words, heard.log_probability) == ("Good morning.", (), None)
    assert [fields["response_format"] for fields in server.asked] == [[b"verbose_json"], [b"json"], [b"json"]]


@pytest.mark.parametrize("reply", [{"words": []}, {"text": 3}, ["text"], {"error": {"message": "no such model"}}])
def test_a_reply_that_is_no_transcript_is_an_error(served, reply):
    _, recogniser = served(saying(reply))
    with pytest.raises(ServerError, match=r"openai/whisper-large-v3 at http://127"):
        recogniser([np.zeros(1600, np.float32)])


@pytest.mark.parametrize(
    "words",
    [
        [{"word": "Evening", "start": 0, "end": 1}],
        [{"word": "Good", "start": "0", "end": 1}],
        [{"word": "Good", "start": float("nan"), "end": 1}],
        [{"word": 3}],
        ["Good"],
        "Good",
        None,
    ],
)
def test_words_that_are_not_as_documented_are_left_out(words):
    assert read_heard({"text": "Good morning.", "words": words}, 2.0).words == ()


def test_times_are_ascending_and_within_the_recording():
    words = [{"word": "Good", "start": 1.0, "end": 0.5}, {"word": "morning", "start": 0.2, "end": 99.0}]
    heard = read_heard({"text": "Good morning", "words": words}, 2.0)
    assert [(word.start, word.end) for word in heard.words] == [(1.0, 1.0), (1.0, 2.0)]


def test_values_that_a_server_did_not_measure_are_left_out():
    segment = {"avg_logprob": -1.0, "compression_ratio": -1.0, "no_speech_prob": 0.0}
    heard = read_heard({"text": "Hello", "segments": [segment, "x"]}, 1.0)
    assert heard.log_probability is None and heard.no_speech is None


def test_a_server_must_be_named():
    with pytest.raises(ValueError, match="--server"):
        ServerRecogniser(ModelOptions("openai/whisper-large-v3"))
