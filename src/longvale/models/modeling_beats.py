"""BEATs audio encoder: maps filterbank windows to one hidden state per patch.

Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers" (https://huggingface.co/papers/2212.09058). A vision
transformer over 16 x 16 patches of a filterbank, with a convolutional position embedding, a relative position bias
gated by each query (as in WavLM), and residuals scaled as in DeepNorm.
"""

import math
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_beats import BeatsConfig
from .layers import convolve_in_float32, eager_attention_forward, pool_windows, reduce_padding_mask

#: Parameter names of this model -> names in a published checkpoint; the first match applies.
_ORIGINAL_NAMES = (
    (r"^embeddings\.projection\.", r"patch_embedding."),
    (r"^embeddings\.layer_norm\.", r"layer_norm."),
    (r"^embeddings\.output_projection\.", r"post_extract_proj."),
    (r"^position_conv\.bias$", r"encoder.pos_conv.0.bias"),
    (r"^position_conv\.magnitude$", r"encoder.pos_conv.0.weight_g"),
    (r"^position_conv\.direction$", r"encoder.pos_conv.0.weight_v"),
    (r"^position_bias\.", r"encoder.layers.0.self_attn.relative_attention_bias."),
    (r"^layers\.(\d+)\.self_attn\.gate_proj\.", r"encoder.layers.\1.self_attn.grep_linear."),
    (r"^layers\.(\d+)\.self_attn\.gate_scale$", r"encoder.layers.\1.self_attn.grep_a"),
    (r"^(layers|layer_norm)\.", r"encoder.\1."),
    (r"^classifier\.", r"predictor."),
)
#: Names of weight-normalised tensors in newer versions of torch -> names in older ones.
_WEIGHT_NORM_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
_BIAS_TABLE = re.compile(r"^encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight$")


class BeatsPatchEmbeddings(nn.Module):
    """Patch embeddings of a filterbank, [B, T, mel bins] -> [B, L, D] with L = T // P * bands, time-major."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        size = config.patch_size
        self.projection = nn.Conv2d(1, config.embed_dim, kernel_size=size, stride=size, bias=config.patch_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.output_projection = (
            nn.Linear(config.embed_dim, config.hidden_size) if config.embed_dim != config.hidden_size else None
        )
        self.dropout = nn.Dropout(config.input_dropout)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        patches = self.projection(input_values.unsqueeze(1))  # [B, E, T // P, bands]
        hidden_states = self.layer_norm(patches.flatten(2).transpose(1, 2))  # [B, L, E]
        if self.output_projection is not None:
            hidden_states = self.output_projection(hidden_states)
        return self.dropout(hidden_states)


class BeatsPositionalConvEmbedding(nn.Module):
    """Convolutional position embedding along the sequence, [B, L, D] -> [B, L, D].

    The weight is normalised per tap: `magnitude[k] * direction[:, :, k] / ||direction[:, :, k]||`. Both factors are
    plain parameters, not torch's `weight_norm`, so that sharded training gathers them like any other parameter.
    """

    def __init__(self, config: BeatsConfig):
        super().__init__()
        taps, self.groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        self.direction = nn.Parameter(torch.empty(config.hidden_size, config.hidden_size // self.groups, taps))
        self.magnitude = nn.Parameter(torch.empty(1, 1, taps))
        self.bias = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        length, taps = hidden_states.shape[1], self.direction.shape[2]
        weight = self.magnitude * (self.direction / self.direction.norm(dim=(0, 1), keepdim=True))
        output = convolve_in_float32(
            nn.functional.conv1d,
            hidden_states.transpose(1, 2),
            weight,
            self.bias,
            padding=taps // 2,
            groups=self.groups,
        )
        # An even number of taps gives one output more than inputs: the last one is dropped.
        return nn.functional.gelu(output[:, :, :length]).transpose(1, 2)


class BeatsRelativePositionBias(nn.Embedding):
    """One bias per head and bucket of relative positions of flattened patches, shared by all layers."""

    def __init__(self, config: BeatsConfig):
        super().__init__(config.num_buckets, config.num_attention_heads)
        self.max_distance = config.max_bucket_distance

    def bucket(self, relative_position: torch.Tensor) -> torch.Tensor:
        """Return the bucket of each `key - query` position: exact if near, logarithmic if far, halves by sign (T5)."""
        half = self.num_embeddings // 2
        exact = half // 2
        distance = relative_position.abs()
        log_ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (log_ratio * (half - exact)).long()).clamp(max=half - 1)
        return (relative_position > 0) * half + torch.where(distance < exact, distance, far)

    def forward(self, length: int) -> torch.Tensor:
        """Return the bias [1, H, length, length], query before key."""
        positions = torch.arange(length, device=self.weight.device)
        # A table of the 2 length - 1 relative positions comes first; the [length, length] bias only indexes it.
        table = super().forward(self.bucket(torch.arange(1 - length, length, device=self.weight.device)))
        bias = table[positions[None, :] - positions[:, None] + length - 1]  # [length, length, H]
        return bias.permute(2, 0, 1).unsqueeze(0).contiguous()


class BeatsAttention(nn.Module):
    """Self-attention with a relative position bias scaled by a gate of each query."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.gate_proj = None
        if config.relative_position_embedding and config.gated_position_bias:
            self.gate_proj = nn.Linear(self.head_dim, 8)
            self.gate_scale = nn.Parameter(torch.ones(1, config.num_attention_heads, 1, 1))

    def gate(self, query: torch.Tensor) -> torch.Tensor:
        """Compute the gate of each unscaled query, [B, H, L, d] -> [B, H, L, 1]."""
        projected = self.gate_proj(query).unflatten(-1, (2, 4)).sum(-1)  # [B, H, L, 2]
        first, second = torch.sigmoid(projected).chunk(2, dim=-1)
        return first * (second * self.gate_scale - 1.0) + 2.0

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        hidden_shape = (*input_shape, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(hidden_shape).transpose(1, 2)  # [B, H, L, d]
        key = self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)

        if position_bias is not None and self.gate_proj is not None:
            # In this order the product is contiguous in its last dimension, as fused attention kernels require.
            position_bias = position_bias * self.gate(query)
        if position_bias is not None:
            attention_mask = position_bias if attention_mask is None else position_bias + attention_mask

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.out_proj(attn_output.reshape(*input_shape, -1)), attn_weights


