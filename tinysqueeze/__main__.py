"""`python -m tinysqueeze` is the command `tinysqueeze`."""

from tinysqueeze.cli import main

raise SystemExit(main())
