import torch

from longvale.demo.checkpoint import NUM_FRAMES, build_checkpoint, build_tokenizer, corpus_options, sample_texts
from longvale.synthetic.planning import COLOURS, SHAPES, SOUNDS, WORDS


def test_the_seed_decides_the_weights_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    models = [build_checkpoint(seed, vocab_videos=50)[0].state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert any(not torch.equal(value, models[2][name]) for name, value in models[0].items())


def test_timecodes_and_things_are_one_token_wherever_they_stand():
    tokenizer = build_tokenizer(sample_texts(200))
    for timecode in ("00", "05", "50", "99"):
        for text in (f"From {timecode} to 99.", f"From 00 to {timecode}.", f"From 00 to {timecode}, A bell"):
            assert f"▁{timecode}" in tokenizer.tokenize(text), text
    for word in (*COLOURS, *SHAPES, *SOUNDS, *WORDS):
        assert tokenizer.tokenize(f"the {word}.") == ["▁the", f"▁{word}", "."]


def test_every_feature_of_a_demo_video_is_one_step_of_its_grid():
    model, _ = build_checkpoint(vocab_videos=50)
    options = corpus_options()
    step_s = options.max_length_s / options.grid
    assert options.min_length_s == options.max_length_s
    assert model.config.num_frames == NUM_FRAMES == options.grid
    assert model.config.audio_window_frames * 0.01 == step_s
    assert model.config.speech_window_states * 0.02 == step_s
