import base64
import io
import json
import re
import threading
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import transformers
from PIL import Image
from tiny_chat import TEMPLATE, build_omni, build_tokenizer, build_vision

from longvale.evaluation.adapters.chat import ChatAdapter, load_chat_model
from longvale.evaluation.adapters.chat_inputs import video_metadata
from longvale.evaluation.adapters.media import RawVideos
from longvale.evaluation.adapters.options import AdapterOptions
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.scoring.score import score
from longvale.events import Annotation, Event
from longvale.models.media import Media
from longvale.tasks import Question, load_predictions

LIMITS = {"grounding": 4, "dense_captioning": 4, "segment_captioning": 4}
BUILDERS = {"Qwen2.5-Omni": lambda: build_omni(2), "Qwen3-Omni": lambda: build_omni(3), "Qwen2.5-VL": build_vision}


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request):
    return BUILDERS[request.param]()


def draw_media(seed, sound=0):
    frames = np.random.default_rng(seed).integers(0, 255, (8, 32, 40, 3), dtype=np.uint8)
    waveform = np.random.default_rng(sound).normal(0, 0.3, 8 * 16_000).astype(np.float32)
    return Media(8.0, frames, np.arange(8) + 0.5, waveform, 16_000)


def seen_ids(pair, folder, monkeypatch, text):
    seen, generate_tokens = [], pair[0].generate
    monkeypatch.setattr(pair[0], "generate", lambda **kwargs: seen.append(kwargs) or generate_tokens(**kwargs))
    adapter_of(pair, folder).reply(draw_media(0), text, 2)
    return seen[0]["input_ids"][0].tolist()


def test_control_tokens_in_a_question_stay_words_and_one_token_begins_it(pair, tmp_path, monkeypatch):
    tokenizer = pair[1].tokenizer
    plain = seen_ids(pair, tmp_path, monkeypatch, "When?")
    spelled = seen_ids(pair, tmp_path, monkeypatch, "<|im_end|><|video_pad|>When?")
    for token in ("<|im_end|>", "<|video_pad|>"):
        token_id = tokenizer.convert_tokens_to_ids(token)
        assert spelled.count(token_id) == plain.count(token_id)


def adapter_of(pair, folder, **options):
    return ChatAdapter(pair, videos=RawVideos(folder, frames=8, size=32), annotations={}, limits=LIMITS, **options)


def test_a_model_sees_and_where_it_can_hears(pair, tmp_path, monkeypatch):
    """What reaches the model: tokens of the video and of its sound between them, pictures, and the question."""
    model, processor = pair
    adapter, seen = adapter_of(pair, tmp_path), []
    generate_tokens = model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: seen.append(kwargs) or generate_tokens(**kwargs))
    first = adapter.reply(draw_media(0), "When?", 8)
    other = adapter.reply(draw_media(1), "When?", 8)
    assert adapter.reply(draw_media(0), "When?", 8) == first != other
    inputs = seen[0]
    assert inputs["pixel_values_videos"] is not None
    text = processor.tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=False)
    assert text.count("<|video_pad|>") > 8 and "W h e n ?" in text
    hears = "omni" in model.config.model_type
    assert adapter.sound == hears == ("<|audio_pad|>" in text)
    if hears:
        assert inputs["input_features"].std() > 0.1
        before = text.index("<|video_pad|>"), text.index("<|audio_pad|>")
        after = text.rindex("<|video_pad|>"), text.rindex("<|audio_pad|>")
        assert before[1] < after[0]  # the sound runs between the frames
        deaf = adapter_of(pair, tmp_path, sound=False)
        assert deaf.describe()["sound"] is False
        deaf.reply(draw_media(0), "When?", 2)


def test_times_of_frames_reach_qwen_omni(tmp_path):
    model, processor = build_omni(2)
    adapter = adapter_of((model, processor), tmp_path)
    prompt = "<|vision_start|><|video_pad|><|vision_end|>"
    inputs = adapter.inputs.encode(prompt, draw_media(0))
    assert inputs["video_second_per_grid"].tolist() == [2.0]  # 8 frames in 8 s, two of them a step


def test_a_processor_that_writes_times_writes_the_real_ones():
    """Qwen3-VL's processor puts a time before each pair of frames; these are at irregular times."""
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size),
        video_processor=transformers.Qwen3VLVideoProcessor(size=size),
        tokenizer=build_tokenizer(),
        chat_template=TEMPLATE,
    )
    frames = draw_media(0).frames[:6]
    media = Media(60.0, frames, np.array([0.0, 0.0, 7.3, 7.5, 52.0, 58.0]), None, 16_000)
    prompt = ["<|vision_start|><|video_pad|><|vision_end|>"]
    options = {"do_sample_frames": False, "return_tensors": "pt"}
    inputs = processor(text=prompt, videos=[frames], video_metadata=[video_metadata(media)], **options)
    text = processor.tokenizer.decode(inputs["input_ids"][0]).replace(" ", "")
    assert re.findall(r"<([\d.]+)seconds>", text) == ["0.0", "7.4", "55.0"]


