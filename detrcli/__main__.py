"""`python -m detrcli` is `detr`."""

from .cli import main

main()
