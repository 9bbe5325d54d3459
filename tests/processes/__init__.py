"""Real processes and sockets."""
