"""What generated models have found, on many versions: told once, and each made small."""
