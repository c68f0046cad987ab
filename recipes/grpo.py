"""Tune a trained model further by reinforcement learning: sampled answers with higher rewards become more likely.

    accelerate launch recipes/grpo.py --config recipes/configs/grpo.yaml \
        --model instruction --data_dir data --features_dir features/longvale --output_dir grpo

    accelerate launch recipes/grpo.py --model_name_or_path omni --data_dir data --videos_dir videos --output_dir grpo

The rewards are computed, not judged by a model: temporal IoU, distance and format for grounding, F1 of the boundaries
and SODA_c for dense captioning, METEOR for captions. The second command is for a chat model of transformers. Options,
launch files, resuming and the content of `output_dir` are those of `recipes/sft.py`.
"""

import logging
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trl import TrlParser

from longvale.evaluation.adapters.time_formats import own_times
from longvale.system.locks import hold
from longvale.system.names import printable
from longvale.training.chat.arguments import is_chat_model
from longvale.training.chat.grpo import ChatGRPORun, parse_chat_grpo_arguments
from longvale.training.checkpoints import checkpoint_to_resume
from longvale.training.config import recipe_arguments
from longvale.training.grounding_callback import GroundingCallback, load_grounding_set
from longvale.training.grpo import GRPOStageConfig, VideoGRPOTrainer, load_questions
from longvale.training.stages import finish, load_base, merge_and_save, push_result, save_history, trained_adapter

if TYPE_CHECKING:
    from longvale.models.processing_longvale import LongVALEProcessor


def main() -> None:
    with ExitStack() as held:
        train(held)


def train(held: ExitStack) -> None:
    """Run the whole training; `held` keeps the lock until the end."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        arguments = recipe_arguments(sys.argv[1:])
        if is_chat_model(arguments):
            run = ChatGRPORun(*parse_chat_grpo_arguments(arguments))
        else:
            run = GRPORun(*TrlParser(GRPOStageConfig).parse_args_and_config(arguments))
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

    before = []
    if run.callback and checkpoint is None:
        trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
        before = [{"step": 0, **run.callback.evaluate()}]
        if trainer.is_world_process_zero():
            print(f"before: {describe(before[0])}", flush=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    model = trained_adapter(trainer, run.load)
    if trainer.is_world_process_zero():
        history = [*before, *trainer.state.log_history]
        save_history(history, args.output_dir)
        merge_and_save(model, run.processor, args.output_dir, args)  # last: a run that has merged is finished
        if measured := [entry for entry in history if "grounding_miou" in entry]:
            print(f"after step {measured[-1]['step']}: {describe(measured[-1])}", flush=True)
        print(f"{args.output_dir}: the merged checkpoint, its adapter and log_history.json", flush=True)
    push_result(args)


class GRPORun:
    """One training of LongVALE's own model."""

    def __init__(self, args: GRPOStageConfig) -> None:
        self.args, self.load = args, partial(load_base, args)
        self.processor: LongVALEProcessor | None = None
        self.callback: GroundingCallback | None = None

    def set_up(self) -> VideoGRPOTrainer:
        """Load the model and the questions, and return their trainer."""
        args = self.args
        model, self.processor = self.load(args.load_in_4bit)
        questions = load_questions(args, model.config.feature_sizes, own_times(model.config))
        trainer = VideoGRPOTrainer(model, args, self.processor, questions)
        if args.grounding_videos:
            features = args.grounding_features_dir or args.features_dir
            asked = load_grounding_set(args.data_dir, features, args.grounding_videos, model, self.processor)
            self.callback = GroundingCallback(trainer, self.processor, asked, args.grounding_steps)
            trainer.add_callback(self.callback)
        return trainer


def describe(measured: dict[str, float]) -> str:
    """Format a measurement of [`GroundingCallback`] as text."""
    return f"grounding mIoU {measured['grounding_miou']:.4f}, {measured['grounding_parsed']:.1%} of the answers parsed"


if __name__ == "__main__":
    main()
