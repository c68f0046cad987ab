import json

import pytest
from transformers import (
    CLIPVisionConfig,
    EfficientNetConfig,
    GPT2Config,
    LlamaConfig,
    SiglipVisionConfig,
    WhisperConfig,
)

from longvale.models.configuration_beats import BeatsConfig
from longvale.models.configuration_longvale import LongVALEConfig


def small_config(**fields):
    return LongVALEConfig(
        text_config=LlamaConfig(hidden_size=32, vocab_size=50),
        vision_config=CLIPVisionConfig(hidden_size=24, projection_dim=16),
        audio_config=BeatsConfig(hidden_size=32, num_attention_heads=4, num_conv_pos_embedding_groups=4),
        speech_config=WhisperConfig(d_model=40),
        **fields,
    )


def test_the_defaults_are_the_published_model_without_towers():
    config = LongVALEConfig()
    assert config.text_config.model_type == "llama"
    assert config.vision_config is config.audio_config is config.speech_config is None
    assert config.feature_sizes == {"visual": 768, "audio": 768, "speech": 1280}
    assert (config.num_frames, config.audio_window_frames, config.speech_window_states) == (100, 512, 256)
    assert (config.time_embedding, config.preprocessing) == ("none", "strict")


def test_widths_come_from_the_towers():
    assert small_config().feature_sizes == {"visual": 16, "audio": 32, "speech": 40}
    other = LongVALEConfig(vision_config=SiglipVisionConfig(hidden_size=24))
    assert other.visual_feature_size == 24


def test_a_width_that_is_not_the_towers_is_refused():
    with pytest.raises(ValueError, match="visual_feature_size is 24 but the tower gives 16"):
        small_config(visual_feature_size=24)


def test_a_tower_of_unknown_width_needs_it():
    with pytest.raises(ValueError, match="width of a efficientnet tower is not known; give visual_feature_size"):
        LongVALEConfig(vision_config=EfficientNetConfig())
    assert LongVALEConfig(vision_config=EfficientNetConfig(), visual_feature_size=2560).visual_feature_size == 2560


@pytest.mark.parametrize("name", ["num_frames", "audio_window_frames", "speech_window_states"])
def test_numbers_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, not 0"):
        LongVALEConfig(**{name: 0})


@pytest.mark.parametrize("fields", [{"time_embedding": "sine"}, {"preprocessing": "loose"}, {"num_frames": "many"}])
def test_values_out_of_range_are_refused(fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        LongVALEConfig(**fields)


def test_round_trip_with_sub_configurations(tmp_path):
    config = small_config(video_token_id=50, time_embedding="fourier", time_embedding_scale=0.3, num_frames=7)
    config.save_pretrained(tmp_path)
    loaded = LongVALEConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert isinstance(loaded.text_config, LlamaConfig)
    assert isinstance(loaded.vision_config, CLIPVisionConfig)
    assert isinstance(loaded.audio_config, BeatsConfig)
    assert isinstance(loaded.speech_config, WhisperConfig)
    assert (loaded.text_config.vocab_size, loaded.num_frames, loaded.time_embedding_scale) == (50, 7, 0.3)


def test_round_trip_without_towers_and_with_another_language_model(tmp_path):
    LongVALEConfig(text_config=GPT2Config(n_embd=32)).save_pretrained(tmp_path)
    loaded = LongVALEConfig.from_pretrained(tmp_path)
    assert loaded.vision_config is None
    assert isinstance(loaded.text_config, GPT2Config)


def test_sub_configurations_may_be_dicts():
    config = LongVALEConfig(text_config={"model_type": "gpt2", "n_embd": 32}, speech_config={"d_model": 40})
    assert isinstance(config.text_config, GPT2Config)
    assert config.speech_feature_size == 40


def test_the_placeholder_answers_to_the_name_that_trainers_use():
    config = small_config(video_token_id=50)
    assert config.image_token_id == 50
    config.image_token_id = 51
    assert config.video_token_id == 51


def test_tied_embeddings_follow_the_language_model():
    assert LongVALEConfig(text_config=LlamaConfig(tie_word_embeddings=True)).tie_word_embeddings
    assert not small_config().tie_word_embeddings


def test_remote_code_names_every_class(tmp_path):
    small_config().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    generating = "modeling_longvale.LongVALEForConditionalGeneration"
    assert auto_map == {
        "AutoConfig": "configuration_longvale.LongVALEConfig",
        "AutoModel": "modeling_longvale.LongVALEModel",
        "AutoModelForCausalLM": generating,
        "AutoModelForImageTextToText": generating,
        "AutoModelForMultimodalLM": generating,
        "AutoProcessor": "processing_longvale.LongVALEProcessor",
    }
