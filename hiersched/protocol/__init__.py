"""What goes on the wire: messages and their frames. Pure."""
