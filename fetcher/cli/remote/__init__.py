"""Commands that ask a running service: submit, status, results, why, and what is done to a batch."""
