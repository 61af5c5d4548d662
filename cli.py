"""Run the command from a checkout without installing it: `python cli.py …`."""

from vidpipe.cli import main

if __name__ == "__main__":
    main()
