"""Options of `recipes/sft.py` that the demo uses: training videos composed of stored features, and Muon."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from longvale.demo.optimizer import muon_for
from longvale.evaluation.adapters.time_formats import require_timecodes
from longvale.synthetic.compositing import load_composites
from longvale.training.config import SFTStageConfig
from longvale.training.data import load_training_set
from longvale.training.stages import StageTrainer

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from longvale.models.configuration_longvale import LongVALEConfig


@dataclass
class DemoOptions:
    """Options of a stage that trains on a synthetic corpus, parsed together with those of the stage.

    Example:
        >>> DemoOptions(mosaic=1000, turns=2).apply(SFTStageConfig(model="m", data_dir="d", videos_dir="v"))
        Traceback (most recent call last):
            ...
        ValueError: mosaic needs stored features; set --features_dir
    """

    mosaic: int = field(
        default=0,
        metadata={
            "help": "Examples per epoch, each composed from the stored features of the synthetic corpus in data_dir, "
            "in place of its dialogues; 0: none."
        },
    )
    turns: int | None = field(default=None, metadata={"help": "Maximum number of questions per example (mosaic)."})
    modality_dropout: float = field(
        default=0.0, metadata={"help": "Share of examples that lack one modality, 0 to 1 (mosaic)."}
    )
    muon_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Update the LoRA by Muon at this rate, the projectors by AdamW at learning_rate; off."},
    )

    def apply(self, args: SFTStageConfig) -> None:
        """Check the options together with those of the stage, and add them to the settings that resuming compares.

        Raises:
            ValueError: if a value is invalid, or options conflict; the message names them.
        """
        if self.mosaic < 0:
            raise ValueError(f"mosaic must be a number of examples, 0 or more, not {self.mosaic}")
        if self.mosaic and args.features_dir is None:
            raise ValueError("mosaic needs stored features; set --features_dir")
        if not self.mosaic and (self.turns is not None or self.modality_dropout):
            raise ValueError("turns and modality_dropout are options of mosaic; set --mosaic to a number of examples")
        if self.mosaic and args.mixture is not None:
            raise ValueError("mosaic makes its own dialogues; leave out either it or mixture")
        if self.mosaic and args.streaming:
            raise ValueError("mosaic composes examples while training already; leave out streaming")
        sharded = [name for name in ("DEEPSPEED", "FSDP") if os.environ.get(f"ACCELERATE_USE_{name}") == "true"]
        if sharded and self.muon_learning_rate is not None:
            raise ValueError(
                f"muon_learning_rate: Muon needs whole matrices, which {sharded[0]} splits; leave it out, or launch "
                "with another file of recipes/accelerate"
            )
        args.recipe_settings = asdict(self)

    def training_set(self, args: SFTStageConfig, config: LongVALEConfig) -> Dataset | IterableDataset:
        """Return the composed rows of a stage, or its stored dialogues without `mosaic`.

        Raises:
            FileNotFoundError, ValueError: as in [`load_composites`] and [`load_training_set`].
        """
        if not self.mosaic:
            return load_training_set(args, config)
        require_timecodes(config, "mosaic")
        composites = load_composites(
            args.data_dir, args.features_dir, config, args.dialogues, args.seed, self.turns, self.modality_dropout
        )
        return composites.dataset(self.mosaic)

    def trainer(self, *args: Any, **kwargs: Any) -> StageTrainer:
        """Return the trainer of a stage; the arguments are those of [`StageTrainer`]."""
        if self.muon_learning_rate is None:
            return StageTrainer(*args, **kwargs)
        return MuonTrainer(*args, muon_learning_rate=self.muon_learning_rate, **kwargs)


class MuonTrainer(StageTrainer):
    """Trainer of a stage that updates the LoRA by Muon, and the projectors by AdamW at `learning_rate`.

    Args:
        muon_learning_rate: of the LoRA.
        args, kwargs: of [`StageTrainer`].
    """

    def __init__(self, *args: Any, muon_learning_rate: float, **kwargs: Any) -> None:
        self.muon_learning_rate = muon_learning_rate
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer."""
        if self.optimizer is None:
            model = self.model if model is None else model
            self.optimizer = muon_for(model, self.muon_learning_rate, self.args.learning_rate)
        return self.optimizer
