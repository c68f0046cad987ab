"""Parsers of times in model output: spans in text, records in JSON and tables, lists of events.

There is one module per notation. All of them return [`longvale.reading.spans.TimeSpan`]: two numbers with the unit that
the text names, if any. The caller, which has the question, decides the unit of bare numbers and whether a span fits the
video: [`longvale.timecodes`] for percent, [`longvale.evaluation.adapters.prompts`] for replies of other models.
"""
