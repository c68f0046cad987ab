import copy
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms import v2
from transformers import AutoVideoProcessor, CLIPImageProcessor, WhisperFeatureExtractor

from longvale.demo.checkpoint import SPEECH_CHUNK_S
from longvale.models.media import Media, read_media
from longvale.models.processing_longvale import LongVALEProcessor
from longvale.models.prompts import CHAT_TEMPLATES

CHUNK_STATES = 50 * SPEECH_CHUNK_S
PROMPT = "USER: <video>\nWhat happens? ASSISTANT:"


def make_processor(processor, **options):
    """Another processor with the same parts, unless others are given."""
    parts = {
        "image_processor": processor.image_processor,
        "feature_extractor": processor.feature_extractor,
        "tokenizer": processor.tokenizer,
        "num_frames": 4,
        "audio_window_frames": processor.audio_window_frames,
        "speech_window_states": processor.speech_window_states,
    }
    return LongVALEProcessor(**parts | options)


@pytest.fixture(params=["strict", "official"])
def either(request, processor):
    return make_processor(processor, preprocessing=request.param)


def placeholders(processor, inputs):
    return (inputs["input_ids"] == processor.video_token_id).sum(dim=1).tolist()


# Prompts


def test_the_chat_template_is_the_published_conversation(processor):
    messages = [
        {"role": "user", "content": "<video>\nWhat happens?"},
        {"role": "assistant", "content": "A bell rings."},
        {"role": "user", "content": "When?"},
    ]
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions."
    )
    asked = f"{system} USER: <video>\nWhat happens? ASSISTANT:"
    assert processor.apply_chat_template(messages[:1], add_generation_prompt=True) == asked
    expected = f"{asked} A bell rings.</s>USER: When? ASSISTANT:"
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == expected
    briefly = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *messages[:1]]
    assert processor.apply_chat_template(briefly) == "Be brief. USER: <video>\nWhat happens? ASSISTANT:"


def test_a_video_may_be_a_part_of_a_message(processor, clip):
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": "What happens?"}]
    messages = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(messages)
    assert prompt.endswith(" USER: <video>\nWhat happens? ASSISTANT:")
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    expected = processor(text=prompt, videos=clip)
    assert inputs.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(inputs[name], value), name
    batch = processor.apply_chat_template([messages, messages], tokenize=True, return_dict=True)
    assert batch["pixel_values_videos"].shape[0] == 2


def test_the_mask_of_the_assistants_words(processor, pictures):
    content = [{"type": "video", "video": pictures(4)}, {"type": "text", "text": "What happens?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "A bell rings."}]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    mask = inputs["assistant_masks"].bool()
    assert processor.decode(inputs["input_ids"][mask]) == "A bell rings.</s>"
    assert "text_replacement_offsets" not in inputs


@pytest.mark.parametrize(
    "message", [{"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "image"}]}]
)
def test_the_chat_template_refuses_what_it_does_not_know(processor, message):
    with pytest.raises(Exception, match=r"unknown (role: tool|content: image)"):
        processor.apply_chat_template([message])


def test_another_placeholder(processor, pictures):
    other = make_processor(processor, video_token="<clip>")
    prompt = other.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])
    assert prompt.endswith("USER: <clip>\n ASSISTANT:")
    assert placeholders(other, other(text=prompt, videos=pictures(3))) == [3]


def test_text_alone(processor):
    inputs = processor(text=["What is a bell?", "And a drum, then?"])
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]  # padded on the left


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("What happens?", "text 0 holds <video> 0 times, but it must hold it once"),
        ("<video> <video> What?", "text 0 holds <video> 2 times, but it must hold it once"),
        ([PROMPT, PROMPT], "2 texts but 1 videos; give one video a text"),
    ],
)
def test_one_placeholder_for_one_video(processor, text, message):
    with pytest.raises(ValueError, match=message):
        processor(text=text, visual_features=torch.zeros(3, 64))
    if isinstance(text, str) and "<video>" in text:
        with pytest.raises(ValueError, match="but no video was given for it"):
            processor(text=text)


