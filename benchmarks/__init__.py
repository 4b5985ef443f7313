"""Speed beside quality: our verbs against what a user would write by hand."""
