"""The Gradio page: its layout, and the handlers of the visitor's actions."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr  # at module level: Gradio resolves the type hints of the handlers

from .. import tasks
from ..annotation.review.results import AnnotatedVideo
from ..evaluation.generation.model import MAX_NEW_TOKENS
from ..events import Seconds
from ..io import is_number
from ..tasks import Task
from . import timeline, work
from .limits import MAX_QUESTION, SUFFIXES, Limits
from .sessions import Draft, Session, Sessions, Video

logger = logging.getLogger(__name__)

#: Tasks by the label of the choice. Grounding comes first, since most people try it first.
CHOICES: dict[str, Task | None] = {
    "Find an event": "grounding",
    "List all events": "dense_captioning",
    "Describe a part": "segment_captioning",
    "Ask freely": None,
}
_NAMES = {task: name for name, task in CHOICES.items()}

#: Maximum number of waiting requests; later ones are rejected.
QUEUE_SIZE = 32

_STOPPED = "Stopped."
_FAILED = "Something went wrong on our side, not with your video. The reason is in the log of this page."


@dataclass
class Page:
    """The page of one model.

    Args:
        model: loaded model, from [`longvale.evaluation.generation.model.load_model`].
        processor: processor of the model.
        name: display name of the model.
        limits: limits of uploads.
        examples: videos to choose from.
        annotated: results of `longvale annotate` for some examples, by file name without suffix; shown with them.
        captions: captions of known events of some examples, by path; offered as questions.
        sessions: the open tabs.
    """

    model: Any
    processor: Any
    name: str
    limits: Limits = field(default_factory=Limits)
    examples: Sequence[Path] = ()
    annotated: Mapping[str, AnnotatedVideo] = field(default_factory=dict)
    captions: Mapping[Path, Sequence[str]] = field(default_factory=dict)
    sessions: Sessions = field(default_factory=Sessions)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    # Handlers of the visitor's actions: most return or yield states of the view, of which the last remains.

    def on_load(self, event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """Handle the loading of the page; on a reload, restore the video and the finished answer."""
        key, visit = request.session_hash, event._data.get("visit") if isinstance(event._data, dict) else None
        if not (isinstance(visit, str) and re.fullmatch("[0-9a-f]{32}", visit)):
            return self._show(key, timeline.EMPTY)
        view = self.sessions.resume(key, visit).view
        answer = view.get("answer")
        kept = {"video": view.get("video"), "answer": answer if answer and answer["done"] else None}
        return self._show(key, {**timeline.EMPTY, **kept, "serial": view.get("serial", 0)})

    def suggest(self, event: gr.EventData, request: gr.Request) -> tuple[Any, Any]:
        """Handle the choice of an offered question: write it into the form."""
        offered = (self.sessions.get(request.session_hash).view.get("video") or {}).get("questions", [])
        index = event._data.get("index") if isinstance(event._data, dict) else None
        if not (isinstance(index, int) and 0 <= index < len(offered)):
            return gr.skip(), gr.skip()
        return gr.update(value=offered[index]["choice"]), gr.update(value=offered[index]["query"])

    def upload(self, path: str, request: gr.Request) -> tuple[dict[str, Any], None]:
        """Handle an upload: assign the file to the visitor and clear the upload field."""
        return self._choose(request.session_hash, Path(path), owned=True), None

    def example(self, event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """Handle the choice of an example."""
        index = event._data.get("index") if isinstance(event._data, dict) else None
        if isinstance(index, int) and 0 <= index < len(self.examples):
            return self._choose(request.session_hash, self.examples[index], owned=False)
        return self._show(request.session_hash, {**timeline.EMPTY, "error": "There is no such example."})

    def decode(self, request: gr.Request) -> Iterator[dict[str, Any]]:
        """Decode the video that the visitor chose, when its turn in the queue comes."""
        key = request.session_hash
        session = self.sessions.get(key)
        video = session.video
        if video is None or video.duration:  # already decoded, or removed meanwhile
            yield {**timeline.EMPTY, **session.view}
        else:
            yield from self._run(key, session, lambda report: self._decode(key, session, video, report))

    def on_clear(self, request: gr.Request) -> tuple[dict[str, Any], None]:
        """Handle the wish to choose another video: clear the page and the upload field."""
        self.sessions.begin(request.session_hash)
        self.sessions.choose(request.session_hash, None)
        return self._show(request.session_hash, timeline.EMPTY), None

    def ask(
        self, choice: str, query: str, start: float | None, end: float | None, request: gr.Request
    ) -> Iterator[dict[str, Any]]:
        """Answer a question about the chosen video."""
        key = request.session_hash
        session = self.sessions.get(key)
        if session.video is not None and not session.video.duration:
            yield {**session.view, "error": "The video is still being decoded; ask when its timeline is there."}
            return
        self.sessions.begin(key)
        view = {**timeline.EMPTY, "video": session.view.get("video")}
        try:
            question = ask_about(session.video, choice, query, start, end)
        except ValueError as error:
            yield self._show(key, {**view, "answer": session.view.get("answer"), "error": str(error)})
            return
        yield self._show(key, {**view, "stage": timeline.stage("Starting")})
        yield from self._run(key, session, lambda report: self._answer(session, question, view, report))

    def stop(self, request: gr.Request) -> dict[str, Any]:
        """Stop the visitor's running or waiting work; the text of an answer so far is kept."""
        key = request.session_hash
        session = self.sessions.get(key)
        session.stop.set()
        video, draft, session.draft = session.video, session.draft, None
        view = {**timeline.EMPTY, **session.view, "stage": None, "note": _STOPPED}
        if video is not None and not video.duration:
            self.sessions.drop(key, video)
        elif video is not None and draft is not None:
            text, events = (draft.text, draft.events) if draft.whole else work.cut_off(draft.text, draft.events)
            if text != draft.text:
                view["note"] = f"{_STOPPED} The answer was cut off at \u201c\u2026\u201d."
            saved = timeline.to_annotation(video.name, video.duration, events)
            view["answer"] = timeline.describe_answer(draft.question, text, events, None, saved)
        return self._show(key, view)

    def on_unload(self, request: gr.Request) -> None:
        """Handle the closing or reloading of the tab."""
        self.sessions.disconnect(request.session_hash)

    # Work of the handlers

    def _choose(self, key: str, path: Path, *, owned: bool) -> dict[str, Any]:
        self.sessions.begin(key)
        self.sessions.choose(key, Video(path, path.name, owned))
        return self._show(key, {**timeline.EMPTY, "stage": timeline.stage("Decoding the video", 0.0)})

    def _run(
        self, key: str, session: Session, job: Callable[[Callable[[dict], None]], None]
    ) -> Iterator[dict[str, Any]]:
        """Yield the states that a job reports; an error is added as a sentence to the last state."""
        stop = session.stop
        try:
            for view in work.in_background(job, stop):
                # Otherwise the visitor has started other work or stopped this job.
                if session.stop is stop and not (stop.is_set() and view["stage"]):
                    yield self._show(key, view)
        except (ValueError, OSError) as error:
            yield self._show(key, {**timeline.EMPTY, **session.view, "stage": None, "error": _sentence(error)})
        except Exception:
            logger.exception("a visitor's request failed")
            yield self._show(key, {**timeline.EMPTY, **session.view, "stage": None, "error": _FAILED})

    def _show(self, key: str, view: dict[str, Any]) -> dict[str, Any]:
        session = self.sessions.get(key)
        session.view = {**view, "serial": session.view.get("serial", 0) + 1}
        return dict(session.view)

    def _decode(self, key: str, session: Session, video: Video, report: Callable[[dict], None]) -> None:
        path, stop = video.path, session.stop

        def read(share: float) -> None:
            report({**timeline.EMPTY, "stage": timeline.stage("Decoding the video", share)})

        try:
            self.limits.check(path)
            media = work.decode(path, self.processor.media_kwargs(), self.limits.length, read, stop)
            if stop.is_set():
                raise work.Stopped
            video.media, video.duration = media, media.duration
        finally:
            if not video.duration:
                self.sessions.drop(key, video)
        url = f"gradio_api/file={quote(str(path))}"
        described = timeline.describe_video(path.name, url, media)
        found = None if video.owned else self.annotated.get(path.stem)
        if found is not None:
            described["boundaries"] = found.boundaries
        captions = self.captions.get(path, ()) if not video.owned else ()
        described["questions"] = [
            {"choice": _NAMES["dense_captioning"], "query": ""},
            *({"choice": _NAMES["grounding"], "query": caption} for caption in captions or _ANY_EVENTS),
        ]
        report(
            {
                **timeline.EMPTY,
                "video": described,
                "answer": None if found is None else timeline.describe_annotation(found),
            }
        )

    def _answer(self, session: Session, question: Question, view: dict, report: Callable[[dict], None]) -> None:
        video, stop = session.video, session.stop
        shown: dict[str, Any] = {**view}

        def show(stage: str | None, share: float | None = None, **changes: Any) -> None:
            shown.update(changes, stage=timeline.stage(stage, share) if stage else None)
            report({**shown})

        with self._turn:  # a stopped visitor's step may still be running
            if video.features is None:
                video.features = work.encode(self.model, self.processor, video.media, show, stop)
                video.media = None
            weights = None

            def write(text: str) -> None:
                if stop.is_set():
                    return
                session.draft = Draft(question.words, text, question.events(text, video.duration))
                described = timeline.describe_answer(question.words, text, session.draft.events, None, None)
                show("Writing the answer", None, answer=described)

            show("Reading the question")
            model = self.model, self.processor, question.text, video.features
            text = work.answer(*model, question.max_new_tokens, write, stop)
            if stop.is_set():
                raise work.Stopped
            events = question.events(text, video.duration)
            session.draft = Draft(question.words, text, events, whole=True)
            if events:
                weighing = "Weighing what was seen, heard and said"
                events, weights = work.attribute_events(*model, text, events, lambda share: show(weighing, share), stop)
        saved = timeline.to_annotation(video.name, video.duration, events)
        session.draft = None
        show(None, answer=timeline.describe_answer(question.words, text, events, weights, saved))

    # The page itself

    def build(self) -> gr.Blocks:
        """Build the page as Gradio Blocks; see [`longvale.app.server.serve`] for how it is launched."""
        with gr.Blocks(title="LongVALE", analytics_enabled=False) as blocks:
            gr.HTML(_asset("head.html").replace("{model}", _escape(self.name)), padding=False)
            with gr.Row(elem_id="lv-columns"):
                with gr.Column(scale=7, min_width=280):
                    viewer = gr.HTML(
                        timeline.EMPTY,
                        html_template='<div class="lv"></div>',
                        js_on_load=_asset("viewer.js"),
                        examples=self._cards(),
                        elem_id="lv-viewer",
                        apply_default_css=False,
                    )
                with gr.Column(scale=3, min_width=280, elem_id="lv-side"):
                    controls = self._build_controls()
            self._connect(blocks, viewer, controls)
        blocks.queue(max_size=QUEUE_SIZE, api_open=False)
        return blocks

    def _build_controls(self) -> dict[str, Any]:
        parts = {
            "file": gr.File(
                label="Your video", file_types=list(SUFFIXES), type="filepath", height=132, elem_id="lv-file"
            )
        }
        gr.HTML(f'<p class="lv-hint">{_escape(self.limits.sentence)} Deleted when you leave.</p>', padding=False)
        parts["choice"] = gr.Radio(
            list(CHOICES), value=_NAMES["grounding"], label="What do you want to know?", elem_id="lv-task"
        )
        parts["query"] = gr.Textbox(
            label="Which event?",
            placeholder=_PLACEHOLDERS["grounding"],
            lines=2,
            max_length=MAX_QUESTION,
            elem_id="lv-query",
        )
        with gr.Row(visible=False) as parts["span"]:
            parts["start"] = gr.Number(0, label="From (seconds)", minimum=0, min_width=100, elem_id="lv-from")
            parts["end"] = gr.Number(10, label="To (seconds)", minimum=0, min_width=100, elem_id="lv-to")
        with gr.Row():
            parts["ask"] = gr.Button("Ask", variant="primary", min_width=120, elem_id="lv-ask")
            parts["stop"] = gr.Button("Stop", min_width=80, elem_id="lv-stop")
        parts["status"] = gr.HTML("<span></span>", elem_id="lv-queue", padding=False, min_height=28)
        return parts

    def _connect(self, blocks: gr.Blocks, viewer: Any, parts: dict[str, Any]) -> None:
        def change(choice: str) -> tuple:
            task = CHOICES.get(choice)
            words = gr.update(
                visible=task in ("grounding", None),
                label="Which event?" if task else "Your question",
                placeholder=_PLACEHOLDERS.get(task, ""),
            )
            return words, gr.update(visible=task == "segment_captioning")

        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        waiting = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": parts["status"]}
        parts["choice"].change(change, parts["choice"], [parts["query"], parts["span"]], queue=False, **quiet)
        # A video is assigned to its visitor immediately, and deleted with the visit even if work is queued for it.
        # Decoding needs the disk and one core, so two run at a time. The model answers one question at a time.
        running = [
            chosen.success(self.decode, None, viewer, concurrency_limit=2, concurrency_id="decode", **waiting)
            for chosen in (
                parts["file"].upload(self.upload, parts["file"], [viewer, parts["file"]], queue=False, **quiet),
                viewer.example(self.example, None, viewer, queue=False, **quiet),
            )
        ]
        inputs = [parts[name] for name in ("choice", "query", "start", "end")]
        suggested = viewer.suggest(self.suggest, None, [parts["choice"], parts["query"]], queue=False, **quiet)
        for trigger in (parts["ask"].click, parts["query"].submit, suggested.success):
            running.append(trigger(self.ask, inputs, viewer, concurrency_limit=1, concurrency_id="model", **waiting))
        viewer.arrive(self.on_load, None, viewer, queue=False, **quiet)
        viewer.leave(self.on_clear, None, [viewer, parts["file"]], queue=False, cancels=running, **quiet)
        parts["stop"].click(self.stop, None, viewer, cancels=running, queue=False, **quiet)
        parts["file"].clear(self.on_clear, None, [viewer, parts["file"]], queue=False, cancels=running, **quiet)
        blocks.unload(self.on_unload)

    def _cards(self) -> list[dict[str, str]]:
        """Return the cards of the examples on the empty page."""
        from ..models.media import MediaError, read_media

        cards = []
        for path in self.examples:
            try:
                media = read_media(path, num_frames=1, size=timeline.THUMBNAIL_HEIGHT)
            except MediaError as error:  # the page still works with the others
                logger.warning("an example cannot be shown: %s", error)
                cards.append({"name": path.name, "image": "", "length": "cannot be read"})
                continue
            image = timeline.thumbnail(media.frames[0]) if media.frames is not None else ""
            cards.append({"name": path.name, "image": image, "length": f"{media.duration:.0f} s"})
        return cards


