"""Small commands that are no feature of their own."""
