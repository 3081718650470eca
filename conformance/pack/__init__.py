"""The door between the two sides: what a pack is, where it is kept, who builds it."""
