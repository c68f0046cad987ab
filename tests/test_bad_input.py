"""Bad input through the command line: one line that names the culprit, exit code 2, nothing half-written."""

import json
import re
import shutil

import av
import numpy as np
import pytest

from longvale.demo.checkpoint import HIDDEN_SIZE, NUM_LAYERS, TOWER_SIZE
from longvale.features.store import FeatureStore, feature_path

EVAL = "longvale-annotations-eval.json"


@pytest.fixture
def refused(longvale, contents, tmp_path):
    """Call the command line with bad input: `refused(words, *arguments)`; no file may appear, vanish or change."""

    def call(words, *arguments):
        before = contents(tmp_path)
        result = longvale(*arguments)
        assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
        assert result.stdout == ""
        errors = error_lines(result)
        assert re.search(words, errors[-1]), errors
        assert contents(tmp_path) == before

    return call


def error_lines(result):
    """What is said on stderr, without progress bars and transformers' notes; one line of it is an error."""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("longvale:")]
    assert sum(line.startswith("longvale: error: ") for line in lines) == 1 and "Traceback" not in result.stderr
    return lines


# --- directories and files that are not there -------------------------------------------------------------------------


def test_missing_directories_and_files(refused, tiny_corpus, tiny_model, tmp_path):
    none, output = tmp_path / "none", tmp_path / "output"
    refused(r"none: no such file or directory", "features", none, "--output", output, "--model", tiny_model)
    refused(r"none: no such file or directory", "features", none, "--output", output)
    for command in ("generate", "evaluate"):
        refused(r"none: no such folder", command, tiny_model, "--data", none, "--output", output)
        absent = tiny_corpus / "features" / "nowhere"
        options = ["--data", tiny_corpus, "--features", absent, "--output", output]
        refused(r"features/nowhere: no such folder", command, tiny_model, *options)
        refused(r"none: no such model folder", command, none, "--data", tiny_corpus, "--output", output)
    refused(r"none: no such file", "ask", tiny_model, none, "What?")
    refused(r"none: no such file", "score", none, "--references", tiny_corpus / EVAL)
    log = tmp_path / "log.jsonl"
    log.write_text('{"video_id": "test_0000", "task": "captioning", "answer": ""}\n')
    refused(r"none: no such file", "score", log, "--references", none)


def test_a_directory_without_videos(refused, tiny_model, tmp_path):
    (tmp_path / "videos").mkdir()
    refused(
        r"videos: holds no video", "features", tmp_path / "videos", "--output", tmp_path / "f", "--model", tiny_model
    )


# --- annotations ------------------------------------------------------------------------------------------------------

GOOD = '{"duration": 10.0, "timestamps": [[1.0, 2.0]], "sentences": ["A bell rings."]}'
ANNOTATIONS = {
    "empty file": ("", r"the file is empty"),
    "empty object": ("{}", r"holds no annotation"),
    "no JSON": ('{"a": ', r"not JSON"),
    "a list": ("[]", r"must be an object"),
    "ends before it starts": (
        '{"a": {"duration": 10.0, "timestamps": [[5.5, 2.0]], "sentences": ["x"]}}',
        r"video 'a': event 0 ends \(2\.0 s\) before it starts \(5\.5 s\)",
    ),
    "past the duration": (
        '{"a": {"duration": 10.0, "timestamps": [[5.5, 12.0]], "sentences": ["x"]}}',
        r"video 'a': event 0 ends at 12\.0 s, after the video's duration of 10\.0 s",
    ),
    "NaN": ('{"a": {"duration": 10.0, "timestamps": [[NaN, 2.0]], "sentences": ["x"]}}', r"NaN is not a number"),
    "infinite": (
        '{"a": {"duration": 1e999, "timestamps": [], "sentences": []}}',
        r"video 'a': duration must be a finite",
    ),
    "duplicate video": (f'{{"a": {GOOD}, "b": {GOOD}, "a": {GOOD}}}', r"'a' appears twice"),
    "a path as id": (f'{{"../a": {GOOD}}}', r"video id '\.\./a' must not hold a path"),
}