_PLACEHOLDERS: dict[Task | None, str] = {
    "grounding": "A bell is heard off screen.",
    None: "Which sounds are heard in the video?",
}


#: Queries offered for a video without known events.
_ANY_EVENTS = ("A person speaks.", "Music plays.")


@dataclass(frozen=True)
class Question:
    """A question for the model, with what is needed to read its answer.

    Args:
        task: None for a free question.
        text: prompt for the model; contains `<video>`.
        words: the question in words for people.
        span: time range in seconds; only for segment captioning.
    """

    task: Task | None
    text: str
    words: str
    span: tuple[Seconds, Seconds] | None = None

    @property
    def max_new_tokens(self) -> int:
        """Maximum length of the answer in tokens."""
        return MAX_NEW_TOKENS[self.task or "segment_captioning"]

    def events(self, answer: str, duration: Seconds) -> tuple:
        """Read the events of an answer."""
        return work.find_events(answer, duration, self.task, self.words, self.span)


def ask_about(video: Video | None, choice: str, query: str | None, start: float | None, end: float | None) -> Question:
    """Make the question from the fields of the form.

    Args:
        video: the current video.
        choice: one of [`CHOICES`].
        query: the event to find, or the free question.
        start, end: the part to describe, in seconds.

    Raises:
        ValueError: if a field is missing or invalid; the message is written for the visitor.

    Example:
        >>> video = Video(Path("a.mp4"), "a.mp4", False, 60.0, None)
        >>> ask_about(video, "Describe a part", None, 6, 30).words
        'What happens from 6 s to 30 s?'
    """
    if video is None or not video.duration:
        raise ValueError("Choose a video first: drop one, or take an example.")
    if not isinstance(choice, str) or choice not in CHOICES:
        raise ValueError(f"Choose what you want to know: {', '.join(CHOICES)}.")
    if query is not None and not (isinstance(query, str) and len(query) <= MAX_QUESTION):
        raise ValueError(f"A question is a text of up to {MAX_QUESTION} characters; write a shorter one.")
    task, words = CHOICES[choice], " ".join((query or "").split())
    if task == "dense_captioning":
        return Question(task, tasks.dense_captioning_question(), "What happens, and when?")
    if task == "segment_captioning":
        if not (is_number(start) and is_number(end)) or not 0 <= start < end or start >= video.duration:
            raise ValueError(f"Give a part of the video: from 0 or later to {video.duration:.1f} seconds or earlier.")
        end = min(end, video.duration)
        text = tasks.segment_captioning_question(start, end, video.duration)
        return Question(task, text, f"What happens from {start:g} s to {end:g} s?", (start, end))
    # Visitors must not insert the model's video token.
    words = words.replace(tasks.VIDEO_TOKEN, "").strip()
    if not words:
        raise ValueError("Write which event to look for." if task else "Write a question.")
    text = tasks.grounding_question(words) if task else f"{tasks.VIDEO_TOKEN}\n{words}"
    return Question(task, text, words)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        name = os.path.basename(os.fsdecode(error.filename))
        return f"{name}: {(error.strerror or 'cannot be read').lower()}; choose the video again."
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _escape(text: str) -> str:
    from html import escape

    return escape(text)