class BeatsLayer(GradientCheckpointingLayer):
    """Attention and feed-forward with residuals, normalised after each (or before, with `layer_norm_first`)."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.layer_norm_first = config.layer_norm_first
        self.residual_scale = (2 * config.num_hidden_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = BeatsAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        if config.deep_norm:
            # DeepNorm (https://huggingface.co/papers/2203.00555), encoder-only. Each linear layer stores its own gain,
            # because transformers does not initialise a module of remote code without direct parameters.
            for linear in (self.self_attn.q_proj, self.self_attn.k_proj):
                linear.init_gain = 1.0
            for linear in (self.self_attn.v_proj, self.self_attn.out_proj, self.fc1, self.fc2):
                linear.init_gain = (8 * config.num_hidden_layers) ** -0.25

    def feed_forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.activation_dropout(self.activation(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        if self.layer_norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, position_bias, attention_mask, **kwargs)
        hidden_states = residual * self.residual_scale + self.dropout(hidden_states)
        if self.layer_norm_first:
            return hidden_states + self.feed_forward(self.final_layer_norm(hidden_states))
        hidden_states = self.self_attn_layer_norm(hidden_states)
        return self.final_layer_norm(hidden_states * self.residual_scale + self.feed_forward(hidden_states))


class BeatsPreTrainedModel(PreTrainedModel):
    """Base class of the BEATs models: weight initialisation, and loading of published checkpoints."""

    config: BeatsConfig
    base_model_prefix = "beats"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["BeatsPatchEmbeddings", "BeatsPositionalConvEmbedding", "BeatsLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": BeatsLayer, "attentions": BeatsAttention}  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, BeatsPositionalConvEmbedding):
            width, _, taps = module.direction.shape
            init.normal_(module.direction, mean=0.0, std=2 / math.sqrt(taps * width))
            init.copy_(module.magnitude, module.direction.norm(dim=(0, 1), keepdim=True))
            init.zeros_(module.bias)
        elif isinstance(module, BeatsAttention) and module.gate_proj is not None:
            init.ones_(module.gate_scale)
        elif hasattr(module, "init_gain"):
            init.xavier_normal_(module.weight, gain=module.init_gain)

    @classmethod
    def from_original(cls, path: str | os.PathLike) -> "BeatsPreTrainedModel":
        """Load a published BEATs checkpoint, for instance `BEATs_iter3_plus_AS20K.pt`.

        Nothing in the file is executed. The head of a fine-tuned checkpoint is ignored unless the class has one.

        Args:
            path: a `.pt` file that contains `{"cfg": ..., "model": ...}`, and `label_dict` if it is fine-tuned.

        Returns:
            The model in fp32, in evaluation mode.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not such a checkpoint, or a tensor is missing, unexpected or of the wrong shape; the
                message contains its name in the file.
        """
        path = Path(path)
        checkpoint = _read_original(path)
        try:
            config = BeatsConfig.from_original(checkpoint["cfg"], checkpoint.get("label_dict"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        with torch.device("meta"):
            model = cls(config)
        try:
            state_dict = _convert_state_dict(checkpoint["model"], model.state_dict())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        model.load_state_dict(state_dict, assign=True)
        return model.eval()


class BeatsModel(BeatsPreTrainedModel):
    """BEATs encoder: maps windows of normalised filterbanks to one hidden state per patch.

    Example:
        >>> config = BeatsConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        >>> model = BeatsModel(config).eval()
        >>> hidden = model(torch.zeros(2, 128, 128)).last_hidden_state  # 8 columns of 8 patches
        >>> hidden.shape, pool_windows(hidden).shape
        (torch.Size([2, 64, 32]), torch.Size([2, 32]))
    """

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        self.embeddings = BeatsPatchEmbeddings(config)
        self.position_conv = BeatsPositionalConvEmbedding(config)
        self.position_bias = BeatsRelativePositionBias(config) if config.relative_position_embedding else None
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([BeatsLayer(config) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.projection

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.projection = value

    @capture_outputs
    def forward(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Encode a batch of windows.

        Args:
            input_values: [B, T, 128], normalised filterbanks of [`BeatsFeatureExtractor`]; T at least one patch. Frames
                after the last whole patch are ignored.
            padding_mask: bool [B, T] or [B, samples], True for padding: those patches are not attended to. As
                published, a mask that ends inside a patch masks only the upper bands of that patch; masks of the
                feature extractor end at a patch border.
            kwargs: `output_hidden_states`, `output_attentions` (eager attention only), `return_dict`.

        Returns:
            `last_hidden_state` [B, L, D], L = T // 16 * 8 patches, time-major; values of padded patches are undefined.

        Raises:
            ValueError: if the shape of an input is wrong.
        """
        _check_inputs(input_values, padding_mask, self.config)
        hidden_states = self.embeddings(input_values.to(self.embeddings.projection.weight.dtype))
        length = hidden_states.shape[1]

        attention_mask = None
        if padding_mask is not None:
            padded = reduce_padding_mask(reduce_padding_mask(padding_mask, input_values.shape[1]), length)  # [B, L]
            hidden_states = hidden_states.masked_fill(padded.unsqueeze(-1), 0.0)
            # The lowest finite number instead of -inf: a window that contains only padding gives no NaN.
            attention_mask = torch.zeros_like(padded, dtype=hidden_states.dtype)
            attention_mask = attention_mask.masked_fill(padded, torch.finfo(hidden_states.dtype).min)[:, None, None, :]

        hidden_states = hidden_states + self.position_conv(hidden_states)
        if not self.config.layer_norm_first:
            hidden_states = self.layer_norm(hidden_states)
        hidden_states = self.dropout(hidden_states)

        position_bias = None if self.position_bias is None else self.position_bias(length)
        for layer in self.layers:
            if self.training and self.config.layerdrop > 0 and torch.rand(()) < self.config.layerdrop:
                continue
            hidden_states = layer(hidden_states, position_bias, attention_mask, **kwargs)
        if self.config.layer_norm_first:
            hidden_states = self.layer_norm(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)