def test_a_users_words_are_no_placeholders(processor):
    words = processor.escape("Where does it say <video> or <<video>video>?")
    assert words == "Where does it say < video> or << video>video>?"
    inputs = processor(text=f"<video>\n{words}", visual_features=torch.zeros(3, 64))
    assert placeholders(processor, inputs) == [3]
    assert words.replace(" ", "") in processor.decode(inputs["input_ids"][0]).replace(" ", "")


def test_truncation_must_not_cut_the_video(processor):
    with pytest.raises(ValueError, match="text 0 keeps 8 of its 20 video placeholders; raise max_length"):
        processor(text="<video>", visual_features=torch.zeros(20, 64), truncation=True, max_length=9)


# Stored features


def test_stored_features_in_their_many_forms(processor):
    values = np.arange(128, dtype=np.float64).reshape(2, 64)
    expected = torch.tensor(values, dtype=torch.float32)[None]
    for given in (values, [values], values[None], torch.tensor(values), [torch.tensor(values)], [values.tolist()]):
        inputs = processor(text=PROMPT, visual_features=given)
        assert set(inputs) == {"input_ids", "attention_mask", "visual_features", "visual_features_mask"}
        assert torch.equal(inputs["visual_features"], expected)
        assert placeholders(processor, inputs) == [2]


def test_features_of_different_lengths_and_missing_ones(processor):
    inputs = processor(
        text=[PROMPT, PROMPT],
        visual_features=[torch.ones(3, 64), torch.ones(1, 64)],
        audio_features=[None, torch.ones(2, 64)],
        speech_features=[np.zeros((0, 64)), None],
    )
    assert placeholders(processor, inputs) == [3, 3]
    assert inputs["visual_features_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert inputs["audio_features_mask"].tolist() == [[0, 0], [1, 1]]
    assert inputs["visual_features"].sum(dim=(1, 2)).tolist() == [192, 64]
    assert "speech_features" not in inputs


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"visual_features": torch.full((2, 64), torch.nan)}, "visual_features of video 0 hold NaN or infinity"),
        ({"speech_features": torch.full((2, 64), torch.inf)}, "speech_features of video 0 hold NaN or infinity"),
        ({"audio_features": torch.zeros(64)}, r"audio_features of video 0 must be \[n, width\], not \[64\]"),
        ({"visual_features": [None]}, "video 0 has neither picture nor sound"),
        (
            {"visual_features": [torch.zeros(1, 64)], "audio_features": [torch.zeros(1, 64)] * 2},
            r"features for different numbers of videos: \[1, 2\]",
        ),
        ({"visual_features": torch.zeros(1, 64), "videos": "a.mp4"}, "either videos or stored features, not both"),
    ],
)
def test_features_that_are_refused(processor, features, message):
    with pytest.raises(ValueError, match=message):
        processor(text=PROMPT, **features)


def test_features_of_different_widths_are_refused(processor):
    with pytest.raises(ValueError, match=r"visual_features of one batch have different shapes: \(64,\), \(65,\)"):
        processor(text=[PROMPT] * 2, visual_features=[torch.zeros(1, 64), torch.zeros(1, 65)])


# Raw media


