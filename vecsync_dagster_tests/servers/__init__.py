"""Real servers for tests, started on loopback and thrown away: databases, and fakes that speak a remote's protocol."""
