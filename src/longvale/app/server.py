"""The server of the page: its private folder, its start and its end."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from ..annotation.review.results import AnnotatedVideo, load_annotated
from ..checkpoints.loading import Weights
from ..data.sources import index_videos
from ..evaluation.adapters.time_formats import require_timecodes
from ..evaluation.generation.model import ModelLike, load_model
from ..events import Event, Modality
from .guard import Guard
from .limits import Limits
from .page import Page, _asset
from .sessions import private_environment
from .uploads import Uploads

logger = logging.getLogger(__name__)

#: Maximum number of examples on the empty page, and of annotated videos.
MAX_EXAMPLES, MAX_ANNOTATED = 6, 24
#: Maximum length in characters of a caption that is offered as a question.
_LONGEST_OFFER = 120


@contextmanager
def serve(
    model: ModelLike,
    *,
    examples: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    limits: Limits | None = None,
    device: str | None = None,
    **weights: Unpack[Weights],
) -> Iterator[str]:
    """Serve the page while the block runs.

    Args:
        model: folder, Hub id, or (model, processor) pair.
        examples: folder of videos, of which the first six are offered; by default three synthetic videos are made.
        annotations: stage folder of `longvale annotate`. Its videos are searched in `examples`, and shown with their
            boundaries, events and captions.
        host: address to listen on; "0.0.0.0" accepts connections from other machines.
        port: port to listen on; by default the first free one from 7860.
        limits: limits of uploads.
        device: torch device, such as "cpu"; by default an accelerator if there is one.
        weights: see [`longvale.checkpoints.loading.Weights`].

    Yields:
        The page's address. On exit all uploads of visitors are deleted.

    Raises:
        FileNotFoundError: if the model or the folder of examples is missing, or that folder contains no video.
        ValueError: if the model or the annotations are damaged, or annotations are given without examples.
        OSError: if the port is in use.

    Example:
        >>> with serve("demo/model") as url:  # doctest: +SKIP
        ...     print(url)
        http://127.0.0.1:7860
    """
    found, annotated = choose_examples(examples, annotations)
    loaded = load_model(model, device, **weights)
    require_timecodes(loaded[0].config, "longvale app")
    limits = limits or Limits()
    with private_folder() as folder:
        known = {path: _some_captions(annotated[path.stem].annotation.events) for path in found if annotated}
        if not found:
            known = synthetic_examples(folder)
        page = Page(
            *loaded,
            name=_name(model),
            limits=limits,
            examples=found or list(known),
            annotated=annotated,
            captions=known,
        )
        uploads = Uploads(os.environ["GRADIO_TEMP_DIR"], limits, page.sessions)
        blocks = page.build()
        options = launch_options(page, uploads)
        _, url, _ = blocks.launch(server_name=host, server_port=port, prevent_thread_lock=True, **options)
        try:
            with uploads.cleaning_up():
                yield url.rstrip("/")
        finally:
            blocks.close(verbose=False)


def launch_options(page: Page, uploads: Uploads) -> dict[str, Any]:
    """Return the launch options: nothing is loaded from other sites, and only uploads and examples are readable.

    Gradio serves the files of its temporary folder, which is our private one, and the files listed here.
    """
    from starlette.middleware import Middleware

    return {
        "quiet": True,
        "share": False,
        "ssr_mode": False,
        "run_history": False,
        "footer_links": [],
        "show_error": False,
        "strict_cors": True,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "max_file_size": page.limits.size,
        "allowed_paths": [str(path) for path in page.examples],
        "app_kwargs": {"middleware": [Middleware(Guard, limits=page.limits, uploads=uploads)]},
        "theme": _theme(),
        "css": _asset("viewer.css"),
    }


def _theme() -> Any:
    """Return a theme with the fonts of the visitor's system and a contrast of at least 4.5 to 1 (WCAG AA)."""
    import gradio as gr

    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        radius_size="md",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
    )


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a folder that only this user can access, for all files of Gradio; it is deleted on exit."""
    folder = Path(tempfile.mkdtemp(prefix="longvale-app-")).resolve()
    wanted = private_environment(folder)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    Path(wanted["GRADIO_TEMP_DIR"]).mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def choose_examples(
    examples: str | os.PathLike | None, annotations: str | os.PathLike | None
) -> tuple[list[Path], dict[str, AnnotatedVideo]]:
    """Return the videos to offer, and the annotated videos by id.

    Args:
        examples: folder of videos, or None.
        annotations: stage folder; with it only annotated videos are offered.

    Raises:
        FileNotFoundError: if a folder is missing, or contains no video or no annotated one.
        ValueError: if annotations are given without videos, or are damaged.
    """
    if annotations is None:
        return ([] if examples is None else example_videos(examples)[:MAX_EXAMPLES]), {}
    if examples is None:
        raise ValueError(f"{annotations}: give the folder of its videos, too, as examples")
    annotated = load_annotated(annotations)
    videos = [path for path in example_videos(examples) if path.stem in annotated][:MAX_ANNOTATED]
    if not videos:
        raise FileNotFoundError(f"{examples}: holds none of the videos of {annotations}; give the folder that does")
    return videos, annotated


def example_videos(folder: str | os.PathLike) -> list[Path]:
    """Return the videos of a folder, sorted by path.

    Raises:
        FileNotFoundError: if the folder does not exist or contains no video.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a folder of example videos")
    videos = sorted(index_videos(folder).values())
    if not videos:
        raise FileNotFoundError(f"{folder}: holds no video; give a folder of example videos")
    return [path.resolve() for path in videos]


def synthetic_examples(folder: Path) -> dict[Path, list[str]]:
    """Make three synthetic videos like those of the demo's training data, in the private folder; captions by path."""
    from dataclasses import replace

    from ..demo.checkpoint import corpus_options
    from ..synthetic.corpus import plan_video, write_video

    options = replace(corpus_options(), size=256)
    (folder / "examples").mkdir()
    paths = [folder / "examples" / f"example_{number}.mp4" for number in (1, 2, 3)]
    plans = {path: plan_video(path.stem, "examples", options) for path in paths}
    for path, plan in plans.items():
        write_video(plan, path, options)
    return {path: _some_captions(plan.annotation.events) for path, plan in plans.items()}


def _some_captions(events: Iterable[Event]) -> list[str]:
    """Return at most three captions, of events with different modalities."""
    by_modalities: dict[tuple[Modality, ...], str] = {}
    for event in events:
        if len(event.caption) <= _LONGEST_OFFER:
            by_modalities.setdefault(event.modalities, event.caption)
    return [by_modalities[modalities] for modalities in sorted(by_modalities, key=len)][:3]


def _name(model: ModelLike) -> str:
    path = getattr(model[0], "name_or_path", "") if isinstance(model, tuple) else model
    return "/".join(Path(path).parts[-2:]) or "unnamed"
