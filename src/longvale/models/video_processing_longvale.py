"""Video processor of LongVALE models: reads files, selects frames, converts frames to the input of the visual tower."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import load_image
from transformers.processing_utils import ProcessorMixin
from transformers.video_processing_utils import BaseVideoProcessor

from .media import Media, probe, read_media

#: Suffixes of the files that a list may contain as the frames of one video.
_IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

#: Options of a call that select frames; the others are options of the image processor.
_SAMPLING = ("num_frames", "fps", "do_sample_frames", "video_metadata")

#: Options of a call that do not concern the image processor.
_NOT_OF_IMAGES = (*_SAMPLING, "input_data_format", "return_metadata")

#: Options of the published preprocessing that a call may change; the others are fixed.
_OFFICIAL_OPTIONS = {"size", "crop_size", "image_mean", "image_std", "device", "input_data_format", "data_format"}


class LongVALEVideoProcessor(BaseVideoProcessor):
    r"""
    Video processor that reads files with [`read_media`] and prepares frames with an image processor of transformers.

    Args:
        num_frames (`int`, defaults to 100): frames per video file.
        preprocessing (`str`, defaults to `"strict"`): `"strict"` or `"official"`, see [`LongVALEProcessor`].
        frame_processor_type (`str`, defaults to `"CLIPImageProcessor"`): name of the image processor class that
            prepares the frames.
        kwargs: options of that class, such as `size`, `crop_size` and `image_mean`; by default its own.

    Raises:
        ValueError: if an option is out of range, or official preprocessing lacks a shortest edge and a crop.

    Example:

    ```python
    >>> processor = LongVALEVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    >>> frames = np.zeros((20, 48, 64, 3), np.uint8)  # channels may also come first
    >>> processor(frames, num_frames=4, return_tensors="pt")["pixel_values_videos"].shape
    torch.Size([1, 4, 3, 32, 32])

    ```
    """

    model_input_names = ["pixel_values_videos", "visual_features_mask"]  # noqa: RUF012
    num_frames = 100
    preprocessing = "strict"
    frame_processor_type = "CLIPImageProcessor"

    def __init__(self, **kwargs: Any):
        kind = _image_processor_class(kwargs.get("frame_processor_type") or self.frame_processor_type)
        names = kind.valid_kwargs.__annotations__
        given = kind(**{name: value for name, value in kwargs.items() if name in names and value is not None})
        super().__init__(**kwargs | {name: getattr(given, name, None) for name in names})
        self.check()

    def check(self) -> None:
        """Refuse options that are out of range.

        Raises:
            ValueError: naming the option.
        """
        if self.num_frames < 1:
            raise ValueError(f"num_frames must be 1 or more, not {self.num_frames}")
        if self.preprocessing not in ("strict", "official"):
            raise ValueError(f"preprocessing must be 'strict' or 'official', not {self.preprocessing!r}")
        if self.preprocessing == "official" and not (self.crop_size and "shortest_edge" in dict(self.size or {})):
            raise ValueError(
                "official preprocessing resizes to a shortest edge and crops: give an image processor with "
                "size={'shortest_edge': ...} and crop_size"
            )

    @classmethod
    def from_image_processor(cls, image_processor: Any, **kwargs: Any) -> "LongVALEVideoProcessor":
        """Create a video processor that prepares frames as an image processor does.

        Args:
            image_processor: of the visual tower; its class must be one of transformers or registered there.
            kwargs: other options, such as `num_frames`.
        """
        options = image_processor.to_dict()
        options.pop("image_processor_type", None)
        return cls(**options | {"frame_processor_type": type(image_processor).__name__} | kwargs)

    @property
    def image_processor(self) -> Any:
        """Image processor with the options of this video processor."""
        kind = _image_processor_class(self.frame_processor_type)
        return kind(**{name: getattr(self, name, None) for name in kind.valid_kwargs.__annotations__})

    def media_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of [`read_media`] that read a file's frames."""
        size = None
        # Scaling while decoding saves memory; the published preprocessing resizes the full frame.
        if self.preprocessing == "strict" and self.do_resize:
            wanted = dict(self.size)
            size = wanted.get("shortest_edge") or max(wanted.get("height") or 0, wanted.get("width") or 0) or None
        return {"num_frames": self.num_frames, "size": size, "decode": self.preprocessing}

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Read videos and prepare their frames.

        Args:
            videos: one video or a list of them, see [`LongVALEProcessor`].
            kwargs: `num_frames`, `fps`, `do_sample_frames`, `video_metadata`, options of the image processor,
                `return_metadata` and `return_tensors`.

        Returns:
            `pixel_values_videos` [B, F, 3, H, W], padded, and `visual_features_mask` [B, F], ones for frames.
        """
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        return_tensors, return_metadata = kwargs.pop("return_tensors", None), kwargs.pop("return_metadata", False)
        media = [self.read(video, row, **kwargs) for row, video in enumerate(video_rows(videos))]
        missing = [row for row, one in enumerate(media) if one.frames is None]
        if missing:
            raise ValueError(f"video {missing[0]} has no picture")
        pixels, mask = pad([self.pixels(one.frames, **kwargs) for one in media], "pixel_values_videos")
        data = to_type({"pixel_values_videos": pixels, "visual_features_mask": mask}, return_tensors)
        if return_metadata:
            data["video_metadata"] = [{"duration": m.duration, "frame_times": m.frame_times.tolist()} for m in media]
        return BatchFeature(data)

    def read(self, video: Any, row: int = 0, sampling_rate: int | None = None, **kwargs: Any) -> Media:
        """Read one video: a file with its sound, or the selected frames of an array.

        Args:
            video: a path, a URL, bytes, an open file, a value of a `Video` column of datasets, a [`Media`], frames as
                uint8 [F, H, W, 3] or [F, 3, H, W], or a list of images; None or an empty list for no video.
            row: index of the video in its batch, for messages.
            sampling_rate: sampling rate of the sound of files in Hz; by default that of [`read_media`].
            kwargs: as for [`preprocess`].

        Raises:
            ValueError: if the video has another form, or frames cannot be selected as requested.
        """
        sampling = {name: kwargs.get(name) for name in _SAMPLING}
        if sampling["num_frames"] is not None and sampling["fps"] is not None:
            raise ValueError("num_frames and fps exclude each other; give one of them")
        video = _unwrap(video, row)
        if is_file(video):
            options = self.media_kwargs() | ({} if sampling_rate is None else {"sampling_rate": sampling_rate})
            return read_media(video, **options | self._frame_count(video, sampling))
        # Not `isinstance`: the caller's `Media` may be a class of another copy of the code.
        if hasattr(video, "waveform"):
            frames, duration, times = video.frames, video.duration, video.frame_times
            waveform, rate = video.waveform, video.sampling_rate
        else:
            frames, duration, times, waveform, rate = video, 0.0, np.empty(0), None, sampling_rate or 0
        if frames is not None:
            if isinstance(frames, list | tuple) and sampling["do_sample_frames"]:
                raise ValueError(
                    "Sampling frames from a list of images is not supported! Set `do_sample_frames=False`."
                )
            frames = _check_frames(frames, row, kwargs.get("input_data_format"))
            frames = frames[self._indices(len(frames), row, **sampling)]
        return Media(duration, frames, times, waveform, rate)

    def pixels(self, frames: np.ndarray, **kwargs: Any) -> torch.Tensor:
        """Convert frames uint8 [F, H, W, 3] to the input of the visual tower, float32 [F, 3, H, W].

        Args:
            frames: frames in RGB.
            kwargs: options of the image processor that differ from those of this video processor.
        """
        changed = {name: v for name, v in kwargs.items() if name not in _NOT_OF_IMAGES}
        if self.preprocessing == "strict":
            options = {"input_data_format": "channels_last", "return_tensors": "pt"}
            return self.image_processor(list(frames), **changed | options)["pixel_values"]
        fixed = changed.keys() - _OFFICIAL_OPTIONS
        if fixed:
            raise ValueError(f"official preprocessing has a fixed {min(fixed)}; use preprocessing='strict'")
        options = self.image_processor if not changed else type(self)(**self.to_dict() | changed)
        edge, crop = options.size["shortest_edge"], (options.crop_size["height"], options.crop_size["width"])
        pixels = torch.stack([_resize_and_crop(torch.tensor(frame).permute(2, 0, 1), edge, crop) for frame in frames])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (options.image_mean, options.image_std))
        return ((pixels - mean) / std).to(changed.get("device") or "cpu")

    def _frame_count(self, video: Any, sampling: dict[str, Any]) -> dict[str, int]:
        """Return the number of frames to read from a file, if a call determines it."""
        if sampling["num_frames"] is not None:
            return {"num_frames": sampling["num_frames"]}
        if sampling["fps"] is None and sampling["do_sample_frames"] is not False:
            return {}
        info = probe(video)
        rate = sampling["fps"] if sampling["do_sample_frames"] is not False else info.frame_rate
        if not info.has_video:
            return {}
        if info.duration is None or rate is None:
            raise ValueError(f"{video}: the header has no duration or frame rate; give num_frames")
        return {"num_frames": max(1, round(info.duration * rate))}

    def _indices(
        self,
        count: int,
        row: int,
        num_frames: int | None,
        fps: float | None,
        do_sample_frames: bool | None,
        video_metadata: Any,
    ) -> np.ndarray:
        """Return the indices of the frames to take from an array of `count` frames; by default all."""
        wanted = num_frames
        if do_sample_frames is False or (not do_sample_frames and num_frames is None and fps is None):
            wanted = count
        elif fps is not None:
            rate = _of_row(video_metadata, row).get("fps")
            if not rate:
                raise ValueError(f"fps={fps} needs the frame rate of video {row}; give video_metadata={{'fps': ...}}")
            wanted = max(1, round(count / rate * fps))
        wanted = min(wanted or self.num_frames, count)
        if self.preprocessing == "official":
            return np.linspace(0, count - 1, wanted).astype(int)
        return ((np.arange(wanted) + 0.5) / wanted * count).astype(int)


def is_file(video: Any) -> bool:
    """Return whether a video is a path, a URL, bytes, an open file or a value of a column of datasets."""
    is_value = isinstance(video, dict) or hasattr(video, "_hf_encoded")
    return isinstance(video, str | PathLike | bytes) or hasattr(video, "read") or is_value


def as_rows(values: Any, batch_dimensions: int) -> list:
    """Return a list with one entry per text: lists and arrays of `batch_dimensions` have one entry per text."""
    if isinstance(values, list | tuple) or getattr(values, "ndim", None) == batch_dimensions:
        return list(values)
    return [values]


def video_rows(videos: Any) -> list:
    """Return a list with one video per text; images in a list are the frames of one video."""
    if isinstance(videos, list | tuple) and len(videos) and all(_is_image(image) for image in videos):
        return [videos]
    return as_rows(videos, 5)


def pad(rows: Sequence[torch.Tensor | None], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack [n_i, ...] into [B, max n, ...] padded with zeros on the right; also returns the mask [B, max n]."""
    present = [row for row in rows if row is not None]
    shapes = sorted({tuple(row.shape[1:]) for row in present})
    if len(shapes) > 1:
        raise ValueError(f"{name} of one batch have different shapes: {', '.join(map(str, shapes))}")
    lengths = [0 if row is None else len(row) for row in rows]
    batch = present[0].new_zeros(len(rows), max(lengths), *shapes[0])
    mask = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if length:
            batch[i, :length] = row
            mask[i, :length] = 1
    return batch, mask


