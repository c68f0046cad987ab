"""Configuration of LongVALE models: three towers, three projectors, one language model."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from .configuration_beats import BeatsConfig

#: The modalities, in the order in which the model reads them.
MODALITIES = ("visual", "audio", "speech")

#: Widths of the published features (CLIP ViT-L/14, BEATs, Whisper large).
PUBLISHED_SIZES = {"visual": 768, "audio": 768, "speech": 1280}


@strict
class LongVALEConfig(PreTrainedConfig):
    r"""
    Configuration of [`LongVALEModel`] and [`LongVALEForConditionalGeneration`].

    The defaults are those of the published LongVALE-LLM (arXiv 2411.19772): a Llama-family language model that reads
    CLIP, BEATs and Whisper embeddings through three linear projectors. A tower may be `None`: the model then accepts
    that modality only as stored features.

    Args:
        text_config (`dict` or `PreTrainedConfig`): any causal language model of transformers.
        vision_config (`dict` or `PreTrainedConfig`, *optional*): any vision model of transformers; `clip_vision_model`
            is used with its projection, other models with their pooled output (`visual_feature_size` is then required
            if the configuration has no `hidden_size`).
        audio_config (`dict` or [`BeatsConfig`], *optional*): the sound tower.
        speech_config (`dict` or `WhisperConfig`, *optional*): the speech tower; only its encoder is built.
        visual_feature_size (`int`, *optional*): width of the visual features; by default that of the tower, or 768.
        audio_feature_size (`int`, *optional*): width of the sound features; by default that of the tower, or 768.
        speech_feature_size (`int`, *optional*): width of the speech features; by default that of the tower, or 1280.
        num_frames (`int`): frames per video, 100 in the paper.
        audio_window_frames (`int`): filterbank frames (10 ms each) per sound token; 512 is 5.12 s.
        speech_window_states (`int`): Whisper encoder states (20 ms each) per speech token; 256 is 5.12 s.
        video_token_id (`int`): id of the placeholder in `input_ids`. It may be outside the vocabulary, because
            placeholders are never looked up in the embedding table.
        time_embedding (`str`): `"none"` as published, or `"fourier"`: add to each video token the Fourier features of
            its relative position in the video. This is not in the paper; with it, small models learn to read times far
            more easily.
        time_embedding_scale (`float`): amplitude of these features.
        tuned_tasks (`list[str]`): tasks that the model was tuned on, in the published wording: `"grounding"`,
            `"dense_captioning"`, `"segment_captioning"`; `"free"` for questions in any wording. `longvale ask` warns
            about other questions.
        time_format (`str`): how the model writes times: `"percent"` as published, two-digit percentages of a duration,
            or another format of `longvale list time_formats`, in which evaluation then asks.
        preprocessing (`str`): how the processor reads media, see [`LongVALEProcessor`]. Recorded here for information:
            the model itself relies on the masks.

    Raises:
        ValueError: if a number is not positive, or a feature size differs from the width of its tower.

    Example:

    ```python
    >>> from transformers import LlamaConfig
    >>> from longvale.models.configuration_longvale import LongVALEConfig
    >>> config = LongVALEConfig(text_config=LlamaConfig(hidden_size=64))
    >>> config.visual_feature_size, config.speech_feature_size
    (768, 1280)

    ```
    """

    model_type = "longvale"
    # Trainers of vision-language models read `image_token_id`.
    attribute_map = {"image_token_id": "video_token_id"}  # noqa: RUF012

    sub_configs_defaults = {  # noqa: RUF012
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model", optional=True),
        "audio_config": SubConfigSpec(config_class=BeatsConfig, optional=True),
        "speech_config": SubConfigSpec(config_class=AutoConfig, model_type="whisper", optional=True),
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    speech_config: dict | PreTrainedConfig | None = None
    visual_feature_size: int | None = None
    audio_feature_size: int | None = None
    speech_feature_size: int | None = None
    num_frames: int = 100
    audio_window_frames: int = 512
    speech_window_states: int = 256
    video_token_id: int = 32000
    time_embedding: Literal["none", "fourier"] = "none"
    time_embedding_scale: float = 0.02
    tuned_tasks: list[str] | tuple[str, ...] = ("grounding", "dense_captioning", "segment_captioning")
    time_format: str = "percent"
    preprocessing: Literal["strict", "official"] = "strict"
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        # Remote code: the class of each Auto class when the checkpoint is loaded without this library.
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_longvale.LongVALEConfig",
                "AutoModel": "modeling_longvale.LongVALEModel",
                "AutoModelForCausalLM": "modeling_longvale.LongVALEForConditionalGeneration",
                "AutoModelForImageTextToText": "modeling_longvale.LongVALEForConditionalGeneration",
                "AutoModelForMultimodalLM": "modeling_longvale.LongVALEForConditionalGeneration",
                "AutoProcessor": "processing_longvale.LongVALEProcessor",
            },
        )
        super().__post_init__(**kwargs)
        for name in ("num_frames", "audio_window_frames", "speech_window_states"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        widths = {
            "visual": _vision_width(self.vision_config, self.visual_feature_size),
            "audio": getattr(self.audio_config, "hidden_size", None),
            "speech": getattr(self.speech_config, "d_model", None),
        }
        for modality, width in widths.items():
            name = f"{modality}_feature_size"
            given = getattr(self, name)
            if given is not None and width is not None and given != width:
                raise ValueError(f"{name} is {given} but the tower gives {width}; leave it out or change the tower")
            setattr(self, name, given or width or PUBLISHED_SIZES[modality])
        if self.text_config.tie_word_embeddings:
            self.tie_word_embeddings = True

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Return the feature width of each modality: visual, audio, speech."""
        return {modality: getattr(self, f"{modality}_feature_size") for modality in MODALITIES}


def _vision_width(config: PreTrainedConfig | None, given: int | None) -> int | None:
    if config is None:
        return None
    width = config.projection_dim if config.model_type == "clip_vision_model" else getattr(config, "hidden_size", None)
    if width is None and given is None:
        raise ValueError(f"the width of a {config.model_type} tower is not known; give visual_feature_size")
    return width


LongVALEConfig.register_for_auto_class()

__all__ = ["LongVALEConfig"]
