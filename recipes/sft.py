"""Tune a LongVALE model: one stage, from a checkpoint to the merged checkpoint for the next stage.

    accelerate launch recipes/sft.py --config recipes/configs/boundary_perception.yaml \
        --model vicuna-with-projectors --data_dir data --features_dir features --output_dir boundary_perception
    accelerate launch recipes/sft.py --config recipes/configs/instruction.yaml \
        --model boundary_perception --data_dir data --features_dir features --output_dir instruction

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
from pathlib import Path
from typing import TYPE_CHECKING

from trl import TrlParser

from longvale.checkpoints.loading import load_checkpoint
from longvale.demo.tuning import DemoOptions
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.system.locks import hold
from longvale.system.names import printable
from longvale.training.checkpoints import checkpoint_to_resume
from longvale.training.config import SFTStageConfig, recipe_arguments
from longvale.training.grounding_callback import GroundingCallback, load_grounding_set
from longvale.training.profile import ProfileCallback
from longvale.training.stages import StageTrainer, finish, merge_and_save, save_history, trained_adapter

if TYPE_CHECKING:
    from longvale.models.processing_longvale import LongVALEProcessor


def main() -> None:
    with ExitStack() as held:
        train(held)


def train(held: ExitStack) -> None:
    """Run the whole training; `held` keeps the lock until the end."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        parser = TrlParser((SFTStageConfig, DemoOptions))
        args, options = parser.parse_args_and_config(recipe_arguments(sys.argv[1:]))
        options.apply(args)
        if args.process_index == 0:
            output = Path(args.output_dir).absolute()  # the lock is next to it: a refused run creates no folder
            held.enter_context(hold(output.parent, output.name, work=sys.argv[0], option="output_dir"))
        if finish(args):
            return
        trainer, processor = set_up(args, options)
        checkpoint = checkpoint_to_resume(args)
    except (ValueError, FileNotFoundError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)

    if trainer.is_world_process_zero():
        print(describe(trainer, checkpoint, composed=options.mosaic > 0), flush=True)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except FloatingPointError as error:
        print(f"\nerror: {error}", file=sys.stderr)  # on a separate line, after the progress bar
        sys.exit(1)
    model = trained_adapter(trainer)
    if trainer.is_world_process_zero():
        save_history(trainer.state.log_history, args.output_dir)
        merge_and_save(model, processor, args.output_dir)  # the last step: a run that has merged is finished
        print(f"{args.output_dir}: the merged checkpoint, its adapter and log_history.json", flush=True)


def set_up(args: SFTStageConfig, options: DemoOptions) -> "tuple[StageTrainer, LongVALEProcessor]":
    """Load the model and the data of a stage; errors in them are reported here, before any training."""
    model, processor = load_checkpoint(
        args.model,
        LongVALEForConditionalGeneration,
        device="cpu",
        dtype=args.weights_dtype,
        attn_implementation=args.attn_implementation,
    )
    dataset = options.training_set(args, model.config)
    trainer = options.trainer(model, args, processor, dataset)
    if args.profile and args.process_index == 0:
        trainer.add_callback(ProfileCallback(args.output_dir))
    if args.grounding_videos:
        features = args.grounding_features_dir or args.features_dir
        asked = load_grounding_set(args.data_dir, features, args.grounding_videos, model, processor)
        trainer.add_callback(GroundingCallback(trainer, processor, asked, args.grounding_steps))
    return trainer, processor


def describe(trainer: StageTrainer, checkpoint: str | None, composed: bool) -> str:
    """Describe the run that is about to start, in one paragraph."""
    args, trained = trainer.args, sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    batch = args.world_size * args.per_device_train_batch_size * args.gradient_accumulation_steps
    source = "composed" if composed else "streamed" if args.streaming else "stored"
    count = f"{args.max_steps} steps of" if args.streaming else len(trainer.train_dataset)
    return (
        f"{args.stage}: {count} dialogues ({args.dialogues}, {source}), {batch} a step "
        f"(processes: {args.world_size}, batch: {args.per_device_train_batch_size}, accumulated: "
        f"{args.gradient_accumulation_steps}); {trained / 1e6:.2f}M weights trained; "
        f"starts from {checkpoint or args.model}"
    )


if __name__ == "__main__":
    main()
