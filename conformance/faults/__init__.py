"""Would the suite have noticed? Faults injected into models and calls."""
