"""Requests of the OpenAI API as clients write them."""

import base64

import pytest

from longvale.evaluation.generation.sampling import GREEDY
from longvale.serving.chat_requests import RequestError, VideoReference, read_chat

VIDEO = {"type": "video_url", "video_url": {"url": "https://host/a.mp4"}}


def text(words):
    return {"type": "text", "text": words}


def ask(content, **fields):
    return read_chat({"messages": [{"role": "user", "content": content}], **fields})


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ([VIDEO, text("When?")], "<video>\nWhen?"),
        ([text("When?"), VIDEO], "When?\n<video>"),
        ([text("Look:"), VIDEO, text("When?")], "Look:\n<video>\nWhen?"),
        ([VIDEO, text("When? <video> Tell.")], "When? <video> Tell."),
    ],
)
def test_the_video_stands_where_it_was_put(content, prompt):
    asked = ask(content)
    assert asked.messages == [{"role": "user", "content": prompt}]
    assert asked.video == VideoReference("url", "https://host/a.mp4")
    assert asked.decoding == GREEDY and not asked.stream


def test_files_data_and_frames():
    data = base64.b64encode(b"mp4").decode()
    assert ask([{"type": "file", "file": {"file_id": "file-1"}}, text("?")]).video == VideoReference("file", "file-1")
    given = {"type": "file", "file": {"file_data": f"data:video/mp4;base64,{data}"}}
    assert ask([given, text("?")]).video == VideoReference("data", content=b"mp4")
    frames = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{n}"}} for n in range(2)]
    sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    video = ask([*frames, sound, text("?")]).video
    assert video.kind == "frames" and len(video.value) == 2 and video.content == b"mp4"


def test_a_conversation_and_its_options():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [VIDEO, text("When?")]},
        {"role": "assistant", "content": "From 10 to 20."},
        {"role": "user", "content": "And then?"},
    ]
    asked = read_chat(
        {"messages": messages, "max_completion_tokens": 7, "temperature": 0.5, "seed": 3, "stream": True, "top_p": 1}
        | {"stream_options": {"include_usage": True}, "n": 1, "stop": None, "user": "someone"}
    )
    assert [message["role"] for message in asked.messages] == ["system", "user", "assistant", "user"]
    assert (asked.max_tokens, asked.stream, asked.usage) == (7, True, True)
    assert (asked.decoding.temperature, asked.decoding.seed) == (0.5, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "messages: must be a list of messages, not empty"),
        ({"messages": "hello"}, "messages: must be a list"),
        ({"messages": [{"role": "robot", "content": "?"}]}, r"messages\[0\].role: must be .* not 'robot'"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content: must be a text or a list"),
        ({"messages": [{"role": "user", "content": "?"}]}, "hold 0 videos"),
        ({"messages": [{"role": "user", "content": [VIDEO, VIDEO]}]}, "hold 2 videos"),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "type: must be .* not 'smell'",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, r"file_data: must be a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "?!"}}]}]},
            r"content\[0\]: is not base64",
        ),
        ({"n": 2}, "n: 2 is not supported"),
        ({"stop": ["."]}, "stop: .* is not supported"),
        ({"tools": [{"type": "function"}]}, "tools: .* is not supported"),
        ({"top_p": 0.5, "temperature": 1}, "top_p: 0.5 is not supported"),
        ({"max_tokens": 0}, "max_tokens: must be a whole number, 1 or more, not 0"),
        ({"max_tokens": True}, "max_tokens: must be a whole number"),
        ({"temperature": 3}, "temperature: must be from 0 to 2, not 3"),
        ({"temperature": float("nan")}, "temperature: must be from 0 to 2"),
        ({"seed": "x"}, "seed: must be a whole number, not 'x'"),
        ({"stream": "yes"}, "stream: must be true or false, not 'yes'"),
        ({"stream_options": 3}, "stream_options: must be an object, not 3"),
    ],
)
def test_what_is_refused_is_named(fields, message):
    with pytest.raises(RequestError, match=message):
        read_chat({"messages": [{"role": "user", "content": [VIDEO, text("When?")]}], **fields})


def test_a_request_that_is_no_object():
    with pytest.raises(RequestError, match="must be a JSON object"):
        read_chat([1])
