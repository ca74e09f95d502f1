"""The commands of `fetcher`: one module a command, which builds its parts through the config, never by class."""
