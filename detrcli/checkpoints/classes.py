"""Class names of the data sets behind published checkpoints, for files that do not carry their own."""

COCO = tuple(
    (
        "N/A, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire "
        "hydrant, N/A, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, "
        "zebra, giraffe, N/A, backpack, umbrella, N/A, N/A, handbag, tie, suitcase, frisbee, skis, snowboard, "
        "sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, N/A, "
        "wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot "
        "dog, pizza, donut, cake, chair, couch, potted plant, bed, N/A, dining table, N/A, N/A, toilet, N/A, "
        "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, N/A, "
        "book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
    ).split(", ")
)
"""COCO's category ids 0…90 with their gaps."""


def names_for(count: int) -> tuple[str, ...]:
    """Names for this many classes where a checkpoint brings none: COCO's if there are 91, else numbers."""
    return COCO if count == len(COCO) else tuple(f"class {label}" for label in range(count))
