"""What commands end with, beside the ``exit_code`` that errors have of their own (``fetcher.errors``)."""

EXIT_CRASH = 1
EXIT_USAGE = 2
EXIT_FAILURES = 3
EXIT_BROKEN = 78
EXIT_INTERRUPTED = 130
