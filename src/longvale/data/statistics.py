"""Statistics of a corpus: the four distributions of the paper's figure 3, and coverage and overlap of events.

The paper shows video lengths, events per video, event lengths and relation types. Coverage and overlap are ours: they
show whether all of a video is annotated, and whether events follow one another or happen at the same time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ..events import MODALITIES, RELATIONS, Annotation, Event, Seconds
from ..io import atomic_write
from ..plotting.charts import draw_bars
from ..plotting.style import BAR_STYLES, WIDTH_IN, save_figure, style_axes
from ..text_table import align
from .sources import annotation_files, load_videos

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Bounds of the event length classes in seconds, as in the paper.
LENGTH_BOUNDS_S: tuple[Seconds, ...] = (10.0, 30.0, 60.0)
LENGTH_CLASSES = ("to 10 s", "10 to 30 s", "30 to 60 s", "over 60 s")

#: This many simultaneous events, or more, are one class.
_MOST_AT_ONCE = 4


@dataclass
class Measurements:
    """Measurements on the videos of a split; see [`measure`].

    Args:
        video_lengths_s: one value per video.
        events_a_video: one value per video.
        event_lengths_s: one value per event.
        caption_words: one value per event.
        coverage: one value per video, the share of it that events cover, 0 to 1.
        seconds_at_once: seconds of all videos by the number of simultaneous events, 0 included.
        relations, modalities: events by relation, and by modality (an event may have several); empty when not known.
    """

    video_lengths_s: list[Seconds] = field(default_factory=list)
    events_a_video: list[int] = field(default_factory=list)
    event_lengths_s: list[Seconds] = field(default_factory=list)
    caption_words: list[int] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    seconds_at_once: Counter[int] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)

    @property
    def overlap(self) -> float:
        """Share of the covered time with more than one event, 0 to 1."""
        covered = sum(seconds for count, seconds in self.seconds_at_once.items() if count)
        return sum(seconds for count, seconds in self.seconds_at_once.items() if count > 1) / covered if covered else 0

    def summary(self) -> dict[str, Any]:
        """Return the numbers as JSON values: counts, and mean, median, minimum and maximum of each distribution."""
        lengths = Counter(length_class(length) for length in self.event_lengths_s)
        return {
            "videos": len(self.video_lengths_s),
            "hours": sum(self.video_lengths_s) / 3600,
            "events": len(self.event_lengths_s),
            "video_length_s": _spread(self.video_lengths_s),
            "events_a_video": _spread(self.events_a_video),
            "event_length_s": _spread(self.event_lengths_s),
            "event_length_classes": {name: lengths[name] for name in LENGTH_CLASSES},
            "caption_words": _spread(self.caption_words),
            "coverage": _spread(self.coverage),
            "overlap": self.overlap,
            "seconds_at_once": {str(count): self.seconds_at_once[count] for count in sorted(self.seconds_at_once)},
            "relations": {name: self.relations[name] for name in RELATIONS if self.relations[name]},
            "modalities": {name: self.modalities[name] for name in MODALITIES if self.modalities[name]},
        }


def measure(annotations: Iterable[Annotation]) -> Measurements:
    """Measure videos.

    Args:
        annotations: of the videos; their events may be in any order.

    Example:
        >>> video = Annotation("abc", 60.0, (Event(0, 30, "A bell rings."), Event(20, 45, "A dog barks.")))
        >>> measured = measure([video])
        >>> measured.coverage, round(measured.overlap, 2)
        ([0.75], 0.22)
    """
    result = Measurements()
    for video in annotations:
        at_once = seconds_at_once(video.events, video.duration)
        result.video_lengths_s.append(video.duration)
        result.events_a_video.append(len(video.events))
        result.coverage.append(1 - at_once.get(0, 0.0) / video.duration)
        result.seconds_at_once.update(at_once)
        for event in video.events:
            result.event_lengths_s.append(event.length)
            result.caption_words.append(len(event.caption.split()))
            result.modalities.update(event.modalities)
            result.relations.update([event.relation] if event.relation else [])
    return result


def seconds_at_once(events: Iterable[Event], duration: Seconds) -> dict[int, Seconds]:
    """Return how long each number of events happens at the same time.

    Args:
        events: in any order; time after the duration does not count.
        duration: of the video in seconds.

    Returns:
        Seconds by number of events, without numbers that do not occur. They add up to the duration.

    Example:
        >>> seconds_at_once([Event(0, 30, ""), Event(20, 45, "")], 60.0)
        {1: 35.0, 2: 10.0, 0: 15.0}
    """
    edges = [(min(time, duration), step) for event in events for time, step in ((event.start, 1), (event.end, -1))]
    result: dict[int, Seconds] = {}
    before, count = 0.0, 0
    for time, step in [*sorted(edges), (duration, 0)]:
        if time > before:
            result[count] = result.get(count, 0.0) + time - before
        before, count = time, count + step
    return result


def length_class(length_s: Seconds) -> str:
    """Return the class of an event's length, one of [`LENGTH_CLASSES`]; a bound belongs to the shorter class.

    Example:
        >>> length_class(10.0), length_class(75.5)
        ('to 10 s', 'over 60 s')
    """
    return LENGTH_CLASSES[sum(length_s > bound for bound in LENGTH_BOUNDS_S)]


def read_splits(path: str | os.PathLike) -> dict[str, list[Annotation]]:
    """Read annotations by split.

    Args:
        path: a folder with official annotation files or with the output of `longvale annotate`, or one such file,
            which becomes a split with the file's name.

    Raises:
        FileNotFoundError: if the path does not exist or contains none of the files.
        ValueError: if an entry is invalid; the message names file and place.
    """
    path = Path(path)
    if path.is_file():
        return {path.stem: load_videos(path)}
    return {split: load_videos(path / name) for split, name in annotation_files(str(path)).items()}


def format_statistics(splits: Mapping[str, Measurements]) -> str:
    """Format a table for the terminal, one column per split.

    Args:
        splits: measurements by name of the split.
    """
    summaries = [measured.summary() for measured in splits.values()]
    rows: list[tuple[str, ...]] = [("", *splits)]

    def add(label: str, cell: Any) -> None:
        rows.append((label, *(cell(summary) for summary in summaries)))

    add("videos", lambda s: f"{s['videos']:,}")
    add("hours", lambda s: f"{s['hours']:,.1f}")
    add("events", lambda s: f"{s['events']:,}")
    for label, name in (
        ("video length (s)", "video_length_s"),
        ("events a video", "events_a_video"),
        ("event length (s)", "event_length_s"),
        ("words a caption", "caption_words"),
    ):
        add(label, lambda s, name=name: _format_spread(s[name], 1, ""))
    for name in LENGTH_CLASSES:
        add(f"  events {name}", lambda s, name=name: _percent(s["event_length_classes"][name], s["events"]))
    add("covered by events", lambda s: _format_spread(s["coverage"], 100, "%"))
    add("more than one at once", lambda s: f"{100 * s['overlap']:.1f}%")
    for group, names in (("modalities", MODALITIES), ("relations", RELATIONS)):
        for name in (name for name in names if any(summary[group].get(name) for summary in summaries)):
            add(f"  {name}", lambda s, group=group, name=name: _percent(s[group].get(name, 0), s["events"]))
        if not any(summary[group] for summary in summaries):
            rows.append((group, *("not known" for _ in summaries)))
    return "\n".join(
        [
            *align(rows, numbers=False),
            "Of a spread: mean, median (least to most). Shares are of the events, of the covered time",
        ]
    )


def statistics_figure(splits: Mapping[str, Measurements]) -> Figure:
    """Plot six distributions of a corpus, the splits side by side.

    Args:
        splits: measurements by name of the split, at most three.

    Raises:
        ValueError: if there are more splits than styles, or none.
    """
    from matplotlib.figure import Figure

    if not 0 < len(splits) <= len(BAR_STYLES):
        raise ValueError(f"a picture shows one to {len(BAR_STYLES)} splits, not {len(splits)}")
    measured = list(splits.values())
    figure = Figure(figsize=(WIDTH_IN, 7.5), layout="constrained")
    axes = figure.subplots(3, 2)
    _histogram(axes[0, 0], [m.video_lengths_s for m in measured], "Video length", "seconds")
    _histogram(axes[0, 1], [m.events_a_video for m in measured], "Events a video", "events", whole=True)
    classes = [[length_class(length) for length in m.event_lengths_s] for m in measured]
    _bars(axes[1, 0], [Counter(names) for names in classes], LENGTH_CLASSES, "Event length", "events")
    _relations(axes[1, 1], measured)
    covered = [[100 * share for share in m.coverage] for m in measured]
    _histogram(axes[2, 0], covered, "Covered by events", "% of the video")
    _bars(axes[2, 1], [_at_once(m) for m in measured], _AT_ONCE, "Concurrent events", "time")
    handles, names = axes[0, 0].containers, [_title(name, m) for name, m in splits.items()]
    legend = figure.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def save_statistics(splits: Mapping[str, Measurements], folder: str | os.PathLike) -> list[Path]:
    """Write `statistics.json`, `.png` and `.svg` into a folder, which is created.

    Args:
        splits: measurements by name of the split.
        folder: output folder.

    Returns:
        The paths of the files.
    """
    pictures = save_figure(statistics_figure(splits), Path(folder, "statistics"))
    path = Path(folder, "statistics.json")
    with atomic_write(path) as file:
        json.dump({name: measured.summary() for name, measured in splits.items()}, file, indent=2)
        file.write("\n")
    return [path, *pictures]


_AT_ONCE = ("none", *(str(count) for count in range(1, _MOST_AT_ONCE)), f"{_MOST_AT_ONCE} or more")


def _title(name: str, measured: Measurements) -> str:
    return f"{name}: {len(measured.video_lengths_s):,} videos, {len(measured.event_lengths_s):,} events"


def _at_once(measured: Measurements) -> Counter[str]:
    classes: Counter[str] = Counter()
    for count, seconds in measured.seconds_at_once.items():
        classes[_AT_ONCE[min(count, _MOST_AT_ONCE)]] += seconds
    return classes


def _histogram(axes: Axes, series: Sequence[Sequence[float]], title: str, unit: str, *, whole: bool = False) -> None:
    """Plot shares of videos by value from 0; each whole value is centred in its bar."""
    from matplotlib.ticker import MaxNLocator

    most = max((value for one in series for value in one), default=0)
    ticks = MaxNLocator(12, integer=True, steps=[1, 2, 5, 10]).tick_values(0, max(most, 1) + whole)
    edges = [tick - whole / 2 for tick in ticks]
    shares = [[100 / max(len(one), 1)] * len(one) for one in series]
    colours = [colour for colour, _ in BAR_STYLES[: len(series)]]
    axes.hist(list(series), edges, weights=shares, color=colours, edgecolor="black", linewidth=0.8)
    for container, (_, hatch) in zip(axes.containers, BAR_STYLES, strict=False):
        for bar in container:
            bar.set_hatch(hatch)
    axes.set(xlabel=unit, ylabel="% of videos")
    style_axes(axes, title, "y")


def _bars(axes: Axes, series: Sequence[Counter[str]], names: Sequence[str], title: str, of: str) -> None:
    """Plot vertical bars: the share of each name in its series."""
    draw_bars(axes, [_shares(counts, names) for counts in series], names)
    axes.set_ylabel(f"% of {of}")
    style_axes(axes, title, "y")


def _relations(axes: Axes, measured: Sequence[Measurements]) -> None:
    """Plot horizontal bars, since the names are long; a note if the files contain no relations."""
    names = [name for name in RELATIONS if any(m.relations[name] for m in measured)]
    if not names:
        axes.text(0.5, 0.5, "not known from these files", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        style_axes(axes, "Relation of the modalities")
        return
    draw_bars(axes, [_shares(one.relations, names) for one in measured], names, sideways=True)
    axes.set_xlabel("% of events")
    style_axes(axes, "Relation of the modalities")


def _shares(counts: Counter[str], names: Sequence[str]) -> list[float]:
    return [100 * counts[name] / (counts.total() or 1) for name in names]


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": fmean(values), "median": median(values), "min": min(values), "max": max(values)}


def _format_spread(spread: Mapping[str, float] | None, factor: float, unit: str) -> str:
    if spread is None:
        return "-"
    mean, middle, least, most = (factor * spread[name] for name in ("mean", "median", "min", "max"))
    return f"{mean:.1f}{unit}, {middle:.1f}{unit} ({least:.1f}{unit} to {most:.1f}{unit})"


def _percent(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f}%)" if total else "0"