@pytest.mark.parametrize("seconds", [0.0001, 0.3, 1.27, 1.29, 2.6, 9.99, 10, 10.01, 21.3])
@torch.no_grad()
def test_there_are_as_many_placeholders_as_features(model, either, sound, seconds):
    inputs = either(text=PROMPT, audio=sound(max(seconds, 1 / 16_000)))
    _, audio_mask = model.encode(**either(audio=sound(max(seconds, 1 / 16_000))))["audio"]
    speech, speech_mask = model.encode(**either(audio=sound(max(seconds, 1 / 16_000))))["speech"]
    samples = round(max(seconds * 16_000, 1))
    assert audio_mask.sum() == either.audio_extractor.num_windows(samples)
    chunks, states = math.ceil(samples / either.feature_extractor.n_samples), math.ceil(samples / 320)
    window = either.speech_window_states
    if either.preprocessing == "official":
        assert speech_mask.sum() == chunks * CHUNK_STATES // window
    else:
        assert speech_mask.sum() == math.ceil(states / window)
    assert placeholders(either, inputs) == [int(audio_mask.sum() + speech_mask.sum())]
    assert speech.isfinite().all()
    assert model(**inputs).logits.isfinite().all()


@torch.no_grad()
def test_official_speech_windows_count_the_padding(model, processor, sound):
    official = make_processor(processor, preprocessing="official")
    inputs = official(audio=sound(13))
    states = model.model.speech_tower(inputs["input_features"][0]).last_hidden_state.flatten(0, 1)
    assert len(states) == 2 * CHUNK_STATES
    window = official.speech_window_states
    expected = [states[start : start + window].mean(dim=0) for start in range(0, len(states) - window + 1, window)]
    features, mask = model.encode(**inputs)["speech"]
    assert_close(features[mask.bool()], torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_an_official_window_longer_than_a_chunk_gives_one_feature(processor, sound):
    official = make_processor(processor, preprocessing="official", speech_window_states=600, audio_window_frames=512)
    inputs = official(text=PROMPT, audio=sound(2))
    assert inputs["input_features_mask"].all()
    assert placeholders(official, inputs) == [2]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (90, 70), (33, 200), (64, 64), (71, 64)])
def test_official_pictures_are_resized_without_antialiasing(processor, pictures, height, width):
    official = make_processor(processor, preprocessing="official")
    frames = pictures(2, height, width)
    options = processor.image_processor
    transform = v2.Compose(
        [
            v2.Resize(64, interpolation=v2.InterpolationMode.BICUBIC, antialias=False),
            v2.CenterCrop(64),
            v2.Normalize(options.image_mean, options.image_std),
        ]
    )
    expected = transform(torch.tensor(frames).permute(0, 3, 1, 2) / 255)
    assert_close(official(videos=frames)["pixel_values_videos"][0], expected, rtol=1e-4, atol=1e-5)
    strict = make_processor(processor)(videos=frames)["pixel_values_videos"][0]
    assert strict.shape == expected.shape
    assert (strict - expected).abs().max() < 1.5  # the same picture, but not the same numbers


@pytest.mark.parametrize(("height", "width"), [(36, 250), (250, 36), (38, 46)])
def test_files_of_any_shape(either, media_file, pictures, height, width):
    path = media_file(f"{height}x{width}", pictures(10, height, width))
    inputs = either(text=PROMPT, videos=str(path))
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 64, 64)
    assert placeholders(either, inputs) == [4]
    media = read_media(path, **either.media_kwargs())
    short, long = sorted((height, width))
    wanted = (64, int(64 * long / short)) if either.preprocessing == "strict" else (short, long)
    assert tuple(sorted(media.frames.shape[1:3])) == wanted
    assert torch.equal(either(videos=media)["pixel_values_videos"], inputs["pixel_values_videos"])


def test_files_with_picture_or_sound_alone(either, media_file, pictures, sound):
    seen, heard = media_file("seen", pictures(10)), media_file("heard", sound=sound(3))
    inputs = either(text=PROMPT, videos=seen)
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values_videos", "visual_features_mask"}
    inputs = either(text=PROMPT, videos=heard)
    raw = {"input_values", "input_values_mask", "input_features", "input_features_mask"}
    assert set(inputs) == {"input_ids", "attention_mask"} | raw
    batch = either(text=[PROMPT, PROMPT], videos=[seen, heard])
    assert batch["visual_features_mask"].tolist() == [[1] * 4, [0] * 4]
    assert batch["input_features_mask"].any(dim=-1).tolist() == [[False], [True]]
    assert placeholders(either, batch)[0] == 4


