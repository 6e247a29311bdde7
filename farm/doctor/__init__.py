"""What makes a night fail, found before it: the host, the bench, the board at its shell."""
