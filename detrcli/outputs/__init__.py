"""What is written for images: records, files in several formats, and the journal of a run."""
