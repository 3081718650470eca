"""How a picture becomes an input."""
