"""Reading of times in what models write: spans in text, records in JSON and tables, lists of events.

One module per way of writing. All of them give [`longvale.reading.spans.TimeSpan`]: two numbers with the unit that the
text names for them, if any. Which unit a number without one has, and whether a span can be one of a video, is decided
by the caller, who knows what was asked for: [`longvale.timecodes`] for percent,
[`longvale.evaluation.adapters.prompts`] for replies of other models.
"""
