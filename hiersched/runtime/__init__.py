"""The only place with sockets, clocks and processes."""