def test_checkpoints_are_loaded_as_what_writes(tmp_path):
    for name, builder in BUILDERS.items():
        for part in builder():
            part.save_pretrained(tmp_path / name)
        model, processor = load_chat_model(tmp_path / name, "cpu")
        assert type(model).__name__.endswith("ForConditionalGeneration") and processor.chat_template
    with pytest.raises(FileNotFoundError, match="nowhere: cannot be loaded"):
        load_chat_model(tmp_path / "nowhere", "cpu")
    assert isinstance(model, transformers.Qwen2_5_VLForConditionalGeneration)


def test_a_checkpoint_is_asked_in_the_format_it_was_trained_in(pair, tmp_path):
    model, _ = pair
    asked = Question("v", "grounding", 0, "", "")
    annotation = Annotation("v", 60.0, (Event(6, 30, "A bell rings."),))
    for recorded, given, form in ((None, None, "seconds"), ("clock", None, "m:ss"), ("clock", "percent", "percent")):
        model.config.time_format = recorded
        adapter = adapter_of(pair, tmp_path, **({"times": given} if given else {}))
        adapter.annotations = {"v": annotation}
        assert form in adapter.word(asked) and adapter.settings()["times"] == (given or recorded or "seconds")
    model.config.time_format = "no_such_module:Format"
    with pytest.raises(ValueError, match=r"time_format of the checkpoint's config\.json: unknown"):
        adapter_of(pair, tmp_path)
    del model.config.time_format


def test_a_model_without_a_template_is_refused(tmp_path):
    model, processor = build_vision()
    processor.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        adapter_of((model, processor), tmp_path)


def test_generate_with_a_chat_model(tiny_corpus, tmp_path):
    options = AdapterOptions("chat", frames=4, frame_size=32, times="percent")
    pair = build_omni(2)
    log = generate(pair, tiny_corpus, tmp_path / "p", adapter=options, max_new_tokens=3, limit=1, progress=False)
    predictions = load_predictions(log)
    assert all("reply" in p.info for p in predictions)
    manifest = json.loads((tmp_path / "p.run.json").read_text())
    assert manifest["times"] == "percent" and manifest["frames"] == 4 and manifest["sound"] is True
    scores = score(log, tiny_corpus / "longvale-annotations-eval.json", partial=True)
    assert scores["counts"]["grounding"]["parsed_share"] == 0  # letters at random
    before = log.read_bytes()
    generate(pair, tiny_corpus, log, adapter=options, max_new_tokens=3, limit=1, progress=False)
    assert log.read_bytes() == before
    with pytest.raises(ValueError, match="was made with times 'percent'"):
        generate(pair, tiny_corpus, log, adapter=AdapterOptions("chat", frames=4, frame_size=32), limit=1)
    with pytest.raises(ValueError, match="models of others take videos"):
        generate(pair, tiny_corpus, tmp_path / "q", adapter=options, features=tiny_corpus / "features")
    with pytest.raises(ValueError, match="unknown adapter 'gpt'"):
        AdapterOptions("gpt")


@pytest.fixture
def server(request):
    """A server of the OpenAI kind that finds every event from 25 to 50 % and keeps what it was sent.

    As a parameter, the number of a request that it answers with reasoning alone.
    """
    thinks_at = getattr(request, "param", None)
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            text = body["messages"][0]["content"][-1]["text"]
            reply = "It is from 25% to 50%." if "When does" in text else "From 25% to 50%, a bell rings."
            if thinks_at is not None and any(it is body for it in requests[thinks_at - 1 : thinks_at]):
                reply = f"<think>{reply}"
            choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1", requests
    running.shutdown()
    running.server_close()


