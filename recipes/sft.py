"""Tune a model: one stage of LongVALE's own model, or a chat model of transformers on raw videos.

    accelerate launch recipes/sft.py --config recipes/configs/boundary_perception.yaml \
        --model vicuna-with-projectors --data_dir data --features_dir features --output_dir boundary_perception
    accelerate launch recipes/sft.py --config recipes/configs/instruction.yaml \
        --model boundary_perception --data_dir data --features_dir features --output_dir instruction
    accelerate launch recipes/sft.py --model_name_or_path Qwen/Qwen2.5-Omni-7B --data_dir data --videos_dir videos \
        --dataset_config grounding,dense_captioning,segment_captioning --output_dir omni --max_steps 1000

`accelerate launch --config_file recipes/accelerate/FILE` selects the hardware: one CPU, one GPU, several. Every option
of the YAML files can also be given on the command line; `--help` lists all.

The same command resumes a stopped run from its last complete checkpoint, and changes nothing if the run is finished:
`--overwrite true` trains from the beginning, `--resume_from_checkpoint output_dir/checkpoint-N --max_steps M` continues
with more steps.

Afterwards `output_dir` is a checkpoint that `from_pretrained` loads, and contains the adapter alone in `adapter/`, the
losses in `log_history.json`, and the trainer's last checkpoints.
"""

import logging
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trl import TrlParser

from longvale.demo.tuning import DemoOptions
from longvale.system.locks import hold
from longvale.system.names import printable
from longvale.training.chat.arguments import is_chat_model, parse_chat_arguments
from longvale.training.chat.trainer import ChatRun
from longvale.training.checkpoints import checkpoint_to_resume
from longvale.training.config import SFTStageConfig, recipe_arguments
from longvale.training.grounding_callback import GroundingCallback, load_grounding_set
from longvale.training.profile import ProfileCallback
from longvale.training.stages import (
    SafeTrainer,
    StageTrainer,
    finish,
    load_base,
    merge_and_save,
    push_result,
    save_history,
    trained_adapter,
)

if TYPE_CHECKING:
    from longvale.models.processing_longvale import LongVALEProcessor


def main() -> None:
    with ExitStack() as held:
        train(held)


def train(held: ExitStack) -> None:
    """Run the whole training; `held` keeps the lock until the end."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        run = read_run(recipe_arguments(sys.argv[1:]))
        args = run.args
        if args.process_index == 0:
            output = Path(args.output_dir).absolute()  # the lock is next to it: a refused run creates no folder
            held.enter_context(hold(output.parent, output.name, work=sys.argv[0], option="output_dir"))
        if finish(args, run.load):
            push_result(args)
            return
        trainer = run.set_up()
        checkpoint = checkpoint_to_resume(args)
    except (ValueError, FileNotFoundError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)

    if trainer.is_world_process_zero():
        print(describe(run, trainer, checkpoint), flush=True)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except FloatingPointError as error:
        print(f"\nerror: {error}", file=sys.stderr)  # on a separate line, after the progress bar
        sys.exit(1)
    model = trained_adapter(trainer, run.load)
    if trainer.is_world_process_zero():
        save_history(trainer.state.log_history, args.output_dir)
        merge_and_save(model, run.processor, args.output_dir, args)  # last: a run that has merged is finished
        print(f"{args.output_dir}: the merged checkpoint, its adapter and log_history.json", flush=True)
    push_result(args)


def read_run(arguments: list[str]) -> "StageRun | ChatRun":
    """Read the options: of a stage of LongVALE's own model, or of a chat model of transformers."""
    if is_chat_model(arguments):
        return ChatRun(*parse_chat_arguments(arguments))
    args, options = TrlParser((SFTStageConfig, DemoOptions)).parse_args_and_config(arguments)
    options.apply(args)
    return StageRun(args, options)


class StageRun:
    """One stage of LongVALE's own model."""

    def __init__(self, args: SFTStageConfig, options: DemoOptions) -> None:
        self.args, self.options = args, options
        self.start, self.load = args.model, partial(load_base, args)
        self.processor: LongVALEProcessor | None = None

    def set_up(self) -> StageTrainer:
        """Load the model and the data of a stage; errors in them are reported here, before any training."""
        args = self.args
        model, self.processor = self.load(args.load_in_4bit)
        dataset = self.options.training_set(args, model.config)
        trainer = self.options.trainer(model, args, self.processor, dataset)
        if args.profile and args.process_index == 0:
            trainer.add_callback(ProfileCallback(args.output_dir))
        if args.grounding_videos:
            features = args.grounding_features_dir or args.features_dir
            asked = load_grounding_set(args.data_dir, features, args.grounding_videos, model, self.processor)
            trainer.add_callback(GroundingCallback(trainer, self.processor, asked, args.grounding_steps))
        return trainer

    def describe(self, trainer: StageTrainer) -> str:
        """Describe the data of the stage, in one line."""
        args = self.args
        source = "composed" if self.options.mosaic > 0 else "streamed" if args.streaming else "stored"
        count = f"{args.max_steps} steps of" if args.streaming else len(trainer.train_dataset)
        return f"{args.stage}: {count} dialogues ({args.dialogues}, {source})"


def describe(run: "StageRun | ChatRun", trainer: SafeTrainer, checkpoint: str | None) -> str:
    """Describe the run that is about to start, in one paragraph."""
    args, trained = trainer.args, sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    batch = args.world_size * args.per_device_train_batch_size * args.gradient_accumulation_steps
    return (
        f"{run.describe(trainer)}, {batch} a step "
        f"(processes: {args.world_size}, batch: {args.per_device_train_batch_size}, accumulated: "
        f"{args.gradient_accumulation_steps}); {trained / 1e6:.2f}M weights trained; "
        f"starts from {checkpoint or run.start}"
    )


if __name__ == "__main__":
    main()