def test_values_of_datasets_are_read_as_their_files(either, media_file, pictures, sound):
    path = media_file("value", pictures(10), sound(3))
    expected = either(text=PROMPT, videos=path)
    for value in ({"path": str(path), "bytes": None}, {"path": "value.mp4", "bytes": path.read_bytes()}):
        inputs = either(text=PROMPT, videos=value)
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_pieces_begin_where_all_windows_begin(either):
    """Windows of sound, windows of speech states (two mel frames of 160 samples) and chunks of speech."""
    windows = either.audio_window_frames * 160, either.speech_window_states * 320
    for step in (*windows, either.feature_extractor.n_samples):
        assert either.piece_samples % step == 0


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"size": {"shortest_edge": 40}}, 40),
        ({"size": {"height": 40, "width": 50}}, 50),
        ({"do_resize": False}, None),
    ],
)
def test_pictures_are_scaled_while_they_are_decoded(processor, options, size):
    other = make_processor(processor, image_processor=CLIPImageProcessor(**options))
    assert other.media_kwargs() == {"num_frames": 4, "size": size, "sampling_rate": 16_000, "decode": "strict"}
    if "shortest_edge" in options.get("size", {}):
        official = make_processor(
            processor, image_processor=CLIPImageProcessor(**options), preprocessing="official"
        ).media_kwargs()
        assert official == {"num_frames": 4, "size": None, "sampling_rate": 16_000, "decode": "official"}


def test_pictures_of_different_sizes_do_not_fit_one_batch(processor, pictures):
    uncropped = CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    other = make_processor(processor, image_processor=uncropped)
    assert other(videos=pictures(2, 32, 48))["pixel_values_videos"].shape == (1, 2, 3, 32, 48)
    with pytest.raises(ValueError, match="pixel_values_videos of one batch have different shapes"):
        other(videos=[pictures(2, 32, 48), pictures(2, 48, 32)])


@pytest.mark.parametrize(
    ("video", "audio", "message"),
    [
        (
            np.zeros((4, 2, 8, 8), np.uint8),
            None,
            r"must be uint8 \[F, H, W, 3\] or \[F, 3, H, W\] in RGB, not uint8 \[4",
        ),
        (np.zeros((4, 8, 8, 3)), None, "in RGB, not float64"),
        (np.zeros((0, 8, 8, 3), np.uint8), None, r"not uint8 \[0, 8, 8, 3\]"),
        (None, np.zeros((2, 100), np.float32), r"waveform of video 0 must be mono floats .*not float32 \[2, 100\]"),
        (None, np.zeros(100, np.int16), "not int16"),
        (None, np.zeros(0, np.float32), r"not float32 \[0\]"),
        (None, np.full(100, np.nan), "waveform of video 0 holds NaN or infinity"),
        (Media(1.0, None, np.empty(0), np.zeros(8_000, np.float32), 8_000), None, "is at 8000 Hz; read it with 16000"),
        (None, None, "video 0 has neither picture nor sound"),
    ],
)
def test_media_that_are_refused(processor, video, audio, message):
    with pytest.raises(ValueError, match=message):
        processor(text=PROMPT, videos=[video], audio=[audio])