def test_any_server_gets_frames_and_sound(server, tiny_corpus, tmp_path, longvale):
    url, requests = server
    arguments = ("generate", "their-model", "--adapter", "server", "--server", url, "--times", "percent", "--frames", 3)
    arguments += ("--concurrency", 1)  # the first request is that of the first question
    shared = ("--data", tiny_corpus, "--output", tmp_path / "log", "--tasks", "grounding,dense_captioning", "--quiet")
    result = longvale(*arguments, *shared)
    assert result.exit_code == 0, result.stderr
    predictions = load_predictions(tmp_path / "log")
    assert {p.answer for p in predictions} == {"From 25 to 50.", "From 25 to 50, a bell rings."}
    scores = score(tmp_path / "log", tiny_corpus / "longvale-annotations-eval.json")
    assert scores["counts"]["grounding"]["parsed_share"] == 1 and scores["grounding"]["mIoU"] > 0
    first = requests[0]
    assert first["model"] == "their-model" and first["temperature"] == 0 and first["max_tokens"] == 32
    *timed, sound, text = first["messages"][0]["content"]
    pictures = timed[1::2]
    assert [part["type"] for part in pictures] == ["image_url"] * 3 and text["type"] == "text"
    assert all(re.fullmatch(r"<\d\.\d seconds>", part["text"]) for part in timed[::2])
    jpeg = base64.b64decode(pictures[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    assert min(Image.open(io.BytesIO(jpeg)).size) == 224
    assert sound["input_audio"]["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(sound["input_audio"]["data"]))) as file:
        assert file.getframerate() == 16_000 and 4 < file.getnframes() / 16_000 < 9
        assert np.frombuffer(file.readframes(-1), "<i2").std() > 50
    asked = len(requests)
    assert longvale(*arguments, *shared).exit_code == 0 and len(requests) == asked  # nothing is asked again
    quiet = longvale(*arguments, "--no-sound", *shared[:3], tmp_path / "deaf", *shared[4:], "--limit", 1)
    assert quiet.exit_code == 0
    assert all(part["type"] != "input_audio" for part in requests[-1]["messages"][0]["content"])


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_question_that_is_answered_by_reasoning_alone_is_not_logged(server, tiny_corpus, tmp_path, longvale):
    url, requests = server
    shared = ("m", "--adapter", "server", "--server", url, "--data", tiny_corpus, "--tasks", "grounding")
    shared += ("--frames", 1, "--no-sound", "--quiet", "--output")
    result = longvale("evaluate", *shared, tmp_path / "o")
    asked, log = len(requests), tmp_path / "o" / "predictions.jsonl"
    assert result.exit_code == 2 and f"1 of {asked} questions have no answer" in result.stderr
    assert (
        "only reasoning" in result.stderr and "--max-new-tokens" in result.stderr and "--skip-missing" in result.stderr
    )
    assert len(load_predictions(log)) == asked - 1  # the others were asked, and are kept
    assert longvale("evaluate", *shared, tmp_path / "o").exit_code == 0 and len(requests) == asked + 1
    requests.clear()
    result = longvale("evaluate", *shared, tmp_path / "p", "--skip-missing")
    assert result.exit_code == 0 and "1 missing" in result.stdout, result.stderr
    assert "unanswered: 1 questions, which count as missing" in result.stdout and len(requests) == asked


@pytest.mark.parametrize("task", ["grounding", "segment_captioning"])
def test_reasoning_of_a_model_that_is_loaded_here_is_dropped(tmp_path, monkeypatch, task):
    adapter = adapter_of(build_vision(), tmp_path)
    asked = Question("v", task, 0, "When?", "")
    monkeypatch.setattr(adapter.videos, "read", lambda video_id: draw_media(0))
    for written, answer in (("<think>From 1 to 2 s?</think>From 4 to 6 s.<|im_end|>", "From 4 to 6 s."), ("", "")):
        monkeypatch.setattr(adapter.processor, "batch_decode", lambda *_, text=written, **__: [text])
        ((prediction,),) = adapter.answer([asked], ())
        assert prediction.info["reply"] == answer
        assert prediction.answer == ("" if not answer else "From 50 to 75." if task == "grounding" else answer)
    monkeypatch.setattr(adapter.processor, "batch_decode", lambda *_, **__: ["<think>From 1 to 2 s?"])
    ((unanswered,),) = adapter.answer([asked], ())
    assert unanswered.key == asked.key and "only reasoning" in unanswered.reason


def test_models_of_one_server_and_servers_of_one_model_are_told_apart(server, tiny_corpus, tmp_path, longvale):
    url, requests = server
    shared = ("--adapter", "server", "--data", tiny_corpus, "--output", tmp_path / "log", "--tasks", "grounding")
    shared += ("--limit", 1, "--frames", 1, "--no-sound", "--quiet")
    with_secret = url.replace("http://", "http://me:secret@")
    assert longvale("generate", "a", "--server", with_secret, *shared).exit_code == 0
    assert longvale("generate", "a", "--server", url, *shared).exit_code == 0
    asked, log = len(requests), (tmp_path / "log").read_bytes()
    for model, where, words in (
        ("b", url, "was made with model 'a', not 'b'"),
        ("a", f"{url}/other", f"was made with server '{url}', not '{url}/other'"),
    ):
        result = longvale("generate", model, "--server", where, *shared)
        assert result.exit_code == 2 and words in result.stderr and "--overwrite" in result.stderr
    assert len(requests) == asked and (tmp_path / "log").read_bytes() == log
    assert "secret" not in (tmp_path / "log.run.json").read_text()
    assert longvale("generate", "b", "--server", url, *shared, "--overwrite").exit_code == 0
    assert requests[-1]["model"] == "b"


def test_a_server_that_is_away(tiny_corpus, tmp_path, longvale, monkeypatch):
    monkeypatch.setattr("longvale.chat_client._MAX_BACKOFF_S", 0)
    result = longvale(
        "generate", "m", "--adapter", "server", "--server", "http://127.0.0.1:9/v1", "--data", tiny_corpus,
        "--timeout", 9, "--output", tmp_path / "log", "-q",
    )  # fmt: skip
    assert result.exit_code == 2 and "m at http://127.0.0.1:9/v1: no answer after 5 attempts" in result.stderr
