"""Configuration of LongVALE models: three towers, three projectors, one language model."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from .configuration_beats import BeatsConfig

#: The order in which a model reads them.
MODALITIES = ("visual", "audio", "speech")

#: Widths of the published features (CLIP ViT-L/14, BEATs, Whisper large).
PUBLISHED_SIZES = {"visual": 768, "audio": 768, "speech": 1280}


@strict
class LongVALEConfig(PreTrainedConfig):
    r"""
    Configuration of [`LongVALEModel`] and [`LongVALEForConditionalGeneration`].

    The defaults are those of the published LongVALE-LLM (arXiv 2411.19772): a Llama-family language model that reads
    CLIP, BEATs and Whisper embeddings through three linear projectors. A tower may be left out (`None`): the model then
    takes that modality as stored features only.

    Args:
        text_config (`dict` or `PreTrainedConfig`): any causal language model of transformers.
        vision_config (`dict` or `PreTrainedConfig`, *optional*): any vision model of transformers; `clip_vision_model`
            is used with its projection, others by their pooled output (`visual_feature_size` must then be given if the
            configuration has no `hidden_size`).
        audio_config (`dict` or [`BeatsConfig`], *optional*): the sound tower.
        speech_config (`dict` or `WhisperConfig`, *optional*): the speech tower, of which only the encoder is built.
        visual_feature_size (`int`, *optional*): width of the visual features, 768 unless the tower says otherwise.
        audio_feature_size (`int`, *optional*): width of the sound features, 768 unless the tower says otherwise.
        speech_feature_size (`int`, *optional*): width of the speech features, 1280 unless the tower says otherwise.
        num_frames (`int`): frames taken from a video, 100 in the paper.
        audio_window_frames (`int`): filterbank frames (10 ms each) of a sound token; 512 is 5.12 s.
        speech_window_states (`int`): Whisper encoder states (20 ms each) of a speech token; 256 is 5.12 s.
        video_token_id (`int`): the placeholder in `input_ids`; it may lie beyond the vocabulary, since placeholders are
            never looked up in the embedding table.
        time_embedding (`str`): `"none"` as published, or `"fourier"`: each video token also carries where in the video
            it lies, as the Fourier features of its share of the duration. This is not in the paper; it makes reading
            times far easier to learn for small models.
        time_embedding_scale (`float`): amplitude of these features.
        tuned_tasks (`list[str]`): whose questions it was tuned on, in the published words: `"grounding"`,
            `"dense_captioning"`, `"segment_captioning"`; `"free"` for questions in any words. `longvale ask` warns of
            others.
        preprocessing (`str`): how the processor reads media, see [`LongVALEProcessor`]; kept here for the record. The
            model itself takes from the masks what counts.

    Raises:
        ValueError: if a number is not positive, or a feature size is not what its tower gives.

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
    # Trainers of vision-language models ask for `image_token_id`.
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
    preprocessing: Literal["strict", "official"] = "strict"
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        # Remote code: which class stands behind which Auto class when the checkpoint is loaded without this library.
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
        """Width of the features of each modality: visual, audio, speech."""
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
