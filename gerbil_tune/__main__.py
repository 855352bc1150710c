"""``python -m gerbil_tune`` is ``gerbil-tune``."""

from gerbil_tune.cli import main

if __name__ == "__main__":
    main()