def test_missing_and_broken_files_are_named(processor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.mp4: no such file"):
        processor(text=PROMPT, videos=tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"text\.mp4: not a media file"):
        processor(text=PROMPT, videos=[str(tmp_path / "text.mp4")])


def test_arguments_that_are_refused(processor, pictures, sound):
    with pytest.raises(ValueError, match="give a text, videos or features"):
        processor()
    with pytest.raises(ValueError, match="images are not taken"):
        processor(images=pictures(1), text=PROMPT)
    with pytest.raises(ValueError, match="return_tensors must be 'pt' or 'np', not 'mlx'"):
        processor(text=PROMPT, visual_features=torch.zeros(1, 64), return_tensors="mlx")
    with pytest.raises(ValueError, match="waveforms are at 44100 Hz; resample them to 16000 Hz"):
        processor(text=PROMPT, audio=sound(1), sampling_rate=44_100)
    with pytest.raises(ValueError, match="2 videos but 1 waveforms"):
        processor(videos=[pictures(1)] * 2, audio=[sound(1)])
    with pytest.raises(TypeError, match="unknown argument 'audio_feature'; videos are given as"):
        processor(text=PROMPT, visual_features=torch.zeros(1, 64), audio_feature=torch.zeros(1, 64))


# Making and saving


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessing": "loose"}, "preprocessing must be 'strict' or 'official', not 'loose'"),
        ({"audio_window_frames": 100}, "window_frames must be a positive multiple of 16"),
        ({"speech_window_states": 0}, "speech_window_states must be 1 or more, not 0"),
        ({"num_frames": 0}, "num_frames must be 1 or more, not 0"),
        ({"feature_extractor": WhisperFeatureExtractor(sampling_rate=8_000)}, "wants 8000 Hz, but the sound tower"),
        (
            {"image_processor": CLIPImageProcessor(size={"height": 8, "width": 8}), "preprocessing": "official"},
            "official preprocessing resizes to a shortest edge and crops",
        ),
    ],
)
def test_options_that_are_refused(processor, options, message):
    with pytest.raises(ValueError, match=message):
        make_processor(processor, **options)


def test_every_part_is_needed(processor):
    with pytest.raises(
        TypeError, match="NoneType for argument video_processor; give the visual tower's image processor"
    ):
        make_processor(processor, image_processor=None)
    with pytest.raises(TypeError, match="NoneType for argument feature_extractor"):
        make_processor(processor, feature_extractor=None)
    with pytest.raises(TypeError, match="unknown argument 'num_frame' of the processor"):
        make_processor(processor, num_frame=3)


def test_saving_and_loading(processor, tmp_path, clip):
    official = make_processor(processor, preprocessing="official", num_frames=5, speech_window_states=64)
    official.save_pretrained(tmp_path)
    loaded = LongVALEProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"auto_map": None} == official.to_dict() | {"auto_map": None}
    assert loaded.chat_template == official.chat_template
    assert (loaded.video_token_id, loaded.tokenizer.padding_side) == (official.video_token_id, "left")
    expected = official(text=[PROMPT, PROMPT + " A"], videos=[clip, clip])
    inputs = loaded(text=[PROMPT, PROMPT + " A"], videos=[clip, clip])
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], value) for name, value in expected.items())
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["auto_map"] == {"AutoProcessor": "processing_longvale.LongVALEProcessor"}
    assert saved["audio_extractor"]["window_frames"] == official.audio_window_frames
    assert saved["video_processor"]["num_frames"] == 5 and saved["video_processor"]["preprocessing"] == "official"
    alone = AutoVideoProcessor.from_pretrained(tmp_path)
    assert torch.equal(
        alone(str(clip), return_tensors="pt")["pixel_values_videos"][0], expected["pixel_values_videos"][0]
    )
    assert LongVALEProcessor.from_pretrained(tmp_path, num_frames=3).num_frames == 3


