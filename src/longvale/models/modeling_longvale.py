"""LongVALE model: a language model that reads what is seen, heard and spoken in a video.

Each modality has a frozen tower and a linear projector; the three projected sequences are concatenated (visual, audio,
speech) and stand where the prompt has its video placeholders. Architecture: arXiv 2411.19772, section 4.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, CLIPVisionModelWithProjection
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import can_return_tuple

from .configuration_longvale import LongVALEConfig
from .modeling_beats import BeatsModel, pool_windows


MODALITIES = ("visual", "audio", "speech")

# Inputs that stand for the video: used in the prefill, dropped in later decoding steps.
VIDEO_INPUTS = (
    "visual_features",
    "audio_features",
    "speech_features",
    "visual_features_mask",
    "audio_features_mask",
    "speech_features_mask",
    "pixel_values_videos",
    "input_values",
    "input_values_mask",
    "input_features",
    "input_features_mask",
)


@dataclass
class LongVALEModelOutputWithPast(BaseModelOutputWithPast):
    """Adds `video_hidden_states` [B, n, hidden], the projected features that went into the language model."""

    video_hidden_states: torch.FloatTensor | None = None


@dataclass
class LongVALECausalLMOutputWithPast(CausalLMOutputWithPast):
    """Adds `video_hidden_states` [B, n, hidden], the projected features that went into the language model."""

    video_hidden_states: torch.FloatTensor | None = None


class LongVALEPreTrainedModel(PreTrainedModel):
    config: LongVALEConfig
    base_model_prefix = "model"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("past_key_values",)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class LongVALEModel(LongVALEPreTrainedModel):
    """Towers, projectors and the language model without its head; here features are merged into the text."""

    def __init__(self, config: LongVALEConfig):
        super().__init__(config)
        hidden_size = config.text_config.hidden_size
        self.visual_tower = _build_visual_tower(config.vision_config)
        self.audio_tower = BeatsModel._from_config(config.audio_config) if config.audio_config is not None else None
        self.speech_tower = WhisperEncoder._from_config(config.speech_config) if config.speech_config is not None else None
        self.visual_projector = nn.Linear(config.visual_feature_size, hidden_size)
        self.audio_projector = nn.Linear(config.audio_feature_size, hidden_size)
        self.speech_projector = nn.Linear(config.speech_feature_size, hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    # Towers

    def get_visual_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """One embedding a frame: [B, F, 3, H, W] -> [B, F, width]."""
        tower = self._tower("visual", "pixel_values_videos")
        batch, frames = pixel_values_videos.shape[:2]
        outputs = tower(pixel_values_videos.flatten(0, 1).to(tower.dtype))
        embeds = getattr(outputs, "image_embeds", None)
        if embeds is None:
            embeds = getattr(outputs, "pooler_output", None)
        if embeds is None:
            embeds = outputs.last_hidden_state.mean(dim=1)
        return embeds.unflatten(0, (batch, frames))

    def get_audio_features(self, input_values: torch.Tensor, input_values_mask: torch.Tensor) -> torch.Tensor:
        """One embedding a window of filterbank frames: [B, A, T, mels] and its mask [B, A, T] -> [B, A, width]."""
        tower = self._tower("audio", "input_values")
        batch, windows = input_values.shape[:2]
        used = input_values_mask.flatten(0, 1).any(dim=-1)  # [B * A]
        features = input_values.new_zeros(batch * windows, self.config.audio_feature_size, dtype=tower.dtype)
        padding = ~input_values_mask.flatten(0, 1)[used].bool()
        # The published preprocessing pads the last window and averages over the padding too.
        padding = None if self.config.preprocessing == "official" else padding
        hidden_states = tower(input_values.flatten(0, 1)[used], padding_mask=padding).last_hidden_state
        features[used] = pool_windows(hidden_states, padding)
        return features.unflatten(0, (batch, windows))

    def get_speech_features(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states of all chunks, averaged over windows that run across chunk borders.

        Args:
            input_features: [B, C, mels, frames], the log-mel spectrograms of C chunks.
            input_features_mask: [B, C, frames], ones where there is sound.

        Returns:
            features [B, S, width] and their mask [B, S].
        """
        tower = self._tower("speech", "input_features")
        used = input_features_mask.any(dim=-1)  # [B, C]
        encoded = tower(input_features[used].to(tower.dtype)).last_hidden_state
        states = encoded.new_zeros(*used.shape, *encoded.shape[1:])
        states[used] = encoded
        states = states.flatten(1, 2)  # [B, C * states, width]
        # Two mel frames give one state; a lone last frame still counts.
        mask = input_features_mask[..., ::2].flatten(1)  # [B, C * states]
        return pool_states(states, mask, self.config.speech_window_states)

    def encode(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        visual_features_mask: torch.Tensor | None = None,
        **unused,
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Run the towers on raw inputs, as the processor gives them.

        Returns:
            For each modality given, its features [B, n, width] and their mask [B, n]: what `longvale features` stores
            and what [`~LongVALEModel.forward`] computes when it is given raw inputs.
        """
        encoded = {}
        if pixel_values_videos is not None:
            features = self.get_visual_features(pixel_values_videos)
            mask = visual_features_mask
            encoded["visual"] = (features, _ones_mask(features) if mask is None else mask)
        if input_values is not None:
            mask = input_values.new_ones(input_values.shape[:3]) if input_values_mask is None else input_values_mask
            encoded["audio"] = (self.get_audio_features(input_values, mask), mask.any(dim=-1).long())
        if input_features is not None:
            mask = input_features_mask
            if mask is None:
                mask = input_features.new_ones(*input_features.shape[:2], input_features.shape[-1])
            encoded["speech"] = self.get_speech_features(input_features, mask)
        return encoded

    # Merge

    def get_video_embeddings(
        self, features: dict[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project and concatenate the modalities: -> [B, n, hidden] and mask [B, n]."""
        embeddings, masks = [], []
        for modality in MODALITIES:
            if modality not in features:
                continue
            values, mask = features[modality]
            projector = getattr(self, f"{modality}_projector")
            width = getattr(self.config, f"{modality}_feature_size")
            if values.ndim != 3 or values.shape[-1] != width:
                raise ValueError(
                    f"{modality}_features must be [batch, n, {width}], as the projector reads them, "
                    f"but are {list(values.shape)}; extract them with this model's towers"
                )
            if mask.shape != values.shape[:2]:
                raise ValueError(
                    f"{modality}_features_mask must be {list(values.shape[:2])} but is {list(mask.shape)}"
                )
            mask = mask.to(values.device).bool()
            projected = projector(values.to(_weight(projector).dtype))
            if self.config.time_embedding == "fourier":
                times = fourier_times(mask, projected.shape[-1]).to(projected)
                projected = projected + self.config.time_embedding_scale * times
            embeddings.append(projected)
            masks.append(mask)
        return torch.cat(embeddings, dim=1), torch.cat(masks, dim=1)

    def get_placeholder_mask(self, input_ids: torch.Tensor, video_mask: torch.Tensor) -> torch.Tensor:
        """Where the placeholders stand [B, L]; every row must have as many as it has features."""
        placeholders = input_ids == self.config.video_token_id
        wanted, given = placeholders.sum(dim=1), video_mask.sum(dim=1)
        if not torch.equal(wanted, given.to(wanted.device)):
            row = int((wanted != given).nonzero()[0])
            raise ValueError(
                f"row {row} of input_ids has {int(wanted[row])} video placeholders but {int(given[row])} features; "
                "build both with the processor"
            )
        return placeholders

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        visual_features: torch.FloatTensor | None = None,
        audio_features: torch.FloatTensor | None = None,
        speech_features: torch.FloatTensor | None = None,
        visual_features_mask: torch.Tensor | None = None,
        audio_features_mask: torch.Tensor | None = None,
        speech_features_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> LongVALEModelOutputWithPast:
        r"""
        Args:
            input_ids: [B, L]; `config.video_token_id` once for each feature of the row.
            visual_features: [B, F, visual width], one a frame; likewise `audio_features` [B, A, audio width] and
                `speech_features` [B, S, speech width], padded on the right.
            visual_features_mask: [B, F], ones for features and zeros for padding; all ones when left out.
            pixel_values_videos: [B, F, 3, H, W], in place of `visual_features`.
            input_values: [B, A, T, mels] filterbanks, in place of `audio_features`; `input_values_mask` [B, A, T].
            input_features: [B, C, mels, frames] log-mel chunks, in place of `speech_features`;
                `input_features_mask` [B, C, frames].

        Raises:
            ValueError: if a row's placeholders and features differ in number, a modality is given both raw and as
                features, or a feature has another width than its projector.
            TypeError: for an unknown name that looks like an input, such as a misspelt `audio_feature`.
        """
        _refuse_unknown_inputs(kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")

        features = self.encode(
            pixel_values_videos, input_values, input_values_mask, input_features, input_features_mask,
            visual_features_mask,
        )  # fmt: skip
        stored = {
            "visual": (visual_features, visual_features_mask),
            "audio": (audio_features, audio_features_mask),
            "speech": (speech_features, speech_features_mask),
        }
        for modality, (values, mask) in stored.items():
            if values is None:
                continue
            if modality in features:
                raise ValueError(f"{modality} is given twice, raw and as {modality}_features; give one of them")
            features[modality] = (values, _ones_mask(values) if mask is None else mask)

        video_embeddings = None
        if inputs_embeds is None:
            placeholders = input_ids == self.config.video_token_id
            # The placeholder may lie beyond the vocabulary: look up any token there, it is replaced below.
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
            if features:
                video_embeddings, video_mask = self.get_video_embeddings(features)
                placeholders = self.get_placeholder_mask(input_ids, video_mask)
                inputs_embeds = inputs_embeds.masked_scatter(
                    placeholders.unsqueeze(-1), video_embeddings[video_mask].to(inputs_embeds)
                )
            elif input_ids.shape[1] > 1 and placeholders.any():
                raise ValueError(
                    f"input_ids has {int(placeholders.sum())} video placeholders but no features were given"
                )
        if self.training:
            inputs_embeds = self._touch_absent_projectors(inputs_embeds, features)

        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return LongVALEModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=video_embeddings,
        )

    def _touch_absent_projectors(self, inputs_embeds: torch.Tensor, features: dict) -> torch.Tensor:
        # With several processes, all must reduce the same gradients: a modality absent here may be present elsewhere.
        for modality in MODALITIES:
            if modality not in features:
                projector = getattr(self, f"{modality}_projector")
                zeros = inputs_embeds.new_zeros(1, getattr(self.config, f"{modality}_feature_size"))
                inputs_embeds = inputs_embeds + 0.0 * projector(zeros.to(_weight(projector).dtype)).sum().to(inputs_embeds)
        return inputs_embeds

    def _tower(self, modality: str, name: str) -> nn.Module:
        tower = getattr(self, f"{modality}_tower")
        if tower is None:
            raise ValueError(
                f"{name} was given but this model has no {modality} tower; give {modality}_features, or load a "
                "checkpoint with towers"
            )
        return tower


class LongVALEForConditionalGeneration(LongVALEPreTrainedModel, GenerationMixin):
    """LongVALE-LLM: [`LongVALEModel`] and a language modelling head.

    Example:

    ```python
    >>> import torch
    >>> from transformers import LlamaConfig
    >>> from longvale.models.configuration_longvale import LongVALEConfig
    >>> from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    >>> text = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    ...                    num_attention_heads=2, num_key_value_heads=2)
    >>> model = LongVALEForConditionalGeneration(LongVALEConfig(text_config=text, video_token_id=32))
    >>> ids = torch.tensor([[1, 32, 32, 32, 5]])
    >>> model(input_ids=ids, visual_features=torch.zeros(1, 2, 768), audio_features=torch.zeros(1, 1, 768)).logits.shape
    torch.Size([1, 5, 32])

    ```
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LongVALEConfig):
        super().__init__(config)
        self.model = LongVALEModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def encode(self, **inputs) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Run the towers; see [`LongVALEModel.encode`]."""
        return self.model.encode(**inputs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        visual_features: torch.FloatTensor | None = None,
        audio_features: torch.FloatTensor | None = None,
        speech_features: torch.FloatTensor | None = None,
        visual_features_mask: torch.Tensor | None = None,
        audio_features_mask: torch.Tensor | None = None,
        speech_features_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> LongVALECausalLMOutputWithPast:
        r"""
        Args:
            labels: [B, L], the ids to predict, -100 where there is no loss.
            logits_to_keep: how many of the last positions get logits; 0 for all.

        The other arguments are those of [`LongVALEModel.forward`].
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            visual_features=visual_features,
            audio_features=audio_features,
            speech_features=speech_features,
            visual_features_mask=visual_features_mask,
            audio_features_mask=audio_features_mask,
            speech_features_mask=speech_features_mask,
            pixel_values_videos=pixel_values_videos,
            input_values=input_values,
            input_values_mask=input_values_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden_states[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        return LongVALECausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=outputs.video_hidden_states,
        )

    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and inputs.get("past_key_values") is not None:
            # The cache holds the video already: in later steps there are no placeholders left to fill.
            for name in VIDEO_INPUTS:
                inputs.pop(name, None)
        return inputs


def pool_states(states: torch.Tensor, mask: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Average each stretch of `window` states, leaving padding out.

    Args:
        states: [B, n, width].
        mask: [B, n], ones for states and zeros for padding, which lies at the end of a row.
        window: states a window; the last one of a row may be shorter.

    Returns:
        features [B, ceil(n / window), width] and their mask [B, ceil(n / window)].

    Example:

    ```python
    >>> features, mask = pool_states(torch.tensor([[[1.0], [3.0], [5.0], [9.0]]]), torch.tensor([[1, 1, 1, 0]]), 2)
    >>> features.flatten().tolist(), mask.tolist()
    ([2.0, 5.0], [[1, 1]])

    ```
    """
    padding = -states.shape[1] % window
    mask = nn.functional.pad(mask.to(states.dtype), (0, padding)).unflatten(1, (-1, window)).unsqueeze(-1)
    states = nn.functional.pad(states, (0, 0, 0, padding)).unflatten(1, (-1, window))  # [B, S, window, width]
    counts = mask.sum(dim=2)
    return (states * mask).sum(dim=2) / counts.clamp(min=1), (counts.squeeze(-1) > 0).long()


def fourier_times(mask: torch.Tensor, width: int) -> torch.Tensor:
    """Where in the video each token lies, as Fourier features.

    Every modality covers the whole video, so that token i of n is centred at (i + 1/2) / n of the duration. Component k
    is the cosine (first half) or sine (second half) of pi k times that share, k = 1, 2, ...: the mean over a stretch of
    tokens then tells both its middle and its length.

    Args:
        mask: [B, n], true for tokens; padding lies at the end.
        width: of the result; odd widths end with a zero.

    Returns:
        [B, n, width] in [-1, 1].
    """
    mask = mask.float()
    share = ((mask.cumsum(dim=1) - 0.5) / mask.sum(dim=1, keepdim=True).clamp(min=1)).unsqueeze(-1)
    angles = math.pi * share * torch.arange(1, width // 2 + 1, device=mask.device)
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))


def _build_visual_tower(config) -> nn.Module | None:
    if config is None:
        return None
    if config.model_type == "clip_vision_model":
        return CLIPVisionModelWithProjection._from_config(config)
    return AutoModel.from_config(config)


def _ones_mask(features: torch.Tensor) -> torch.Tensor:
    return torch.ones(features.shape[:2], dtype=torch.long, device=features.device)


def _weight(projector: nn.Module) -> torch.Tensor:
    # Adapters wrap a projector and keep the trained copy as a module of its own: ask for any parameter.
    return next(projector.parameters())


def _refuse_unknown_inputs(kwargs: dict) -> None:
    endings = ("feature", "features", "values", "videos", "features_mask", "values_mask", "feature_mask")
    unknown = [name for name in kwargs if name.endswith(endings)]
    if unknown:
        raise TypeError(f"unknown input {unknown[0]!r}; video inputs are {', '.join(VIDEO_INPUTS)}")


# A call each: without it the code is not saved beside the weights. `auto_map` in the configuration names all of them.
LongVALEModel.register_for_auto_class("AutoModel")
LongVALEForConditionalGeneration.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["LongVALEForConditionalGeneration", "LongVALEModel", "LongVALEPreTrainedModel"]
