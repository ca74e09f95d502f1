"""What tcp, tls and udp are made of."""
