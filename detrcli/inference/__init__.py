"""Between pixels and raw detections: engines, their inputs and outputs, and the pipeline that feeds them."""