@pytest.mark.parametrize("preprocessing", ["strict", "official"])
def test_a_processor_of_an_earlier_version_gives_the_same(processor, tmp_path, clip, preprocessing):
    """It kept all options itself, had an image processor, and a chat template with a space for `tokenize_parts`."""
    current = make_processor(processor, preprocessing=preprocessing, num_frames=5, audio_window_frames=160)
    current.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    saved = json.loads(path.read_text())
    own = {"num_frames", "preprocessing", "frame_processor_type", "video_processor_type", "auto_map"}
    image = {name: value for name, value in saved.pop("video_processor").items() if name not in own}
    del saved["audio_extractor"]
    image_processor = {"image_processor": image | {"image_processor_type": "CLIPImageProcessor"}}
    options = {"num_frames": 5, "preprocessing": preprocessing, "audio_window_frames": 160}
    path.write_text(json.dumps(saved | image_processor | options))
    template = CHAT_TEMPLATES[1]
    if preprocessing == "official":
        template = template.replace(") ~ ' ASS", ") | replace('<video>', '<video> ') ~ ' ASS")
        assert "| replace" in template
    (tmp_path / "chat_template.jinja").write_text(template)
    loaded = LongVALEProcessor.from_pretrained(tmp_path)
    assert loaded.chat_template == current.chat_template
    del current.video_processor.auto_map  # set when it was saved
    assert loaded.to_dict() | {"auto_map": None} == current.to_dict() | {"auto_map": None}
    expected, inputs = current(text=PROMPT, videos=clip), loaded(text=PROMPT, videos=clip)
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], value) for name, value in expected.items())


def test_loading_does_not_change_the_tokenizer(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "right"}))
    tokenizer = LongVALEProcessor.from_pretrained(tmp_path).tokenizer
    assert (
        tokenizer.padding_side == "right" and tokenizer.extra_special_tokens == processor.tokenizer.extra_special_tokens
    )


def test_a_new_placeholder_keeps_the_other_special_tokens(processor):
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|tool|>"]})
    tokenizer.padding_side = "right"
    other = make_processor(processor, tokenizer=tokenizer, video_token="<reel>")
    assert other.tokenizer.extra_special_tokens == ["<|tool|>", "<reel>"]
    assert other.tokenizer.padding_side == other.tokenizer.init_kwargs["padding_side"] == "left"


# Options of a call


def test_options_are_grouped_as_in_other_processors(processor, clip):
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": "What happens?"}]
    chat = [{"role": "user", "content": content}]
    options = {"tokenize": True, "return_dict": True}
    for given in ({"num_frames": 3}, {"videos_kwargs": {"num_frames": 3}}):
        inputs = processor.apply_chat_template(chat, processor_kwargs=given, **options)
        assert inputs["pixel_values_videos"].shape[1] == 3
    inputs = processor(text=PROMPT, videos=clip, text_kwargs={"padding": "max_length", "max_length": 150})
    assert inputs["input_ids"].shape == (1, 150)
    with pytest.raises(ValueError, match="padding was passed two times"):
        processor(text=PROMPT, videos=clip, padding=True, text_kwargs={"padding": False})
    with pytest.raises(TypeError, match="audio_kwargs has no 'truncation'"):
        processor(text=PROMPT, videos=clip, audio_kwargs={"truncation": True})


def test_arrays_and_lists(processor, clip):
    tensors = processor(text=PROMPT, videos=clip)
    arrays = processor(text=PROMPT, videos=clip, return_tensors="np")
    assert arrays.keys() == tensors.keys()
    assert all(isinstance(arrays[name], np.ndarray) and np.array_equal(arrays[name], tensors[name]) for name in tensors)
    ids = processor(text=["What?", "What happens?"], return_tensors=None, padding=False)["input_ids"]
    assert isinstance(ids, list) and len(ids[0]) < len(ids[1])


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, range(12)),
        ({"num_frames": 3}, [2, 6, 10]),
        ({"num_frames": 3, "do_sample_frames": False}, range(12)),
        ({"num_frames": 20}, range(12)),
        ({"do_sample_frames": True}, [1, 4, 7, 10]),
        ({"fps": 2, "video_metadata": {"fps": 6}}, [1, 4, 7, 10]),
        ({"fps": 2, "video_metadata": [{"fps": 12}]}, [3, 9]),
    ],
)
def test_frames_of_an_array_are_selected(processor, pictures, options, chosen):
    frames = pictures(12)
    expected = processor(videos=frames[list(chosen)])["pixel_values_videos"]
    other = make_processor(processor)  # num_frames is 4
    assert torch.equal(other(videos=frames, **options)["pixel_values_videos"], expected)


