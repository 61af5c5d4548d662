"""Run the command: `python -m vidpipe …`."""

from vidpipe.cli import main

if __name__ == "__main__":
    main()
