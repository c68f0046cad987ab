"""LongVALE model: a language model that reads the visual content, sound and speech of a video.

Each modality has a frozen tower and a linear projector. The three projected sequences are concatenated (visual, audio,
speech) and replace the video placeholders of the prompt. Architecture: arXiv 2411.19772, section 4.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers.cache_utils import Cache
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .configuration_longvale import MODALITIES, LongVALEConfig
from .layers import check_all, fourier_times, guard_convolutions, mark_placeholders, merge_embeddings
from .modeling_towers import TowersMixin, build_towers, is_released, ones_mask

# Inputs of the video: used in the prefill, dropped in later decoding steps.
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

# Arguments of `generate` that transformers also passes to the model, which needs none of them.
GENERATION_ARGUMENTS = ("tokenizer", "assistant_tokenizer")

# Other inputs that are passed to the language model; any other name is an error.
LANGUAGE_MODEL_INPUTS = frozenset(TransformersKwargs.__annotations__) | {"use_cache", "shift_labels"}


@dataclass
class LongVALEModelOutputWithPast(BaseModelOutputWithPast):
    """Output with `video_hidden_states` [B, n, hidden], the projected features passed to the language model."""

    video_hidden_states: torch.FloatTensor | None = None


@dataclass
class LongVALECausalLMOutputWithPast(CausalLMOutputWithPast):
    """Output with `video_hidden_states` [B, n, hidden], the projected features passed to the language model."""

    video_hidden_states: torch.FloatTensor | None = None


class LongVALEPreTrainedModel(TowersMixin, PreTrainedModel):
    config: LongVALEConfig
    base_model_prefix = "model"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("cache",)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


class LongVALEModel(LongVALEPreTrainedModel):
    """Towers, projectors and the language model without its head; merges the features into the text embeddings."""

    def __init__(self, config: LongVALEConfig):
        super().__init__(config)
        hidden_size = config.text_config.hidden_size
        for modality, tower in build_towers(config).items():
            setattr(self, f"{modality}_tower", tower)
        self.visual_projector = nn.Linear(config.visual_feature_size, hidden_size)
        self.audio_projector = nn.Linear(config.audio_feature_size, hidden_size)
        self.speech_projector = nn.Linear(config.speech_feature_size, hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        mark_placeholders(self.get_input_embeddings(), config.video_token_id)
        guard_convolutions(self)  # also in towers and language models of other libraries
        if not config.text_config.num_hidden_layers:  # only the towers are needed: ignore the layers of the checkpoint
            self._keys_to_ignore_on_load_unexpected = [r"language_model\.layers\.", r"^lm_head\."]
        self.post_init()
        self._no_split_modules = names_of_parts(self)

    def train(self, mode: bool = True) -> "LongVALEModel":
        """Set the training mode, except for frozen towers: they must match stored features."""
        super().train(mode)
        for tower in self.towers:
            if not is_released(tower):
                tower.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(mark_placeholders(value, self.config.video_token_id))

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
                raise ValueError(f"{modality}_features_mask must be {list(values.shape[:2])} but is {list(mask.shape)}")
            projected = projector(values.to(_dtype(projector)))
            mask = mask.to(projected.device).bool()
            if self.config.time_embedding == "fourier":
                times = fourier_times(mask, projected.shape[-1]).to(projected)
                projected = projected + self.config.time_embedding_scale * times
            embeddings.append(projected)
            masks.append(mask)
        device = embeddings[0].device  # projectors may be on different devices
        return torch.cat([e.to(device) for e in embeddings], dim=1), torch.cat([m.to(device) for m in masks], dim=1)

    def find_placeholders(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mask of the placeholders [B, L], in ids or in embeddings of ids."""
        if input_ids is not None:
            return input_ids == self.config.video_token_id
        place = torch.full((), self.config.video_token_id, dtype=torch.long, device=inputs_embeds.device)
        return (inputs_embeds == self.get_input_embeddings()(place).to(inputs_embeds)).all(dim=-1)

    def get_placeholder_mask(self, placeholders: torch.Tensor, video_mask: torch.Tensor) -> torch.Tensor:
        """Return the mask of the placeholders [B, L]; each row must have as many placeholders as features."""
        wanted, given = placeholders.sum(dim=1), video_mask.to(placeholders.device).sum(dim=1)

        def message() -> str:
            row = int((wanted != given).nonzero()[0])
            return (
                f"row {row} of the prompt has {int(wanted[row])} video placeholders but {int(given[row])} features; "
                "build both with the processor"
            )

        check_all(wanted == given, message, "a row has different numbers of video placeholders and features")
        return placeholders

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> LongVALEModelOutputWithPast:
        r"""Merge the video into the text embeddings and run the language model.

        Args:
            input_ids: [B, L]; contains `config.video_token_id` once for each feature of the row.
            inputs_embeds: [B, L, hidden], instead of `input_ids`: what `get_input_embeddings()` returns for them. The
                video is merged in at the placeholders.
            visual_features: [B, F, visual width], one per frame; likewise `audio_features` [B, A, audio width] and
                `speech_features` [B, S, speech width], padded on the right.
            visual_features_mask: [B, F], ones for features and zeros for padding; all ones by default.
            pixel_values_videos: [B, F, 3, H, W], instead of `visual_features`.
            input_values: [B, A, T, mels] filterbanks, instead of `audio_features`; `input_values_mask` [B, A, T].
            input_features: [B, C, mels, frames] log-mel chunks, instead of `speech_features`;
                `input_features_mask` [B, C, frames].

        Raises:
            ValueError: if a row has different numbers of placeholders and features, a modality is given both raw and as
                features, raw without a tower, or features have a different width than their projector.
            TypeError: for an unknown input, such as the misspelled `audio_feature`.
        """
        self._refuse_unknown_inputs(kwargs)
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
            features[modality] = (values, ones_mask(values) if mask is None else mask)

        inputs_embeds, video_embeddings = self.embed(input_ids, features, inputs_embeds)
        if self.training:
            inputs_embeds = self._touch_absent_projectors(inputs_embeds, features)

        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            **kwargs,
        )
        return LongVALEModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=video_embeddings,
        )

    def embed(
        self,
        input_ids: torch.Tensor | None,
        features: dict[str, tuple[torch.Tensor, torch.Tensor]],
        inputs_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the text embeddings [B, L, hidden] with the video merged in, and the video embeddings alone."""
        rows, length = (inputs_embeds if input_ids is None else input_ids).shape[:2]
        for modality, (values, _) in features.items():
            if values.shape[0] != rows:
                videos = values.shape[0]
                raise ValueError(
                    f"{modality} features are of {videos} videos but the prompt has {rows} rows; give one video a row"
                )
        placeholders = self.find_placeholders(input_ids, inputs_embeds)
        if inputs_embeds is None:
            # The placeholder may be outside the vocabulary: look up another token there, which is replaced below.
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        if features:
            video_embeddings, video_mask = self.get_video_embeddings(features)
            placeholders = self.get_placeholder_mask(placeholders, video_mask)
            return merge_embeddings(inputs_embeds, placeholders, video_embeddings, video_mask), video_embeddings
        if length > 1:  # skip decoding steps of one token: the check would synchronise with the device
            check_all(
                ~placeholders,
                lambda: f"the prompt has {int(placeholders.sum())} video placeholders but no features were given",
                "the prompt has video placeholders but no features were given",
            )
        return inputs_embeds, None

    def _touch_absent_projectors(self, inputs_embeds: torch.Tensor, features: dict) -> torch.Tensor:
        # With several processes, all must reduce the same gradients: an absent modality may be present in another one.
        for modality in MODALITIES:
            if modality not in features:
                projector = getattr(self, f"{modality}_projector")
                width = getattr(self.config, f"{modality}_feature_size")
                zeros = inputs_embeds.new_zeros(1, width, dtype=_dtype(projector))
                inputs_embeds = inputs_embeds + 0.0 * projector(zeros).sum().to(inputs_embeds)
        return inputs_embeds

    def _refuse_unknown_inputs(self, kwargs: dict) -> None:
        unknown = [name for name in kwargs if name not in LANGUAGE_MODEL_INPUTS]
        if unknown:
            known = inspect.signature(self.language_model.forward).parameters
            unknown = [name for name in unknown if name not in known]
        if unknown:
            raise TypeError(f"unknown input {unknown[0]!r}; video inputs are {', '.join(VIDEO_INPUTS)}")


class PlaceholderGenerationMixin(GenerationMixin):
    """Generation with a placeholder in the prompt, which may be outside the vocabulary and is never generated."""

    def _get_logits_processor(self, generation_config, *args, encoder_input_ids=None, **kwargs):
        place, size = self.config.video_token_id, self.config.get_text_config().vocab_size
        if encoder_input_ids is not None and place >= size:  # a penalty looks up the score of each token of the prompt
            last = encoder_input_ids[:, -1:].expand_as(encoder_input_ids)
            encoder_input_ids = torch.where(encoder_input_ids == place, last, encoder_input_ids)
        processors = super()._get_logits_processor(
            generation_config, *args, encoder_input_ids=encoder_input_ids, **kwargs
        )
        if place < size:
            processors.insert(0, SuppressTokensLogitsProcessor([place], device=self.device))
        return processors

    def _get_candidate_generator(self, *args, **kwargs):
        generator = super()._get_candidate_generator(*args, **kwargs)
        place = self.config.video_token_id
        if getattr(generator, "vocab_size", None) is not None:  # it looks up candidates in the prompt
            generator.vocab_size = max(generator.vocab_size, place + 1)
            suppress = SuppressTokensLogitsProcessor([place], device=self.device)
            generator.logits_processor = LogitsProcessorList([*(generator.logits_processor or ()), suppress])
        return generator

    def heal_tokens(self, input_ids: torch.LongTensor, tokenizer: Any = None) -> torch.LongTensor:
        """Replace the last token of each prompt by a token that begins with it and continues the text better.

        The base class tokenizes the prompts again, without special tokens, and so would lose the video. The text after
        the video decides.

        Args:
            input_ids: [B, L], padded on the left.
            tokenizer: of the language model.

        Raises:
            ValueError: if no tokenizer is given.
        """
        if tokenizer is None:
            raise ValueError("token_healing needs the vocabulary: give generate the argument tokenizer")
        words = {token: i for token, i in tokenizer.get_vocab().items() if i not in tokenizer.all_special_ids}
        healed = input_ids.clone()
        for row, ids in enumerate(input_ids):
            begun = tokenizer.convert_ids_to_tokens(ids[-1].item())
            longer = [index for token, index in words.items() if token.startswith(begun)]
            outside = ((ids == self.config.video_token_id) | (ids == tokenizer.pad_token_id)).nonzero()
            text = ids[outside[-1, 0] + 1 if len(outside) else 0 : -1]
            if len(longer) > 1 and len(text):
                # As in the base class: tokens that begin with the last one, and the latter a little more.
                bias = {(index,): 10.0 for index in longer} | {(ids[-1].item(),): 11.0}
                options = GenerationConfig(max_new_tokens=1, do_sample=False, sequence_bias=bias)
                healed[row, -1] = self.generate(text[None], generation_config=options)[0, -1]
        return healed


class LongVALEForConditionalGeneration(LongVALEPreTrainedModel, PlaceholderGenerationMixin):
    """LongVALE-LLM: [`LongVALEModel`] with a language modelling head.

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

    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: LongVALEConfig):
        super().__init__(config)
        self.model = LongVALEModel(config)
        self._tied_weights_keys = {"lm_head.weight": f"{_name_of(self, self.get_input_embeddings())}.weight"}
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # Decoders other than `generate` read this: an extended vocabulary also contains the placeholder.
        self.generation_config.suppress_tokens = [config.video_token_id]
        self.post_init()
        self._no_split_modules = names_of_parts(self)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> LongVALECausalLMOutputWithPast:
        r"""Compute logits, and the loss if `labels` are given.

        Args:
            labels: [B, L], the ids to predict, -100 for positions without loss.
            logits_to_keep: number of last positions to compute logits for; 0 for all.

        The other arguments are those of [`LongVALEModel.forward`].
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
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
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return LongVALECausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=outputs.video_hidden_states,
        )

    def prepare_inputs_for_generation(self, input_ids, inputs_embeds=None, is_first_iteration=False, **kwargs):
        for name in GENERATION_ARGUMENTS:
            kwargs.pop(name, None)
        # Set aside: the base class drops some of them where a draft model needs them.
        video = {name: kwargs.pop(name) for name in VIDEO_INPUTS if name in kwargs}
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        cache, ids = inputs.get("cache"), inputs.get("input_ids")
        # `is_first_iteration` alone is not enough: a draft model starts without it, and continues a cache with it.
        starts = cache is None or cache.get_seq_length() == 0
        if starts or (is_first_iteration and ids is not None and (ids == self.config.video_token_id).any()):
            inputs |= video
        return inputs  # otherwise the cache already contains the video: no placeholders are left to fill


def names_of_parts(model: PreTrainedModel) -> set[str]:
    """Return the names of classes whose modules stay on one device, without those that the model does not have."""
    return model._no_split_modules & {type(module).__name__ for module in model.modules()}


def _name_of(model: nn.Module, part: nn.Module) -> str:
    """Return the name of a submodule; language models keep their embeddings under different names."""
    return next(name for name, module in model.named_modules() if module is part)


def _dtype(projector: nn.Module) -> torch.dtype:
    # Adapters wrap a projector and keep the trained copy as a separate module, and quantised weights are integers with
    # a float bias: take the dtype of any float parameter.
    return next(parameter.dtype for parameter in projector.parameters() if parameter.is_floating_point())


# Without these calls the code is not saved with the weights. `auto_map` in the configuration names all Auto classes.
LongVALEModel.register_for_auto_class("AutoModel")
LongVALEForConditionalGeneration.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["LongVALEForConditionalGeneration", "LongVALEModel", "LongVALEPreTrainedModel"]
