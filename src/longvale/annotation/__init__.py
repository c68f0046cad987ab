"""LongVALE-style annotation of videos: admission, boundaries, captions, correlation, checks and refinement.

[`longvale.annotation.pipeline.annotate`] runs the whole pipeline; each part can also be used alone. This module imports
no heavy dependencies.
"""
