"""Tune a trained model further by reinforcement learning: sampled answers with higher rewards become more likely.

    accelerate launch recipes/grpo.py --config recipes/configs/grpo.yaml \
        --model instruction --data_dir data --features_dir features/longvale --output_dir grpo

The rewards are computed, not judged by a model: temporal IoU and format for grounding, F1 of the boundaries and SODA_c
for dense captioning. Options, launch files, resuming and the content of `output_dir` are those of `recipes/sft.py`.
"""

import logging
import sys
from contextlib import ExitStack
from pathlib import Path

from trl import TrlParser

from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.system.locks import hold
from longvale.system.names import printable
from longvale.training.checkpoints import checkpoint_to_resume
from longvale.training.config import recipe_arguments
from longvale.training.grounding_callback import GroundingCallback, load_grounding_set
from longvale.training.grpo import GRPOStageConfig, VideoGRPOTrainer, load_questions
from longvale.training.stages import finish, merge_and_save, save_history, trained_adapter


def main() -> None:
    with ExitStack() as held:
        train(held)


def train(held: ExitStack) -> None:
    """Run the whole training; `held` keeps the lock until the end."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        (args,) = TrlParser(GRPOStageConfig).parse_args_and_config(recipe_arguments(sys.argv[1:]))
        if args.process_index == 0:
            output = Path(args.output_dir).absolute()  # the lock is next to it: a refused run creates no folder
            held.enter_context(hold(output.parent, output.name, work=sys.argv[0], option="output_dir"))
        if finish(args):
            return
        model, processor = load_checkpoint(
            args.model,
            LongVALEForConditionalGeneration,
            device="cpu",
            dtype=args.weights_dtype,
            attn_implementation=args.attn_implementation,
        )
        trainer = VideoGRPOTrainer(model, args, processor, load_questions(args, model.config.feature_sizes))
        callback = None
        if args.grounding_videos:
            features = args.grounding_features_dir or args.features_dir
            asked = load_grounding_set(args.data_dir, features, args.grounding_videos, model, processor)
            callback = GroundingCallback(trainer, processor, asked, args.grounding_steps)
            trainer.add_callback(callback)
        checkpoint = checkpoint_to_resume(args)
    except (ValueError, FileNotFoundError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)

    if callback and checkpoint is None:
        trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
        start = callback.evaluate()
        if trainer.is_world_process_zero():
            print(f"before: {describe(start)}", flush=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    model = trained_adapter(trainer)
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        if callback and checkpoint is None:
            history = [{"step": 0, **start}, *history]
        save_history(history, args.output_dir)
        merge_and_save(model, processor, args.output_dir)  # the last step: a run that has merged is finished
        if measured := [entry for entry in history if "grounding_miou" in entry]:
            print(f"after step {measured[-1]['step']}: {describe(measured[-1])}", flush=True)
        print(f"{args.output_dir}: the merged checkpoint, its adapter and log_history.json", flush=True)


def describe(measured: dict[str, float]) -> str:
    """Format a measurement of [`GroundingCallback`] as text."""
    return f"grounding mIoU {measured['grounding_miou']:.4f}, {measured['grounding_parsed']:.1%} of the answers parsed"


if __name__ == "__main__":
    main()
