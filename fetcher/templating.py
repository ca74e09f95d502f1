"""From a row to a request: texts with places for the values of columns."""
