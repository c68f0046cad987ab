"""Speech by espeak-ng, from the package espeakng-loader, which contains the library and its data for any system.

The library keeps state between sentences, so its output depends on the sentences before. Each sentence is therefore
spoken by a separate process, which runs this file: the same words sound the same, in any order.
"""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT, _PITCH, _BY_CHARACTER, _UTF8, _OK = 2, 0x8000, 3, 1, 1, 0


def say(text: str, rate: int = 16000, pitch: int = 50, language: str = "en") -> np.ndarray:
    """Synthesize speech for a text.

    Args:
        text: a word or several sentences.
        rate: samples per second.
        pitch: 0 to 99, espeak-ng's own scale; about 70 to 160 Hz.
        language: of the voice, for example "en" or "de".

    Returns:
        float32 [samples], peak 1.

    Raises:
        ValueError: if espeakng-loader is missing, the language is unknown, or the text contains no words.

    Example:
        >>> sound = say("Wait, there is somebody at the door.")
        >>> 1 < len(sound) / 16000 < 3
        True
    """
    import numpy as np
    from scipy.signal import resample_poly

    from ..system.extras import require

    package = require("espeakng_loader")
    library = [package.get_library_path(), package.get_data_path()]
    command = [sys.executable, "-I", __file__, *library, language, str(pitch)]
    result = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr.decode(errors="replace").strip().splitlines() or ["it stopped"])[-1]
        raise ValueError(f"espeak-ng cannot say {text!r}: {reason}")
    header, _, spoken = result.stdout.partition(b"\n")
    samples, spoken_rate = np.frombuffer(spoken, "<i2").astype(np.float32), int(header)
    if not samples.any():
        raise ValueError(f"espeak-ng cannot say {text!r}: it holds no words")
    divisor = math.gcd(rate, spoken_rate)
    resampled = resample_poly(samples, rate // divisor, spoken_rate // divisor)
    return (resampled / np.abs(resampled).max()).astype(np.float32)


def _speak(library: str, data: str, language: str, pitch: str) -> None:
    """Write the rate and a line break, then 16-bit samples, for the text on standard input."""
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
    if rate <= 0:
        sys.exit(f"{data} cannot be read")
    spoken = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(samples: int | None, count: int, _: int | None) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    espeak.espeak_SetSynthCallback(collect)
    if espeak.espeak_SetVoiceByName(language.encode()) != _OK:
        sys.exit(f"it has no voice for {language!r}")
    espeak.espeak_SetParameter(_PITCH, int(pitch), 0)
    text = sys.stdin.buffer.read() + b"\0"
    if espeak.espeak_Synth(text, len(text), 0, _BY_CHARACTER, 0, _UTF8, None, None) != _OK:
        sys.exit("it refused the text")
    espeak.espeak_Synchronize()
    sys.stdout.buffer.write(b"%d\n" % rate + spoken)


if __name__ == "__main__":
    _speak(*sys.argv[1:])
