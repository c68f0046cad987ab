"""A model and a processor with the interface of LongVALE's, whose answers are a pure function of question and features.

`python fake_longvale.py DATA OUTPUT [N]` answers DATA's questions; before the N-th batch it kills itself with SIGKILL.
"""

import os
import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import torch
from transformers import BatchFeature
from transformers.cache_utils import DynamicCache

WIDTHS = {"visual": 4, "audio": 4, "speech": 6}


VIDEO = 1  # the token that stands for a feature


class FakeProcessor:
    """Characters are tokens; a row of features is summed into the batch."""

    video_token_id = VIDEO
    chat_template = None
    tokenizer = None  # set below: a call and pad_token_id are all that is asked of it

    def video_inputs(self, **columns):
        rows = list(zip(*columns.values(), strict=True))
        counts = [sum(len(values) for values in row if values is not None) for row in rows]
        inputs = self(text=[], **columns)
        del inputs["input_ids"]
        return inputs, counts

    def expand_placeholders(self, texts, counts):
        for text in texts:
            if text.count("<video>") != 1:
                raise ValueError(f"holds <video> {text.count('<video>')} times")
        return [text.replace("<video>", chr(VIDEO) * count) for text, count in zip(texts, counts, strict=True)]

    def tokenize_prompts(self, texts):
        return {"input_ids": [self.tokenizer(text)["input_ids"] for text in texts]}

    def escape(self, text):
        return text.replace("<video>", "< video>")

    def apply_chat_template(self, conversations, add_generation_prompt, tokenize):
        assert add_generation_prompt and not tokenize
        return [f"USER: {messages[0]['content']} ASSISTANT:" for messages in conversations]

    def __call__(self, text=None, videos=None, padding=False, return_tensors="pt", **features):
        if text is None:
            return BatchFeature({"pixel_values_videos": torch.tensor([[float(len(str(v.name)))] for v in videos])})
        for prompt in text:
            if prompt.count("<video>") != 1:
                raise ValueError(f"holds <video> {prompt.count('<video>')} times")
        length = max(map(len, text), default=0)
        data = {"input_ids": torch.tensor([[0] * (length - len(t)) + [ord(c) for c in t] for t in text])}
        for name, column in features.items():
            sums = [0.0 if values is None else 1.0 + float(np.abs(values).sum()) for values in column]
            data[name] = torch.tensor(sums)
        return BatchFeature(data)

    def batch_decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return ["".join(chr(i) for i in row if i) for row in ids.tolist()]


class _Tokenizer:
    pad_token_id = 0

    def __call__(self, text):
        return {"input_ids": [ord(character) for character in text]}


FakeProcessor.tokenizer = _Tokenizer()


def _cache(sums):
    """A cache of one layer whose keys are what the model saw of each video, by row."""
    cache = DynamicCache()
    cache.update(sums[:, None, None, None], sums[:, None, None, None], 0)
    return cache


class FakeModel(torch.nn.Module):
    def __init__(self, seed=0, die_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3,), float(seed)))
        self.config = SimpleNamespace(**{f"{name}_feature_size": width for name, width in WIDTHS.items()})
        self.config.get_text_config = lambda: None  # no layers: anything may be padded
        self.name_or_path = "fake"
        self.device = torch.device("cpu")
        self.batches = []  # the prompts of each call
        self.die_at = die_at
        self.encoded = 0

    def get_visual_features(self, pixel_values_videos):
        self.encoded += 1
        return pixel_values_videos[..., None].expand(-1, -1, 4).clone()

    def forward(self, input_ids, attention_mask, position_ids, use_cache, logits_to_keep, **features):
        return SimpleNamespace(cache=_cache(self.sums(features)))

    def sums(self, features):
        return sum(value * weight for value, weight in zip(features.values(), (1, 10, 100), strict=True))

    def generate(self, input_ids, max_new_tokens, do_sample, attention_mask=None, cache=None, **features):
        assert not do_sample
        if self.die_at is not None and len(self.batches) + 1 == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        texts = ["".join(chr(i) for i in row if i) for row in input_ids.tolist()]
        prompts = [re.sub(f"{chr(VIDEO)}+", "<video>", text) for text in texts]
        self.batches.append(prompts)
        sums = self.sums(features) if cache is None else cache.layers[0].keys[:, 0, 0, 0]
        answers = [self.answer(p, s)[:max_new_tokens] for p, s in zip(prompts, sums.tolist(), strict=True)]
        new = torch.zeros(len(answers), max(map(len, answers)), dtype=torch.long)
        for row, answer in zip(new, answers, strict=True):
            row[: len(answer)] = torch.tensor([ord(c) for c in answer])
        return torch.cat([input_ids, new], dim=1)

    def answer(self, prompt, features):
        start = int(len(prompt) * 7 + features * 3 + float(self.weight[0])) % 60
        span = f"From {start:02d} to {start + 25:02d}"
        if "describe what occurred" in prompt:
            return f"Something at {re.search('from ([0-9]+)', prompt)[1]}, and Ünicode."
        return f"{span}, a bell rings.\n{span}, a <b>dog</b> barks." if "detail the events" in prompt else f"{span}."


if __name__ == "__main__":
    from longvale.evaluation.generation.generate import generate

    die_at = int(sys.argv[3]) if len(sys.argv) > 3 else None
    generate((FakeModel(die_at=die_at), FakeProcessor()), sys.argv[1], sys.argv[2], batch_size=2, progress=False)
