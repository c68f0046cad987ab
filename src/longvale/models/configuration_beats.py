"""Configuration of the BEATs audio encoder: sizes and options."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

# The `cfg` of a published checkpoint -> the names of this configuration.
_ORIGINAL_NAMES = {
    "input_patch_size": "patch_size",
    "embed_dim": "embed_dim",
    "conv_bias": "patch_bias",
    "encoder_layers": "num_hidden_layers",
    "encoder_embed_dim": "hidden_size",
    "encoder_ffn_embed_dim": "intermediate_size",
    "encoder_attention_heads": "num_attention_heads",
    "activation_fn": "hidden_act",
    "layer_norm_first": "layer_norm_first",
    "deep_norm": "deep_norm",
    "conv_pos": "num_conv_pos_embeddings",
    "conv_pos_groups": "num_conv_pos_embedding_groups",
    "relative_position_embedding": "relative_position_embedding",
    "num_buckets": "num_buckets",
    "max_distance": "max_bucket_distance",
    "gru_rel_pos": "gated_position_bias",
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "dropout_input": "input_dropout",
    "encoder_layerdrop": "layerdrop",
    "predictor_dropout": "classifier_dropout",
}

# Defaults of the published class for keys that a file lacks. Sizes have no default: a file without them is not a BEATs
# checkpoint.
_ORIGINAL_DEFAULTS = {
    "conv_bias": False,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": False,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "encoder_layerdrop": 0.0,
    "predictor_dropout": 0.1,
}

_ACTIVATIONS = ("gelu", "relu", "tanh", "linear")


class BeatsConfig(PreTrainedConfig):
    r"""Configuration of [`BeatsModel`]; the defaults are those of the released BEATs_iter3+ checkpoints.

    Paper: "BEATs: Audio Pre-Training with Acoustic Tokenizers" (https://huggingface.co/papers/2212.09058).

    Args:
        hidden_size (`int`, defaults to 768): width D of the encoder.
        num_hidden_layers (`int`, defaults to 12): encoder layers.
        num_attention_heads (`int`, defaults to 12): attention heads per layer; divides `hidden_size`.
        intermediate_size (`int`, defaults to 3072): width of the feed-forward layers.
        hidden_act (`str`, defaults to `"gelu"`): "gelu" (exact), "relu", "tanh" or "linear".
        patch_size (`int`, defaults to 16): side of a square patch, in frames and mel bins.
        embed_dim (`int`, defaults to 512): width of the patch embedding; projected to `hidden_size` if it differs.
        patch_bias (`bool`, defaults to `False`): whether the patch embedding has a bias.
        num_mel_bins (`int`, defaults to 128): mel bins per filterbank frame, a multiple of `patch_size`.
        num_conv_pos_embeddings (`int`, defaults to 128): kernel size of the convolutional position embedding.
        num_conv_pos_embedding_groups (`int`, defaults to 16): groups of that convolution; divides `hidden_size`.
        relative_position_embedding (`bool`, defaults to `True`): whether attention adds a relative position bias.
        gated_position_bias (`bool`, defaults to `True`): whether each query scales that bias by a learned gate.
        num_buckets (`int`, defaults to 320): buckets of relative positions; even, 4 or more.
        max_bucket_distance (`int`, defaults to 800): distance in patches from which all share the last bucket.
        layer_norm_first (`bool`, defaults to `False`): normalise before each sublayer instead of after it.
        deep_norm (`bool`, defaults to `True`): scale residuals by (2N)^(1/4); excludes `layer_norm_first`.
        layer_norm_eps (`float`, defaults to 1e-5): epsilon of every layer norm.
        initializer_range (`float`, defaults to 0.02): standard deviation of initial weights.
        hidden_dropout, attention_dropout, activation_dropout, input_dropout, layerdrop, classifier_dropout (`float`):
            used in training only; 0 by default, because the encoder is meant to stay frozen.

    Raises:
        ValueError: if two sizes are incompatible; the message names both.

    Example:
        >>> config = BeatsConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
        >>> config.patch_size, config.num_mel_bins
        (16, 128)
    """

    model_type = "beats"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    patch_size: int = 16
    embed_dim: int = 512
    patch_bias: bool = False
    num_mel_bins: int = 128
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    relative_position_embedding: bool = True
    gated_position_bias: bool = True
    num_buckets: int = 320
    max_bucket_distance: int = 800
    layer_norm_first: bool = False
    deep_norm: bool = True
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    input_dropout: float = 0.0
    layerdrop: float = 0.0
    classifier_dropout: float = 0.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size", "embed_dim",
            "num_mel_bins", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "num_buckets",
            "max_bucket_distance",
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"BeatsConfig: {name} must be a positive integer, not {value!r}")
        for whole, part in (
            ("hidden_size", "num_attention_heads"),
            ("hidden_size", "num_conv_pos_embedding_groups"),
            ("num_mel_bins", "patch_size"),
        ):
            size, divisor = getattr(self, whole), getattr(self, part)
            if size % divisor:
                raise ValueError(f"BeatsConfig: {whole} ({size}) must be a multiple of {part} ({divisor})")
        if self.hidden_act not in _ACTIVATIONS:
            raise ValueError(
                f"BeatsConfig: hidden_act must be one of {', '.join(_ACTIVATIONS)}, not {self.hidden_act!r}"
            )
        if self.deep_norm and self.layer_norm_first:
            raise ValueError("BeatsConfig: deep_norm and layer_norm_first exclude each other; set one of them to False")
        if self.relative_position_embedding and (self.num_buckets < 4 or self.num_buckets % 2):
            raise ValueError(f"BeatsConfig: num_buckets must be even and 4 or more, not {self.num_buckets}")
        if self.relative_position_embedding and self.max_bucket_distance <= self.num_buckets // 4:
            raise ValueError(
                f"BeatsConfig: max_bucket_distance ({self.max_bucket_distance}) must exceed a quarter of num_buckets "
                f"({self.num_buckets})"
            )

    @classmethod
    def from_original(
        cls, cfg: Mapping[str, Any], label_dict: Mapping[int, str] | None = None, **kwargs: Any
    ) -> "BeatsConfig":
        """Convert the `cfg` of a published checkpoint.

        Args:
            cfg: the dict in the file. `layer_wise_gradient_decay_ratio`, which only scales gradients, is ignored, and
                so are unknown keys.
            label_dict: class index -> AudioSet id, as in fine-tuned checkpoints.
            kwargs: other fields of the configuration.

        Raises:
            ValueError: if a size is missing, or the number of labels is not the number of classes.

        Example:
            >>> sizes = dict(input_patch_size=16, embed_dim=32, encoder_layers=2, encoder_embed_dim=64)
            >>> more = dict(encoder_ffn_embed_dim=128, encoder_attention_heads=4, conv_pos=128, conv_pos_groups=16)
            >>> BeatsConfig.from_original(sizes | more).hidden_size
            64
        """
        cfg = {**_ORIGINAL_DEFAULTS, **cfg}
        missing = [name for name in _ORIGINAL_NAMES if name not in cfg]
        if missing:
            raise ValueError(f"cfg: {', '.join(missing)} missing; expected the cfg of a published BEATs checkpoint")
        fields = {ours: cfg[original] for original, ours in _ORIGINAL_NAMES.items()}
        if cfg.get("finetuned_model"):
            num_labels = cfg.get("predictor_class")
            if not isinstance(num_labels, int):
                raise ValueError(f"cfg: predictor_class must be the number of classes, not {num_labels!r}")
            if label_dict is not None and sorted(label_dict) != list(range(num_labels)):
                raise ValueError(
                    f"label_dict: its {len(label_dict)} keys must number the {num_labels} classes from 0 on"
                )
            fields["problem_type"] = "multi_label_classification"
            if label_dict is None:
                fields["num_labels"] = num_labels
            else:
                fields["id2label"] = {index: label_dict[index] for index in range(num_labels)}
                fields["label2id"] = {label: index for index, label in fields["id2label"].items()}
        return cls(**fields, **kwargs)


BeatsConfig.register_for_auto_class()

__all__ = ["BeatsConfig"]
