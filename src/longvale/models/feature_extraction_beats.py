"""BEATs feature extractor: converts waveforms to windows of normalised filterbanks."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor

Preprocessing: TypeAlias = Literal["strict", "official"]
Waveform: TypeAlias = np.ndarray | torch.Tensor | Sequence[float]

# Kaldi's filterbank with the options that BEATs was trained with: 16 kHz, frames of 25 ms every 10 ms, 20 to 8000 Hz.
SAMPLING_RATE = 16_000
FRAME_LENGTH, FRAME_SHIFT, FFT_LENGTH = 400, 160, 512
NUM_MEL_BINS, LOWEST_HZ = 128, 20.0
PREEMPHASIS = 0.97
SCALE = 2.0**15  # Kaldi expects the range of 16-bit samples
LOG_FLOOR = torch.finfo(torch.float32).eps

# Frames per chunk: few enough to fit in the cache of a CPU core, enough to keep a GPU busy.
_CHUNK_FRAMES = {"cpu": 512, "cuda": 65536}


@torch.no_grad()
def kaldi_fbank(waveforms: Sequence[torch.Tensor], num_mel_bins: int = NUM_MEL_BINS) -> list[torch.Tensor]:
    """Compute log mel filterbanks of many waveforms at once, as `torchaudio.compliance.kaldi.fbank` does for one.

    Kaldi's options are those of BEATs: Povey window, pre-emphasis 0.97, no dither. Up to the Fourier
    transform the order of operations is that of torchaudio, because rounding errors dominate in quiet bands.

    Args:
        waveforms: float [n] each, 16 kHz in [-1, 1], on one device. Waveforms shorter than one frame (400 samples) are
            padded with silence to one frame.
        num_mel_bins: mel bins between 20 and 8000 Hz; by default those of BEATs.

    Returns:
        float32 [m, num_mel_bins] each, m = 1 + (n - 400) // 160.

    Example:
        >>> [fbank.shape for fbank in kaldi_fbank([torch.zeros(16000), torch.zeros(1)])]
        [torch.Size([98, 128]), torch.Size([1, 128])]
    """
    device = waveforms[0].device
    counts = [num_frames(len(waveform)) for waveform in waveforms]
    # The waveforms are concatenated, each at a multiple of the frame shift, so that one strided view covers all frames.
    # The two frames that begin after the last frame of each waveform are computed and dropped.
    signal = torch.zeros(sum(count + 2 for count in counts) * FRAME_SHIFT + FRAME_LENGTH, device=device)
    start = 0
    for waveform, count in zip(waveforms, counts, strict=True):
        used = waveform[: (count - 1) * FRAME_SHIFT + FRAME_LENGTH]
        signal[start : start + len(used)] = used
        start += (count + 2) * FRAME_SHIFT
    signal *= SCALE
    frames = signal.unfold(0, FRAME_LENGTH, FRAME_SHIFT)[: start // FRAME_SHIFT]
    size = _CHUNK_FRAMES.get(device.type, _CHUNK_FRAMES["cuda"])
    fbanks = torch.empty(len(frames), num_mel_bins, device=device)
    with torch.autocast(device.type, enabled=False):
        for chunk, out in zip(frames.split(size), fbanks.split(size), strict=True):
            out.copy_(_log_mel(chunk, num_mel_bins))
    return [fbank[:-2] for fbank in fbanks.split([count + 2 for count in counts])]


def num_frames(num_samples: int) -> int:
    """Return the number of filterbank frames of a waveform, at least one.

    Example:
        >>> num_frames(81920), num_frames(1)
        (510, 1)
    """
    return 1 + max(num_samples - FRAME_LENGTH, 0) // FRAME_SHIFT


def _log_mel(frames: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    """Compute log mel energies: [m, 400] samples -> [m, num_mel_bins]."""
    window, mel_bank = _window_and_mel_bank(frames.device, num_mel_bins)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat((frames[:, :1], frames[:, :-1]), dim=1)
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * previous) * window, n=FFT_LENGTH)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.mm(power, mel_bank).clamp_(min=LOG_FLOOR).log_()


@lru_cache(maxsize=8)
def _window_and_mel_bank(device: torch.device, num_mel_bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Povey window [400] and triangular mel filters [257, num_mel_bins], computed in fp32 as in Kaldi."""
    window = torch.hann_window(FRAME_LENGTH, periodic=False).pow(0.85)
    lowest, highest = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOWEST_HZ, SAMPLING_RATE / 2))
    step = (highest - lowest) / (num_mel_bins + 1)
    index = torch.arange(num_mel_bins).unsqueeze(1)
    left, center, right = lowest + index * step, lowest + (index + 1.0) * step, lowest + (index + 2.0) * step
    hertz = SAMPLING_RATE / FFT_LENGTH * torch.arange(FFT_LENGTH // 2)
    mel = 1127.0 * (1.0 + hertz / 700.0).log()
    filters = torch.minimum((mel - left) / (center - left), (right - mel) / (right - center)).clamp(min=0.0)
    # Kaldi omits the bin at half the sampling rate.
    filters = torch.nn.functional.pad(filters, (0, 1))
    return window.to(device), filters.T.contiguous().to(device)


class BeatsFeatureExtractor(SequenceFeatureExtractor):
    """Feature extractor that splits waveforms into windows of BEATs filterbanks.

    Two protocols define how the end of a waveform is handled, which seldom fills its window:

    - `strict`: no sound is lost. The last window is padded with silence. Patches that contain only padding are marked
      in `padding_mask`, for attention and for the mean over the patches of a window.
    - `official`: the published preprocessing. To n frames, n % window_frames zeros are appended (they represent noise
      at the mean level, not silence), and only whole windows are kept: a remainder below half a window is dropped, and
      the zeros count in the mean. The published code fails on sounds below half a window; here they give one window.

    Args:
        window_frames (`int`, defaults to 512): filterbank frames per window, 10 ms each; a multiple of `patch_size`.
            The published model uses 512 (5.12 s).
        preprocessing (`str`, defaults to `"strict"`): "strict" or "official".
        patch_size (`int`, defaults to 16): patch size of the model, in frames.
        mean (`float`, defaults to 15.41663), std (`float`, defaults to 6.55582): statistics of the published
            filterbanks, which are normalised to (x - mean) / (2 std).

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> extractor = BeatsFeatureExtractor(window_frames=128)
        >>> batch = extractor([np.zeros(16000, np.float32), np.zeros(40000, np.float32)])
        >>> batch["input_values"].shape, batch["audio_features_mask"].tolist()
        (torch.Size([2, 2, 128, 128]), [[1, 0], [1, 1]])
    """

    model_input_names = ["input_values", "audio_features_mask", "padding_mask"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = NUM_MEL_BINS,
        sampling_rate: int = SAMPLING_RATE,
        padding_value: float = 0.0,
        window_frames: int = 512,
        preprocessing: Preprocessing = "strict",
        patch_size: int = 16,
        mean: float = 15.41663,
        std: float = 6.55582,
        **kwargs,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        if (feature_size, sampling_rate) != (NUM_MEL_BINS, SAMPLING_RATE):
            raise ValueError(
                f"BEATs filterbanks have {NUM_MEL_BINS} mel bins of {SAMPLING_RATE} Hz sound, "
                f"not feature_size={feature_size} of sampling_rate={sampling_rate}"
            )
        self.window_frames = window_frames
        self.preprocessing = preprocessing
        self.patch_size = patch_size
        self.mean = mean
        self.std = std
        self._options(None, None)

    def num_windows(
        self, num_samples: int, window_frames: int | None = None, preprocessing: Preprocessing | None = None
    ) -> int:
        """Return the number of windows of a sound with this many samples, at least one.

        Example:
            >>> extractor = BeatsFeatureExtractor()
            >>> extractor.num_windows(7 * 16000), extractor.num_windows(7 * 16000, preprocessing="official")
            (2, 1)
        """
        window_frames, preprocessing = self._options(window_frames, preprocessing)
        frames = num_frames(num_samples)
        if preprocessing == "official":
            return max((frames + frames % window_frames) // window_frames, 1)
        return math.ceil(frames / window_frames)

    def __call__(
        self,
        raw_speech: Waveform | Sequence[Waveform],
        sampling_rate: int = SAMPLING_RATE,
        window_frames: int | None = None,
        preprocessing: Preprocessing | None = None,
        device: str | torch.device | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Compute the filterbank windows of one or several sounds.

        Args:
            raw_speech: one mono waveform, float [n] in [-1, 1], or a list of them; n is at least 1. An array [2, n] is
                refused, since it may be stereo. The name is that of other feature extractors.
            sampling_rate: sampling rate of the waveforms; must be 16000 Hz.
            window_frames: overrides the value of the extractor.
            preprocessing: overrides the value of the extractor.
            device: device of the computation and of the result; by default that of each waveform, or the CPU.
            return_tensors: "pt" or "np"; None is "pt".

        Returns:
            `input_values` float32 [B, A, T, 128], A the largest number of windows of a sound, T = `window_frames`;
            `audio_features_mask` int64 [B, A], 1 for windows of the sound and 0 for padding of the batch;
            `padding_mask` bool [B, A, T], True for frames that [`BeatsModel`] must ignore.

        Raises:
            ValueError: if a waveform is empty, not mono, not of floats, not finite or at another sampling rate, or if
                an option is out of range.
        """
        if sampling_rate != self.sampling_rate:
            raise ValueError(f"waveforms are at {sampling_rate} Hz; resample them to {self.sampling_rate} Hz")
        window_frames, preprocessing = self._options(window_frames, preprocessing)
        sounds = _as_tensors(raw_speech, device)
        fbanks = kaldi_fbank(sounds)
        counts = [self.num_windows(len(sound), window_frames, preprocessing) for sound in sounds]

        silence = (math.log(LOG_FLOOR) - self.mean) / (2 * self.std)
        fill = self.padding_value if preprocessing == "official" else silence
        shape = (len(fbanks), max(counts) * window_frames, NUM_MEL_BINS)
        values = torch.empty(shape, device=fbanks[0].device)
        sound_frames = []
        for row, fbank, count in zip(values, fbanks, counts, strict=True):
            kept = fbank[: count * window_frames]
            torch.sub(kept, self.mean, out=row[: len(kept)]).div_(2 * self.std)
            row[len(kept) :] = fill
            whole_patches = math.ceil(len(kept) / self.patch_size) * self.patch_size
            sound_frames.append(count * window_frames if preprocessing == "official" else whole_patches)

        lengths = torch.tensor(sound_frames, device=values.device)
        padding_mask = torch.arange(shape[1], device=values.device) >= lengths[:, None]
        windows = torch.arange(max(counts), device=values.device) < torch.tensor(counts, device=values.device)[:, None]
        return BatchFeature(
            {
                "input_values": values.view(len(fbanks), -1, window_frames, NUM_MEL_BINS),
                "audio_features_mask": windows.long(),
                "padding_mask": padding_mask.view(len(fbanks), -1, window_frames),
            },
            tensor_type=return_tensors,
        )

    def _options(self, window_frames: int | None, preprocessing: str | None) -> tuple[int, str]:
        """Return the validated options of a call; None selects the value of the extractor."""
        window_frames = self.window_frames if window_frames is None else window_frames
        preprocessing = self.preprocessing if preprocessing is None else preprocessing
        if not isinstance(window_frames, int) or window_frames < 1 or window_frames % self.patch_size:
            raise ValueError(f"window_frames must be a positive multiple of {self.patch_size}, not {window_frames!r}")
        if preprocessing not in ("strict", "official"):
            raise ValueError(f"preprocessing must be 'strict' or 'official', not {preprocessing!r}")
        return window_frames, preprocessing


def _as_tensors(waveforms: Waveform | Sequence[Waveform], device: str | torch.device | None) -> list[torch.Tensor]:
    """Convert waveforms to float32 tensors on one device; refuse any that is not finite mono sound."""
    if not isinstance(waveforms, list | tuple) or (len(waveforms) and isinstance(waveforms[0], int | float)):
        waveforms = [waveforms]
    if len(waveforms) == 0:
        raise ValueError("waveforms: the list is empty; give one waveform or more")
    tensors = []
    for index, waveform in enumerate(waveforms):
        if isinstance(waveform, list | tuple):
            waveform = np.asarray(waveform, dtype=np.float32)
        if isinstance(waveform, np.ndarray):
            waveform = np.require(
                waveform, requirements=["C", "W"]
            )  # torch takes no negative strides or read-only data
        sound = torch.as_tensor(waveform, device=device)
        if sound.dim() != 1 or len(sound) == 0:
            raise ValueError(
                f"waveform {index} has shape {list(sound.shape)}; expected [samples], mono, with one sample or more"
            )
        if not sound.is_floating_point():
            raise ValueError(f"waveform {index} holds {sound.dtype}; convert it to float in [-1, 1]")
        sound = sound.float()
        if not all(math.isfinite(extreme) for extreme in sound.aminmax()):
            raise ValueError(f"waveform {index} holds NaN or infinite samples; repair or remove it")
        tensors.append(sound)
    return tensors


BeatsFeatureExtractor.register_for_auto_class()

__all__ = ["BeatsFeatureExtractor", "kaldi_fbank", "num_frames"]