def test_frames_of_a_file_are_selected(processor, media_file, pictures):
    path = media_file("rate", pictures(20), rate=10)
    for options, count in (({"fps": 4}, 8), ({"num_frames": 2}, 2), ({"do_sample_frames": False}, 20)):
        assert processor(videos=path, **options)["pixel_values_videos"].shape[1] == count
    with pytest.raises(ValueError, match="num_frames and fps exclude each other"):
        processor(videos=path, fps=1, num_frames=2)
    with pytest.raises(ValueError, match="fps=1 needs the frame rate of video 0"):
        processor(videos=pictures(3), fps=1)


def test_frames_in_any_layout(processor, pictures):
    frames = pictures(4)
    expected = processor(videos=frames)["pixel_values_videos"]
    images = [Image.fromarray(frame) for frame in frames]
    first = frames.transpose(0, 3, 1, 2)
    for given in (
        first,
        torch.tensor(first),
        torch.tensor(frames),
        images,
        list(frames),
        [images],
        [frames],
        frames[None],
    ):
        assert torch.equal(processor(videos=given)["pixel_values_videos"], expected)


def test_frames_may_be_files_of_images(processor, pictures, tmp_path):
    paths = [str(tmp_path / f"{index}.png") for index in range(2)]
    for path, frame in zip(paths, pictures(2), strict=True):
        Image.fromarray(frame).save(path)
    expected = processor(videos=pictures(2))["pixel_values_videos"]
    assert torch.equal(processor(videos=[paths])["pixel_values_videos"], expected)
    with pytest.raises(ValueError, match="text 0 has 2 videos; give one video a text"):
        processor(videos=[["a.mp4", "b.mp4"]])


def test_options_of_the_image_processor(either, pictures):
    frames = pictures(2)
    wide = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    assert either(videos=frames, **wide)["pixel_values_videos"].shape == (1, 2, 3, 32, 32)
    if either.preprocessing == "official":
        with pytest.raises(ValueError, match="official preprocessing has a fixed rescale_factor"):
            either(videos=frames, rescale_factor=-1.0)
    else:
        assert either(videos=frames, rescale_factor=-1.0)["pixel_values_videos"].mean() < 0


# Rows without a video


def test_a_text_beside_a_video(processor, pictures, sound):
    single = processor(text=PROMPT, videos=[pictures(4)], audio=[sound(1)])
    batch = processor(text=["What is a bell?", PROMPT], videos=[None, pictures(4)], audio=[None, sound(1)])
    assert placeholders(processor, batch) == [0, placeholders(processor, single)[0]]
    assert batch["visual_features_mask"].tolist() == [[0] * 4, [1] * 4]
    assert torch.equal(batch["input_ids"][1], single["input_ids"][0])
    stored = processor(text=[PROMPT, "What?"], visual_features=[torch.ones(2, 64), None])
    assert placeholders(processor, stored) == [2, 0]
    with pytest.raises(ValueError, match="video 1 has neither picture nor sound"):
        processor(text=["What?", PROMPT], visual_features=[None, None])
    with pytest.raises(ValueError, match="text 0 holds <video> 0 times, but it must hold it once"):
        processor(text=["What?", PROMPT], visual_features=[torch.ones(2, 64), None])