@pytest.mark.parametrize(("text", "words"), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_bad_annotations(refused, tiny_corpus, tiny_model, tmp_path, text, words):
    (tiny_corpus / EVAL).write_text(text)
    log = tmp_path / "log.jsonl"
    log.write_text('{"video_id": "a", "task": "captioning", "answer": ""}\n')
    words = rf"{re.escape(EVAL)}: .*{words}"
    refused(words, "score", log, "--references", tiny_corpus / EVAL, "--output", tmp_path / "scores.json")
    for command in ("generate", "evaluate"):
        refused(words, command, tiny_model, "--data", tiny_corpus, "--output", tmp_path / "output")


def test_annotations_are_read_before_the_model(refused, tiny_corpus, tmp_path):
    (tiny_corpus / EVAL).write_text("{}")
    for command in ("generate", "evaluate"):
        options = ["--data", tiny_corpus, "--output", tmp_path / "output"]
        refused("holds no annotation", command, tmp_path / "no_model", *options)


# --- answers ----------------------------------------------------------------------------------------------------------

ANSWER = '{"video_id": "test_0000", "task": "grounding", "answer": "", "info": {"sentence_id": 0}}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no answer"),
        ("{", "line 1: not JSON"),
        (ANSWER.replace("grounding", "singing"), "line 1: unknown task 'singing'"),
        (ANSWER.replace("test_0000", "other"), "about a video or event that is not in the annotations"),
        (ANSWER * 2, "given more than once"),
        (ANSWER, "grounding answers are missing"),
    ],
)
def test_bad_logs_of_answers(refused, tiny_corpus, tmp_path, text, words):
    log = tmp_path / "log.jsonl"
    log.write_text(text)
    arguments = ["score", log, "--references", tiny_corpus / EVAL, "--output", tmp_path / "scores.json"]
    refused(rf"log\.jsonl: .*{words}", *arguments)


# --- options ----------------------------------------------------------------------------------------------------------


def test_unknown_tasks_and_other_names(refused, tiny_corpus, tiny_model, tmp_path):
    options = [tiny_model, "--data", tiny_corpus, "--output", tmp_path / "output"]
    for command in ("generate", "evaluate"):
        refused(r"unknown task 'singing'; expected one of grounding", command, *options, "--tasks", "grounding,singing")
        refused(r"unknown split 'dev'; expected one of train, test", command, *options, "--split", "dev")
        refused(r"batch_size must be 1 or more, not 0", command, *options, "--batch-size", 0)
        refused(r"device 'abacus' cannot be used", command, *options, "--device", "abacus")
    refused(r"unknown modality 'smell'", "generate", *options, "--modalities", "visual,smell")
    video = tiny_corpus / "videos" / "test_0000.mp4"
    refused(r"unknown task 'singing'", "ask", tiny_model, video, "What?", "--task", "singing")
    refused(r"the question is empty", "ask", tiny_model, video, " ")
    (tmp_path / "log.jsonl").write_text(ANSWER)
    score = ["score", tmp_path / "log.jsonl", "--references", tiny_corpus / EVAL, "--partial"]
    refused(r"unknown task 'singing'", *score, "--tasks", "singing")
    refused(r"unknown protocol 'lenient'", *score, "--protocol", "lenient")
    refused(r"workers must be 0 or more", "features", video, "--output", tmp_path / "f", "--workers", -1)
    refused(r"--shard must be I/N, such as 1/4, not '4'", "features", video, "--output", tmp_path / "f", "--shard", 4)
    refused(r"size must be an even number", "synthesize", tmp_path / "s", "--videos", 1, "--size", 33)
    refused(r"videos must be a whole number of 1 or more", "synthesize", tmp_path / "s", "--videos", 0)


