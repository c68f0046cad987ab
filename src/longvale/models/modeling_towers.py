"""Frozen towers of the LongVALE model: media to features, one sequence per modality."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, CLIPVisionModelWithProjection, PreTrainedConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_longvale import MODALITIES, LongVALEConfig
from .layers import pool_states, pool_windows
from .modeling_beats import BeatsModel

#: Flags of model classes that support an attention implementation; the others are kinds of flash attention.
_ATTENTION_FLAGS = {"sdpa": "_supports_sdpa", "flex_attention": "_supports_flex_attn"}

#: Modality -> field of the configuration of its tower.
TOWER_CONFIGS = {"visual": "vision_config", "audio": "audio_config", "speech": "speech_config"}


def build_towers(config: LongVALEConfig) -> dict[str, nn.Module | None]:
    """Return the tower of each modality, frozen, with random weights; None for a modality whose config is None."""
    towers: dict[str, nn.Module | None] = dict.fromkeys(MODALITIES)
    for modality, name in TOWER_CONFIGS.items():
        part = getattr(config, name)
        if part is not None:
            kind = _tower_class(modality, part)
            part._attn_implementation = supported_attention(kind, part._attn_implementation)
            towers[modality] = kind._from_config(part).requires_grad_(False)
    return towers


def _tower_class(modality: str, config: PreTrainedConfig) -> Any:
    if modality != "visual":
        return {"audio": BeatsModel, "speech": WhisperEncoder}[modality]
    if config.model_type == "clip_vision_model":
        return CLIPVisionModelWithProjection
    kind = MODEL_MAPPING[type(config)]
    return kind[0] if isinstance(kind, tuple) else kind


def supported_attention(tower_class: Any, wanted: str | None) -> str | None:
    """Return an attention implementation that a tower supports: the wanted one, else "sdpa", else "eager".

    A tower may have no attention, as a ResNet, or take its position bias in the attention mask, as BEATs, which not
    every implementation supports.

    Example:
        >>> supported_attention(BeatsModel, "flex_attention"), supported_attention(BeatsModel, "eager")
        ('sdpa', 'eager')
    """
    if wanted in (None, "eager") or getattr(tower_class, _ATTENTION_FLAGS.get(wanted, "_supports_flash_attn"), False):
        return wanted
    return "sdpa" if tower_class._supports_sdpa else "eager"


class TowersMixin:
    """Methods of a model that compute features with the towers of its base model.

    No other code runs the towers; [`LongVALEModel.forward`] and `longvale.extraction.encode` use these.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model as the base class does, with frozen towers; `model.towers` can be unfrozen afterwards."""
        loaded = super().from_pretrained(*args, **kwargs)
        for tower in (loaded[0] if isinstance(loaded, tuple) else loaded).towers:
            tower.requires_grad_(False)  # loading sets the flag of every weight
        return loaded

    @property
    def towers(self) -> list[nn.Module]:
        """Towers of the model, without those that are None. They are frozen until `requires_grad_(True)`."""
        towers = [getattr(self.base_model, f"{modality}_tower") for modality in MODALITIES]
        return [tower for tower in towers if tower is not None]

    def set_attn_implementation(self, attn_implementation: str | dict, allow_all_kernels: bool = False) -> None:
        """Set the attention implementation of all parts; towers that do not support it take another one.

        Args:
            attn_implementation: for all parts, or a dict by field of the configuration, as `{"text_config": "sdpa"}`.
            allow_all_kernels: as in the base class.
        """
        if isinstance(attn_implementation, str):
            wanted = {"": attn_implementation, "text_config": attn_implementation}
            for modality, name in TOWER_CONFIGS.items():
                tower = getattr(self.base_model, f"{modality}_tower")
                if tower is not None:
                    wanted[name] = supported_attention(type(tower), attn_implementation)
            attn_implementation = wanted
        super().set_attn_implementation(attn_implementation, allow_all_kernels=allow_all_kernels)

    def get_visual_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Return one embedding per frame: [B, F, 3, H, W] -> [B, F, width]."""
        tower = self._tower("visual", "pixel_values_videos")
        batch, frames = pixel_values_videos.shape[:2]
        outputs = tower(pixel_values_videos.flatten(0, 1).to(tower.dtype))
        embeds = getattr(outputs, "image_embeds", None)
        if embeds is None:
            embeds = getattr(outputs, "pooler_output", None)
        if embeds is None:
            embeds = outputs.last_hidden_state.mean(dim=1)
        # Convolutional towers pool to [B * F, width, 1, 1].
        return embeds.flatten(1).unflatten(0, (batch, frames))

    def get_audio_features(self, input_values: torch.Tensor, input_values_mask: torch.Tensor) -> torch.Tensor:
        """Return one embedding per window of filterbanks: [B, A, T, mels] and mask [B, A, T] -> [B, A, width]."""
        tower = self._tower("audio", "input_values")
        mask = input_values_mask.bool()

        def encode(windows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return pool_windows(tower(windows, padding_mask=~mask).last_hidden_state, ~mask)

        return encode_used(encode, mask.any(dim=-1), input_values, mask)

    def get_speech_states(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoder states of each chunk, which [`get_speech_features`] averages.

        Args:
            input_features: [B, C, mels, frames], the log-mel spectrograms of C chunks.
            input_features_mask: [B, C, frames], ones for frames to average.

        Returns:
            States [B, C, states, width] and their mask [B, C, states].
        """
        tower = self._tower("speech", "input_features")

        def encode(chunks: torch.Tensor) -> torch.Tensor:
            return tower(chunks.to(tower.dtype)).last_hidden_state

        states = encode_used(encode, input_features_mask.any(dim=-1), input_features)
        # Two mel frames give one state; a single last frame still counts.
        return states, input_features_mask[..., ::2]

    def get_speech_features(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoder states of all chunks, averaged over windows that may cross chunk borders.

        Args:
            input_features, input_features_mask: as for [`get_speech_states`].

        Returns:
            Features [B, S, width] and their mask [B, S].
        """
        states, mask = self.get_speech_states(input_features, input_features_mask)
        return pool_states(states.flatten(1, 2), mask.flatten(1), self.config.speech_window_states)

    def encode(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        visual_features_mask: torch.Tensor | None = None,
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Run the towers on raw inputs, as returned by the processor when it is called without text.

        Returns:
            For each modality given, its features [B, n, width] and their mask [B, n]: the values that are stored by
            `longvale features` and computed by [`~LongVALEModel.forward`] for raw inputs.
        """
        encoded = {}
        if pixel_values_videos is not None:
            features = self.get_visual_features(pixel_values_videos)
            mask = visual_features_mask
            encoded["visual"] = (features, ones_mask(features) if mask is None else mask)
        if input_values is not None:
            mask = input_values.new_ones(input_values.shape[:3]) if input_values_mask is None else input_values_mask
            encoded["audio"] = (self.get_audio_features(input_values, mask), mask.any(dim=-1).long())
        if input_features is not None:
            mask = input_features_mask
            if mask is None:
                mask = input_features.new_ones(*input_features.shape[:2], input_features.shape[-1])
            encoded["speech"] = self.get_speech_features(input_features, mask)
        return encoded

    def _tower(self, modality: str, name: str) -> nn.Module:
        tower = getattr(self.base_model, f"{modality}_tower")
        if tower is None:
            raise ValueError(
                f"{name} was given but this model has no {modality} tower; give {modality}_features, or load a "
                "checkpoint with towers"
            )
        if self.training and not tower.training and not torch.compiler.is_compiling() and is_released(tower):
            tower.train()  # it was released after the model was set to training
        return tower


def is_released(tower: nn.Module) -> bool:
    """Return whether a tower is trained: whether any of its parameters requires gradients."""
    return any(parameter.requires_grad for parameter in tower.parameters())


def encode_used(encode: Callable[..., torch.Tensor], used: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """Encode parts of the media of a batch, without those that only pad the batch.

    A compiled or exported graph encodes all of them, since shapes may not depend on values; the result is the same.

    Args:
        encode: function of `inputs` with one leading dimension, [N, ...] -> [N, *size].
        used: bool [B, n], false for parts that pad the batch.
        inputs: [B, n, ...].

    Returns:
        [B, n, *size], zeros for parts that pad the batch.

    Example:
        >>> encode_used(lambda values: values + 1, torch.tensor([[True, False]]), torch.tensor([[3.0, 4.0]]))
        tensor([[4., 0.]])
    """
    if torch.compiler.is_compiling():
        encoded = encode(*(values.flatten(0, 1) for values in inputs)).unflatten(0, used.shape)
        return encoded.masked_fill(~used.view(*used.shape, *[1] * (encoded.dim() - 2)), 0.0)
    encoded = encode(*(values[used] for values in inputs))
    result = encoded.new_zeros(*used.shape, *encoded.shape[1:])
    result[used] = encoded
    return result


def ones_mask(features: torch.Tensor) -> torch.Tensor:
    """Return the mask [B, n] of features [B, n, width] without padding."""
    return torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
