"""Registration of our models with the Auto classes of transformers, and with peft, when longvale is imported.

Registering needs transformers' auto modules, which take seconds to import, and most uses of longvale need none of them.
So each registration waits until its auto module is imported, by any code. Models and processors are registered by name
and imported when first used: at registration the importing module may be half initialized, and code that loads other
models should not pay for importing ours.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

from .system.after_import import after_import

_AUTO = "transformers.models.auto"
_MODELS = "longvale.models"

_LONGVALE = (f"{_MODELS}.configuration_longvale", "LongVALEConfig")
_BEATS = (f"{_MODELS}.configuration_beats", "BeatsConfig")
_GENERATION = (f"{_MODELS}.modeling_longvale", "LongVALEForConditionalGeneration")

#: (module and name of an Auto class), configuration, (module and name of the class that it returns).
_REGISTRATIONS = (
    ((f"{_AUTO}.configuration_auto", "AutoConfig"), _LONGVALE, _LONGVALE),
    ((f"{_AUTO}.configuration_auto", "AutoConfig"), _BEATS, _BEATS),
    ((f"{_AUTO}.modeling_auto", "AutoModel"), _LONGVALE, (f"{_MODELS}.modeling_longvale", "LongVALEModel")),
    ((f"{_AUTO}.modeling_auto", "AutoModelForCausalLM"), _LONGVALE, _GENERATION),
    ((f"{_AUTO}.modeling_auto", "AutoModelForImageTextToText"), _LONGVALE, _GENERATION),
    ((f"{_AUTO}.modeling_auto", "AutoModelForMultimodalLM"), _LONGVALE, _GENERATION),
    ((f"{_AUTO}.modeling_auto", "AutoModel"), _BEATS, (f"{_MODELS}.modeling_beats", "BeatsModel")),
    (
        (f"{_AUTO}.modeling_auto", "AutoModelForAudioClassification"),
        _BEATS,
        (f"{_MODELS}.modeling_beats", "BeatsForAudioClassification"),
    ),
    (
        (f"{_AUTO}.processing_auto", "AutoProcessor"),
        _LONGVALE,
        (f"{_MODELS}.processing_longvale", "LongVALEProcessor"),
    ),
    (
        (f"{_AUTO}.video_processing_auto", "AutoVideoProcessor"),
        _LONGVALE,
        (f"{_MODELS}.video_processing_longvale", "LongVALEVideoProcessor"),
    ),
    (
        (f"{_AUTO}.feature_extraction_auto", "AutoFeatureExtractor"),
        _BEATS,
        (f"{_MODELS}.feature_extraction_beats", "BeatsFeatureExtractor"),
    ),
)

#: Module of peft with the default targets of adapters by model type, and those of our model: layers of the language
#: model, by their names in the architectures of transformers. Towers have layers of the same names.
_TARGETS = "peft.utils.constants"
_TARGET_MODULES = r".*language_model\..*\.(q_proj|v_proj|qkv_proj|query_key_value|c_attn|Wqkv)"

#: Modules whose import may allow a registration.
_WATCHED = frozenset(module for auto, config, _ in _REGISTRATIONS for module, _ in (auto, config)) | {_TARGETS}


def register() -> None:
    """Register our classes with the auto modules that are imported, and with the others once they are imported.

    Repeated calls change nothing.

    Example:
        >>> register()
        >>> from transformers import AutoConfig
        >>> type(AutoConfig.for_model("longvale")).__name__
        'LongVALEConfig'
    """
    after_import(_WATCHED, _register_available)
    _register_available()


def _register_available() -> None:
    for (auto_module, auto_name), (config_module, config_name), target in _REGISTRATIONS:
        auto = getattr(sys.modules.get(auto_module), auto_name, None)
        if auto is None:
            continue
        # None while that module itself is being imported: this function runs again afterwards.
        config = getattr(import_module(config_module), config_name, None)
        if config is None:
            continue
        if auto_name == "AutoConfig":
            auto.register(config.model_type, config, exist_ok=True)
        else:
            auto.register(config, _lazy_class(*target, config), exist_ok=True)
    for name, targets in vars(sys.modules.get(_TARGETS)).items() if _TARGETS in sys.modules else ():
        # Adapters that train the same layers as a LoRA; others, such as (IA)^3, need an explicit `target_modules`.
        if name.endswith("_TARGET_MODULES_MAPPING") and targets.get("llama") == ["q_proj", "v_proj"]:
            targets.setdefault("longvale", _TARGET_MODULES)


class _Lazy(type):
    """Metaclass of lazy classes: each has a class's name and module and looks up the rest on the class itself."""

    def load(cls) -> type:
        return getattr(import_module(cls.__module__), cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.load(), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.load()(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.load())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.load())


@cache
def _lazy_class(module: str, name: str, config: type) -> type:
    # `config_class` is here because `register` reads it.
    return _Lazy(name, (), {"__module__": module, "__qualname__": name, "config_class": config})
