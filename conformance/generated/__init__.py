"""Small generated models: what they are made of, drawing them, judging them, what they found."""
