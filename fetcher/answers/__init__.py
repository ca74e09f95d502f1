"""What is read out of answers: their text, their JSON, and whether they are what was expected."""
