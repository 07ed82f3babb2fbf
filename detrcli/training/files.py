"""What a training calls its files."""

STATE = "resume.pt"
METRICS = "metrics.jsonl"
CURVES = "curves.png"
