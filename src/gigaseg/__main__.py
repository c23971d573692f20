"""`python -m gigaseg`."""

from gigaseg.cli import main

raise SystemExit(main())
