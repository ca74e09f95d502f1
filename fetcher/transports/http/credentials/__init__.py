"""What tells an origin who asks: authentication and cookies, each sent only where it belongs."""
