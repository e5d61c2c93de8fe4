"""A finished run for use without this project: python export.py run=<run dir> format=timm|peft|segmenter|onnx."""

import installed as installed
from recyclelora.commands.export import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
