"""From resized pixels to raw detections: engines, fused networks, postprocessing, and the pipeline over images."""