def test_folders_that_hold_other_things(refused, tiny_corpus, tiny_model, tmp_path):
    refused(
        r"was made with seed 0, not 5; give another directory", "synthesize", tiny_corpus, "--videos", 1, "--seed", 5
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("mine")
    refused(r"is not an empty directory", "synthesize", tmp_path / "notes", "--videos", 1)
    arguments = ["--data", tiny_corpus, "--output", tmp_path / "notes" / "precious.txt"]
    refused(r"exists without precious\.txt\.run\.json", "generate", tiny_model, *arguments)


# --- videos -----------------------------------------------------------------------------------------------------------


def keep_streams(source, target, kind):
    """Copy a video with its pictures or its sound only."""
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        (stream,) = getattr(given.streams, kind)
        copy = output.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                output.mux(packet)


@pytest.fixture
def videos(tiny_corpus, tmp_path):
    """A folder with one good video; `good` is its name."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "good.mp4").write_bytes((tiny_corpus / "videos" / "test_0000.mp4").read_bytes())
    return folder


BAD_VIDEOS = {
    "text": (lambda video: b"This is no video, whatever its name says.\n", r"bad\.mp4: not a media file"),
    "empty": (lambda video: b"", r"bad\.mp4: the file is empty"),
    "truncated": (lambda video: video[: len(video) // 2], r"bad\.mp4: truncated"),
    "only a header": (lambda video: video[:40], r"bad\.mp4: "),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_VIDEOS.values(), ids=BAD_VIDEOS)
def test_bad_videos(longvale, refused, videos, tiny_model, tmp_path, spoil, words):
    (videos / "bad.mp4").write_bytes(spoil((videos / "good.mp4").read_bytes()))
    refused(words, "ask", tiny_model, videos / "bad.mp4", "What?")

    # The good video is not held up; of the bad one there is nothing but the reason.
    result = longvale("features", videos, "--output", tmp_path / "f", "--model", tiny_model)
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = error_lines(result)
    assert line.startswith("longvale: error: 1 done, 0 there already, 1 failed: ") and re.search(words, line)
    assert sorted(path.name for path in (tmp_path / "f").rglob("*.npy")) == ["good.npy"] * 3
    assert not [path for path in (tmp_path / "f").rglob("*") if path.name.startswith(".")]
    bad, good = map(json.loads, (tmp_path / "f" / "manifest.jsonl").read_text().splitlines())
    assert re.search(words, bad["error"]) and "error" not in good


def test_two_videos_of_one_id(refused, videos, tiny_model, tmp_path):
    (videos / "good.mkv").write_bytes((videos / "good.mp4").read_bytes())
    words = r"good\.mp4: video id 'good' has a second file, good\.mkv"
    refused(words, "features", videos, "--output", tmp_path / "f", "--model", tiny_model)


@pytest.mark.parametrize(("kind", "present"), [("video", ["visual"]), ("audio", ["audio", "speech"])])
def test_a_video_without_sound_or_without_pictures_is_no_bad_input(
    longvale, videos, tiny_model, tmp_path, kind, present
):
    """It is legal: the modality is recorded as absent, and questions are answered from what there is."""
    keep_streams(videos / "good.mp4", videos / "part.mp4", kind)
    result = longvale("features", videos / "part.mp4", "--output", tmp_path / "f", "--model", tiny_model)
    assert result.exit_code == 0, result.stderr
    stored = FeatureStore(tmp_path / "f").load("part")
    assert [modality for modality, values in stored.items() if values is not None] == present
    result = longvale("ask", tiny_model, videos / "part.mp4", "What happens?", "--max-new-tokens", 4)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()


def test_a_video_with_neither(refused, videos, tmp_path, tiny_model):
    with av.open(str(videos / "subtitles.mkv"), "w") as container:
        container.add_stream("libx264", rate=5).width = 32  # a stream of pictures without a picture
    refused(r"subtitles\.mkv: ", "ask", tiny_model, videos / "subtitles.mkv", "What?")


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_bad_features(refused, tiny_corpus, tiny_model, tmp_path, command):
    path = feature_path(tiny_corpus / "features", "test_0002", "audio")
    arguments = [command, tiny_model, "--data", tiny_corpus, "--output", tmp_path / "output"]

    np.save(path, np.ones((3, 768), np.float32))
    refused(r"audio_features/test_0002\.npy: .*run `longvale features` again.*--skip-missing", *arguments)
    (tiny_corpus / "features" / "manifest.jsonl").unlink()  # and with it the checksums
    refused(r"audio_features/test_0002\.npy: features are 768 wide, expected 64", *arguments)
    path.write_bytes(path.read_bytes()[:-100])
    refused(r"audio_features/test_0002\.npy: not a whole \.npy file", *arguments)
    np.save(path, np.array([{"a": print}]), allow_pickle=True)
    refused(r"audio_features/test_0002\.npy: not a whole \.npy file of numbers", *arguments)
    np.save(path, np.ones((3, 64), np.int64))
    refused(r"audio_features/test_0002\.npy: must be floats", *arguments)
    path.unlink()
    refused(r"audio_features/test_0002\.npy: no such file; make it with `longvale features`", *arguments)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_layer(path, part):
    config = json.loads(path.read_text())
    config[part]["num_hidden_layers"] += 1
    config[part].pop("layer_types", None)
    path.write_text(json.dumps(config))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_CHECKPOINTS = {
    "no configuration": (lambda f: (f / "config.json").unlink(), r"model/config\.json: no such file"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"model\.safetensors: no such file; .* has no weights",
    ),
    "cut weights": (lambda f: cut(f / "model.safetensors"), r"model: the weights are damaged"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), r"processor_config\.json: no such file"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"model: cannot be loaded: .* tokenizer"),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        r"the tokenizer or the processor is damaged",
    ),
    "cut configuration": (lambda f: cut(f / "config.json"), r"model/config\.json: not JSON"),
    "configuration is a list": (lambda f: (f / "config.json").write_text("[]"), r"config\.json: must be an object"),
    "another model": (lambda f: edit_config(f, model_type="llama"), r"model_type 'llama', expected 'longvale'"),
    "wrong field": (lambda f: edit_config(f, num_frames="many"), r"num_frames"),
    "wrong width": (
        lambda f: edit_config(f, speech_feature_size=9),
        rf"speech_feature_size is 9 but the tower gives {TOWER_SIZE}",
    ),
    "weights of another shape": (
        lambda f: edit_config(f, audio_config=None, audio_feature_size=7),
        rf"audio_projector\.weight is \[{HIDDEN_SIZE}, {TOWER_SIZE}\], but config\.json says \[{HIDDEN_SIZE}, 7\]",
    ),
    "weights too many": (
        lambda f: edit_config(f, audio_config=None, audio_feature_size=64),
        r"config\.json has no place for \d+ weights, for instance model\.audio_tower",
    ),
    "weights too few": (
        lambda f: add_layer(f / "config.json", "audio_config"),
        r"lacks \d+ weights, for instance .*audio_tower\.layers\.2\.",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_bad_checkpoints(refused, tiny_corpus, tiny_model, tmp_path, spoil, words):
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_model.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    spoil(model)
    video = tiny_corpus / "videos" / "test_0000.mp4"
    refused(words, "ask", model, video, "What?")
    refused(words, "features", video, "--output", tmp_path / "f", "--model", model)
    refused(words, "evaluate", model, "--data", tiny_corpus, "--output", tmp_path / "output")


def test_a_language_model_without_a_layer(refused, tiny_corpus, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    add_layer(tmp_path / "model" / "config.json", "text_config")
    words = rf"lacks \d+ weights, for instance .*language_model\.layers\.{NUM_LAYERS}\."
    refused(words, "ask", tmp_path / "model", tiny_corpus / "videos" / "test_0000.mp4", "What?")
    refused(words, "evaluate", tmp_path / "model", "--data", tiny_corpus, "--output", tmp_path / "output")


def test_weights_that_would_run_code_are_not_read(refused, tiny_corpus, tiny_model, tmp_path):
    (tmp_path / "model").mkdir()
    for path in tiny_model.glob("*.json"):
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    video = tiny_corpus / "videos" / "test_0000.mp4"
    refused(r"model\.safetensors: no such file", "ask", tmp_path / "model", video, "What?")


def test_a_wrong_hub_id_while_offline(refused, tiny_corpus, tmp_path):
    video = tiny_corpus / "videos" / "test_0000.mp4"
    words = r"nobody/no-such-model: cannot be loaded: "
    refused(words, "ask", "nobody/no-such-model", video, "What?")
    refused(words, "features", video, "--output", tmp_path / "f", "--model", "nobody/no-such-model")