def to_type(data: dict[str, Any], return_tensors: str | None) -> dict[str, Any]:
    """Convert tensors to arrays if `return_tensors` is "np"; "pt" and None keep them.

    Raises:
        ValueError: for another type.
    """
    kind = getattr(return_tensors, "value", return_tensors)
    if kind not in ("pt", "np", None):
        raise ValueError(f"return_tensors must be 'pt' or 'np', not {kind!r}")
    return {name: value.numpy() if kind == "np" else value for name, value in data.items()}


def batch_features(stored: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Return stored features by modality as model inputs, and the number of features per video.

    Raises:
        ValueError: if an array is not finite [n, width], or modalities have different numbers of videos.
    """
    columns = {modality: as_rows(values, 3) for modality, values in stored.items()}
    rows = {len(column) for column in columns.values()}
    if len(rows) > 1:
        raise ValueError(f"modalities have features for different numbers of videos: {sorted(rows)}")
    data, counts = {}, [0] * rows.pop()
    for modality, column in columns.items():
        arrays = [None if a is None else _check_features(a, modality, row) for row, a in enumerate(column)]
        arrays = [None if a is None or not len(a) else a for a in arrays]
        if all(a is None for a in arrays):
            continue
        name = f"{modality}_features"
        data[name], data[f"{name}_mask"] = pad(arrays, name)
        counts = [count + (0 if a is None else len(a)) for count, a in zip(counts, arrays, strict=True)]
    return data, counts


def _check_features(values, modality: str, row: int) -> torch.Tensor:
    features = torch.as_tensor(values if isinstance(values, torch.Tensor) else np.array(values)).float()
    if features.ndim != 2:
        raise ValueError(f"{modality}_features of video {row} must be [n, width], not {list(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError(f"{modality}_features of video {row} hold NaN or infinity; extract them again")
    return features


def _image_processor_class(name: str) -> type:
    try:
        return ProcessorMixin.get_possibly_dynamic_module(name)
    except ValueError:
        raise ValueError(f"image processor {name!r} is not a class of transformers; register it there") from None


def _is_image(value: Any) -> bool:
    return hasattr(value, "getbands") or (not isinstance(value, list | tuple) and getattr(value, "ndim", None) == 3)


def _unwrap(video: Any, row: int) -> Any:
    """Return the video of a row of a conversation, which is a list of videos; images in a list are frames."""
    if not isinstance(video, list | tuple):
        return video
    if len(video) == 1 and not _is_image(video[0]):
        return _unwrap(video[0], row)
    if not len(video):
        return None
    if all(isinstance(part, str) and part.lower().endswith(_IMAGE_SUFFIXES) for part in video):
        return [load_image(part) for part in video]
    if any(is_file(part) or getattr(part, "ndim", None) == 4 for part in video):
        raise ValueError(f"text {row} has {len(video)} videos; give one video a text")
    return video


def _check_frames(frames: Any, row: int, input_data_format: Any) -> np.ndarray:
    """Return frames as an array uint8 [F, H, W, 3]."""
    if isinstance(frames, list | tuple):
        frames = [frame.convert("RGB") if hasattr(frame, "getbands") else frame for frame in frames]
        sizes = {np.shape(frame) for frame in frames}
        if len(sizes) > 1:
            raise ValueError(f"frames of video {row} have different shapes: {', '.join(map(str, sorted(sizes)))}")
    frames = np.asarray(frames)
    first = getattr(input_data_format, "value", input_data_format)
    if frames.ndim == 4 and first != "channels_last" and frames.shape[1] == 3 and (first or frames.shape[-1] != 3):
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"frames of video {row} must be uint8 [F, H, W, 3] or [F, 3, H, W] in RGB, "
            f"not {frames.dtype} {list(frames.shape)}"
        )
    return frames


def _of_row(metadata: Any, row: int) -> Any:
    """Return the metadata of a row, given once, per row, or per row and video."""
    if isinstance(metadata, list | tuple):
        return _of_row(metadata[row], 0) if row < len(metadata) else {}
    return {} if metadata is None else metadata


def _resize_and_crop(image: torch.Tensor, edge: int, crop: tuple[int, int]) -> torch.Tensor:
    """Apply the published image transform, uint8 [3, H, W] -> float32 [3, *crop] in about [0, 1].

    torchvision's `Resize(edge, BICUBIC)` and `CenterCrop` on float tensors: bicubic without antialiasing or clamping.
    """
    height, width = image.shape[1:]
    scale = edge / min(height, width)
    size = [edge if side == min(height, width) else int(scale * side) for side in (height, width)]
    resized = interpolate(image[None] / 255, size=size, mode="bicubic", align_corners=False)[0]
    top, left = (round((side - kept) / 2) for side, kept in zip(size, crop, strict=True))
    return resized[:, top : top + crop[0], left : left + crop[1]]


LongVALEVideoProcessor.register_for_auto_class()

__all__ = ["LongVALEVideoProcessor"]
