"""Web app: ask a model about a video, and see on a timeline what was seen, heard and said.

| module | contents |
| --- | --- |
| `limits` | limits of uploads and questions |
| `sessions` | state of each visitor, and the environment that keeps Gradio's files in a private folder |
| `uploads` | the upload folder: its maximum size, and what is deleted from it |
| `guard` | checks of requests before Gradio handles them |
| `work` | decoding, encoding, answering and weighing, with progress, in a thread that can be stopped |
| `timeline` | data that the browser draws: waveform, thumbnails, events |
| `page` | the page itself (Gradio) |
| `server` | start and end of the page with its guard |
| `viewer.js`, `viewer.css` | player and timeline in the browser |
"""
