"""The conformance tests: they judge packs and arrays, and read as the specification."""
