"""robots.txt (RFC 9309): what it says, and that it is heeded."""
