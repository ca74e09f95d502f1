"""The service: takes batches from a folder, an API and schedules, and fetches them side by side, for ever."""
