"""File names in the output folder of a training run."""

STATE = "resume.pt"
METRICS = "metrics.jsonl"
CURVES = "curves.png"
