"""Speech recognisers of transformers: Whisper with word times and probabilities, and other models by the pipeline.

A Whisper decodes first, as fast as transformers can. One more pass of the decoder over the finished text then gives the
probability of each token, that of no speech, and the attention from which word times follow (`word_times.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....checkpoints.encoders import explain
from ....checkpoints.loading import split_revision
from ....events import Seconds
from ....models.media import SAMPLING_RATE
from ....registry import recognisers
from ...language_models import ModelOptions
from .. import Word
from ..guards import Heard, needs_another_try
from .word_times import FRAME_S, token_times, watch_heads

#: Parts per forward pass.
BATCH = 8
#: Beams of the first try, as in openai/whisper and the pipeline of transformers.
BEAMS = 5
#: Temperatures of further tries if a text repeats itself or is a guess; Whisper has six, of which few help.
TEMPERATURES = (0.4, 0.8)
#: Languages written without spaces, in which every character is a word.
_WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})


@recognisers.register("transformers")
class SpeechRecogniser:
    """Whisper or another speech recogniser of transformers, such as openai/whisper-large-v3.

    A multilingual Whisper also identifies the language: a [`longvale.annotation.languages.LanguageIdentifier`].

    Args:
        options: model (Hub id, ID@REVISION, or folder), and device.

    Raises:
        FileNotFoundError: if the model does not exist.
        ValueError: if the model cannot be loaded, or does not recognise speech.
    """

    def __init__(self, options: ModelOptions) -> None:
        from transformers import pipeline

        from ....models.layers import guard_convolutions

        self.name = options.need_model()
        path, revision = split_revision(self.name)
        self._pipeline: Any = explain(
            lambda path: pipeline("automatic-speech-recognition", model=path, revision=revision, device=options.device),
            path,
            revision,
        )
        guard_convolutions(self._pipeline.model)
        config = getattr(self._pipeline.model, "generation_config", None)
        tokens = getattr(config, "lang_to_id", None) or {}
        #: Codes of the languages that it can identify; empty for an English-only Whisper and for other models.
        self.languages = tuple(token.strip("<|>") for token in tokens)
        self._language_ids = list(tokens.values())
        self._lock = threading.Lock()  # hooks and the seed of sampling are shared

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock behind, which cannot be sent to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def __call__(self, parts: Sequence[np.ndarray]) -> list[Heard]:
        """Return what is said in each part."""
        with self._lock:
            if self._pipeline.type == "seq2seq_whisper":
                return self._whisper(parts)
            return [self._other(part) for part in parts]

    def identify_languages(self, sound: np.ndarray) -> Mapping[str, float]:
        """Return the probability of each of `languages`, computed as Whisper does before it transcribes.

        Args:
            sound: float32 [samples], 16 kHz, at most 30 s.
        """
        with self._lock:
            (found,) = self._identify(self._encode([sound])).tolist()
        return dict(zip(self.languages, found, strict=True))

    # --- Whisper ---

    def _whisper(self, parts: Sequence[np.ndarray]) -> list[Heard]:
        batches = [parts[start : start + BATCH] for start in range(0, len(parts), BATCH)]
        encoded = [self._encode(batch) for batch in batches]
        spoken = self._languages_of(parts, encoded)
        found: list[Heard] = []
        for batch, states in zip(batches, encoded, strict=True):
            languages = spoken[len(found) : len(found) + len(batch)]
            heard = self._decode(states, batch, languages, 0.0)
            for n in range(len(batch)):
                for temperature in TEMPERATURES:
                    if not needs_another_try(heard[n]):
                        break
                    row = slice(n, n + 1)
                    (again,) = self._decode(states[row], batch[row], languages[row], temperature)
                    heard[n] = max(heard[n], again, key=_quality)
            found += heard
        return found

    def _encode(self, parts: Sequence[np.ndarray]) -> Any:
        """Return the encoder states of parts: float [n, 1500, width]."""
        import torch

        model = self._pipeline.model
        heard = self._pipeline.feature_extractor(list(parts), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        with torch.inference_mode():
            return model.get_encoder()(heard.input_features.to(model.device, model.dtype)).last_hidden_state

    def _identify(self, states: Any) -> np.ndarray:
        """Return the probability of each language: float32 [n, languages]."""
        import torch

        model = self._pipeline.model
        start = torch.full((len(states), 1), model.generation_config.decoder_start_token_id, device=model.device)
        with torch.inference_mode():
            logits = model(encoder_outputs=(states,), decoder_input_ids=start).logits[:, -1]  # [n, vocabulary]
        return logits[:, self._language_ids].float().softmax(dim=-1).cpu().numpy()

    def _languages_of(self, parts: Sequence[np.ndarray], encoded: Sequence[Any]) -> list[str | None]:
        """Return the language of each part.

        A second of speech is not enough to identify it, so the probabilities of a part are multiplied by their mean
        over all parts, weighted by length: a video of two languages keeps both, a stray guess is overruled.
        """
        if not self.languages:
            return [None] * len(parts)
        own = np.concatenate([self._identify(states) for states in encoded])  # [n, languages]
        mean = np.average(own, axis=0, weights=[max(len(part), 1) for part in parts])
        return [self.languages[index] for index in (own * mean).argmax(axis=1)]

    def _decode(
        self, states: Any, parts: Sequence[np.ndarray], languages: Sequence[str | None], temperature: float
    ) -> list[Heard]:
        """Return what is said, from encoder states [n, 1500, width]."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        # Half of the decoder's positions, as in openai/whisper: no speech of 30 s is longer, only repetitions are.
        longest = self._pipeline.model.config.max_target_positions // 2
        prompt = max(len(self._prompt(language)) for language in languages)
        options: dict[str, Any] = {"return_timestamps": False, "max_length": prompt + longest}
        if self.languages:  # without a task a multilingual Whisper tends to repeat itself
            options |= {"task": "transcribe", "language": list(languages)}
        options |= {"temperature": temperature} if temperature else {"num_beams": BEAMS}
        devices = [states.device] if states.device.type == "cuda" else []
        frames = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(0)
            sequences = self._pipeline.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states), attention_mask=frames, **options
            )
        special = set(self._pipeline.tokenizer.all_special_ids)
        texts = [[token for token in row if token not in special] for row in sequences.tolist()]
        return [
            self._score(states[n], len(parts[n]) / SAMPLING_RATE, texts[n], languages[n]) for n in range(len(parts))
        ]

    def _prompt(self, language: str | None) -> list[int]:
        """Return the tokens before the text."""
        config = self._pipeline.model.generation_config
        told = [] if language is None else [config.lang_to_id[f"<|{language}|>"], config.task_to_id["transcribe"]]
        return [config.decoder_start_token_id, *told, config.no_timestamps_token_id]

    def _score(self, states: Any, duration: Seconds, text: Sequence[int], language: str | None) -> Heard:
        """Return a text with probabilities and word times, by one pass of the decoder over it.

        One part at a time: the scores of all tokens of the vocabulary would fill the memory for a whole batch.
        """
        import torch

        model, tokenizer, prompt = self._pipeline.model, self._pipeline.tokenizer, self._prompt(language)
        tokens = torch.tensor([[*prompt, *text]], device=states.device)
        heads = getattr(model.generation_config, "alignment_heads", None)
        with torch.inference_mode(), watch_heads(model, heads) as watched:
            logits = model(encoder_outputs=(states[None],), decoder_input_ids=tokens, use_cache=False).logits[0]
            attention = watched.attention()  # [1, heads, tokens, 1500]; None without heads
        first = len(prompt) - 1  # the position that predicts the first token of the text
        following = torch.tensor([*text, tokenizer.eos_token_id], device=states.device)
        each = logits[first:].float().log_softmax(dim=-1).gather(-1, following[:, None])[:, 0].cpu().numpy()
        silent = self._no_speech_id
        no_speech = None if silent is None else float(logits[0].float().softmax(dim=-1)[silent])
        words: tuple[Word, ...] = ()
        probabilities: tuple[float, ...] = ()
        if attention is not None and text:
            frames = max(1, min(attention.shape[-1], round(duration / FRAME_S)))
            times = token_times(attention[0, :, first:, :frames].cpu().numpy())
            words, probabilities = self._words(text, times, np.exp(each), language)
        said = tokenizer.decode(list(text), clean_up_tokenization_spaces=False).strip()
        return Heard(said, words, float(each.mean()), no_speech, probabilities)

    @property
    def _no_speech_id(self) -> int | None:
        """Return the token of no speech, which has two names; None if this vocabulary has none."""
        known = self._pipeline.tokenizer.get_added_vocab()
        return next((known[name] for name in ("<|nospeech|>", "<|nocaptions|>") if name in known), None)

    def _words(
        self, text: Sequence[int], times: np.ndarray, probabilities: np.ndarray, language: str | None
    ) -> tuple[tuple[Word, ...], tuple[float, ...]]:
        """Join tokens to words; `times` [tokens + 1] are their starts and the end of the last, in seconds."""
        words: list[Word] = []
        sure: list[float] = []
        group: list[int] = []
        for n, token in enumerate(text):
            group.append(n)
            piece = self._pipeline.tokenizer.decode([text[m] for m in group], clean_up_tokenization_spaces=False)
            if "�" in piece and token != text[-1]:
                continue  # part of a character
            start, end = float(times[group[0]]), float(times[n + 1])
            probability = float(probabilities[group].mean())
            begins = piece.startswith(" ") or language in _WITHOUT_SPACES
            if words and (not begins or not any(char.isalnum() for char in piece)):
                words[-1] = Word(words[-1].start, max(end, words[-1].end), words[-1].text + piece)
                sure[-1] = min(sure[-1], probability) if any(char.isalnum() for char in piece) else sure[-1]
            else:
                words.append(Word(start, max(end, start), piece))
                sure.append(probability)
            group = []
        return tuple(words), tuple(round(value, 3) for value in sure)

    # --- others ---

    def _other(self, part: np.ndarray) -> Heard:
        """Return what a model of another architecture hears; those of CTC give word times."""
        timed = {"return_timestamps": "word"} if self._pipeline.type in ("ctc", "ctc_with_lm") else {}
        found = self._pipeline({"raw": part, "sampling_rate": SAMPLING_RATE}, **timed)
        words = tuple(Word(*chunk["timestamp"], f" {chunk['text'].strip()}") for chunk in found.get("chunks", ()))
        return Heard(" ".join(found["text"].split()), words)


def _quality(heard: Heard) -> tuple[bool, float]:
    return not needs_another_try(heard), heard.log_probability or 0.0
