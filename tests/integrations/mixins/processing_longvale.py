"""The mixin of transformers for processors, with media that are made here in place of those of the Hub."""

import tempfile
import unittest
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from transformers import CLIPImageProcessor, WhisperFeatureExtractor

from longvale.demo.checkpoint import build_tokenizer, sample_texts
from longvale.models.processing_longvale import LongVALEProcessor
from longvale.models.video_processing_longvale import LongVALEVideoProcessor

from ... import test_processing_common as common

FOLDER = Path(tempfile.mkdtemp())


def write_media():
    """Videos of 11 frames at 10 frames per second with sound, sounds and images: two files of each."""
    rng = np.random.default_rng(0)
    files = {"videos": [], "audio": [], "images": []}
    for index in range(2):
        path = FOLDER / f"video{index}.mp4"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=10)
            video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
            audio = container.add_stream("aac", rate=16_000, layout="mono")
            for shade in range(11):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * shade, np.uint8))
                container.mux(video.encode(frame))
            container.mux(video.encode())
            noise = rng.normal(0, 0.1, (1, 17_600)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
        files["videos"].append(str(path))
        path = FOLDER / f"sound{index}.wav"
        with wave.open(str(path), "wb") as sound:
            sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(16_000)
            sound.writeframes(rng.normal(0, 3000, 32_000).astype("<i2").tobytes())
        files["audio"].append(str(path))
        path = FOLDER / f"image{index}.png"
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
        files["images"].append(str(path))
    return files


common.MODALITY_INPUT_DATA = write_media()
KINDS = {"mp4": "videos", "jpg": "images", "png": "images"}
common.url_to_local_path = lambda url: common.MODALITY_INPUT_DATA[KINDS.get(url.rpartition(".")[2], "audio")][0]


class ProcessorTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = LongVALEProcessor

    @classmethod
    def _setup_video_processor(cls):
        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_convert_rgb": False}
        return LongVALEVideoProcessor.from_image_processor(CLIPImageProcessor(**size), num_frames=4)

    @classmethod
    def _setup_feature_extractor(cls):
        return WhisperFeatureExtractor(feature_size=40, chunk_length=8)

    @classmethod
    def _setup_tokenizer(cls):
        return build_tokenizer(sample_texts(50))

    @staticmethod
    def prepare_processor_dict():
        return {"speech_window_states": 80}

    def prepare_text_inputs(self, batch_size=None, modalities=None):
        """One placeholder for all media of a text: sound belongs to its video."""
        place = "" if modalities is None else "<video>"
        texts = [f"lower newer {place}", f" {place} upper older longer string"]
        return texts[0] if batch_size is None else [texts[index % 2] for index in range(batch_size)]

    def prepare_audio_inputs(self, batch_size=None):
        return [np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)] * (batch_size or 1)

    @property
    def video_sampling_expectations(self):
        return [
            {"num_frames": 3, "fps": None, "expected_dim": 1, "output_length": 3},
            {"num_frames": None, "fps": 10, "expected_dim": 1, "output_length": 11},
            {"do_sample_frames": False, "expected_dim": 1, "output_length": 11},
            {"expected_dim": 1, "output_length": 4},
        ]
