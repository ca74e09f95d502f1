"""From what somebody has, a URL, an object or a row of columns, to the jobs that are made of it."""
