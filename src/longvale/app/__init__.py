"""The web page: ask a model about a video, and see on a timeline what it saw, heard and was told.

| module | what |
| --- | --- |
| `limits` | which uploads and questions are taken |
| `sessions` | what the page knows of each visitor, and the environment that keeps Gradio in a private folder |
| `uploads` | the folder of uploads: how much it may store, what is deleted from it |
| `guard` | what is refused before Gradio sees it |
| `work` | decoding, encoding, answering and weighing, with progress, in a thread that can be stopped |
| `timeline` | what the browser draws: waveform, thumbnails, events |
| `page` | the page itself (Gradio) |
| `server` | the page behind its guard; starting and ending it |
| `viewer.js`, `viewer.css` | player and timeline in the browser |
"""