class BeatsForAudioClassification(BeatsPreTrainedModel):
    """BEATs with the AudioSet head of the fine-tuned checkpoints: a linear layer per patch, averaged over patches.

    The published code returns the sigmoid of `logits`: a probability for each class; classes do not exclude each other.
    """

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.beats = BeatsModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        audio_features_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Classify a batch of sounds.

        Args:
            input_values: [B, T, 128], or [B, A, T, 128] for sounds of up to A windows, as [`BeatsFeatureExtractor`]
                returns them; kwargs as for [`BeatsModel`].
            padding_mask: bool [B, T] or [B, A, T], True for padding.
            audio_features_mask: [B, A], zeros for windows that pad the batch.
            labels: float [B, C], ones for the classes present; adds `loss` (binary cross-entropy).

        Returns:
            `logits` [B, C], averaged over the patches without padding.
        """
        windows = input_values.shape[:-2]  # (B,) or (B, A)
        if audio_features_mask is not None:
            absent = ~audio_features_mask.bool().unsqueeze(-1).expand(input_values.shape[:-1])
            padding_mask = absent if padding_mask is None else padding_mask.bool() | absent
        padding = None if padding_mask is None else padding_mask.flatten(0, -2)
        outputs = self.beats(input_values.flatten(0, -3), padding, **kwargs)
        patches = self.classifier(self.dropout(outputs.last_hidden_state))  # [B * A, L, C]
        if padding is not None:
            padding = reduce_padding_mask(reduce_padding_mask(padding, input_values.shape[-2]), patches.shape[1])
            padding = padding.unflatten(0, windows).flatten(1)  # [B, A * L]
        logits = pool_windows(patches.unflatten(0, windows).flatten(1, -2), padding)
        loss = None
        if labels is not None:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def _check_inputs(input_values: torch.Tensor, padding_mask: torch.Tensor | None, config: BeatsConfig) -> None:
    shape = tuple(input_values.shape)
    if len(shape) != 3 or shape[2] != config.num_mel_bins or shape[1] < config.patch_size:
        raise ValueError(
            f"input_values must be [batch, frames, {config.num_mel_bins}] with at least {config.patch_size} frames, "
            f"not {list(shape)}"
        )
    if padding_mask is not None and (padding_mask.dim() != 2 or padding_mask.shape[0] != shape[0]):
        raise ValueError(
            f"padding_mask must be [{shape[0]}, {shape[1]}] for input_values {list(shape)}, "
            f"not {list(padding_mask.shape)}"
        )


def _read_original(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"{path}: not a PyTorch checkpoint of tensors and plain values alone: {reason}") from None
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path}: must hold {{'cfg', 'model'}}, not a {type(checkpoint).__name__}")
    for field in ("cfg", "model"):
        if not isinstance(checkpoint.get(field), Mapping):
            raise ValueError(f"{path}: field '{field}' is missing or no dict; expected a published BEATs checkpoint")
    return checkpoint


def _original_name(name: str) -> str:
    name = name.removeprefix(BeatsPreTrainedModel.base_model_prefix + ".")
    for pattern, replacement in _ORIGINAL_NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(name)


def _convert_state_dict(
    original: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Rename the tensors of a published file to this model's names, in fp32; `expected` has names and shapes."""
    tensors = {}
    for name, tensor in original.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} in 'model' is not a tensor but a {type(tensor).__name__}")
        for spelling, plain in _WEIGHT_NORM_NAMES.items():
            name = name.replace(spelling, plain)
        tensors[name] = tensor
    names = {_original_name(name): name for name in expected}
    table = tensors.get("encoder.layers.0.self_attn.relative_attention_bias.weight")
    # Every layer contains a copy of the shared table.
    for name in [name for name in tensors if _BIAS_TABLE.match(name)]:
        repeated = tensors.pop(name)
        if table is None or not torch.equal(repeated, table):
            raise ValueError(f"{name} differs from the first layer's table; BEATs shares one between all layers")
    if not any(name.startswith("predictor.") for name in names):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("predictor.")}
    for problem, differing in (
        ("missing", names.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - names.keys()),
    ):
        if differing:
            listed = sorted(differing)
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            raise ValueError(f"{problem} in 'model': {', '.join(listed[:5])}{more}")
    for name, ours in names.items():
        found, asked = list(tensors[name].shape), list(expected[ours].shape)
        if found != asked:
            raise ValueError(f"{name} has shape {found}, but 'cfg' asks for {asked}")
    return {ours: tensors[name].float() for name, ours in names.items()}


BeatsModel.register_for_auto_class("AutoModel")
BeatsForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = ["BeatsForAudioClassification", "BeatsModel", "BeatsPreTrainedModel"]
