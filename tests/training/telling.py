"""Features that tell what a video shows, in place of those of towers."""

import numpy as np

from longvale.demo.checkpoint import AUDIO_WINDOW_FRAMES, NUM_FRAMES, TOWER_SIZE
from longvale.synthetic.compositing import Lanes, frame_times
from longvale.synthetic.planning import COLOURS, SHAPES, SOUNDS, WORDS, SyntheticOptions

#: Seconds of a sound window of the tiny model.
WINDOW_S = AUDIO_WINDOW_FRAMES / 100
OPTIONS = SyntheticOptions()
SHOWN = [None, *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)]


def telling_features(plan):
    """Features that spell what they show: visual[:, i] for SHOWN[i], sound[:, i] for its share of the window."""
    duration = plan.annotation.duration
    lanes = Lanes((piece for pieces in plan.pieces for piece in pieces), duration)
    visual = np.eye(TOWER_SIZE, dtype=np.float32)[
        [SHOWN.index(lanes.shown(time)) for time in frame_times(NUM_FRAMES, duration)]
    ]
    windows = lanes.windows(WINDOW_S)
    audio = np.zeros((len(windows), TOWER_SIZE), np.float32)
    speech = np.zeros((len(windows), TOWER_SIZE), np.float32)
    for index, parts in enumerate(windows):
        for (sound, word), share in parts:
            if sound:
                audio[index, SOUNDS.index(sound)] += share
            if word:
                speech[index, WORDS.index(word)] += share
    return {"visual": visual, "audio": audio, "speech": speech}
