import json
import logging
import shutil

import pytest
from datasets import Dataset, IterableDataset, Video

from longvale.evaluation.question_files import export_questions
from longvale.models.media import read_media
from longvale.training.chat.arguments import ChatScriptArguments
from longvale.training.chat.data import load_conversations

TURNS = [{"role": "user", "content": "<video>\nWhen?"}, {"role": "assistant", "content": "Now."}]


def load(**options):
    return load_conversations(ChatScriptArguments(**options))


def texts(row):
    return [message["content"] for message in row["messages"]]


@pytest.mark.parametrize(
    ("times", "answer", "question"),
    [
        ("seconds", "From 1.0 to 2.5 seconds.", "What happens from 3.0 to 6.0 seconds?"),
        ("clock", "From 0:01 to 0:02.", "What happens from 0:03 to 0:06?"),
        ("percent", "From 17% to 42%.", "What happens from 50% to 99%?"),
        ("tokens", "From <1.0 seconds> to <2.5 seconds>.", "What happens from <3.0 seconds> to <6.0 seconds>?"),
    ],
)
def test_official_dialogues_have_times_in_the_format(chat_corpus, times, answer, question):
    dataset = load(data_dir=str(chat_corpus), times=times)
    assert len(dataset) == 4 and dataset[0]["video"] == str(chat_corpus / "videos" / "v0.mp4")
    asked, first, second, caption = texts(dataset[0])
    assert asked == "<video>\nWhen is picture 0 seen?" and first == answer
    assert second == question and caption == "Noise 0 is heard."


def test_a_format_that_is_no_sentence_needs_questions(chat_corpus):
    with pytest.raises(ValueError, match=r"times: dialogues have times within sentences, .*'json'"):
        load(data_dir=str(chat_corpus), times="json")
    dataset = load(data_dir=str(chat_corpus), times="json", dataset_config="dense_captioning")
    events = json.loads(texts(dataset[0])[1])
    assert events[0] == {"start": 1.0, "end": 2.5, "caption": "Picture 0 is seen."}


def test_questions_are_those_of_evaluation(chat_corpus):
    dataset = load(data_dir=str(chat_corpus), dataset_config="grounding,segment_captioning")
    assert len(dataset) == 16
    assert texts(dataset[1])[0].startswith("<video>\nThe video lasts 6.0 seconds. When does this happen in it: noise 0")
    assert texts(dataset[1])[1] == "From 3.0 to 6.0 seconds."
    assert texts(dataset[8])[1] == "Picture 0 is seen."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_config": "events"}, "dataset_config: 'events' has no conversations; give some of"),
        ({"times": "fortnights"}, "unknown time format 'fortnights'|unknown .*'fortnights'"),
        ({"frames": 0}, "frames must be 1 or more, not 0"),
        ({"max_missing": 2.0}, "max_missing must be a share"),
        ({"data_dir": None}, "dataset_name is not given"),
        ({"data_dir": None, "dataset_name": "longvale"}, "data_dir is not given"),
    ],
)
def test_options_that_are_wrong_are_named(chat_corpus, options, message):
    with pytest.raises(ValueError, match=message):
        load(**{"data_dir": str(chat_corpus), **options})


def test_videos_that_are_missing_or_damaged_are_left_out_up_to_a_share(chat_corpus, tmp_path, caplog):
    videos = shutil.copytree(chat_corpus / "videos", tmp_path / "videos")
    (videos / "v1.mp4").unlink()
    (videos / "v2.mp4").write_bytes(b"no video")
    options = {"data_dir": str(chat_corpus), "videos_dir": str(videos)}
    with pytest.raises(
        ValueError, match=r"2 of 4 rows \(50.0%\) have a video that cannot be used, the first: .*v1.mp4"
    ):
        load(**options)
    with caplog.at_level(logging.WARNING):
        dataset = load(**options, max_missing=0.5)
    assert dataset["id"] == ["v0", "v3"] and "they are left out" in caplog.text
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(data_dir=str(chat_corpus), videos_dir=str(tmp_path / "nowhere"))


def test_an_export_for_another_trainer_is_read(chat_corpus, tmp_path):
    path, _ = export_questions(chat_corpus, tmp_path, "swift", split="train", tasks=["grounding"])
    dataset = load(dataset_name=str(path))
    ours = load(data_dir=str(chat_corpus), dataset_config="grounding")
    assert [row["video"] for row in dataset] == [row["video"] for row in ours]
    assert [texts(row)[1] for row in dataset] == [texts(row)[1] for row in ours]
    streamed = load(dataset_name=str(path), dataset_streaming=True)
    assert isinstance(streamed, IterableDataset) and texts(next(iter(streamed))) == texts(dataset[0])


@pytest.mark.parametrize("form", ["column", "decoded", "parts", "relative", "none"])
def test_messages_of_any_dataset(chat_corpus, tmp_path, form):
    path, turns, options = str(chat_corpus / "videos" / "v0.mp4"), TURNS, {}
    row = {"video": {"column": path, "decoded": path, "relative": "v0.mp4", "none": None, "parts": None}[form]}
    if form == "parts":
        asked = [{"type": "video", "path": path, "text": None}, {"type": "text", "path": None, "text": "When?"}]
        answer = [{"type": "text", "path": None, "text": "Now."}]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    dataset = Dataset.from_list([{"messages": turns, **({} if form == "parts" else row)}])
    if form == "decoded":
        dataset = dataset.cast_column("video", Video())
    if form == "relative":
        options["videos_dir"] = str(chat_corpus / "videos")
    dataset.save_to_disk(tmp_path / "set")
    found = load(dataset_name=str(tmp_path / "set"), **options)[0]
    assert texts(found) == ["<video>\nWhen?", "Now."]
    if form == "decoded":  # saved inside of the dataset
        found["video"] = read_media(found["video"], num_frames=2).duration
    assert found["video"] == {"decoded": pytest.approx(6.0, abs=0.1), "none": None}.get(form, path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}], "has no column messages; there are text"),
        ([{"messages": TURNS[:1]}], "the last message must be the assistant's, not user's"),
        ([{"messages": [{"role": "gpt", "content": "a"}]}], "not a message: .*gpt"),
        ([{"messages": TURNS, "videos": ["a.mp4", "b.mp4"]}], "a row has 2 videos; one is supported"),
        ([{"messages": [TURNS[0], TURNS[0], TURNS[1]]}], "more than one <video>"),
        ([{"messages": [{"role": "user", "content": [{"type": "image"}]}, TURNS[1]]}], "'image' is not supported"),
    ],
)
def test_rows_that_are_wrong_are_named(tmp_path, rows, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=f"rows.jsonl: .*{message}"):
        load(dataset_name=str(path))
