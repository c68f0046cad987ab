"""What a model's answers depend on: ablation of modalities and attribution."""
