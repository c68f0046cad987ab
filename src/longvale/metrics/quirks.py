"""What the published scorers do and a reader of the paper would not expect: a named option each, in one table."""

from __future__ import annotations

from dataclasses import dataclass

from longvale.timecodes import PROTOCOLS, Protocol


@dataclass(frozen=True)
class Quirks:
    """Ways of the published scorers; all are off in the `strict` protocol and on in the `official` one.

    How answers are read as times and captions is no part of this: see [`longvale.timecodes`].

    Args:
        rounded_iou: grounding rounds each IoU to two decimals before it meets the thresholds: .295 counts at .3. The
            published IoUs are of times as fractions of the duration; in seconds a few round the other way.
        rounded_union: in dense captioning 1e-8 is added to the union, so that an IoU of just .5 misses .5.
        every_pair: a predicted event pairs with every reference event of enough IoU; else they pair one to one, see
            [`longvale.metrics.dense_captioning.compute_score.match`].
        garbage: only predicted events are compared: one without a pair against a text of fifteen `x`. Else only
            reference events are: one without a pair against an empty caption.
        strictly_above: precision and recall ask for an IoU above the threshold; else to reach it is enough.
        video_means: a video is scored by itself and the scores are averaged, 0 for a video without predicted events;
            else the scores are those of all events together.
        own_frequencies: CIDEr's document frequencies are those of the pairs of a video and a threshold (a single pair
            scores 0); else those of all reference events.
        swapped_meteor: in SODA METEOR takes the prediction for the reference and the reference for the prediction.
        limited_soda: SODA scores 0 for a video of more than 990 predicted and reference events together, where the
            published recursion leaves Python's stack.
        ascii_only: in dense captioning characters outside ASCII become spaces.
        one_batch: captions are tokenized as one text, a line each: a line may change with the next, and some characters
            break it and shift all that follow. Published is the order of a set of video ids, which differs from run to
            run; here it is the order given. Else each is tokenized by itself.
        empty_alike: two captions without a word have a ROUGE-L of 1; else of 0.
        paired_by_order: segment captions pair in the order in which they stand, whatever they are about; else by key.
    """

    rounded_iou: bool = False
    rounded_union: bool = False
    every_pair: bool = False
    garbage: bool = False
    strictly_above: bool = False
    video_means: bool = False
    own_frequencies: bool = False
    swapped_meteor: bool = False
    limited_soda: bool = False
    ascii_only: bool = False
    one_batch: bool = False
    empty_alike: bool = False
    paired_by_order: bool = False


_STRICT = Quirks()

#: The defaults of each protocol.
QUIRKS: dict[Protocol, Quirks] = {
    "strict": _STRICT,
    "official": Quirks(**dict.fromkeys(vars(_STRICT), True)),
}


def quirks_of(protocol: Protocol) -> Quirks:
    """The defaults of a protocol; take `dataclasses.replace` to change one.

    Raises:
        ValueError: if there is no such protocol.

    Example:
        >>> quirks_of("official").swapped_meteor, quirks_of("strict").swapped_meteor
        (True, False)
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    return QUIRKS[protocol]
