"""What our verbs are measured against: hand-written loops, and the languages used as they come."""
