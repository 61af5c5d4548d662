"""`python cli.py …` from a checkout, without installing the command."""

from vidpipe.cli import main

if __name__ == "__main__":
    main()
