"""Analysis of a model's answers: modality ablation and modality attribution."""
