"""Speed of a training step, compared with a plain loop.

    python benchmarks/training.py                    # some three minutes on two cores

Both train the same small model (2 layers, 64 wide, 32,000 words) on the same steps of the same dialogues, whose lengths
are a quarter of those of the released ones (which do not fit a benchmark on a CPU). The plain loop pads every batch to
its longest dialogue and computes the logits of all positions, as `model(**batch).loss` does; ours is the trainer of
`recipes/sft.py`. They run in turns, each in a separate process. Prints tokens per second (without padding; seconds are
CPU time of the process, so that other work on the machine does not count) and peak memory of both, the ratio, and the
difference of the losses.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, STEP_ROWS, BATCH_ROWS, WARM_UP = 3, 32, 4, 1
WIDTH = 64
#: Scale of the published lengths: features of a video and events of a dialogue.
SCALE = 0.25


def make_data(folder: Path, rows: int, seed: int = 0) -> None:
    """Write boundary-perception dialogues with random features, in the official formats.

    Duration and events per video and the share of dense captioning are those published (549 h in 8,411 videos of 30 to
    600 s, 12.6 events each, 20%); the number of words per caption is not published and taken as 45.
    """
    from longvale.data.dialogues import boundary_dialogue, save_dialogues
    from longvale.events import Annotation, Event
    from longvale.features.store import save_features

    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    dialogues = []
    for index in range(rows):
        while not 30 <= (duration := rng.lognormvariate(5.14, 0.8)) <= 600:
            pass
        count = max(1, round(SCALE * rng.lognormvariate(2.35, 0.6)))
        events = []
        for number in range(count):
            words = [f"w{rng.randrange(2000)}" for _ in range(max(3, round(rng.lognormvariate(3.8, 0.4))))]
            start, end = duration * number / count, duration * (number + 1) / count
            events.append(Event(start, end, " ".join(words)))
        name = f"video_{index:04d}"
        dialogues.append(boundary_dialogue(Annotation(name, duration, tuple(events)), rng))
        sizes = {"visual": 100, "audio": duration / 5.12, "speech": duration / 5.12}
        arrays = {m: numbers.normal(size=(max(1, int(SCALE * n)), 64)).astype(np.float32) for m, n in sizes.items()}
        save_features(folder / "features", name, arrays)
    save_dialogues(dialogues, folder / "longvale-sft-bp.json")


def make_model(folder: Path) -> None:
    """Write an untrained model with a vocabulary of the published size; each word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessor, LlamaConfig, PreTrainedTokenizerFast, WhisperFeatureExtractor

    from longvale.models.configuration_longvale import LongVALEConfig
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

    vocabulary = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>", "<video>"])}
    for word in [f"w{i}" for i in range(32_000 - len(vocabulary))]:
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<video>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=32_000, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    config = LongVALEConfig(
        text_config=text, vision_config=None, audio_config=None, speech_config=None, video_token_id=3,
        visual_feature_size=64, audio_feature_size=64, speech_feature_size=64,
    )  # fmt: skip
    LongVALEForConditionalGeneration(config).save_pretrained(folder)
    LongVALEProcessor(CLIPImageProcessor(), WhisperFeatureExtractor(), fast).save_pretrained(folder)


def run(kind: str, folder: Path) -> dict:
    """Train STEPS steps by one of the two ways; the first ones are not timed."""
    import torch

    from longvale.checkpoints.loading import load_checkpoint
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.training.batching import ROW_IDS
    from longvale.training.config import SFTStageConfig
    from longvale.training.data import load_training_set
    from longvale.training.stages import StageTrainer
    from longvale.training.throughput import peak_memory_gib

    torch.set_num_threads(1)
    args = SFTStageConfig(
        model=str(folder / "model"), data_dir=str(folder), features_dir=str(folder / "features"),
        output_dir=str(folder / "out"), effective_batch_size=STEP_ROWS, per_device_train_batch_size=BATCH_ROWS,
        max_steps=STEPS, learning_rate=1e-3, lora_dropout=0.0, logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=True, lr_scheduler_type="constant", max_grad_norm=0.0, seed=0, weight_decay=0.0,
    )  # fmt: skip
    model, processor = load_checkpoint(args.model, LongVALEForConditionalGeneration, device="cpu")
    trainer = StageTrainer(model, args, processor, load_training_set(args, model.config))
    tokens, losses, times = [], [], []
    if kind == "ours":
        starts = []
        take = trainer.get_batch_samples

        def counted(*arguments):
            starts.append(time.process_time())
            batches, items = take(*arguments)
            tokens.append(sum(int(batch["attention_mask"].sum()) for batch in batches))
            return batches, items

        trainer.get_batch_samples = counted
        trainer.train()
        ends = [*starts[1:], time.process_time()]
        times = [end - start for start, end in zip(starts, ends, strict=True)]
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return result(tokens, times, [float(loss) for loss in losses], peak_memory_gib())

    # The same adapter, dialogues and order; only the loop differs.
    plain = trainer.model.train()
    base = plain.get_base_model()
    base.__dict__.pop("forward")  # the trainer's head, which is not part of a plain loop
    optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    batches = iter(trainer.get_train_dataloader())
    for _ in range(STEPS):
        start = time.process_time()
        step = [next(batches) for _ in range(STEP_ROWS // BATCH_ROWS)]
        items = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in step)
        total = 0.0
        for batch in step:
            batch.pop(ROW_IDS)
            loss = plain(**batch, num_items_in_batch=torch.tensor(items)).loss
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        tokens.append(sum(int(batch["attention_mask"].sum()) for batch in step))
        times.append(time.process_time() - start)
        losses.append(total)
    return result(tokens, times, losses, peak_memory_gib())


def result(tokens: list[int], times: list[float], losses: list[float], peak: float) -> dict:
    timed = slice(WARM_UP, None)
    return {"speed": sum(tokens[timed]) / sum(times[timed]), "tokens": tokens, "losses": losses, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--run", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)  # one run, in a process
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(arguments.run[0], Path(arguments.run[1]))))
        return
    found: dict[str, list[dict]] = {"plain": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), STEPS * STEP_ROWS)
        make_model(Path(folder, "model"))
        for _ in range(arguments.rounds):
            for kind, results in found.items():
                command = [sys.executable, __file__, "--run", kind, folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
    report(found)


def report(found: dict[str, list[dict]]) -> None:
    plain, ours = found["plain"], found["ours"]
    speeds = {kind: statistics.median(one["speed"] for one in results) for kind, results in found.items()}
    for kind, results in found.items():
        peak = statistics.median(one["peak"] for one in results)
        print(f"{kind:<6}{speeds[kind]:>8.0f} tokens/s (median of {len(results)}), peak {peak:.2f} GiB")
    ratio = statistics.median(b["speed"] / a["speed"] for a, b in zip(plain, ours, strict=True))
    print(f"ours / plain: {ratio:.2f} times the tokens/s (median of the pairs)")
    gap = max(abs(a - b) for a, b in zip(plain[0]["losses"], ours[0]["losses"], strict=True))
    print(
        f"tokens equal: {plain[0]['tokens'] == ours[0]['tokens']}; losses of {STEPS} steps differ by {gap:.1e} at most"
    )
    print("plain " + " ".join(f"{loss:.4f}" for loss in plain[0]["losses"]))
    print("ours  " + " ".join(f"{loss:.4f}" for loss in ours[0]["losses"]))


if __name__ == "__main__":
    main()
