"""Videos of anyone -> LongVALE-style annotations: admission, boundaries, captions, correlation, checks, refinement.

[`longvale.annotation.pipeline.annotate`] runs all of it; each part stands by itself. Nothing heavy is imported here.
"""
