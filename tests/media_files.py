"""Media files for tests, written with PyAV: pictures that carry their own number, and sounds whose time is known."""

import io
from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
BITS = 8

#: Of a sound of so many channels.
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def numbered_picture(number, height=HEIGHT, width=WIDTH):
    """[H, W, 3] whose columns are the bits of `number`, lowest on the left, above a black lower half."""
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return picture


def read_number(picture):
    height, width = picture.shape[:2]
    centers = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, x in enumerate(centers) if picture[height // 4, x].mean() > 127)


def numbers(frames):
    return [read_number(frame) for frame in frames]


def write(
    target,
    *,
    pictures=None,
    pts=None,
    rate=10,
    size=(WIDTH, HEIGHT),
    codec="libx264",
    codec_options=None,
    rotation=None,
    pixel=None,
    first_number=0,
    per_number=1,
    sound=None,
    sound_start_s=0.0,
    sound_rate=44_100,
    sound_codec="aac",
    format=None,
    options=None,
):
    """A media file. `pictures` is how many, shown at `pts` ticks of 1 / rate, numbered from `first_number` on, so many
    of the same number; `pixel` is the width of one over its height; `sound` is float [channels, samples], or a list of
    (start in seconds, such an array)."""
    with av.open(target, "w", format=format, options=options or {}) as container:
        video = audio = None
        if pictures is not None:
            video = container.add_stream(codec, rate=rate, options=codec_options or {"g": "12", "bf": "2"})
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            if rotation is not None:
                video.set_display_rotation(rotation)
            if pixel is not None:
                video.codec_context.sample_aspect_ratio = pixel
        if sound is not None:
            segments = sound if isinstance(sound, list) else [(sound_start_s, sound)]
            audio = container.add_stream(sound_codec, rate=sound_rate)
            audio.layout = LAYOUTS[segments[0][1].shape[0]]
        if video is not None:
            for number, tick in enumerate(range(pictures) if pts is None else pts):
                picture = numbered_picture(first_number + number // per_number, size[1], size[0])
                frame = av.VideoFrame.from_ndarray(picture)
                frame.pts, frame.time_base = tick, Fraction(1, rate)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            for start_s, samples in segments:
                for at in range(0, samples.shape[1], 1024):
                    chunk = np.ascontiguousarray(samples[:, at : at + 1024], dtype=np.float32)
                    frame = av.AudioFrame.from_ndarray(chunk, "fltp", audio.layout.name)
                    frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
                    frame.pts = round(start_s * sound_rate) + at
                    container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return target


def written(format="mp4", **kwargs):
    """The bytes of a media file."""
    buffer = io.BytesIO()
    write(buffer, format=format, **kwargs)
    return buffer.getvalue()


def jumping(format, to_s, pictures=True, rate=16_000):
    """A second of pictures and sound, then one more at another time."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as out:
        video = out.add_stream("libx264", rate=10, options={"g": "5", "bf": "0"}) if pictures else None
        audio = out.add_stream("aac", rate=rate, layout="mono")
        if video:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        samples = tone(440, 2.0, rate, 1).astype(np.float32)
        for second in (0, 1):
            for number in range(10 if video else 0):
                frame = av.VideoFrame(64, 48, "yuv420p")
                frame.pts, frame.time_base = second * to_s * 10 + number, Fraction(1, 10)
                out.mux(video.encode(frame))
            for at in range(0, rate, 1000):
                frame = av.AudioFrame.from_ndarray(samples[:, second * rate + at :][:, :1000].copy(), "fltp", "mono")
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), second * to_s * rate + at
                out.mux(audio.encode(frame))
        for stream in filter(None, (video, audio)):
            out.mux(stream.encode(None))
    return buffer.getvalue()


def repeat(data, times, target, length_s):
    """Write the packets of `length_s` seconds of a media file without B-frames, `times` times one after the other."""
    with av.open(target, "w") as container:
        with av.open(io.BytesIO(data)) as first:
            streams = [container.add_stream_from_template(stream) for stream in first.streams]
        for repetition in range(times):
            with av.open(io.BytesIO(data)) as part:
                for packet in part.demux():
                    if packet.dts is not None and 0 <= packet.dts * packet.time_base < length_s:
                        offset = round(repetition * length_s / packet.time_base)
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = streams[packet.stream_index]
                        container.mux(packet)
    return target


def tone(hertz, seconds, rate=44_100, channels=2):
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave, (channels, 1))


def clicks(at_s, seconds, rate=44_100, channels=2):
    wave = np.zeros((channels, round(seconds * rate)))
    for time in at_s:
        wave[:, round(time * rate) : round(time * rate) + 60] = 0.9
    return wave


def beeps(at_s, seconds, rate=8_000):
    """Mono, of 60 ms each: codecs for speech keep little of shorter sounds, and let these swell."""
    wave = np.zeros((1, round(seconds * rate)))
    for time in at_s:
        wave[:, round(time * rate) : round((time + 0.06) * rate)] = tone(800, 0.06, rate, 1) * 1.8
    return wave


def click_times(waveform, rate=16_000, threshold=0.3):
    """Where the sound becomes loud after at least 0.2 s of quiet."""
    loud = np.flatnonzero(np.abs(waveform) > threshold)
    return loud[np.diff(loud, prepend=-rate) > 0.2 * rate] / rate


def level(waveform, hertz, rate=16_000):
    """Amplitude of one frequency in the middle of a waveform."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    turns = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / rate)
    return 2 * abs((middle * turns).mean())
