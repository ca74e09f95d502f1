"""What submits batches by itself: the watched folder, and schedules."""
