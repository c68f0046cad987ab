"""Protocol options: behavior of the published scorers that the paper does not describe, as named options."""

from __future__ import annotations

from dataclasses import dataclass

from longvale.timecodes import PROTOCOLS, Protocol


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of the published scorers; all are off in the `strict` protocol and on in the `official` protocol.

    Parsing of times and captions in answers is not included, see [`longvale.timecodes`].

    Args:
        rounded_iou: grounding rounds each IoU to two decimals before it is compared with the thresholds: .296 counts
            at .3. The published IoUs use times as fractions of the duration; in seconds, a few IoUs round differently.
        rounded_union: dense captioning adds 1e-8 to the union, so that an IoU of exactly .5 misses .5.
        every_pair: a predicted event is paired with every reference event of sufficient IoU. Otherwise events are
            paired one to one, see [`longvale.metrics.dense_captioning.compute_score.match`].
        garbage: captions are compared per predicted event; unpaired predictions are compared with a text of fifteen
            `x`. Otherwise captions are compared per reference event; unpaired references with an empty caption.
        strictly_above: precision and recall require an IoU above the threshold; otherwise an equal IoU is sufficient.
        video_means: scores are computed per video and averaged, with 0 for a video without predicted events. Otherwise
            scores are computed over all events together.
        own_frequencies: CIDEr uses document frequencies of the pairs of one video and one threshold (a single pair
            scores 0); otherwise of all reference events.
        swapped_meteor: SODA swaps METEOR's arguments: the prediction is used as the reference and vice versa.
        limited_soda: SODA is 0 for a video with more than 990 predicted and reference events together, for which the
            published recursion exceeds Python's stack.
        ascii_only: dense captioning replaces non-ASCII characters by spaces.
        one_batch: captions are tokenized as one text with one caption per line: a line can change with the next one,
            and some characters break a line and shift all following lines. The published order is that of a set of
            video IDs, which differs between runs; here it is the given order. Otherwise each caption is tokenized
            separately.
        empty_alike: two captions without words have a ROUGE-L of 1; otherwise 0.
        paired_by_order: segment captions are paired by their order, regardless of the event; otherwise by key.
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


_STRICT = ProtocolOptions()

#: The options of each protocol.
PROTOCOL_OPTIONS: dict[Protocol, ProtocolOptions] = {
    "strict": _STRICT,
    "official": ProtocolOptions(**dict.fromkeys(vars(_STRICT), True)),
}


def protocol_options(protocol: Protocol) -> ProtocolOptions:
    """Return the options of a protocol; use `dataclasses.replace` to change one.

    Raises:
        ValueError: if the protocol is unknown.

    Example:
        >>> protocol_options("official").swapped_meteor, protocol_options("strict").swapped_meteor
        (True, False)
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOL_OPTIONS[protocol]
