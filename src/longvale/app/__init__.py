"""The web page: ask a model about a video, and see on a timeline what it saw, heard and was told.

| module | what |
| --- | --- |
| `limits` | which uploads are taken |
| `sessions` | the private folder of uploads, and what the page knows of each visitor |
| `work` | decoding, encoding, answering and weighing, with progress, in a thread that can be stopped |
| `annotations` | what `longvale annotate` found, read from its stages |
| `timeline` | what the browser draws: waveform, thumbnails, events |
| `page` | the page itself (Gradio) |
| `server` | the page behind its own headers and refusals; starting and ending it |
| `viewer.js`, `viewer.css` | player and timeline in the browser |
"""