def test_chats_without_a_video_and_with_sound_alone(processor, clip, sound, media_file):
    def chat(*parts):
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]

    heard, options = media_file("sound", sound=sound(3)), {"tokenize": True, "return_dict": True}
    video = chat({"type": "video", "path": str(clip)})
    inputs = processor.apply_chat_template([chat(), video], **options)
    assert placeholders(processor, inputs)[0] == 0 < placeholders(processor, inputs)[1]
    for part in ({"audio": sound(3)}, {"path": str(heard)}):
        inputs = processor.apply_chat_template(chat({"type": "audio", **part}), **options)
        assert "pixel_values_videos" not in inputs
        assert placeholders(processor, inputs) == placeholders(processor, processor(text=PROMPT, audio=[sound(3)]))
    # A sound beside a video is its sound, and an empty part is the sound that the file has.
    both = chat({"type": "video", "path": str(clip)}, {"type": "audio"})
    batch = processor.apply_chat_template([both, chat({"type": "audio", "path": str(heard)})], **options)
    assert placeholders(processor, batch)[0] == placeholders(processor, processor(text=PROMPT, videos=clip))[0]
    frames = {"type": "video", "video": np.zeros((4, 48, 64, 3), np.uint8)}
    inputs = processor.apply_chat_template(chat(frames, {"type": "audio", "audio": sound(3)}), **options)
    assert {"pixel_values_videos", "input_values"} <= inputs.keys()
    with pytest.raises(ValueError, match="text 0 has 2 sounds; give one sound a text"):
        processor.apply_chat_template(chat(*[{"type": "audio", "audio": sound(1)}] * 2), **options)


# Published tokenization


def test_official_prompts_are_tokenized_in_parts(processor):
    """As the published code: the text on each side of the video by itself, where sentencepiece begins with a space."""
    official, tokenizer = make_processor(processor, preprocessing="official"), processor.tokenizer
    for prompt in ("A chat. USER: <video>\nWhat happens? ASSISTANT:", "<video>\nWhen?", "A word and <video>"):
        before, after = (f" {part}" if part else "" for part in prompt.split("<video>"))
        expected = [*tokenizer(before)["input_ids"], *[processor.video_token_id] * 3]
        expected += tokenizer(after)["input_ids"][1:] if after else []
        inputs = official(text=prompt, visual_features=torch.zeros(3, 64))
        assert inputs["input_ids"][0].tolist() == expected
        assert inputs["attention_mask"].tolist() == [[1] * len(expected)]


def test_parts_are_padded_and_cut_like_prompts(processor):
    official = make_processor(processor, preprocessing="official")
    texts = [PROMPT, "USER: <video>\nWhat is heard in it, and when? ASSISTANT:"]
    features = [torch.zeros(3, 64), torch.zeros(2, 64)]
    rows = [official(text=t, visual_features=f)["input_ids"][0].tolist() for t, f in zip(texts, features, strict=True)]
    pad = official.tokenizer.pad_token_id
    for side in ("left", "right"):
        options = {"padding_side": side, "return_offsets_mapping": True, "pad_to_multiple_of": 8}
        batch = official(text=texts, visual_features=features, **options)
        assert batch["input_ids"].shape[1] % 8 == 0 and batch["offset_mapping"].shape[:2] == batch["input_ids"].shape
        for ids, mask, offsets, row in zip(*(batch[n] for n in _OF_TEXT), rows, strict=True):
            kept = mask.bool()
            assert ids[kept].tolist() == row and set(ids[~kept].tolist()) <= {pad}
            assert kept[0 if side == "right" else -1] and not offsets[~kept].any()
    cut = official(text=texts[0], visual_features=features[0], truncation=True, max_length=len(rows[0]) - 2)
    assert cut["input_ids"][0].tolist() == rows[0][:-2]
    with pytest.raises(TypeError, match="stride is not available with official preprocessing"):
        official(text=texts[0], visual_features=features[0], stride=2)


_OF_TEXT = ("input_ids", "attention_mask", "offset_mapping")


def test_every_output_is_a_known_input(processor, clip):
    assert set(processor(text=PROMPT, videos=clip)) <= set(processor.model_input_names)
    assert set(processor(text=PROMPT, speech_features=torch.zeros(2, 64))) <= set(processor.model_input_names)
